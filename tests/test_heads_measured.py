"""Heads measured: rows are the ranking's, and a tree is set against the fastest draft in a row of its model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from samples import make_plain, make_record, make_round

from experiments import heads_measured
from scripts import head_to_head
from specdec.records.record import identity_path, save_record

QUESTIONS = range(6)
MS = {"dflash_sf_4": 20.0, "dflash_sf_8": 30.0, "dflash_tree_7": 10.0, "ar_None_sf_3": 40.0}


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A folder of one dtype with two runs; in the second a question of a drafter is missing."""
    for run, drafters in (("all", MS), ("jetspec", {"dflash_sf_4": 10.0})):
        for question in QUESTIONS:
            made = [
                make_record(question, name, [make_round(3, draft_ms=ms - 10), make_round(6, (8,), 1, draft_ms=ms - 10)])
                for name, ms in drafters.items()
                if (run, question) != ("jetspec", 5)
            ]
            for record in [make_plain(question), *made]:
                save_record(record, identity_path(tmp_path / "float32" / run, record.identity))
    return tmp_path / "float32"


def measured(capsys: pytest.CaptureFixture[str], *folders: Path) -> dict:
    assert heads_measured.main(list(map(str, folders))) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_runs_are_ranked_and_trees_are_told_over_the_fastest_draft_in_a_row_of_their_model(live, capsys) -> None:
    runs = measured(capsys, live)["folders"]["float32"]
    rows = {row["drafter"]: row for row in runs["all"]["rows"]["all"]}
    # 5 tokens in two rounds; plain decoding takes 10 ms a token.
    assert {name: row["speedup_mean"] for name, row in rows.items()} == {
        name: pytest.approx(5 * 10 / (2 * ms), rel=1e-4) for name, ms in MS.items()
    }
    (tree,) = runs["all"]["trees"]
    assert (tree["tree"], tree["in_a_row"], tree["over"]) == ("dflash_tree_7", "dflash_sf_4", pytest.approx(2.0))
    assert runs["all"]["plain"] == {"num_output_tokens": 30, "ms_per_token": 10.0}
    assert runs["jetspec"]["rows"]["gsm8k"][0]["num_questions"] == 5 and runs["jetspec"]["trees"] == []


def test_what_holds_no_run_is_refused_in_one_line(live, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    for folders in ([tmp_path / "no"], [tmp_path / "empty"], [live, live]):
        assert heads_measured.main(list(map(str, folders))) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_page_s_table_has_a_row_a_drafter_and_columns_for_each_arithmetic(live, capsys, monkeypatch) -> None:
    document = measured(capsys, live)
    document["folders"]["bfloat16"] = {"all": document["folders"]["float32"]["all"]}
    monkeypatch.setattr(head_to_head, "result", lambda name: document)
    head, _, *rows = [line.strip("| ").split(" | ") for line in head_to_head.smollm2_measured().splitlines()]
    assert head[2::3] == ["questions, float32", "questions, bfloat16"]
    found = {tuple(row[:2]): row[2:] for row in rows}
    assert set(found) == {
        ("DFlash", "`dflash_sf_4`"),
        ("DFlash", "`dflash_sf_8`"),
        ("AR", "`ar_None_sf_3`"),
        ("JetSpec", "`dflash_sf_4`"),
    }
    assert found["JetSpec", "`dflash_sf_4`"] == ["5", "2.50", "2.50x (2.50 to 2.50)", *["not run"] * 3]
