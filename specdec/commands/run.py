"""Run drafters on questions, record every round, and rank them.

The driver: finds the models, works through every question and drafter, saves each record as soon as it is finished, and
prints the ranking. The published command has all flags, the verb those that belong to a run alone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from specdec.commands.flags import StrictParser, add_flags, all_flags
from specdec.config import RunConfig
from specdec.errors import UserError, exit_status, require_package
from specdec.latency.pricing import Pricing
from specdec.models.token_text import TokenBytes, stored_tokens
from specdec.questions.grading import check_can_run_code
from specdec.questions.sets import Problem
from specdec.ranking.entries import PLAIN, Entry, entry_of, with_measured
from specdec.ranking.seen import unseen
from specdec.records.places import put_record
from specdec.records.record import Record, check_writable, save_text
from specdec.runs.left_out import leave_out, leave_out_later, left_out_line, planned_left_out
from specdec.runs.resume import asked_problems, repeated_run, stored_records
from specdec.runs.run_file import TRACES, RunFile
from specdec.runs.shards import parse_shard
from specdec.runs.status import read_status, status_report
from specdec.runs.stop import StopRequest
from specdec.views.record_text import record_lines, record_text, round_lines
from specdec.views.tables import ranking_report
from specdec.views.terminal import AnswerView, wants_colour

if TYPE_CHECKING:
    from specdec.runs.against_plain import AgainstPlain
    from specdec.runs.jobs import Job
    from specdec.session import Session

log = logging.getLogger("failfast")

PROGRAM = "failfast.py"  # its published name
ABOUT = """Run drafters of speculative decoding on questions, record every round, and rank them.
Without flags: the bundled models on the bundled questions, with all drafters that need no calibration.
Flags stand in groups: which questions, models, decoding, drafters, lengths and thresholds, prices, output.
Examples stand at the end."""
EXAMPLES = (
    "python failfast.py",
    "python failfast.py --dataset_name gsm8k --num_questions 30 --output_dir results/gsm8k",
    "python failfast.py --drafters ar_sf failfast --sweep_lowconf_threshold 0.3 0.45 --figures",
    "python failfast.py help    (the verbs: run, rank, record, replay, report, ...)",
)
RUN_EXAMPLES = (
    "failfast run --dataset_name gsm8k --num_questions 30 --output_dir results/gsm8k",
    "failfast run --drafters ar_sf failfast --tau 0.3 0.45 --draft_len 8",
)


def parse_args(arguments: Sequence[str] | None = None) -> RunConfig:
    """The published command line as a RunConfig. Raises UserError, or exits with 2 on a malformed flag."""
    about = f"{ABOUT}\n'python {PROGRAM} help' lists the verbs: run, rank, recommend, record, replay, report, ..."
    parser = StrictParser(prog=PROGRAM, description=about, examples=EXAMPLES)
    add_flags(parser)
    return RunConfig.of(**vars(parser.parse_args(arguments)))


def parse_verb(program: str, arguments: Sequence[str] | None) -> RunConfig:
    """The same for `failfast run`: what only records, only reads or only looks has a verb of its own."""
    parser = StrictParser(prog=program, description=ABOUT, examples=RUN_EXAMPLES)
    own = names_of("questions", "models", "decoding", "drafters", "sweeps", "drafting", "pricing", "output")
    add_flags(parser, [name for name in own if name not in ("read_pickle", "status")])
    return RunConfig.of(**vars(parser.parse_args(arguments)))


def names_of(*groups: str) -> tuple[str, ...]:
    """The settings of these groups of flags, by name."""
    return tuple(name for group in groups for name in all_flags()[group])


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """The published command, or the verb. Exit status: 0 done, 2 a mistake of the user's, 130 or 143 interrupted."""
    read = parse_args if program == PROGRAM else partial(parse_verb, program)
    return carry_out(program, lambda: read(arguments))


def carry_out(program: str, read: Callable[[], RunConfig]) -> int:
    """Do what `read` says is asked; an interrupted run keeps what it has."""
    logging.raiseExceptions = False  # a reader that has gone away shows at the next print
    with StopRequest() as stop:
        try:
            return exit_status(program, lambda: run(read(), stop))
        except KeyboardInterrupt:
            print(f"{program}: stopped; finished records are kept, the same command does the rest", file=sys.stderr)
            return 128 + (stop.signal or signal.SIGINT)


