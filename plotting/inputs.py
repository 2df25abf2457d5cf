"""Inputs: records and traces from the paths of a command line, checked as far as every figure needs. No matplotlib.

`rankings.py` reads rankings, which have intervals.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from specdec.errors import UserError
from specdec.ranking.entries import PLAIN
from specdec.records.record import Record, find_records, load_record
from specdec.traces.trace import Trace, find_traces, load_trace


def read_records(
    paths: Sequence[Path], drafters: Collection[str] | None = None, question_ids: Collection[int] | None = None
) -> list[Record]:
    """The records of results folders and pickles, of these drafters (default: all) and questions (default: all).

    Raises UserError where a path has none, or a drafter or question asked for is in none.
    """
    found = [load_record(path) for folder in paths for path in _record_paths(folder)]
    _require("drafter", drafters, {record.drafter_name for record in found})
    _require("question", question_ids, {record.question_id for record in found})
    return [
        record
        for record in found
        if (drafters is None or record.drafter_name in drafters)
        and (question_ids is None or record.question_id in question_ids)
    ]


def read_drafts(
    paths: Sequence[Path], drafters: Collection[str] | None = None, question_ids: Collection[int] | None = None
) -> list[Record]:
    """Like `read_records`, of a single target, without those that never drafted. Raises UserError if none is left."""
    records = read_records(paths, drafters, question_ids)
    require_one_target(records)
    drafted = [record for record in records if record.num_drafted]
    if not drafted:
        raise UserError("the records are of plain decoding alone, which drafts nothing: give those of a drafter")
    return drafted


def require_one_target(records: Sequence[Record]) -> None:
    """UserError for records of several targets, which one figure must not mix."""
    targets = sorted({str(record.identity["target"]) for record in records})
    if len(targets) > 1:
        raise UserError(f"records of several targets ({', '.join(targets)}): give one, as OUTPUT_DIR/pickles/TARGET")


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


def datasets_of(records: Sequence[Record]) -> str:
    """The data sets of records, for a note: "gsm8k, math"."""
    return ", ".join(sorted({str(record.identity["dataset"]) for record in records}))


def read_traces(paths: Sequence[Path], question_ids: Collection[int] | None = None) -> list[Trace]:
    """The traces of folders and files. Raises UserError: none, several targets, confidences outside 0 to 1."""
    traces = [load_trace(path) for folder in paths for path in find_traces(folder)]
    _require("question", question_ids, {trace.question_id for trace in traces})
    targets = sorted({str(trace.identity["target"]) for trace in traces})
    if len(targets) > 1:
        raise UserError(f"traces of several targets ({', '.join(targets)}): give one")
    for trace in traces:
        for chains in trace.chains.values():
            confidences = chains.arrays["confidences"]
            if not np.all((confidences >= 0) & (confidences <= 1)):
                raise UserError(f"question {trace.question_id}, {chains.name}: a confidence is not a probability")
    return [trace for trace in traces if question_ids is None or trace.question_id in question_ids]


def is_finite(value: object) -> bool:
    """Whether a value read from JSON is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _record_paths(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.exists():
        raise UserError(f"{folder} does not exist: give a results folder (failfast.py --output_dir) or a record")
    paths = find_records(folder)
    if not paths:
        raise UserError(f"{folder} holds no records: give the --output_dir of a finished run")
    return paths


def _require(what: str, asked: Collection | None, found: Collection) -> None:
    missing = [one for one in asked or () if one not in found]
    if missing:
        there = ", ".join(map(str, sorted(found)[:8])) + (", ..." if len(found) > 8 else "")
        raise UserError(f"no input is of {what} {missing[0]} (there are: {there})")
