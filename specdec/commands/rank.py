"""Rank drafter configurations from logs or results folders, best first. Loads no model."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specdec.commands.exports import Exports, add_export_flags
from specdec.commands.flags import VIEW_FLAGS, StrictParser, add_flags, add_reading_flags
from specdec.errors import UserError, exit_status, user_error
from specdec.latency.pricing import Pricing
from specdec.latency.profile import MEASURED
from specdec.ranking import entries, logs
from specdec.ranking.entries import Entry, entry_of, records_of
from specdec.ranking.oracle import Judges
from specdec.ranking.own_traces import own_judges
from specdec.ranking.question_sets import comparable
from specdec.ranking.seen import unseen
from specdec.ranking.server_rows import also_ranked
from specdec.ranking.source import Source
from specdec.records.record import find_records
from specdec.runs.drafter_facts import DrafterFacts, drafter_facts, united
from specdec.runs.run_file import LOG_NAME, find_logs, runs_of
from specdec.views import table_data, tables
from specdec.views.view import View, width_of

PROGRAM = "parse_log.py"  # its published name
EXAMPLES = (
    "failfast rank results",
    "failfast rank run.log --csv > ranking.csv",
    "failfast rank results --trace_dir results/traces",
    "failfast rank results --records csv --out tables",
)


@dataclass(frozen=True)
class Reading:
    """How records become entries. `judges`: None: by the traces that lie beside the records of a folder, if they do.
    `facts`: takes in those of the drafters of all records that are read; None: not asked."""

    pricing: Pricing
    judges: Judges | None = None
    run_code: bool = False
    facts: list[DrafterFacts] | None = None

    def entries(self, path: Path) -> list[Entry]:
        """Those of a folder's records, or of one."""
        records = records_of(path)
        if self.facts is not None:
            self.facts.extend(drafter_facts(records, runs_of(path)))
        judges = self.judges or own_judges(path, records, self.pricing)
        return [entry_of(record, self.pricing, judges, run_code=self.run_code) for record in records]


def read_path(path: Path, reading: Reading) -> list[Entry]:
    """The entries of a results folder, a record, a log file, or a folder with the logs of runs and no record; UserError
    if it holds none."""
    if not path.exists():
        raise UserError(f"{path} does not exist: give a log file or a results folder")
    if path.is_dir() and not find_records(path) and (found := find_logs(path)):
        return [entry for log in found for entry in _read_log(log)]
    if path.is_dir() or path.suffix == ".pickle":
        return reading.entries(path)
    if not path.is_file():
        raise UserError(f"{path} is neither a log file nor a results folder")
    stats = _read_log(path)
    if not stats:
        raise UserError(
            f"{path} is not a log of this program or the published one: it reports no question (a run's own log is "
            f"OUTPUT_DIR/runs/ID/{LOG_NAME})"
        )
    return stats


def _read_log(path: Path) -> list[Entry]:
    with user_error(f"read {path}"), open(path, encoding="utf-8", errors="replace") as lines:
        return logs.parse_log_lines(lines, Source(name=str(path)))


def of_category(stats: Sequence[Entry], category: str) -> list[Entry]:
    """The entries of one category. Raises UserError, with those that there are, where there is none of it."""
    found = [entry for entry in stats if entry.category == category]
    if not found:
        known = ", ".join(sorted({entry.category for entry in stats} - {""})) or "none"
        raise UserError(f"no question is of the category {category!r} (there are: {known})")
    return found


def build_parser(program: str = PROGRAM) -> StrictParser:
    """The command line; flags as in failfast.py."""
    parser = StrictParser(
        prog=program, examples=EXAMPLES, description=f"{__doc__} Logs hold prices and grades of their own."
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", type=Path, help="log file or results folder")
    add_reading_flags(parser)
    add_flags(parser, VIEW_FLAGS)
    parser.group("input").add_argument(
        "--trace_dir", help="for records: the share of the ceiling, by this folder's traces (default: their own)"
    )
    parser.group("input").add_argument(
        "--also",
        action="extend",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="rank what a server's own speculation gave as well: what profile_tpt_vllm_eagle3 printed",
    )
    parser.group("input").add_argument("--category", help="rank the questions of this category alone")
    output = parser.group("output").add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON document")
    output.add_argument("--csv", action="store_true", help="print CSV")
    add_export_flags(parser)
    return parser


def run(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> str:
    """The text to print for a command line. UserError for input that cannot be ranked."""
    options = build_parser(program).parse_args(arguments)
    exports = Exports.asked(options)
    pricing = Pricing.load(options.latency_profile, options.latency_target, options.pass_accounting, has_measured=True)
    judges = None if options.trace_dir is None else Judges(options.trace_dir, pricing)
    facts: list[DrafterFacts] = []
    reading = Reading(pricing, judges, options.run_code, facts if options.json or options.wide else None)
    stats = entries.merge(entry for path in options.paths for entry in read_path(path, reading))
    if options.category is not None:
        stats = of_category(stats, options.category)
    served, notes = also_ranked(options.also, stats)
    stats, left_out = unseen([*stats, *served], options.allow_seen)
    stats, note = comparable(stats, options.allow_unequal)
    exports.write(stats, options.paths)
    measured_only = {entry.source.target for entry in stats if not entry.prices.keys() - {MEASURED}}
    unmodelled = [pricing.without_model(target) for target in sorted(measured_only - {""})]
    note = "\n".join(filter(None, [note, left_out, *notes, *unmodelled]))
    if options.json:
        return table_data.ranking_json(stats, note, united(facts)) + "\n"
    if options.csv:
        print(note, end="\n" if note else "", file=sys.stderr)
        return table_data.ranking_csv(stats)
    view = View(options.wide, options.top, options.format, width_of(sys.stdout))
    return tables.ranking_report(stats, view, united(facts)) + (f"\n{view.wrapped(note)}\n" if note else "")


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Prints the ranking; 2 and one line on stderr for a user's mistake."""
    return exit_status(program, lambda: print(run(arguments, program), end=""))
