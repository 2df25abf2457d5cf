"""Ablations: variants are what the head-to-head table says of their folders, those measured before are kept, and the
page's table has whatever rows there are.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_heads_table import HELD_OUT, PROFILE, TUNING, line, record, trace_of

from experiments import ablations, heads_table
from scripts import ablations as page
from scripts.head_to_head_said import BIG, SMALL
from specdec.traces.trace import save_trace, trace_path

SKILL = ("--of", "skill", "less=block", "more=long")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drafter of two skills, and a folder whose traces hold two kinds of chains."""
    folder = tmp_path_factory.mktemp("ablations")
    for part, questions in (("tuning", TUNING), ("held_out", HELD_OUT)):
        for drafter in ("block", "long"):
            record(folder / part, drafter, questions)
        for question in questions:
            chains = trace_of(question, "ar").chains | trace_of(question, "block").chains
            both = replace(trace_of(question, "ar"), chains=chains)
            save_trace(both, trace_path(folder / part / "both", both.identity))
    (folder / "P.json").write_text(json.dumps(PROFILE))
    training = folder / "work" / "block" / "dflash" / "training.json"
    training.parent.mkdir(parents=True)
    numbers = {"seconds": 7.5, "tokens": 2e6, "passes": 1.0, "flops": 3.0, "num_parameters": 4}
    training.write_text(json.dumps({"family": "dflash", "losses": [1.0], **numbers}))
    return folder


def printed(capsys: pytest.CaptureFixture[str], command: list[str]) -> dict:
    program = ablations if "--of" in command else heads_table
    assert program.main(command) == 0
    found: dict = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_variants_are_what_the_table_of_drafters_says(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = printed(capsys, line(home, "--only", "block", "long"))
    found = printed(capsys, line(home, *SKILL, "--work_dir", str(home / "work")))["ablations"]["skill"]
    assert found["texts"] == expected["texts"] and found["tuned_on"] == {"bundled": 3}
    assert found["trained"]["less"]["tokens"] == 2e6 and "more" not in found["trained"]
    assert found["static"]["less"] == {
        "3": pytest.approx(expected["targets"]["big"]["lengths"]["block"][2]["acceptance_len"])
    }
    for target, own in expected["targets"].items():
        rows = {row["drafter"]: row for row in own["rankings"]["alike"]["drafters"]["all"]}
        assert list(found["targets"][target]) == ["less", "more"]
        for label, drafter in (("less", "block"), ("more", "long")):
            row, best = found["targets"][target][label], own["chosen"][drafter]["best"]
            assert (row["policy"], row["setting"]) == (best, own["chosen"][drafter][best]["setting"])
            assert {key: row[key] for key in ablations.KEPT} == {key: rows[drafter][key] for key in ablations.KEPT}
            policies = {one["drafter"]: one["speedup_mean"] for one in own["rankings"]["alike"]["policies"]["all"]}
            assert row["policies"] == {key: policies[f"{drafter}: {key}"] for key in row["policies"]}
            assert row["policies"][best] == row["speedup_mean"]
            assert row["datasets"] == {"bundled": row["speedup_mean"]}


def test_chains_of_one_name_are_told_apart(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--of", "kind", "alone=block", "same=both:dflash", "other=both:ar")
    found = printed(capsys, line(home, *asked))["ablations"]["kind"]["targets"]["big"]
    alone, same, other = (found[label] for label in ("alone", "same", "other"))
    assert same["setting"] == alone["setting"] and same["speedup_mean"] == alone["speedup_mean"]
    assert other["setting"].startswith("ar_")


def test_ablations_of_before_are_kept(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tmp_path / "before.json"
    before.write_text(json.dumps(printed(capsys, line(home, *SKILL))))
    more = printed(capsys, line(home, "--of", "kind", "a=block", "b=both:ar", "--beside", str(before)))["ablations"]
    assert list(more) == ["skill", "kind"] and more["skill"] == json.loads(before.read_text())["ablations"]["skill"]
    again = printed(capsys, line(home, "--of", "skill", "x=long", "y=block", "--beside", str(before)))["ablations"]
    assert list(again) == ["skill"] and list(again["skill"]["static"]) == ["x", "y"]


def test_what_cannot_be_told_is_one_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*more: str) -> str:
        assert ablations.main(line(home, *more)) == 2
        (said,) = capsys.readouterr().err.splitlines()
        return said

    assert "--of skill long: give LABEL=FOLDER" in refused("--of", "skill", "a=block", "long")
    assert "--of skill: give two variants" in refused("--of", "skill", "a=block")
    assert "each with a label of its own" in refused("--of", "skill", "a=block", "a=long")
    assert "--of nobody: no folder" in refused("--of", "skill", "a=block", "b=nobody")
    assert "holds no chains called eagle3, it has" in refused("--of", "skill", "a=block", "b=both:eagle3")
    before = tmp_path / "before.json"
    before.write_text(json.dumps({"ablations": {}, "profile": {"name": "another"}}))
    assert "priced by another profile" in refused(*SKILL, "--beside", str(before))
    before.write_text("[]")
    assert "no ablations are in it" in refused(*SKILL, "--beside", str(before))


def test_the_pages_table_has_the_rows_that_there_are(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = printed(capsys, line(home, *SKILL, "--work_dir", str(home / "work")))
    for one in stored["ablations"].values():
        one["targets"] = dict(zip((BIG, SMALL), one["targets"].values(), strict=True))
    monkeypatch.setattr(page, "result", lambda name: stored)
    _, _, less, more = page.ablations().splitlines()
    assert less.startswith("| skill | less | 2 M |") and more.startswith("| skill | more | - |")
    assert less.endswith(" / - / - |")
