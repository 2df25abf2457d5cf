"""Replay settings on recorded traces, over several processes, and rank them. Loads no model.

`traces/replay.py` does a single replay.
"""

import dataclasses
import gc
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path

from tqdm import tqdm

from specdec.commands.flags import VIEW_FLAGS, StrictParser, add_flags
from specdec.config import RunConfig
from specdec.decoding.cost_aware import FILE_NAME, Advice
from specdec.drafters.asked import model_flags
from specdec.drafters.base import Spec
from specdec.drafters.earlier import NOTHING, ONE_TURN, Earlier
from specdec.drafters.families import flags as family_flags
from specdec.drafters.flags import positive_int
from specdec.errors import UserError, exit_status, user_error
from specdec.latency.pricing import Pricing
from specdec.ranking.entries import Entry, entry_of
from specdec.ranking.oracle import TraceJudges
from specdec.ranking.seen import unseen
from specdec.records.pickles import write_atomic
from specdec.records.places import load_finished, put_record
from specdec.records.record import Record, check_writable, identity_path
from specdec.records.turns import row_of, turn_of
from specdec.runs.drafter_facts import drafter_facts
from specdec.runs.run_file import runs_of
from specdec.traces.calibration import advice_of, tree_costs
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, find_traces, load_trace
from specdec.views.record_text import record_lines, record_text
from specdec.views.table_data import ranking_json
from specdec.views.tables import ranking_report
from specdec.views.view import view_of

FLAGS = (
    "question_ids",
    "drafters",
    "grid",
    "policy",
    "calibration",
    "latency_profile",
    "latency_target",
    "pass_accounting",
    "allow_seen",
    *VIEW_FLAGS,
)
REFUSED = "temperature"  # with a reason
PROGRAM = "python -m specdec.replay"  # its published name
ABOUT = "Replay settings on recorded traces, over several processes, and rank them. Loads no model."
EXAMPLES = (
    "failfast replay results --grid paper --json > ranking.json",
    "failfast replay results --drafters failfast --tau 0.3 0.45 0.6",
)


@dataclasses.dataclass(frozen=True)
class Replays:
    """What to replay on every trace, and what to write of it."""

    config: RunConfig
    pricing: Pricing
    output_dir: str | None
    paths: tuple[Path, ...] = ()

    def earlier(self, path: Path) -> Earlier:
        """What was asked before a trace's question: the traces before it of the same data set. Raises UserError."""
        same = [one for one in self.paths[: self.paths.index(path)] if one.parent.parent == path.parent.parent]
        found = [_answer(one) for one in same]
        return Earlier([question for question, _ in found], lambda: [tokens for _, tokens in found])

    @property
    def specs(self) -> list[Spec]:
        return self.config.drafters.specs(self.pricing.engines(self.config.models.target_name))

    def advice(self, trace: Trace, spec: Spec) -> Advice | None:
        """What a policy that has learnt knows; None for one that has not."""
        recorded = trace.recorded_of(spec)
        drafter = {} if recorded is None else recorded.identity
        return advice_of(spec, self.config.drafters.calibration, self.pricing.profiles, drafter)


@cache
def _answer(path: Path) -> tuple[tuple[int, str], list[int]]:
    """A trace's question, as `Earlier` has it, and the tokens of its text."""
    trace = load_trace(path)
    if turn_of(trace.question_id):
        raise UserError(ONE_TURN)
    return (trace.question_id, str(trace.identity.settings["prompt_sha256"])), trace.output_tokens


# What a single trace gave, the lines of its log, and what is known of its drafters: records without rounds.
Replayed = tuple[list[Entry], list[str], list[Record]]


