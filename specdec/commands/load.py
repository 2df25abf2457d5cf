"""Say which drafter to serve at which load, by a simulation of many requests at once over records. Loads no model."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from specdec.commands.flags import StrictParser, add_flags
from specdec.drafters.flags import at_a_time, count, positive_int, rate, seed_number
from specdec.errors import UserError, exit_status
from specdec.ranking.entries import records_of
from specdec.ranking.load_study import PROFILE, Asked, Study, priced_by
from specdec.ranking.load_table import CLAIRVOYANT, FIXED, POLICIES, SCHEDULED
from specdec.ranking.requests import Requests, requests_of, without_loops
from specdec.records.record import Record
from specdec.traces.trace import Trace, find_traces, load_trace
from specdec.views.load_text import load_dict, load_text

_READ_TRACES = {SCHEDULED, CLAIRVOYANT}
EXAMPLES = (
    "failfast load results --latency_target Qwen2.5-7B-Instruct",
    "failfast load results --concurrency 1 8 64 --policies fixed scheduled clairvoyant",
    "failfast load results --request_rate 2 8 32 --policies fixed off --json",
)


def build_parser(program: str, about: str | None = __doc__) -> StrictParser:
    parser = StrictParser(prog=program, examples=EXAMPLES, description=about)
    parser.add_argument("results", metavar="RESULTS", type=Path, help="results folder, or a folder in it")
    add_load_flags(parser)
    load = parser.group("load")
    load.add_argument("--request_rate", nargs="+", type=rate, metavar="R", help="requests that come a second (Poisson)")
    load.add_argument(
        "--policies",
        nargs="+",
        choices=POLICIES,
        default=[FIXED],
        help="fixed: as recorded; off: not for requests that enter above a drafter's break-even (--request_rate); "
        "scheduled: by the batch's own prices; clairvoyant: what no policy beats; both need traces (default: fixed)",
    )
    load.add_argument("--max_batch", type=at_a_time,
                      help=f"requests served at a time under --request_rate (default: {Asked.max_batch})")  # fmt: skip
    load.add_argument("--trace_dir", type=Path, help="the results folder that holds the traces (default: RESULTS)")
    output = parser.group("output")
    output.add_argument("--wide", action="store_true", help="all configurations, not the best of each kind")
    output.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def add_load_flags(parser: StrictParser) -> None:
    """What a simulation needs to know; `Asked` says what each means."""
    load = parser.group("load")
    load.add_argument("--concurrency", nargs="+", type=at_a_time, metavar="N",
                      help=f"requests at a time (default: {' '.join(map(str, Asked.concurrency))})")  # fmt: skip
    load.add_argument("--context", type=count, metavar="TOKENS",
                      help="price every request as if its context were that long (default: its own)")  # fmt: skip
    load.add_argument("--prefill_chunk", type=positive_int, default=Asked.chunk, metavar="TOKENS",
                      help="prompt tokens that a step reads at most (default: %(default)s)")  # fmt: skip
    load.add_argument("--seeds", type=count, default=Asked.seeds, metavar="N",
                      help="draws of the questions that intervals are over (default: %(default)s)")  # fmt: skip
    load.add_argument("--seed", type=seed_number, default=Asked.seed, help="the first of them (default: %(default)s)")
    load.add_argument("--extrapolate", action="store_true",
                      help="go on in a straight line beyond the profile's rows, and say so")  # fmt: skip
    load.add_argument("--allow_unequal", action="store_true",
                      help="of drafters that were run on different questions take the common ones")  # fmt: skip
    load.add_argument("--without_degenerate", action="store_true",
                      help="leave out questions whose answer is mostly one loop")  # fmt: skip
    add_flags(parser, ("latency_profile", "latency_target", "allow_seen"))
    parser.explain("latency_profile", f"price with this profile, which has rows (default: {' '.join(PROFILE)})")


def main(arguments: Sequence[str], program: str) -> int:
    """Exit status: 0 said, 2 a mistake of the user's (one line says which)."""
    return exit_status(program, lambda: print(run(arguments, program), end=""))


def run(arguments: Sequence[str], program: str = "failfast load") -> str:
    """The text to print for a command line. Raises UserError."""
    options = build_parser(program).parse_args(arguments)
    _refuse_idle(options)
    study = study_of(options, records_of(options.results))
    tables = study.tables()
    if options.json:
        return json.dumps(load_dict(study, tables), indent=1, allow_nan=False) + "\n"
    return load_text(study, tables, options.wide)


def _refuse_idle(options: Namespace) -> None:
    """Raise UserError for a flag that would change nothing."""
    if options.max_batch is not None and not options.request_rate:
        raise UserError("--max_batch bounds what comes under --request_rate: give a rate, or leave it out")
    if options.trace_dir is not None and not _READ_TRACES & {*options.policies}:
        raise UserError(f"--trace_dir is read by --policies {SCHEDULED} and {CLAIRVOYANT}: give one, or leave it out")


def study_of(options: Namespace, records: Sequence[Record]) -> Study:
    """What the flags ask for of some records, checked. Raises UserError."""
    records = without_loops(records) if options.without_degenerate else records
    requests = requests_of(records, options.allow_unequal, options.allow_seen)
    profile, entry = priced_by(options.latency_profile, options.latency_target, requests.target)
    rates = tuple(getattr(options, "request_rate", None) or ())
    asked = Asked(
        concurrency=tuple(options.concurrency or (() if rates else Asked.concurrency)),
        request_rate=rates,
        policies=tuple(getattr(options, "policies", (FIXED,))),
        seeds=options.seeds,
        seed=options.seed,
        max_batch=options.max_batch or Asked.max_batch,
        chunk=options.prefill_chunk,
        context=options.context,
        extrapolate=options.extrapolate,
    )
    reads_traces = _READ_TRACES & {*asked.policies}
    traces = traces_of(requests, getattr(options, "trace_dir", None) or options.results) if reads_traces else []
    return Study(requests, profile, entry, asked, traces)


def traces_of(requests: Requests, folder: Path) -> list[Trace]:
    """Of every question, in order. UserError where one is missing, or of another text."""
    found = {}
    for trace in map(load_trace, find_traces(folder)):
        found[trace.identity.dataset, trace.question_id, trace.identity.max_new_tokens] = trace
    missing = [question for question in requests.questions if question not in found]
    if missing:
        dataset, number, _ = missing[0]
        what = f"{folder} holds no trace of question {number} of {dataset}"
        raise UserError(f"{what}: record it with failfast.py --record")
    for question, own in zip(requests.questions, requests.texts(), strict=True):
        if own != (found[question].prompt_ids, found[question].output_tokens):
            raise UserError(f"the trace of question {question[1]} is of another text than the records: record it again")
    return [found[question] for question in requests.questions]
