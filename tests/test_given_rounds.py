"""Rounds whose acceptance is given: what a profile says of trees is measured in them, and published ones are run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments import published_acceptance
from profiling.given_acceptance import lengths_of, path_of
from profiling.head_costs import tree_rounds
from profiling.profile_engine import Bench, Settings, make_lm
from profiling.roofline import find_shape
from profiling.shaped_heads import make_head
from specdec.decoding.stopping import Draft
from specdec.models.checkpoints import TARGET

PARTS = {"draft", "host", "verify", "commit"}


def test_a_mean_length_is_kept_over_any_number_of_rounds() -> None:
    lengths = lengths_of(4.31)
    assert sum(next(lengths) for _ in range(100)) == 431


def test_a_path_of_a_tree_has_the_length_that_was_given() -> None:
    draft = Draft(tokens=[5, 6, 7, 8], parents=[-1, -1, 1, 2])
    assert [list(path_of(draft, length)) for length in (0, 1, 2, 3, 9)] == [[], [0], [1, 2], [1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize(("kind", "drafter"), [("dflash", "dflash_tree_16"), ("eagle3", "eagle3_tree_3_4_8")])
def test_what_trees_cost_is_taken_from_rounds(kind: str, drafter: str) -> None:
    device = torch.device("cpu")
    settings = Settings(device, torch.float32, "graph", 64)
    lm = make_lm("tiny-qwen3", TARGET, settings)
    head = make_head(kind, find_shape(TARGET, "tiny-qwen3"), lm, "graph")
    found = tree_rounds(lm, head, drafter, Bench(settings, 1.0, 1.0, (32,), repeats=2))
    assert found["pass_ms"] > 0 and found["round_ms"] > 0 and set(found["parts_ms"]) == PARTS


def test_speculation_is_set_against_a_profile_and_told_by_its_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = {"tiny-qwen3": {"round_ms": {"64": 3.0}, "pass_ms": {"dflash": {"64": 2.0}}}}
    profile = {"name": "P", "draft_pass_ms": 1.0, "family_pass_ms": {"dflash": 1.0}, "provenance": {}, "trees": trees}
    (tmp_path / "p.json").write_text(json.dumps({**profile, "target_ms_per_token": {"tiny-qwen3": 2.0}}))
    asked = ["--target", "tiny-qwen3", "--device", "cpu", "--profile", str(tmp_path / "p.json"), "--runs", "1"]
    assert published_acceptance.main([*asked, "--context", "32", "--new_tokens", "40", "--datasets", "MATH-500"]) == 0
    out, err = capsys.readouterr()
    (case,) = json.loads(out.splitlines()[-1])["cases"]
    assert set(case["parts_ms"]) == PARTS and "modelled over measured" in err
    assert case["modelled_speedup"] == pytest.approx(40 * 2.0 / (4 * (2.0 + 3.0)))  # four rounds of 10 or 11 tokens


def test_rounds_of_a_dspark_head_are_run_with_a_length_that_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--target", "tiny-qwen3", "--device", "cpu", "--runs", "1", "--context", "32", "--new_tokens", "40"]
    assert published_acceptance.main([*asked, "--given", "dspark", "dflash_sf_7", "3.5"]) == 0
    (case,) = json.loads(capsys.readouterr().out.splitlines()[-1])["cases"]
    assert case["drafted"] == 7 and set(case["parts_ms"]) == PARTS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("medusa", "eagle3_sf_3", "3"), "'medusa' is not a kind of head"),
        (("eagle3", "eagle4_sf_3", "3"), "'eagle4_sf_3' does not name a drafter"),
        (("eagle3", "dflash_tree_4", "3"), "dflash_tree_4 does not draft by eagle3 alone"),
        (("dflash", "dflash_tree_ca_4_T@P", "3"), "dflash_tree_ca_4_T@P does not draft by dflash alone"),
        (("dspark", "dflash_sf_15", "3"), "dflash_sf_15 asks for more than the 7 drafts of the checkpoint's block"),
        (("dspark", "dflash_tree_16", "3"), "slots that do not know of each other"),
        (("dflash", "dflash_tree_264", "3"), "trees of 264 tokens, and a pass of the graph backend takes 263: ask for"),
        (("eagle3", "eagle3_tree_8_10_300", "3"), "trees of 300 tokens, and a pass of the graph backend takes 263"),
        (("eagle3", "eagle3_tree_400_99_16", "3"), "grows trees of which 39501 nodes go on, and the models' context"),
        *(
            (("eagle3", "eagle3_sf_3", length), "is not a mean acceptance length")
            for length in ("x", "nan", "0.9", "inf")
        ),
    ],
)
def test_given_rounds_that_make_no_sense_are_refused(
    given: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert published_acceptance.main(["--target", "tiny-qwen3", "--device", "cpu", "--given", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_tree_beyond_the_models_context_is_refused_whatever_runs_them(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--target", "tiny-qwen3", "--device", "cpu", "--engine", "eager"]
    assert published_acceptance.main([*asked, "--given", "dflash", "dflash_tree_99999", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "trees of 99999 tokens, and the models' context takes" in line