def run(config: RunConfig, stop: StopRequest) -> None:
    """Do what the command line asks. Raises UserError before any weight is loaded where it can."""
    logging.basicConfig(level=config.output.log_level, format="%(message)s", stream=sys.stdout, force=True)
    output = config.output
    if output.status is not None:
        folder = output.status if isinstance(output.status, str) else output.output_dir
        print(status_report(read_status(folder)), end="")
        return
    priced = config.pricing
    if output.draws_figures:
        require_package("matplotlib")
    pricing = Pricing.load(priced.latency_profile, priced.latency_target, priced.pass_accounting, has_measured=True)
    shard = parse_shard(config.questions.shard, os.environ)
    if output.read_pickle:
        Reporter(config, pricing).report(stored_records(config))
        return
    problems = shard.of(asked_problems(config))
    if not problems:
        print(f"No question for --shard {shard.index}/{shard.count}: nothing to do.")
        return
    repeated = repeated_run(config, problems, shard)
    if repeated is not None:
        reporter = Reporter(config, pricing)
        with RunFile(output.output_dir, repeated.description) as run_file:
            run_file.num_found = len(repeated.records)
            reporter.report(repeated.records)
        return
    # Models come with torch and transformers: everything above answers without them.
    from specdec.runs.jobs import describe_plan, fitting, plan_jobs
    from specdec.runs.run_file import describe_run
    from specdec.session import open_session

    _check_answers_are_one(config, problems)
    session = open_session(config)
    num_asked = len(problems)
    problems, left_out = fitting(session, problems)
    report = None if config.recording.record else Reporter(config, pricing, session.token_bytes)
    jobs = [] if config.recording.record else plan_jobs(session, problems)
    if output.dry_run:
        print("\n".join([describe_plan(session, jobs), *planned_left_out(left_out, num_asked)]))
        return
    check_writable(output.output_dir)
    with RunFile(output.output_dir, describe_run(session, problems, shard, jobs)) as run_file:
        leave_out(run_file, left_out)
        if report is None:
            record_traces(session, problems, run_file, stop)
        else:
            run_jobs(session, jobs, report, run_file, stop)
        print(left_out_line(run_file.left_out, num_asked), end="")


def _check_answers_are_one(config: RunConfig, problems: Sequence[Problem]) -> None:
    """Raise UserError where the answers that later turns are asked after would be one drafter's own.

    A greedy target's answer does not depend on the drafter. A sampled one does: then plain decoding's is taken.
    """
    if config.decoding.is_sampled and PLAIN not in config.drafters.kinds and any(one.later for one in problems):
        raise UserError(
            "a sampled answer depends on the drafter, and the next turn is asked after plain decoding's: add plain to "
            "--drafters, or give --turns first"
        )


def run_jobs(session: Session, jobs: Sequence[Job], report: Reporter, run_file: RunFile, stop: StopRequest) -> None:
    """Work through the jobs, each record saved as soon as it is made, and rank them.

    The next turn of a question is asked after the answer of the first drafter, which is plain decoding unless it is
    left out; all drafters are given that answer.
    """
    from specdec.runs.against_plain import AgainstPlain
    from specdec.runs.jobs import TooLong, next_jobs

    against_plain, count = AgainstPlain(session), len(session.specs)
    num_jobs = sum(len(job.problem.turns) for job in jobs)
    with logging_redirect_tqdm(), tqdm(total=num_jobs, desc="question x drafter", disable=None) as bar:
        for at in range(0, len(jobs), count):
            group = list(jobs[at : at + count])
            while group:
                records = []
                for job in group:
                    stop.check()
                    records.append(_run_one(session, job, against_plain, report, run_file, stop))
                    bar.update()
                try:
                    group = next_jobs(session, group[0], records[0].output_text)
                    run_file.ask(group)
                except TooLong as error:
                    later = group[0].problem.turns[1:]
                    leave_out_later(run_file, later, error.reason)
                    bar.update(count * len(later))
                    group = []
    report.finish()


def _run_one(
    session: Session, job: Job, against_plain: AgainstPlain, report: Reporter, run_file: RunFile, stop: StopRequest
) -> Record:
    """The job's record, made, saved and reported.

    Another task may have finished a job since they were planned; nothing is computed twice if that can be seen.
    """
    from specdec.runs.jobs import finished, run_job

    run_file.job = (job.problem.question_id, job.spec.name)
    found = finished(job, session.config)
    record = against_plain.judged(found or run_job(session, job, stop.check), job.path)
    run_file.num_found += found is not None
    run_file.num_computed += found is None
    if record is not found:
        put_record(record, job.path)  # before it is graded, which can fail
    entry = report.entry(record)
    if record is not found:
        texts = [session.text_of(turn.emitted_tokens) for turn in record.rounds]
        save_text(job.path, record_text(record, entry, texts))
    report.add(record, entry)
    return record