def build_parser(program: str = PROGRAM) -> StrictParser:
    parser = StrictParser(prog=program, examples=EXAMPLES, description=ABOUT)
    parser.add_argument("traces", metavar="TRACE_DIR", help="folder with traces (failfast.py --record), or one trace")
    add_flags(parser, (*FLAGS, REFUSED, *(flag.name for flag in family_flags())))
    parser.group("output").add_argument(
        "--output_dir", help="write full records there, as a live run would (default: none)"
    )
    parser.group("output").add_argument("--log", help="write a log there that parse_log.py ranks (default: none)")
    parser.group("output").add_argument(
        "--workers", type=positive_int, default=os.cpu_count(), help="processes (default: %(default)s)"
    )
    parser.group("output").add_argument("--json", action="store_true", help="print the ranking as one JSON document")
    return parser


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Exit status: 0 done, 2 a mistake of the user's (one line says which)."""
    return exit_status(program, lambda: print(run(arguments, program), end=""))


def run(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> str:
    """The text to print for a command line. Raises UserError."""
    options = vars(build_parser(program).parse_args(arguments))
    folder, log, as_json = options.pop("traces"), options.pop("log"), options.pop("json")
    workers, output_dir = options.pop("workers"), options.pop("output_dir")
    paths = find_traces(folder, options["question_ids"])
    options["calibration"] = options["calibration"] or str(Path(folder) / FILE_NAME)
    # The models are those of the traces; none is looked for.
    models = dict.fromkeys((flag.name for flag in model_flags()), "-")
    target = load_trace(paths[0]).identity.target
    config = RunConfig.of(**options, **models, target_model_name=target, verify="trace")
    if output_dir is not None:
        check_writable(output_dir)
    priced = config.pricing
    pricing = Pricing.load(priced.latency_profile, priced.latency_target, priced.pass_accounting)
    what = Replays(config, pricing, output_dir, tuple(paths))
    made = list(tqdm(replay_all(paths, what, workers), total=len(paths), desc="traces", disable=None))
    if log is not None:
        text = "".join(f"{line}\n" for _, lines, _ in made for line in lines)
        with user_error(f"write {log}", "choose another --log"):
            write_atomic(Path(log), text.encode())
    entries = [entry for found, _, _ in made for entry in found]
    facts = drafter_facts([record for _, _, records in made for record in records], runs_of(folder))
    entries, note = unseen(entries, config.output.allow_seen)
    if as_json:
        return ranking_json(entries, note, facts) + "\n"
    view = view_of(config.output)
    return ranking_report(entries, view, facts) + (f"\n{view.wrapped(note)}\n" if note else "")


def replay_all(paths: Sequence[Path], what: Replays, workers: int) -> Iterable[Replayed]:
    """Every trace's replays, in order, by several processes."""
    work = partial(replay_trace, what=what)
    if workers <= 1 or len(paths) <= 1:
        yield from map(work, paths)
        return
    # Spawned: a fork would copy whatever the parent has started. Nothing here makes cycles, and looking for them
    # among a trace's many small lists takes half of the time.
    with multiprocessing.get_context("spawn").Pool(min(workers, len(paths)), initializer=gc.disable) as pool:
        yield from pool.imap(work, paths)


def replay_trace(path: Path, what: Replays) -> Replayed:
    """All settings on one trace."""
    entries: list[Entry] = []
    lines: list[str] = []
    records: list[Record] = []
    trace, asked = load_trace(path), what.config.questions.question_ids
    if asked is not None and row_of(trace.question_id) not in asked:
        raise UserError(f"{path} lies under the number of another question: its own is {trace.question_id}")
    judges = TraceJudges(trace, what.pricing)
    for spec in what.specs:
        earlier = what.earlier(path) if spec.reads_earlier else NOTHING
        costs = tree_costs(spec, what.pricing.profiles)
        record = replay(trace, spec, what.config.drafters.options, what.advice(trace, spec), earlier, costs)
        entry = entry_of(record, what.pricing, judges)
        entries.append(entry)
        records.append(dataclasses.replace(record, rounds=[]))
        lines.extend(record_lines(record, entry))
        if what.output_dir is not None:
            where = identity_path(what.output_dir, record.identity)
            load_finished(where, record.identity, "choose another --output_dir")  # a run's record is not written over
            put_record(record, where, record_text(record, entry))
    return entries, lines, records
