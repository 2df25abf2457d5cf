"""Entries: a record is priced and graded once, and every view shows that grade."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from samples import make_plain, make_record, of_question

from specdec.commands import rank as parse_log
from specdec.commands.reporter import Reporter
from specdec.config import RunConfig
from specdec.latency.pricing import Pricing
from specdec.questions import grading
from specdec.ranking.entries import entry_of
from specdec.ranking.logs import parse_log_lines
from specdec.records.record import Record, record_path, save_record
from specdec.views.record_text import record_text
from specdec.views.report_data import report_data

ROW = {"prompt": "def one():\n", "test": "def check(f):\n    assert f() == 1\n", "entry_point": "one", "task_id": "t/0"}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every program is right; those that were run."""
    programs: list[str] = []

    def run(program: str) -> bool:
        programs.append(program)
        return True

    monkeypatch.setattr(grading, "_run", run)
    return programs


def answers() -> list[Record]:
    """A question whose answer only its tests can grade, under plain decoding and a drafter."""
    records = [make(raw_data=ROW, output_text="    return 1\n") for make in (make_plain, make_record)]
    return [of_question(record, dataset="humaneval") for record in records]


def test_every_view_of_a_record_shows_the_same_grade(
    runs: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log line said `"correct": null` of a program that --run_code had found right."""
    found, reporter = answers(), Reporter(RunConfig.of(run_code=True), Pricing())
    entries = [reporter.entry(record) for record in found]
    with caplog.at_level(logging.DEBUG, "failfast"):
        for record, entry in zip(found, entries, strict=True):
            reporter.add(record, entry)
            path = record_path(tmp_path, "bundled", "humaneval", 0, record.drafter_name, 64)
            save_record(record, path, record_text(record, entry))
            assert "answer correct;" in path.with_suffix(".txt").read_text()
    reporter.finish()
    assert len(runs) == len(found)  # graded once for the entry, the log and the .txt
    assert [entry.is_correct for entry in parse_log_lines(caplog.messages)] == [True, True]
    (question,) = report_data(found, entries, [])["questions"]
    assert (question["num_correct"], question["num_graded"]) == (2, 2)
    (tmp_path / "run.log").write_text("\n".join(caplog.messages))
    for given in ([str(tmp_path / "run.log")], [str(tmp_path), "--run_code"]):
        (engine,) = json.loads(parse_log.run([*given, "--latency_profile", "none", "--json"]))["engines"]
        assert [(row["num_correct"], row["num_graded"]) for row in engine["rows"]] == [(1, 1)]


def test_without_the_flag_no_program_is_run_and_no_view_grades(runs: list[str]) -> None:
    (record, _) = answers()
    entry = entry_of(record)
    assert entry.is_correct is None and "answer not graded;" in record_text(record, entry) and runs == []
