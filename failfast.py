"""Measure drafting strategies for speculative decoding: draft, verify, accept, record, rank.

The driver: reads the command line, finds the models, works through every question and drafter,
saves each record as soon as it is finished, and prints the ranking. `python failfast.py` runs the
bundled models on the bundled questions with all four drafters.
"""

import logging
import signal
import sys
from collections.abc import Sequence

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from specdec.config import RunConfig, parse_args
from specdec.errors import UserError
from specdec.latency import MEASURED, LatencyProfile, load_profile, measured
from specdec.problems import load_problems
from specdec.ranking import PLAIN, QuestionStats, model_prices, priced_entry, stats_of
from specdec.records import Record, find_records, load_record, save_record
from specdec.report import quote_text, ranking_report, record_lines, record_text

log = logging.getLogger("failfast")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 a mistake of the user's (one line says which), 130 or 143 interrupted."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        config = parse_args(arguments)
        logging.basicConfig(level=config.log_level, format="%(message)s", stream=sys.stdout, force=True)
        run(config)
    except UserError as error:
        print(f"failfast.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("failfast.py: stopped; finished records are kept, the same command does the rest", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
    return 0


def run(config: RunConfig) -> None:
    """Do what the command line asks. Raises UserError before any weight is loaded where it can."""
    profiles = [load_profile(name) for name in config.latency_profile if name != "none"]
    if config.read_pickle:
        report = Reporter(config, profiles)
        for record in stored_records(config):
            report.add(record)
        report.finish()
        return
    # Models come with torch and transformers: everything above answers without them.
    from specdec.jobs import describe_plan, plan_jobs, run_job
    from specdec.session import open_session

    problems = load_problems(
        config.dataset_name,
        question_ids=config.question_ids,
        num_questions=config.num_questions,
        data_dir=config.data_dir,
        seed=config.seed,
    )
    report = Reporter(config, profiles)
    session = open_session(config)
    jobs = plan_jobs(session, problems)
    if config.dry_run:
        print(describe_plan(session, jobs))
        return
    with logging_redirect_tqdm():
        for job in tqdm(jobs, desc="question x drafter", disable=None):
            record = job.done or run_job(session, job)
            if record is not job.done:
                save_record(record, job.path, record_text(record, session.round_texts(record)))
            report.add(record)
    report.finish()


class Reporter:
    """Prices records, logs their lines, and prints the ranking at the end.

    Raises UserError at once if a profile cannot price the target.
    """

    def __init__(self, config: RunConfig, profiles: Sequence[LatencyProfile]) -> None:
        for profile in profiles:
            priced_entry(profile, config.target_name, config.latency_target)
        self.config, self.profiles = config, profiles
        self.plain: dict[int, Record] = {}
        self.stats: list[QuestionStats] = []

    def add(self, record: Record) -> None:
        """Log a record. Plain decoding comes first of a question's drafters: it is their baseline."""
        prices = model_prices(record, self.profiles, self.config.latency_target)
        self.stats.append(stats_of(record, prices))
        if record.drafter_name == PLAIN:
            self.plain[record.question_id] = record
        elif record.question_id in self.plain:
            prices[MEASURED] = measured(record, self.plain[record.question_id])
        for line in record_lines(record, prices):
            log.info(line)
        for line in quote_text(record.output_text):
            log.debug(line)

    def finish(self) -> None:
        print(ranking_report(self.stats))


def stored_records(config: RunConfig) -> list[Record]:
    """The finished records of the target, data set, budget, drafters and questions asked for; plain first.

    Raises UserError where none is stored.
    """
    records = [record for path in find_records(config.output_dir) if _is_asked(record := load_record(path), config)]
    if not records:
        raise UserError(
            f"no stored record in {config.output_dir} fits: check --output_dir, --target_model_name, "
            "--dataset_name and --max_new_tokens, or run without --read_pickle"
        )
    return sorted(records, key=lambda record: (record.question_id, record.drafter_name != PLAIN))


def _is_asked(record: Record, config: RunConfig) -> bool:
    identity = record.identity
    return (
        identity["target"] == config.target_name
        and identity["dataset"] == config.dataset_name
        and identity["max_new_tokens"] == config.max_new_tokens
        and (config.question_ids is None or record.question_id in config.question_ids)
    )


class Terminated(KeyboardInterrupt):
    """SIGTERM, as clusters send it before they kill."""


def _raise_terminated(*_: object) -> None:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
