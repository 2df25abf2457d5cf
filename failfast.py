"""Measure drafting strategies for speculative decoding: draft, verify, accept, record, rank.

The driver: reads the command line, finds the models, works through every question and drafter,
saves each record as soon as it is finished, and prints the ranking. `python failfast.py` runs the
bundled models on the bundled questions with all four drafters.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from specdec.config import RunConfig, parse_args
from specdec.errors import exit_status
from specdec.latency.pricing import measured
from specdec.latency.profile import MEASURED, LatencyProfile, load_profiles, priced_entry
from specdec.models.token_text import TokenBytes, stored_tokens
from specdec.questions.sets import Problem
from specdec.ranking.entries import PLAIN, QuestionStats, model_prices, stats_of
from specdec.records.record import Record, check_writable, save_record
from specdec.runs.resume import asked_problems, repeated_run, stored_records
from specdec.runs.run_file import RunFile
from specdec.runs.shards import parse_shard
from specdec.runs.status import read_status, status_report
from specdec.runs.stop import StopRequest
from specdec.views.record_text import record_lines, record_text
from specdec.views.tables import ranking_report
from specdec.views.terminal import AnswerView, wants_colour

if TYPE_CHECKING:
    from specdec.runs.jobs import Job
    from specdec.session import Session

log = logging.getLogger("failfast")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake of the user's (one line says which), 130 or 143 interrupted."""
    logging.raiseExceptions = False  # a reader that has gone away shows at the next print
    with StopRequest() as stop:
        try:
            return exit_status("failfast.py", lambda: run(parse_args(arguments), stop))
        except KeyboardInterrupt:
            print("failfast.py: stopped; finished records are kept, the same command does the rest", file=sys.stderr)
            return 128 + (stop.signal or signal.SIGINT)


def run(config: RunConfig, stop: StopRequest) -> None:
    """Do what the command line asks. Raises UserError before any weight is loaded where it can."""
    logging.basicConfig(level=config.log_level, format="%(message)s", stream=sys.stdout, force=True)
    if config.status is not None:
        print(status_report(read_status(config.status)), end="")
        return
    profiles, shard = load_profiles(config.latency_profile), parse_shard(config.shard, os.environ)
    if config.read_pickle:
        Reporter(config, profiles).report(stored_records(config))
        return
    problems = shard.of(asked_problems(config))
    if not problems:
        print(f"No question for --shard {shard.index}/{shard.count}: nothing to do.")
        return
    repeated = repeated_run(config, problems, shard)
    if repeated is not None:
        report = Reporter(config, profiles)
        with RunFile(config.output_dir, repeated.description) as run_file:
            run_file.num_found = len(repeated.records)
            report.report(repeated.records)
        return
    # Models come with torch and transformers: everything above answers without them.
    from specdec.runs.jobs import describe_plan, plan_jobs
    from specdec.runs.run_file import describe_run
    from specdec.session import open_session

    session = open_session(config)
    report = None if config.record else Reporter(config, profiles, session.token_bytes)
    jobs = [] if config.record else plan_jobs(session, problems)
    if config.dry_run:
        print(describe_plan(session, jobs))
        return
    check_writable(config.output_dir)
    with RunFile(config.output_dir, describe_run(session, problems, shard, jobs)) as run_file:
        if report is None:
            record_traces(session, problems, stop)
        else:
            run_jobs(session, jobs, report, run_file, stop)


def run_jobs(session: Session, jobs: Sequence[Job], report: Reporter, run_file: RunFile, stop: StopRequest) -> None:
    """Work through the jobs, each record saved as soon as it is made, and rank them.

    Another task may have finished a job since they were planned; nothing is computed twice if that can be seen.
    """
    from specdec.runs.against_plain import AgainstPlain
    from specdec.runs.jobs import finished, run_job

    against_plain = AgainstPlain(session)
    with logging_redirect_tqdm():
        for job in tqdm(jobs, desc="question x drafter", disable=None):
            stop.check()
            run_file.job = (job.problem.question_id, job.spec.name)
            found = finished(job, session.config)
            record = against_plain.judged(found or run_job(session, job, stop.check), job.path)
            run_file.num_found += found is not None
            run_file.num_computed += found is None
            if record is not found:
                text = record_text(record, session.round_texts(record), run_code=session.config.run_code)
                save_record(record, job.path, text)
            report.add(record)
    report.finish()


def record_traces(session: Session, problems: Sequence[Problem], stop: StopRequest) -> None:
    """A trace per question, each saved as soon as it is made; what is stored already is not made again."""
    from specdec.runs.recording import plan_traces, record_trace
    from specdec.traces.trace import save_trace

    jobs = plan_traces(session, problems)
    for job in tqdm(jobs, desc="questions", disable=None):
        stop.check()
        if job.missing or job.stored is None:
            save_trace(record_trace(session, job, stop.check), job.path)
    num_made = sum(bool(job.missing or job.stored is None) for job in jobs)
    print(f"Recorded {num_made} of {len(jobs)} questions; the others had their traces. They are in:")
    print(jobs[0].path.parent.parent)


class Reporter:
    """Prices records, logs their lines, draws them if asked, and prints the ranking at the end.

    `tokens`: what the target's ids stand for; default: looked for on this machine. Raises UserError at once if a
    profile cannot price the target, or if trajectories are asked for and there is no tokenizer.
    """

    def __init__(
        self, config: RunConfig, profiles: Sequence[LatencyProfile], tokens: Callable[[], TokenBytes] | None = None
    ) -> None:
        for profile in profiles:
            priced_entry(profile, config.target_name, config.latency_target)
        is_coloured = wants_colour(sys.stdout, os.environ)
        if config.show_trajectory or (is_coloured and config.log_level == "DEBUG"):
            tokens = tokens or stored_tokens(config.target_model_name, config.show_trajectory)
        else:
            tokens = None
        self._view = AnswerView(tokens, is_coloured)
        self.config, self.profiles = config, profiles
        self.plain: dict[int, Record] = {}
        self.stats: list[QuestionStats] = []

    def report(self, records: Iterable[Record]) -> None:
        """Add finished records and print their ranking."""
        for record in records:
            self.add(record)
        self.finish()

    def add(self, record: Record) -> None:
        """Log a record. Plain decoding comes first of a question's drafters: it is their baseline."""
        prices = model_prices(record, self.profiles, self.config.latency_target)
        self.stats.append(stats_of(record, prices, run_code=self.config.run_code))
        if record.drafter_name == PLAIN and record.is_timed:
            self.plain[record.question_id] = record
        elif record.is_timed and record.question_id in self.plain:
            prices[MEASURED] = measured(record, self.plain[record.question_id])
        for line in record_lines(record, prices):
            log.info(line)
        level = logging.INFO if self.config.show_trajectory else logging.DEBUG
        for line in self._view.lines(record) if log.isEnabledFor(level) else ():
            log.log(level, line)
        if self.config.figures:
            from plotting.acc_rate_over_time import write_figure  # matplotlib takes a second

            write_figure(record, self.config.output_dir)

    def finish(self) -> None:
        print(ranking_report(self.stats))


if __name__ == "__main__":
    sys.exit(main())
