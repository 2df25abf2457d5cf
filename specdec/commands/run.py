"""Run drafters on questions, record every round, and rank them.

The driver: finds the models, works through every question and drafter, saves each record as soon as it is finished, and
prints the ranking. The published command has all flags, the verb those that belong to a run alone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from specdec.commands.flags import StrictParser, add_flags, all_flags
from specdec.commands.libraries import import_libraries
from specdec.commands.reporter import Reporter
from specdec.commands.work import record_traces, run_jobs
from specdec.config import RunConfig
from specdec.drafters.earlier import NOTHING, Earlier
from specdec.errors import UserError, exit_status, require_package
from specdec.latency.pricing import Pricing
from specdec.models.checkpoints import TARGET
from specdec.questions.sets import Problem
from specdec.ranking.entries import PLAIN
from specdec.ranking.own_traces import own_judges
from specdec.records.record import check_writable
from specdec.runs.left_out import leave_out, left_out_line, planned_left_out
from specdec.runs.resume import Repeated, asked_problems, repeated_run, stored_records
from specdec.runs.run_file import RunFile
from specdec.runs.shards import Shard, parse_shard
from specdec.runs.status import read_status, status_report
from specdec.runs.stop import StopRequest
from specdec.views.progress import Machine, asked_line, machine_line
from specdec.views.view import view_of

if TYPE_CHECKING:
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
    "failfast run --settings sweep.toml --num_questions 8",
)


def parse_args(arguments: Sequence[str] | None = None) -> RunConfig:
    """The published command line as a RunConfig. Raises UserError, or exits with 2 on a malformed flag."""
    about = f"{ABOUT}\n'python {PROGRAM} help' lists the verbs: run, rank, recommend, record, replay, report, ..."
    parser = StrictParser(prog=PROGRAM, description=about, examples=EXAMPLES)
    add_flags(parser)
    parser.add_settings_flag()
    return RunConfig.of(**vars(parser.parse_args(arguments)))


def parse_verb(program: str, arguments: Sequence[str] | None) -> RunConfig:
    """The same for `failfast run`: what only records, only reads or only looks has a verb of its own."""
    parser = StrictParser(prog=program, description=ABOUT, examples=RUN_EXAMPLES)
    own = names_of("questions", "models", "decoding", "drafters", "sweeps", "drafting", "pricing", "output")
    add_flags(parser, [*(name for name in own if name not in ("read_pickle", "status")), "with_traces"])
    parser.add_settings_flag()
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
    log.info(asked_line(config))
    if output.read_pickle:
        Reporter(config, pricing).report(stored_records(config))
        return
    problems = shard.of(asked_problems(config))
    if not problems:
        print(f"No question for --shard {shard.index}/{shard.count}: nothing to do.")
        return
    repeated = repeated_run(config, problems, shard)
    if repeated is not None:
        _rank_again(config, pricing, repeated, len(problems))
    else:
        _run_models(config, pricing, (problems, shard), stop)


def _rank_again(config: RunConfig, pricing: Pricing, repeated: Repeated, num_questions: int) -> None:
    """Rank what an earlier run made, and say what it said."""
    made_with = repeated.records[-1].provenance.get("num_threads")
    machine = Machine.of_run(repeated.description, repeated.num_parameters, made_with)
    _introduce(config, pricing, machine, (len(config.drafters.specs()), num_questions))
    reporter = Reporter(config, pricing)
    with RunFile(config.output.output_dir, repeated.description) as run_file:
        reporter.run_file = run_file
        reporter.judges = own_judges(config.output.output_dir, repeated.records, pricing)
        run_file.num_found = len(repeated.records)
        reporter.report(repeated.records)
    reporter.close()


def _run_models(config: RunConfig, pricing: Pricing, asked: tuple[Sequence[Problem], Shard], stop: StopRequest) -> None:
    """What needs models, which come with torch and transformers: everything else answers without them."""
    import_libraries()
    from specdec.runs.jobs import fitting, plan_jobs
    from specdec.runs.plan import describe_run_plan
    from specdec.runs.run_file import describe_run
    from specdec.session import open_session

    (problems, shard), output = asked, config.output
    _check_answers_are_one(config, problems)
    session = open_session(config)
    num_asked = len(problems)
    problems, left_out = fitting(session, problems)
    _introduce(config, pricing, _machine_of(session), (len(session.specs), num_asked))
    report = None if config.recording.record else Reporter(config, pricing, session.token_bytes)
    jobs = [] if config.recording.record else plan_jobs(session, problems, _earlier(session, problems))
    if output.dry_run:
        said = view_of(output).wrapped("\n".join(planned_left_out(left_out, num_asked)))
        print("\n".join(filter(None, [describe_run_plan(session, problems, jobs), said])))
        return
    check_writable(output.output_dir)
    with RunFile(output.output_dir, describe_run(session, problems, shard, jobs)) as run_file:
        leave_out(run_file, left_out)
        if report is None:
            record_traces(session, problems, run_file, stop)
        else:
            report.run_file = run_file
            run_jobs(session, jobs, report, run_file, stop)
        if said := left_out_line(run_file.left_out, num_asked):
            print(view_of(output).wrapped(said))
    if report is not None:
        report.close()


def _machine_of(session: Session) -> Machine:
    num_threads = session.num_threads if session.device.type == "cpu" else None
    how = session.dtype_name, str(session.device), session.backend_title
    return Machine(session.sources[TARGET].num_parameters, *how, num_threads)


def _introduce(config: RunConfig, pricing: Pricing, machine: Machine, counts: tuple[int, int]) -> None:
    """Say by what the run is done, and what its speedups are. `counts`: of configurations and of questions."""
    is_quiet = config.recording.record or config.output.dry_run
    speedups = "modelled" if pricing.entries(config.models.target_name) else "measured"
    log.info(machine_line(replace(machine, speedups="" if is_quiet else speedups), *counts))


def _earlier(session: Session, problems: Sequence[Problem]) -> Callable[[Problem], Earlier]:
    """What was asked before each question, where a drafter of the run reads that. Raises UserError."""
    from specdec.runs.earlier import EarlierAnswers

    if any(spec.reads_earlier for spec in session.specs):
        return EarlierAnswers(session, problems).before
    return lambda problem: NOTHING


def _check_answers_are_one(config: RunConfig, problems: Sequence[Problem]) -> None:
    """Raise UserError where the answers that later turns are asked after would be one drafter's own.

    A greedy target's answer does not depend on the drafter. A sampled one does: then plain decoding's is taken.
    """
    if config.decoding.is_sampled and PLAIN not in config.drafters.kinds and any(one.later for one in problems):
        raise UserError(
            "a sampled answer depends on the drafter, and the next turn is asked after plain decoding's: add plain to "
            "--drafters, or give --turns first"
        )
