"""Say which drafter and draft length to serve a target with, how sure that is, what it costs, and in a server's words.

By the records of a results folder; loads no model. For one request at a time, and with --concurrency for many.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specdec.commands.flags import StrictParser, add_reading_flags
from specdec.drafters.flags import at_a_time, price
from specdec.errors import UserError, exit_status
from specdec.latency.pricing import Pricing
from specdec.ranking.entries import Entry, entry_of, merge, records_of
from specdec.ranking.load_study import Asked, Study, priced_by
from specdec.ranking.load_table import LoadTable
from specdec.ranking.lossless import graded_outputs
from specdec.ranking.question_sets import comparable
from specdec.ranking.ranking import engines_of
from specdec.ranking.requests import requests_of
from specdec.ranking.scopes import each, scope_of
from specdec.ranking.seen import unseen
from specdec.ranking.table import Table, table_of
from specdec.records.divergence import BUG
from specdec.records.record import Record
from specdec.runs.footprint import Footprint, footprints
from specdec.runs.run_file import runs_of
from specdec.views.captions import scope_line
from specdec.views.load_text import load_dict, under_load_line, unpriced_line
from specdec.views.recommendation import CONCURRENCY, Recommendation, recommend, recommendation_dict
from specdec.views.recommendation_text import recommendation_text
from specdec.views.tables import winners
from specdec.views.verdict import profiles_line

EXAMPLES = (
    "failfast recommend results",
    "failfast recommend results --latency_profile H100_graph --latency_target Qwen2.5-7B-Instruct",
    "failfast recommend results --price_per_hour 2.5",
    "failfast recommend results --concurrency 64 --latency_target Qwen2.5-7B-Instruct",
    "failfast recommend results --json",
)


def build_parser(program: str) -> StrictParser:
    parser = StrictParser(prog=program, examples=EXAMPLES, description=__doc__)
    parser.add_argument("results", metavar="RESULTS", type=Path, help="results folder, or a folder in it")
    add_reading_flags(parser)
    parser.group("pricing").add_argument(
        "--price_per_hour",
        type=price,
        metavar="X",
        help="what the machine costs an hour: say what a million output tokens cost (default: nothing is said)",
    )
    parser.group("load").add_argument(
        "--concurrency",
        type=at_a_time,
        metavar="N",
        help="also for this many requests at a time, simulated: as failfast load (default: one alone)",
    )
    parser.group("output").add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def main(arguments: Sequence[str], program: str) -> int:
    """Exit status: 0 said, also where nothing is recommended; 2 a mistake of the user's (one line says which)."""
    return exit_status(program, lambda: print(run(arguments, program), end=""))


def run(arguments: Sequence[str], program: str = "failfast recommend") -> str:
    """The text to print for a command line. Raises UserError."""
    options = build_parser(program).parse_args(arguments)
    pricing = Pricing.load(options.latency_profile, options.latency_target, options.pass_accounting, has_measured=True)
    records = records_of(options.results)
    targets = sorted({record.identity.target for record in records})
    if len(targets) > 1:
        raise UserError(
            f"{options.results} holds records of several targets ({', '.join(targets)}): give one, pickles/TARGET"
        )
    entries = merge(entry_of(record, pricing, run_code=options.run_code) for record in records)
    stats, left_out = unseen(entries, options.allow_seen)
    stats, note = comparable(stats, options.allow_unequal)
    notes = [note, left_out, pricing.without_model(targets[0]) or ""]
    models = footprints(records, runs_of(options.results))
    at_once = None if options.concurrency is None else under_load(records, options)
    load = [] if at_once is None else [under_load_line(*at_once), *unpriced_line(at_once[0])]
    said = list(filter(None, notes))
    if options.json:
        return as_json(
            stats,
            models,
            [*load, *said],
            options.price_per_hour,
            at_once and load_dict(*at_once),
            options.concurrency or CONCURRENCY,
        )
    return as_text(stats, models, said, options.price_per_hour, load)


def under_load(records: Sequence[Record], options: Namespace) -> tuple[Study, list[LoadTable]]:
    """The same records, `options.concurrency` requests at a time. Raises UserError."""
    requests = requests_of(records, options.allow_unequal, options.allow_seen)
    study = Study(
        requests,
        *priced_by(options.latency_profile, options.latency_target, requests.target),
        Asked(concurrency=(options.concurrency,)),
    )
    return study, study.tables()


def as_text(
    stats: Sequence[Entry],
    models: dict[str, Footprint],
    notes: Sequence[str] = (),
    price_per_hour: float | None = None,
    load: Sequence[str] = (),
) -> str:
    """For people. `load`: what was simulated for many requests at once, in sentences."""
    found, apart = by_engine(stats, models), by_dataset(stats, models)
    differ = [own for own in apart.values() if len({one.first.drafter_name for one in own if one.first}) > 1]
    own = differ[0] if differ else []
    said = [profiles_line(winners(stats)), *notes]
    return recommendation_text(scope_line(stats), found, own, said, price_per_hour, load)


def as_json(
    stats: Sequence[Entry],
    models: dict[str, Footprint],
    notes: Sequence[str] = (),
    price_per_hour: float | None = None,
    load: Any = None,
    concurrency: int = CONCURRENCY,
) -> str:
    """For programs: under each engine, and each data set's where there are several, for one request alone. `load`: what
    was simulated for `concurrency` requests at a time."""
    document: dict[str, Any] = {
        **scope_of(stats),
        "concurrency": concurrency,
        "load": load,
        "engines": [recommendation_dict(one, price_per_hour) for one in by_engine(stats, models)],
        "data_sets": [
            {
                "dataset": one.table.dataset,
                "max_new_tokens": one.table.max_new_tokens,
                **recommendation_dict(one, price_per_hour),
            }
            for own in by_dataset(stats, models).values()
            for one in own
        ],
        "profiles": profiles_line(winners(stats)),
        "notes": list(notes),
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def by_engine(stats: Sequence[Entry], models: dict[str, Footprint]) -> list[Recommendation]:
    """Under every engine; modelled and measured times are never mixed. UserError where there are no times at all."""
    engines = engines_of(stats)
    if not engines:
        raise UserError("no drafter has a time to rank by: run plain decoding too, or give a --latency_profile")
    return [_recommend(stats, engine, models) for engine in engines]


def by_dataset(stats: Sequence[Entry], models: dict[str, Footprint]) -> dict[str, list[Recommendation]]:
    """Engine -> each data set's, where there are several."""
    groups = each(stats)
    if len(groups) < 2:
        return {}
    return {engine: [_recommend(group, engine, models) for group in groups] for engine in engines_of(stats)}


def _recommend(stats: Sequence[Entry], engine: str, models: dict[str, Footprint]) -> Recommendation:
    table: Table = table_of(stats, engine, intervals=())
    return recommend(table, models, {entry.drafter_name for entry, grade in graded_outputs(stats) if grade == BUG})
