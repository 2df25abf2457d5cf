"""Divergence: the first difference from plain decoding, graded by the target's logits, kept and summed up."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from families import flags, save_family
from samples import make_plain, make_record, make_round, with_settings
from toys import greedy_tokens, random_ids, toy_model

from specdec.commands import run as failfast
from specdec.errors import UserError
from specdec.models.lm import CachedLM
from specdec.ranking.entries import entry_of
from specdec.ranking.lossless import count_grades, losslessness_line
from specdec.records.divergence import BUG, EXACT, TIE, Divergence, first_difference
from specdec.records.record import find_records, load_record, record_path, save_record
from specdec.runs.against_plain import diverging

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _threads(one_thread) -> None:
    """Toy matrices."""


def test_the_first_difference():
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 9, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == first_difference([1, 2, 3], [1, 2]) == 2
    assert first_difference([], [1]) == 0


def test_a_divergence_is_a_tie_only_within_the_noise():
    model = toy_model("qwen2", 4, scale=4.0)
    lm, prompt = CachedLM(model), random_ids(3, 30)
    plain, _ = greedy_tokens(model, prompt, max_new_tokens=6, stop_ids=())
    assert diverging(lm, prompt, plain, plain) == Divergence(EXACT)
    wrong = [*plain[:3], (plain[3] + 1) % 60, *plain[4:]]
    found = diverging(lm, prompt, wrong, plain)
    assert (found.kind, found.position) == (BUG, 3)
    assert found.shortfall >= found.top2_gap > found.noise
    assert diverging(lm, prompt, plain[:4], plain) == Divergence(BUG, 4)
    assert diverging(lm, prompt[:1], wrong, plain).position == 3
    with torch.no_grad():  # two tokens with one row of the head: nobody can tell them apart
        model.lm_head.weight[wrong[3]] = model.lm_head.weight[plain[3]]
    assert diverging(CachedLM(model), prompt, wrong, plain).kind == TIE


def test_two_tokens_that_are_alike_but_far_from_the_best_are_a_bug():
    model = toy_model("qwen2", 5, scale=4.0)
    prompt = random_ids(4, 12)
    logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    worst = int(logits.argmin())
    with torch.no_grad():
        model.lm_head.weight[(worst + 1) % 60] = model.lm_head.weight[worst]
    assert diverging(CachedLM(model), prompt, [worst], [(worst + 1) % 60]).kind == BUG


@pytest.mark.parametrize(
    "found",
    [Divergence(EXACT), Divergence(TIE, 3, 0.1, 0.1, 0.2), Divergence(BUG, 3, 1.0, 2.0, 0.2), Divergence(BUG, 7)],
)
def test_it_is_kept_in_the_record(found, tmp_path):
    record = dataclasses.replace(make_record(), divergence=found)
    save_record(record, tmp_path / "1.pickle")
    assert load_record(tmp_path / "1.pickle").divergence == found
    assert found.kind in str(found)


@pytest.mark.parametrize("change", [{"kind": "maybe"}, {"position": None}, {"noise": -1.0}, {"top2_gap": "x"}])
def test_a_damaged_one_is_refused(change):
    with pytest.raises(UserError):
        Divergence.from_builtins(Divergence(TIE, 3, 0.1, 0.1, 0.2).to_builtins() | change)
    with pytest.raises(UserError):
        Divergence.from_builtins(None)


def test_grades_are_counted_and_named():
    plain = entry_of(make_plain(output_text="x"))
    records = [make_record(drafter=f"ar_None_sf_{n}") for n in range(1, 5)]
    kinds = [None, Divergence(TIE, 0, 0.1, 0.1, 0.2), Divergence(BUG, 0), Divergence(EXACT)]
    stats = [entry_of(dataclasses.replace(one, divergence=kind)) for one, kind in zip(records, kinds, strict=True)]
    # plain decoding's own text decides over what an older record says of itself
    assert count_grades([plain, *stats]) == {"exact": 0, "tie": 1, "bug": 1, "different": 2, "sampled": 0}
    assert count_grades(stats) == {"exact": 1, "tie": 1, "bug": 1, "different": 0, "sampled": 0}
    line = losslessness_line([plain, *stats])
    assert "4 of 4" in line and "near-tie" in line and "NO TIE" in line and "not judged" in line
    assert losslessness_line([plain]) == ""


def test_a_run_judges_what_it_makes_and_what_it_finds(tmp_path: Path, capsys) -> None:
    family = save_family(tmp_path / "family")
    arguments = flags(family, tmp_path / "out", "--num_questions", "1")
    drafters = ["--drafters", "ar_sf"]
    assert failfast.main([*arguments, *drafters]) == 0  # without plain decoding nothing can be said
    (path,) = find_records(tmp_path / "out")
    assert load_record(path).divergence is None
    assert failfast.main([*arguments, "--drafters", "plain"]) == 0
    assert failfast.main([*arguments, *drafters]) == 0
    assert load_record(path).divergence == Divergence(EXACT)
    assert "against plain decoding: exact" in path.with_suffix(".txt").read_text()
    record = load_record(path)
    first = record.rounds[0]
    wrong = (first.emitted_tokens[0] + 1) % 50
    forged = make_round(first.prefix_len, (), 0, next_token=wrong)
    save_record(dataclasses.replace(record, rounds=[forged], divergence=None), path)
    capsys.readouterr()
    assert failfast.main([*arguments, "--drafters", "plain", "ar_sf"]) == 0
    assert "PART WHERE NO TIE EXPLAINS IT (questions 0)" in capsys.readouterr().out
    found = load_record(path).divergence
    assert (found.kind, found.position) == (BUG, 0) and found.shortfall > found.noise


def test_plain_decoding_under_other_settings_is_no_judge(tmp_path: Path) -> None:
    family = save_family(tmp_path / "family")
    arguments = flags(family, tmp_path / "out", "--num_questions", "1")
    assert failfast.main([*arguments, "--drafters", "plain"]) == 0
    path = record_path(tmp_path / "out", "target", "bundled", 0, "plain", 24)
    plain = load_record(path)
    save_record(dataclasses.replace(plain, identity=with_settings(plain.identity, {"dtype": "bfloat16"})), path)
    assert failfast.main([*arguments, "--drafters", "ar_sf"]) == 0
    (drafted,) = (one for one in find_records(tmp_path / "out") if one != path)
    assert load_record(drafted).divergence is None


@pytest.mark.parametrize("gap", [0.0, 5e-324, 9e-10, 1e3])
def test_a_distance_of_logits_is_read_however_small(gap: float) -> None:
    """It is not a time, of which there is a least one."""
    made = Divergence(TIE, 3, gap, gap, gap)
    assert Divergence.from_builtins(made.to_builtins()) == made
    for wrong in (-gap - 1e-12, math.nan, math.inf, int(gap)):
        with pytest.raises(UserError, match="noise is wrong"):
            Divergence.from_builtins({**made.to_builtins(), "noise": wrong})
