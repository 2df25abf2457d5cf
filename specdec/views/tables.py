"""Tables: rankings for people (text) and for programs (CSV, JSON), with intervals and what cannot be told apart.

The numbers come from `ranking.py` and `comparisons.py`; `report.py` says what there is to say about one record.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from specdec.latency.profile import MEASURED, ROOFLINE
from specdec.ranking import entries, ranking
from specdec.ranking.ceiling import CEILING_COLUMNS, ceiling_table
from specdec.ranking.comparisons import Comparison, Comparisons, Difference, compare
from specdec.ranking.entries import QuestionStats
from specdec.ranking.lossless import count_grades, losslessness_line
from specdec.ranking.question_sets import unequal
from specdec.ranking.ranking import PlainRow, RankRow
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS, NUM_RESAMPLES, Estimate
from specdec.text import aligned, visible

# What CSV and JSON say of a row, by attribute.
ATTRIBUTES = (
    "rank",
    "drafter_name",
    "num_questions",
    "num_left_out",
    "speedup_mean",
    "speedup_ratio",
    "acceptance_rate",
    "num_correct",
    "num_graded",
    "num_degenerate",
    "num_checked",
    "acceptance_len",
    "num_rounds",
    "passes_per_round",
    "draft_ms",
    "verify_ms",
    "total_ms",
    "num_drafted",
    "num_accepted",
)
_DIFFERENCES = ("to_best", "to_ar", "ratio_to_best", "ratio_to_ar")
_INTERVAL = f"{LEVEL:.0%} interval"
_LEGEND = (
    "Speedup, mean: mean of the questions' speedups; ratio: ratio of the sums. "
    "Acceptance length: tokens per round, bonus included.\n"
    "Correct: answers graded right / graded. Degenerate: outputs that are mostly one loop, which inflates acceptance.\n"
    "Level: cannot be told from the best (paired bootstrap over questions, Holm correction, "
    f"{1 - LEVEL:.0%})."
)

Cell = Callable[[RankRow, Comparison | None], str]


def ranking_report(stats: Sequence[QuestionStats]) -> str:
    """Every engine's table, each followed by its best configuration, then plain decoding's own time."""
    parts = []
    for engine in ranking.engines_of(stats):
        rows, comparisons = ranking.rank(stats, engine), compare(stats, engine)
        parts.append(ranking_table(rows, engine, comparisons))
        if comparisons is not None and len(comparisons.by_drafter) > 1:
            parts.append(difference_table(comparisons))
        parts += filter(None, [ceiling_table([(row.drafter_name, row.ceiling) for row in rows])])
    parts.append(plain_line(ranking.plain_row(stats)))
    parts += filter(None, [losslessness_line(stats)])
    sources = sorted({entry.source for entry in stats})
    if len(sources) > 1:
        parts.append("Questions of several runs together: " + "; ".join(map(visible, sources)))
    counts = unequal(stats)
    if counts:
        parts.append(f"Careful: the configurations were run on different questions ({visible(counts)}).")
    return "\n\n".join(parts) + "\n"


def plain_line(row: PlainRow | None) -> str:
    """Plain decoding's measured time, in words."""
    if row is None or row.ms_per_token is None:
        return "Plain decoding: not measured."
    return f"Plain decoding, measured: {row.ms_per_token:.3f} ms per token (questions: {row.num_questions})."


def engine_title(engine: str) -> str:
    """What a table's speedups are: measured, or modelled by which profile (as if for which target)."""
    if engine == MEASURED:
        return "Measured time, against plain decoding in the same run"
    bound = ": lower bounds of every pass, calculated and not measured" if f"({ROOFLINE})" in engine else ""
    return f"Modelled time, {engine}{bound}"


def ranking_table(rows: Sequence[RankRow], engine: str, comparisons: Comparisons | None = None) -> str:
    """One engine's ranking as aligned text with a title, a legend and the best configuration."""
    found = {} if comparisons is None else comparisons.by_drafter
    cells = [[cell(row, found.get(row.drafter_name)) for _, cell in _COLUMNS] for row in rows]
    lines = aligned([[title for title, _ in _COLUMNS], *cells], num_left=2)
    if comparisons is None:
        lines.append(f"No intervals: they need the same {MIN_QUESTIONS} questions or more of every configuration.")
    return "\n".join([engine_title(engine), *lines, _LEGEND, best_line(rows, engine)])