def record_traces(session: Session, problems: Sequence[Problem], run_file: RunFile, stop: StopRequest) -> None:
    """A trace per question, each saved as soon as it is made; what is stored already is not made again."""
    from specdec.runs.jobs import TooLong
    from specdec.runs.recording import next_traces, plan_traces, record_trace
    from specdec.traces.trace import save_trace

    jobs = plan_traces(session, problems)
    left = list(jobs)
    with logging_redirect_tqdm(), tqdm(total=sum(len(one.turns) for one in problems), disable=None) as bar:
        while left:
            stop.check()
            job = left.pop(0)
            run_file.job = (job.problem.question_id, TRACES)
            trace = record_trace(session, job, stop.check) if job.stored is None or job.is_needed else job.stored
            if job.is_needed:
                save_trace(trace, job.path)
            run_file.num_found += not job.is_needed
            run_file.num_computed += job.is_needed
            bar.update()
            log.info("%s: %s", job.problem.title.capitalize(), "recorded" if job.is_needed else "has its trace")
            try:
                left[:0] = next_traces(session, job, trace.output_text)
            except TooLong as error:
                leave_out_later(run_file, job.problem.turns[1:], error.reason)
    others = "; the others had their traces" if run_file.num_found else ""
    num_traces = run_file.num_found + run_file.num_computed
    print(f"Recorded {run_file.num_computed} of {num_traces} questions{others}. They are in:")
    print(jobs[0].path.parent.parent)


class Reporter:
    """Prices and grades records, logs their lines, draws them if asked, and prints the ranking at the end.

    `tokens`: what the target's ids stand for; default: looked for on this machine. Raises UserError at once if a
    profile cannot price the target, if trajectories are asked for and there is no tokenizer, or if code is to be run
    and there is no sandbox.
    """

    def __init__(self, config: RunConfig, pricing: Pricing, tokens: Callable[[], TokenBytes] | None = None) -> None:
        output, models = config.output, config.models
        pricing.entries(models.target_name)  # refuses, before any work, what could not be priced
        if output.run_code:
            check_can_run_code(config.questions.dataset)
        if line := pricing.without_model(models.target_name):
            print(line)
        is_coloured = wants_colour(sys.stdout, os.environ)
        if output.show_trajectory or (is_coloured and output.log_level == "DEBUG"):
            tokens = tokens or stored_tokens(models.target_model_name, output.show_trajectory)
        else:
            tokens = None
        self._view = AnswerView(tokens, is_coloured)
        self.config, self.pricing = config, pricing
        self.plain: dict[int, Entry] = {}
        self.entries: list[Entry] = []

    def report(self, records: Iterable[Record]) -> None:
        """Add finished records and print their ranking."""
        for record in records:
            self.add(record, self.entry(record))
        self.finish()

    def entry(self, record: Record) -> Entry:
        """Price and grade a record. Plain decoding comes first of a question's drafters: it is their baseline."""
        entry = entry_of(record, self.pricing, run_code=self.config.output.run_code)
        if entry.drafter_name == PLAIN:
            self.plain[entry.question_id] = entry
            return entry
        return with_measured(entry, self.plain.get(entry.question_id))

    def add(self, record: Record, entry: Entry) -> None:
        """Log a record and keep its entry for the ranking."""
        self.entries.append(entry)
        for line in round_lines(record) if log.isEnabledFor(logging.DEBUG) else ():
            log.debug(line)
        for line in record_lines(record, entry):
            log.info(line)
        level = logging.INFO if self.config.output.show_trajectory else logging.DEBUG
        for line in self._view.lines(record) if log.isEnabledFor(level) else ():
            log.log(level, line)
        if self.config.output.draws_figures:
            from plotting.acc_rate_over_time import write_figure  # matplotlib takes a second

            write_figure(record, self.config.output.output_dir)

    def finish(self) -> None:
        stats, note = unseen(self.entries, self.config.output.allow_seen)
        print(ranking_report(stats) + (f"\n{note}\n" if note else ""))
