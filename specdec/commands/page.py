"""Page: the HTML report that a run writes of its own records, OUTPUT_DIR/report.html.

A report of any folder is `report.py`. Whatever is wrong here is said in a line: the records are safe and ranked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from specdec.commands.report import report_html
from specdec.config import OutputConfig
from specdec.errors import UserError, user_error
from specdec.models.token_text import TokenBytes
from specdec.ranking.entries import Entry, merge
from specdec.ranking.question_sets import comparable
from specdec.ranking.seen import unseen
from specdec.records.pickles import write_atomic
from specdec.records.record import Record
from specdec.runs.run_file import read_run
from specdec.views.trajectory import Reader

NAME = "report.html"
MOST_RECORDS = 2000  # of which every round is held in memory, and stands in the file


class Page:
    """Gathers a run's records for its page, if one is wanted. `tokens`: what the target's ids stand for."""

    def __init__(self, tokens: Callable[[], TokenBytes] | None, output: OutputConfig) -> None:
        self._tokens, self._is_wanted = tokens, not (output.no_report or output.read_pickle)
        self._path = Path(output.output_dir) / NAME
        self._records: list[Record] = []
        self._num_records = 0

    def add(self, record: Record) -> None:
        self._num_records += 1
        if self._is_wanted and self._num_records <= MOST_RECORDS:
            self._records.append(record)

    def written(self, stats: Sequence[Entry], allow_seen: bool, run_json: Path) -> str:
        """Write the page of the run's entries; returns the line that says where it is, or why there is none."""
        if not self._is_wanted or self._num_records < 2:
            return ""
        try:
            self._write(stats, allow_seen, run_json)
        except Exception as error:  # the run is done, and no fault of its picture may end it as a failure
            return f"No report: {' '.join(str(error).split()) or type(error).__name__}\n"
        return f"Report: {self._path} (open it in a browser)\n"

    def _write(self, stats: Sequence[Entry], allow_seen: bool, run_json: Path) -> None:
        if self._num_records > MOST_RECORDS:
            raise UserError(f"{self._num_records} records are many for one page; failfast report makes it all the same")
        if self._tokens is None:
            raise UserError("the target's tokenizer is not on this machine: failfast report takes one as --tokenizer")
        entries, left_out = unseen(merge(stats), allow_seen)
        entries, unequal = comparable(entries, allow_unequal=True)
        said = "\n".join(filter(None, [unequal, left_out]))
        page = report_html(self._records, entries, Reader(self._tokens()), [read_run(run_json)], said)
        with user_error(f"write {self._path}"):
            write_atomic(self._path, page.encode())
