"""Inputs: tables, records and traces from the paths of a command line, checked as far as every figure needs. No
matplotlib.
"""

import sys
from argparse import Namespace
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from specdec.errors import UserError
from specdec.latency.accounting import OURS
from specdec.latency.asked import PricingConfig
from specdec.latency.pricing import Pricing
from specdec.ranking.entries import PLAIN, Entry, entry_of, merge, records_of
from specdec.ranking.oracle import Judges
from specdec.ranking.question_sets import comparable
from specdec.ranking.ranking import engines_of
from specdec.ranking.seen import unseen
from specdec.ranking.table import Table, table_of
from specdec.ranking.table_files import read_table_file
from specdec.records.record import Record
from specdec.text import named
from specdec.traces.trace import Trace, find_traces, load_trace


@dataclass(frozen=True)
class Asked:
    """How records become tables; the flags of the same names."""

    drafters: Collection[str] | None = None
    question_ids: Collection[int] | None = None
    latency_profile: Sequence[str] = PricingConfig.latency_profile
    latency_target: Sequence[str | None] = (None,)
    trace_dir: str | None = None
    allow_unequal: bool = False
    allow_seen: bool = False
    without_degenerate: bool = False
    pass_accounting: str | None = None  # None: ours


def read_tables(paths: Sequence[Path], asked: Asked) -> list[Table]:
    """The tables of JSON files, and of records: one per target, data set and engine. Raises UserError."""
    made = [table for path in paths if path.suffix == ".json" for table in read_table_file(path)]
    folders = [path for path in paths if path.suffix != ".json"]
    records = read_records(folders, None, asked.question_ids) if folders else []
    names = {row.drafter_name for table in made for row in table.rows} | {one.drafter_name for one in records}
    _require("drafter", asked.drafters, names)
    return _asked_for(made + _tables_of(records, asked), asked)


def read_question_tables(paths: Sequence[Path], asked: Asked) -> list[Table]:
    """The tables of records, as `read_tables`, but each of one question, in order. Raises UserError."""
    rankings = [path for path in paths if path.suffix == ".json"]
    if rankings:
        raise UserError(f"{rankings[0]} says nothing of single questions: give records")
    records = read_records(paths, None, asked.question_ids)
    made: list[Table] = []
    for number in sorted({record.question_id for record in records}):
        tables = _tables_of([record for record in records if record.question_id == number], asked)
        made += [replace(table, title=f"{table.title}, question {number}") for table in tables]
    return _asked_for(made, asked)


def _tables_of(records: Iterable[Record], asked: Asked) -> list[Table]:
    """A table per target, data set, budget and engine; the title says the budget where a data set has several."""
    made: list[Table] = []
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for record in records:
        if asked.drafters is None or record.drafter_name in (*asked.drafters, PLAIN):  # which measured times need
            key = record.identity.target, record.identity.dataset, record.identity.max_new_tokens
            groups.setdefault(key, []).append(record)
    for (target, dataset, budget), group in groups.items():
        is_one = sum(key[:2] == (target, dataset) for key in groups) == 1
        title = dataset if is_one else f"{dataset}, up to {budget} tokens"
        stats = _stats(group, asked)
        loops = {entry.question_id for entry in stats if entry.is_degenerate} if asked.without_degenerate else set()
        stats = [entry for entry in stats if entry.question_id not in loops]
        tables = [table_of(stats, engine) for engine in engines_of(stats)]
        made += [replace(one, title=named(title), target=named(target), num_degenerate=len(loops)) for one in tables]
    return made


def _asked_for(tables: Sequence[Table], asked: Asked) -> list[Table]:
    """What of the tables has a price and is of the drafters asked for. UserError where nothing is."""
    made = [one for table in tables if (one := _chosen(table, None)).rows]
    if not made:
        raise UserError("nothing in the input has a price: give records of drafters and a --latency_profile")
    if asked.drafters is not None:
        there = {row.drafter_name for table in made for row in table.rows}
        missing = [name for name in asked.drafters if name not in there]
        if missing:
            raise UserError(f"no input ranks {missing[0]} (there are: {', '.join(sorted(there)[:8])}, ...)")
    return [one for table in made if (one := _chosen(table, asked.drafters)).rows]


