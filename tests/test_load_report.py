"""The HTML report under load: a ranking for every load, as it was simulated, and one line where there is none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from written import tokens_of, written

from specdec.commands import load, report
from specdec.ranking.load_study import Asked
from specdec.records.record import identity_path, save_record

DRAFTERS = ("plain", "ar_None_sf_8", "dllm_0.05_sf_8", "dllm_0.05_df_0.45_60_10", "lookup_3_sf_4")
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>')


def write_records(folder: Path, num_questions: int = 6, drafters: tuple[str, ...] = DRAFTERS) -> Path:
    for number in range(num_questions):
        for drafter in drafters:
            record = written(tokens_of(f"Text {number}. " * (4 + number)), drafter, question_id=number, luck=0.6)
            save_record(record, identity_path(folder, record.identity))
    return folder


def report_of(results: Path, *flags: str) -> tuple[dict[str, Any], int]:
    """The page's data, and its size in bytes."""
    page = results / "report.html"
    report.run([str(results), "--out", str(page), *flags])
    text = page.read_text(encoding="utf-8")
    return json.loads(DATA.search(text)[1]), len(text)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("load_report"))


def test_every_load_has_the_ranking_that_the_simulation_gives(results):
    flags = ("--latency_profile", "A100_bound", "--latency_target", "Qwen3-8B")
    data, size = report_of(results, "--load", *flags)
    own = json.loads(load.run([str(results), *flags, "--json"]))
    assert [one["value"] for one in data["load"]["loads"]] == [*Asked.concurrency]
    for ours, theirs in zip(data["load"]["loads"], own["loads"], strict=True):
        assert [row[0] for row in ours["rows"]] == [row["name"] for row in theirs["rows"]]
        for (_, standing, *numbers), row in zip(ours["rows"], theirs["rows"], strict=True):
            plain = row["name"] == "plain"
            if plain:
                assert numbers == [1, None, None, None]
            else:
                wanted = [*(row["speedup"][key] for key in ("value", "low", "high")), row["break_even_len"]["value"]]
                assert numbers == pytest.approx(wanted, rel=1e-4)
            assert (standing != "behind") == (row["may_be_best"] and not plain)
        words = ours["headline"]["before"]
        many = "1 request at" if ours["value"] == 1 else f"{ours['value']} requests at"
        assert words.startswith(f"Simulated, by bounds, {many} a time, as if Qwen3-8B under A100 (bound): ")
        is_one = [row["may_be_best"] for row in theirs["rows"]].count(True) == 1 and theirs["best"] != "plain"
        assert ("is fastest" in words) == is_one == any(row[1] == "best" for row in ours["rows"])
    assert data["load"]["advice"] and "real servers break even at fewer" in data["load"]["title"]
    assert size - report_of(results, *flags)[1] < 6000 + 120 * len(DRAFTERS) * len(Asked.concurrency)


def test_without_the_flag_the_page_says_how_to_have_it(results):
    data, _ = report_of(results)
    assert list(data["load"]) == ["why"] and "failfast report RESULTS --load" in data["load"]["why"]


def test_of_few_questions_no_load_has_a_best_one(tmp_path):
    data, _ = report_of(write_records(tmp_path, 2), "--load")
    for one in data["load"]["loads"]:
        assert "too few questions to say (2; at least 5 needed)" in one["headline"]["before"]
        assert {row[1] for row in one["rows"]} == {"behind", "undecided"}
        assert all(row[3:5] == [None, None] for row in one["rows"])


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--latency_profile", "vLLM_A6000"), "vLLM_A6000 does not say what passes of batches"),
        (("--latency_profile", "none"), "give one as --latency_profile"),
    ],
)
def test_where_nothing_can_be_priced_under_load_one_line_says_why(tmp_path, capsys, flags, why):
    data, _ = report_of(write_records(tmp_path, 1), "--load", *flags)
    assert list(data["load"]) == ["why"] and data["load"]["why"].count("\n") == 0
    assert capsys.readouterr().out.endswith(f"open it in a browser\n{data['load']['why']}\n")
    assert data["load"]["why"].startswith("No ranking under load: ") and why in data["load"]["why"]


def test_the_first_profile_with_rows_is_taken(tmp_path):
    write_records(tmp_path, 1)
    data, _ = report_of(tmp_path, "--load", "--latency_profile", "vLLM_A6000", "H200_bound")
    assert data["load"]["name"] == "H200 (bound)"
