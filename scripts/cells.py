"""Cells: what the tables of the pages are made of: stored results, numbers as text, rows as Markdown. No table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "docs" / "results"
NONE = "not run"


@cache
def result(name: str) -> Any:
    """The JSON of a file of docs/results, without its ending."""
    return document(RESULTS / f"{name}.json")


def document(path: Path) -> Any:
    """The JSON of a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def times(value: float) -> str:
    """`times(4.081) == "4.08x"`."""
    return f"{value:.2f}x"


def percent(value: float, digits: int = 1) -> str:
    """`percent(0.3954) == "39.5 %"`."""
    return f"{100 * value:.{digits}f} %"


def speedup(row: Mapping[str, Any] | None) -> str:
    """A row's mean speedup with its 95 % interval."""
    if row is None:
        return NONE
    return f"{times(row['speedup_mean'])} ({row['mean_low']:.2f} to {row['mean_high']:.2f})"


def parted(grades: Mapping[str, int]) -> str:
    """How many outputs part from plain decoding: `parted({"exact": 3, "tie": 1}) == "1 of 4"`.

    ValueError where some part elsewhere than at a near-tie.
    """
    if any(number for grade, number in grades.items() if grade not in ("exact", "tie")):
        raise ValueError(f"some outputs part elsewhere: {dict(grades)}")
    return f"{grades['tie']} of {grades['exact'] + grades['tie']}"


def ranked(ranking: Mapping[str, Any], engine: str) -> dict[str, dict[str, Any]]:
    """The rows of the engine whose name begins so, by drafter."""
    (rows,) = [one["rows"] for one in ranking["engines"] if one["engine"].startswith(engine)]
    return {row["drafter_name"]: row for row in rows}


def rates(records: Iterable[Mapping[str, Any]], draft_pass_ms: float, target_ms: float) -> dict[str, float]:
    """What records say together: acceptance rate and length, passes a round, mean of the modelled speedups by a flat
    profile, which prices a pass and a round."""
    records = list(records)
    names = ("num_rounds", "num_drafted", "num_accepted", "num_forward_passes", "num_output_tokens")
    rounds, drafted, accepted, passes, tokens = (sum(one[name] for one in records) for name in names)
    speedups = []
    for one in records:
        ms = draft_pass_ms * one["num_forward_passes"] + target_ms * one["num_rounds"]
        speedups.append(target_ms * one["num_output_tokens"] / ms)
    return {
        "acceptance_rate": accepted / drafted,
        "acceptance_len": tokens / rounds,
        "passes_per_round": passes / rounds,
        "speedup": sum(speedups) / len(speedups),
    }