def _stats(records: Sequence[Record], asked: Asked) -> list[Entry]:
    found: list[Entry] = []
    for target in asked.latency_target:
        pricing = Pricing.load(asked.latency_profile, target, asked.pass_accounting or OURS)
        judges = None if asked.trace_dir is None else Judges(asked.trace_dir, pricing)
        found += [entry_of(record, pricing, judges) for record in records]
    stats, note = unseen(merge(found), asked.allow_seen)
    if note:
        print(note, file=sys.stderr)
    return comparable(stats, asked.allow_unequal)[0]


def _chosen(table: Table, drafters: Collection[str] | None) -> Table:
    """Of a table these drafters (default: all), as far as they have a price."""
    rows = [row for row in table.rows if row.num_questions != 0]
    return replace(table, rows=[row for row in rows if drafters is None or row.drafter_name in drafters])


def under_one_engine(tables: Sequence[Table], engine: str | None) -> list[Table]:
    """The tables under `engine` (default: the first), one per data set. UserError: it is not there; several targets."""
    found = under_engine(tables, engine)
    require_one_target(table.target for table in tables)
    return under_engine(tables, engine or found[0].engine)


def under_engine(tables: Sequence[Table], engine: str | None) -> list[Table]:
    """The tables under `engine` (default: all). UserError where it is not there."""
    engines = list(dict.fromkeys(table.engine for table in tables))
    if engine is not None and engine not in engines:
        raise UserError(f"no --pricing {engine!r} (there are: {', '.join(map(repr, engines)) or 'none'})")
    return [table for table in tables if engine in (None, table.engine)]


def read_records(
    paths: Sequence[Path], drafters: Collection[str] | None = None, question_ids: Collection[int] | None = None
) -> list[Record]:
    """The records of results folders and pickles, of these drafters (default: all) and questions (default: all).
    UserError where a path has none, or a drafter or question asked for is in none."""
    found = [record for path in paths for record in records_of(path)]
    _require("drafter", drafters, {record.drafter_name for record in found})
    _require("question", question_ids, {record.question_id for record in found})
    return [
        record
        for record in found
        if (drafters is None or record.drafter_name in drafters)
        and (question_ids is None or record.question_id in question_ids)
    ]


def read_drafts(options: Namespace) -> list[Record]:
    """The records asked for, of a single target, without those that never drafted. Raises UserError if none is left."""
    records = read_records(options.inputs, options.drafters, options.question_ids)
    require_one_target(record.identity.target for record in records)
    drafted = [record for record in records if record.num_drafted]
    if not drafted:
        raise UserError("the records are of plain decoding alone, which drafts nothing: give those of a drafter")
    return drafted


def require_one_target(targets: Iterable[str]) -> None:
    """UserError for several targets, which one figure must not mix."""
    found = sorted(set(targets))
    if len(found) > 1:
        raise UserError(f"input of several targets ({', '.join(found)}): give one, as OUTPUT_DIR/pickles/TARGET")


def by_drafter(records: Sequence[Record], at_most: int) -> dict[str, list[Record]]:
    """The records of each drafter, plain decoding left out. UserError for more drafters than a figure can hold."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.drafter_name != PLAIN:
            found.setdefault(record.drafter_name, []).append(record)
    if len(found) > at_most:
        names = ", ".join([*list(found)[:4], "..."])
        raise UserError(f"{len(found)} drafters ({names}) are too many: choose at most {at_most} by --drafters")
    return found


def read_traces(paths: Sequence[Path], question_ids: Collection[int] | None = None) -> list[Trace]:
    """The traces of folders and files. Raises UserError: none, several targets, confidences outside 0 to 1."""
    traces = [load_trace(path) for folder in paths for path in find_traces(folder)]
    _require("question", question_ids, {trace.question_id for trace in traces})
    require_one_target(trace.identity.target for trace in traces)
    for trace in traces:
        for chains in trace.chains.values():
            confidences = chains.arrays["confidences"]
            if not np.all((confidences >= 0) & (confidences <= 1)):
                raise UserError(f"question {trace.question_id}, {chains.name}: a confidence is not a probability")
    return [trace for trace in traces if question_ids is None or trace.question_id in question_ids]


def _require(what: str, asked: Collection | None, found: Collection) -> None:
    missing = [one for one in asked or () if one not in found]
    if missing:
        there = ", ".join(map(str, sorted(found)[:8])) + (", ..." if len(found) > 8 else "")
        raise UserError(f"no input is of {what} {missing[0]} (there are: {there})")
