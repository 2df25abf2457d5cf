"""Reporter: what a run says of its records: prices, a line a question, the parser's log, the ranking, the page."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace

from specdec.commands.next_steps import next_lines
from specdec.commands.page import Page
from specdec.config import RunConfig
from specdec.latency.pricing import Pricing
from specdec.latency.profile import MEASURED
from specdec.models.token_text import TokenBytes, stored_tokens
from specdec.questions.grading import check_can_run_code
from specdec.ranking.entries import PLAIN, Entry, entry_of, with_measured
from specdec.ranking.oracle import Judges
from specdec.ranking.seen import unseen
from specdec.records.record import Record
from specdec.runs.drafter_facts import drafter_facts
from specdec.runs.run_file import RunFile, runs_of
from specdec.text import quote_text
from specdec.views.progress import question_line
from specdec.views.record_text import record_lines, round_lines
from specdec.views.tables import ranking_report
from specdec.views.terminal import AnswerView, wants_colour
from specdec.views.view import view_of, width_of

log = logging.getLogger("failfast")


class Reporter:
    """Prices and grades records, logs them, draws them if asked, and at the end prints the ranking and writes the page.

    `run_file`: the run whose log the parser's lines go to; None: there is none. `tokens`: what the target's ids stand
    for; default: looked for on this machine. Raises UserError at once if a profile cannot price the target, if
    trajectories are asked for and there is no tokenizer, or if code is to be run and there is no sandbox.
    """

    def __init__(self, config: RunConfig, pricing: Pricing, tokens: Callable[[], TokenBytes] | None = None) -> None:
        output, models = config.output, config.models
        pricing.entries(models.target_name)  # refuses, before any work, what could not be priced
        if output.run_code:
            check_can_run_code(config.questions.dataset)
        if line := pricing.without_model(models.target_name):
            print(view_of(output).wrapped(line))
        is_coloured = wants_colour(sys.stdout, os.environ)
        tokens = tokens or stored_tokens(models.target_model_name, output.show_trajectory)
        shows = output.show_trajectory or (is_coloured and output.log_level == "DEBUG")
        self._view = AnswerView(tokens if shows else None, is_coloured)
        self._page = Page(tokens, output)
        self.judges = Judges(output.output_dir, pricing) if config.recording.with_traces else None
        self._engine = next(iter(pricing.entries(models.target_name)), MEASURED)
        self.config, self.pricing = config, pricing
        self.run_file: RunFile | None = None
        self.plain: dict[int, Entry] = {}
        self.entries: list[Entry] = []
        self._known: list[Record] = []  # without rounds, for the table of the drafters themselves
        self._num_said = 0  # entries that a question's line has been printed of

    def report(self, records: Iterable[Record]) -> None:
        """Add finished records and print their ranking."""
        for record in records:
            self.add(record, self.entry(record))
        self.finish()

    def entry(self, record: Record) -> Entry:
        """Price and grade a record. Plain decoding comes first of a question's drafters: it is their baseline."""
        entry = entry_of(record, self.pricing, self.judges, run_code=self.config.output.run_code)
        if entry.drafter_name == PLAIN:
            self.plain[entry.question_id] = entry
            return entry
        return with_measured(entry, self.plain.get(entry.question_id))

    def add(self, record: Record, entry: Entry) -> None:
        """Log a record and keep its entry for the ranking."""
        if self.entries and self.entries[-1].question_id != entry.question_id:
            self.end_question()
        self.entries.append(entry)
        self._page.add(record)
        if self.config.output.wide:
            self._known.append(replace(record, rounds=[]))
        lines, is_debug = record_lines(record, entry), log.isEnabledFor(logging.DEBUG)
        lines = [*(round_lines(record) if is_debug else ()), *lines]
        for line in lines:
            log.debug(line)
        if self.run_file is not None:
            self.run_file.write_log([*lines, *(quote_text(record.output_text) if is_debug else ())])
        level = logging.INFO if self.config.output.show_trajectory else logging.DEBUG
        for line in self._view.lines(record) if log.isEnabledFor(level) else ():
            log.log(level, line)
        if self.config.output.draws_figures:
            from plotting.acc_rate_over_time import write_figure  # matplotlib takes a second

            write_figure(record, self.config.output.output_dir)

    def end_question(self) -> None:
        """The line of the question whose drafters are all done."""
        entries, self._num_said = self.entries[self._num_said :], len(self.entries)
        if entries:
            log.info(question_line(entries, self._engine, width_of(sys.stdout)))

    def finish(self) -> None:
        """The ranking, and the page if one is wanted, with what may come next."""
        self.end_question()
        stats, note = unseen(self.entries, self.config.output.allow_seen)
        view = view_of(self.config.output)
        facts = drafter_facts(self._known, runs_of(self.config.output.output_dir) if self._known else ())
        ranking = ranking_report(stats, view, facts) + (f"\n{view.wrapped(note)}\n" if note else "")
        print(f"\n{ranking}" if log.isEnabledFor(logging.INFO) else ranking, end="")

    def close(self) -> None:
        """The page of a run that has ended, and what may come next; of a shard, which is a part, no page."""
        if self.run_file is not None and not self.config.questions.shard:
            print(self._page.written(self.entries, self.config.output.allow_seen, self.run_file.path), end="")
        print(next_lines(self.config))