def difference_table(comparisons: Comparisons) -> str:
    """Every configuration's mean speedup less the best one's and less the AR baseline's, as aligned text."""
    references = {"best": comparisons.best, "AR baseline": comparisons.ar_baseline}
    head = ["drafter"]
    for title in (title for title, name in references.items() if name):
        head += [f"less {title}", _INTERVAL, "p (Holm)", "more questions"]
    rows = []
    for name, comparison in comparisons.by_drafter.items():
        row = [visible(name), *_difference_cells(comparison.to_best)]
        rows.append(row + (_difference_cells(comparison.to_ar) if comparisons.ar_baseline else []))
    names = "; ".join(f"{title}: {visible(name)}" for title, name in references.items() if name)
    title = f"Paired differences of the mean speedup over {comparisons.num_questions} questions ({names})"
    legend = "More questions: about how many would separate the two with 80% chance, if the difference is as it looks."
    return "\n".join([title, *aligned([head, *rows]), legend])


def best_line(rows: Sequence[RankRow], engine: str) -> str:
    """`Best configuration: NAME (...)`, or why there is none."""
    first = ranking.best(rows)
    if first is None:
        missing = "plain decoding of the same questions" if engine == MEASURED else "prices"
        return f"Best configuration: none ({missing} missing)"
    return (
        f"Best configuration: {visible(first.drafter_name)} ({first.speedup_mean:.2f}x mean of questions, "
        f"{first.speedup_ratio:.2f}x ratio of sums, {engine})"
    )


def _number(attribute: str, form: str = "{}") -> Cell:
    def cell(row: RankRow, _: Comparison | None) -> str:
        value = getattr(row, attribute)
        return "-" if value is None else visible(form.format(value))

    return cell


def _share(part: str, whole: str) -> Cell:
    def cell(row: RankRow, _: Comparison | None) -> str:
        return f"{getattr(row, part)}/{getattr(row, whole)}" if getattr(row, whole) else "-"

    return cell


def _interval_of(attribute: str) -> Cell:
    return lambda _, comparison: "-" if comparison is None else _interval(getattr(comparison, attribute))


def _standing(row: RankRow, comparison: Comparison | None) -> str:
    if comparison is None:
        return "-"
    if comparison.to_best is None:
        return "best"
    return "behind" if comparison.to_best.is_clear else "level"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.2f} to {estimate.high:.2f}"


