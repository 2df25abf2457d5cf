"""Write what a results folder holds as one HTML file: ranking, figures, every trajectory. Loads no model."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specdec.commands.flags import StrictParser, add_reading_flags
from specdec.errors import UserError, exit_status, user_error
from specdec.latency.pricing import Pricing
from specdec.latency.profile import DEFAULT_PROFILES, load_profile
from specdec.models.token_text import find_tokenizer, read_token_bytes
from specdec.ranking.entries import Entry, entry_of, merge, records_of
from specdec.ranking.load_study import PROFILE, Asked, Study
from specdec.ranking.oracle import Judges
from specdec.ranking.own_traces import own_judges
from specdec.ranking.question_sets import comparable
from specdec.ranking.ranking import engines_of
from specdec.ranking.requests import requests_of
from specdec.ranking.seen import unseen
from specdec.records.pickles import write_atomic
from specdec.records.record import Record
from specdec.runs.run_file import runs_of
from specdec.views.load_data import NOT_ASKED, load_document
from specdec.views.question_data import packed, question_data
from specdec.views.report_data import by_question, looks, report_data
from specdec.views.report_page import report_page
from specdec.views.trajectory import Reader

PROGRAM = "python -m specdec.html_report"  # its published name
EXAMPLES = ("failfast report results --out report.html",)


def build_parser(program: str = PROGRAM) -> StrictParser:
    """The command line; flags as in parse_log.py."""
    parser = StrictParser(prog=program, examples=EXAMPLES, description=__doc__)
    parser.add_argument("results", metavar="RESULTS", type=Path, help="results folder, or a folder in it")
    parser.group("output").add_argument(
        "--out", type=Path, default=Path("report.html"), help="file to write (default: %(default)s)"
    )
    parser.group("output").add_argument(
        "--load",
        action="store_true",
        help="also rank at 1 to 256 requests at a time, simulated by the first --latency_profile with rows "
        f"(default: {PROFILE[0]}); takes seconds",
    )
    add_reading_flags(parser)
    parser.group("input").add_argument(
        "--trace_dir", help="show shares of the ceiling, from this folder's traces (default: RESULTS)"
    )
    parser.group("input").add_argument(
        "--tokenizer", help="the target's tokenizer.json, or its folder (default: found by its name)"
    )
    return parser


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Exit status: 0 done, 2 a mistake of the user's (one line says which)."""
    return exit_status(program, lambda: run(arguments, program))


def run(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    """Do what a command line asks. Raises UserError."""
    options = build_parser(program).parse_args(arguments)
    pricing = Pricing.load(options.latency_profile, options.latency_target, options.pass_accounting, has_measured=True)
    records = records_of(options.results)
    _check_comparable(records, options.results)
    runs = runs_of(options.results)
    reader = Reader(read_token_bytes(_tokenizer(options.tokenizer, records, runs)))
    asked = options.trace_dir
    judges = Judges(asked, pricing) if asked else own_judges(options.results, records, pricing)
    entries = merge(entry_of(record, pricing, judges, run_code=options.run_code) for record in records)
    stats, left_out = unseen(entries, options.allow_seen)
    stats, note = comparable(stats, options.allow_unequal)
    note = "\n".join(filter(None, [note, left_out, pricing.without_model(records[0].identity.target)]))
    load = under_load(records, pricing, options) if options.load else NOT_ASKED
    page = report_html(records, stats, reader, runs, note, load)
    with user_error(f"write {options.out}", "choose another --out"):
        write_atomic(options.out, page.encode())
    print(f"{options.out}: {len(page) / 1e6:.1f} MB; open it in a browser")
    if options.load and "why" in load:
        print(load["why"])


def report_html(
    records: Sequence[Record],
    stats: Sequence[Entry],
    reader: Reader,
    runs: Sequence[Mapping[str, Any]] = (),
    note: str = "",
    load: Mapping[str, Any] = NOT_ASKED,
) -> str:
    """The page. `stats`: the entries to rank; `load`: see `report_data`. Raises UserError where none has a price,
    measured or modelled."""
    if not engines_of(stats):
        raise UserError("no drafter has a time to rank by: run plain decoding too, or give a --latency_profile")
    data = report_data(records, stats, runs, note, load)
    title = f"failfast: {records[0].identity.target}"
    questions = [packed(question_data(own, reader)) for own in by_question(records).values()]
    return report_page(title, data, questions, looks(data))


def under_load(records: Sequence[Record], pricing: Pricing, options: Namespace) -> dict[str, Any]:
    """What the page says of loads; why not, where the records or the profile cannot be priced under load."""
    known = sorted(pricing.profiles, key=lambda one: one.rows is None)
    if options.latency_profile is DEFAULT_PROFILES:
        known = [load_profile(PROFILE[0])]
    try:
        requests = requests_of(records, options.allow_unequal, options.allow_seen)
        own = Pricing(tuple(known[:1]), options.latency_target).entries(requests.target)
        if not own:
            raise UserError("it is simulated by a latency profile with rows: give one as --latency_profile")
        study = Study(requests, *next(iter(own.values())), Asked())
        return load_document(study, study.tables())
    except UserError as error:
        return {"why": f"No ranking under load: {error}"}


def _check_comparable(records: Sequence[Record], folder: Path) -> None:
    """Raise UserError for one record, which nothing can be compared with, and for records of several targets."""
    if len(records) == 1:
        raise UserError(
            f"{folder} holds one record, and a report compares: see the .txt beside it, or run another drafter"
        )
    targets = sorted({record.identity.target for record in records})
    if len(targets) > 1:
        names = ", ".join(targets)
        raise UserError(f"{folder} holds records of several targets ({names}): give one folder, pickles/TARGET")


def _tokenizer(asked: str | None, records: Sequence[Record], runs: Sequence[Mapping[str, Any]]) -> Path:
    """Where the target's tokens are explained. Raises UserError if nowhere here."""
    if asked is not None:
        return Path(asked)
    target = records[0].identity.target
    settings = [run.get("settings") for run in runs if run["target"] == target]
    full_names = [str(one["target_model_name"]) for one in settings if one and "target_model_name" in one]
    for name in dict.fromkeys([*full_names, target]):
        found = find_tokenizer(name)
        if found is not None:
            return found
    raise UserError(f"the tokenizer of {target!r} is not on this machine: give its tokenizer.json as --tokenizer")