def _difference_cells(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["-"] * 4
    more = "-" if difference.is_clear else difference.num_more_questions
    value = f"{difference.estimate.value:+.2f}"
    return [value, _interval(difference.estimate), f"{difference.p_holm:.4f}", "any" if more is None else f"{more}"]


_COLUMNS: tuple[tuple[str, Cell], ...] = (
    ("rank", _number("rank")),
    ("drafter", _number("drafter_name")),
    ("questions", _number("num_questions")),
    ("left out", _number("num_left_out")),
    ("speedup, mean", _number("speedup_mean", "{:.2f}x")),
    (_INTERVAL, _interval_of("mean")),
    ("standing", _standing),
    ("speedup, ratio", _number("speedup_ratio", "{:.2f}x")),
    (_INTERVAL, _interval_of("ratio")),
    ("acceptance rate", _number("acceptance_rate", "{:.1%}")),
    ("correct", _share("num_correct", "num_graded")),
    ("degenerate", _share("num_degenerate", "num_checked")),
    ("acceptance length", _number("acceptance_len", "{:.2f}")),
    ("rounds", _number("num_rounds")),
    ("passes per round", _number("passes_per_round", "{:.2f}")),
    ("draft ms", _number("draft_ms", "{:.1f}")),
    ("verify ms", _number("verify_ms", "{:.1f}")),
    ("total ms", _number("total_ms", "{:.1f}")),
    ("drafted", _number("num_drafted")),
    ("accepted", _number("num_accepted")),
)


def row_dict(row: RankRow) -> dict[str, Any]:
    """A row under its attribute names, unrounded; None where there is no value."""
    cells = {attribute: getattr(row, attribute) for attribute in ATTRIBUTES}
    if row.ceiling is None:
        return cells
    return cells | vars(row.ceiling) | {"ceiling_share": row.ceiling.share}


def comparison_dict(comparison: Comparison | None) -> dict[str, Any]:
    """A comparison as flat keys: `mean_low`, ..., `to_best_p_holm`, ...; None where there is no value."""
    values: dict[str, Any] = {}
    for name in ("mean", "ratio"):
        estimate = getattr(comparison, name, None)
        values |= {f"{name}_{part}": _rounded(getattr(estimate, part, None)) for part in ("low", "high")}
    for name in _DIFFERENCES:
        difference = getattr(comparison, name, None)
        estimate = getattr(difference, "estimate", None)
        values |= {f"{name}_{part}": _rounded(getattr(estimate, part, None)) for part in ("value", "low", "high")}
        values[f"{name}_p_holm"] = _rounded(getattr(difference, "p_holm", None))
        values[f"{name}_more_questions"] = getattr(difference, "num_more_questions", None)
    difference = getattr(comparison, "to_best", None)
    values["is_level_with_best"] = None if comparison is None else difference is None or not difference.is_clear
    return values


def _rounded(value: float | None) -> float | None:
    """To 9 digits: the order of summation, which the number of threads decides, shows in the last ones."""
    return float(f"{value:.9g}") if value is not None and math.isfinite(value) else None


def ranking_csv(stats: Sequence[QuestionStats]) -> str:
    """All engines in one CSV: `engine`, the attributes of a row and of its comparison, unrounded, empty for none.

    Plain decoding is one more row, without a rank, under "measured".
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, ["engine", *ATTRIBUTES, *CEILING_COLUMNS, *comparison_dict(None)], lineterminator="\n")
    writer.writeheader()
    for engine in ranking.engines_of(stats):
        found = getattr(compare(stats, engine), "by_drafter", {})
        for row in ranking.rank(stats, engine):
            comparison = comparison_dict(found.get(row.drafter_name))
            writer.writerow({"engine": engine} | row_dict(row) | comparison)
    plain = ranking.plain_row(stats)
    if plain is not None:
        cells = {"engine": MEASURED, "drafter_name": entries.PLAIN}
        writer.writerow(cells | {"num_questions": plain.num_questions, "total_ms": plain.total_ms})
    return out.getvalue()


def ranking_json(stats: Sequence[QuestionStats], note: str = "") -> str:
    """`ranking_document` as JSON text."""
    return json.dumps(ranking_document(stats, note), indent=2, allow_nan=False)


def ranking_document(stats: Sequence[QuestionStats], note: str = "") -> dict[str, Any]:
    """Per engine the rows and the best configuration; plain decoding's measured time.

    `note`: what a reader must know of the questions.
    """
    plain = ranking.plain_row(stats)
    return {
        "engines": [_engine_dict(stats, engine) for engine in ranking.engines_of(stats)],
        "plain": None if plain is None else vars(plain) | {"ms_per_token": plain.ms_per_token},
        "sources": sorted({entry.source for entry in stats}),
        "losslessness": count_grades(stats),
        "acceptance_len": "tokens per round, bonus included",
        "intervals": f"paired symmetric bootstrap-t over questions, {LEVEL:.0%}, {NUM_RESAMPLES} resamples",
        "note": note,
    }


def _engine_dict(stats: Sequence[QuestionStats], engine: str) -> dict[str, Any]:
    rows, comparisons = ranking.rank(stats, engine), compare(stats, engine)
    found, first = getattr(comparisons, "by_drafter", {}), ranking.best(rows)
    return {
        "engine": engine,
        "best": None if first is None else first.drafter_name,
        "ar_baseline": getattr(comparisons, "ar_baseline", None),
        "rows": [row_dict(row) | comparison_dict(found.get(row.drafter_name)) for row in rows],
    }
