"""Tables: rankings for people (text) and for programs (CSV, JSON), with intervals and what cannot be told apart.

Which columns of `ranking/table.py` each shows. Those for papers and pages: `paper.py`.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from specdec.latency.profile import MEASURED
from specdec.ranking.comparisons import Difference
from specdec.ranking.entries import PLAIN, Entry
from specdec.ranking.lossless import count_grades, losslessness_line
from specdec.ranking.question_sets import unequal
from specdec.ranking.ranking import PlainRow, engines_of, plain_row
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS, NUM_RESAMPLES, Value
from specdec.ranking.table import CEILING_PARTS, CEILING_SHARES, COMPARED, QUANTITIES, Row, Table, table_of
from specdec.text import aligned, visible
from specdec.views.captions import engine_title

_CEILING = (*CEILING_PARTS, "ceiling_share")  # in CSV always, in JSON where it is known
_BOUNDED = ("acceptance_rate", "acceptance_len", "passes_per_round", "draft_ms", "verify_ms", "total_ms")
_DIFFERENCES = ("to_best", "to_ar", "ratio_to_best", "ratio_to_ar")
_INTERVAL = f"{LEVEL:.0%} interval"
_LEGEND = (
    "Speedup, mean: mean of the questions' speedups; ratio: ratio of the sums. "
    "Acceptance length: tokens per round, bonus included.\n"
    "Correct: answers graded right / graded. Degenerate: outputs that are mostly one loop, which inflates acceptance.\n"
    "Level: cannot be told from the best (paired bootstrap over questions, Holm correction, "
    f"{1 - LEVEL:.0%})."
)

_CEILING_LEGEND = (
    "Of the ceiling: the least time of any choice of recorded drafters and draft lengths, knowing the text, over the "
    "time taken.\nThe rest of the time is lost to drafting on for too long, to stopping too early, and to passes that "
    "a better choice of drafter would save."
)


@dataclass(frozen=True)
class Column:
    """A column on a terminal. `keys`: what of it CSV and JSON say in its place, unrounded."""

    title: str
    cell: Callable[[Row], str]
    keys: tuple[str, ...] = ()


def ranking_report(stats: Sequence[Entry]) -> str:
    """Every engine's table, each followed by its best configuration, then plain decoding's own time."""
    parts: list[str] = []
    for engine in engines_of(stats):
        table = table_of(stats, engine, intervals=())  # the speedups have theirs, and no others are shown
        parts += filter(None, [ranking_table(table), difference_table(table), ceiling_table(table)])
    parts.append(plain_line(plain_row(stats)))
    parts += filter(None, [losslessness_line(stats)])
    sources = sorted({entry.source for entry in stats})
    if len(sources) > 1:
        parts.append("Questions of several runs together: " + "; ".join(visible(source.title) for source in sources))
    if counts := unequal(stats):
        parts.append(f"Careful: the configurations were run on different questions ({visible(counts)}).")
    return "\n\n".join(parts) + "\n"


def plain_line(row: PlainRow | None) -> str:
    """Plain decoding's measured time, in words."""
    if row is None or row.ms_per_token is None:
        return "Plain decoding: not measured."
    return f"Plain decoding, measured: {row.ms_per_token:.3f} ms per token (questions: {row.num_questions})."


def ranking_table(table: Table) -> str:
    """One engine's ranking as aligned text with a title, a legend and the best configuration."""
    cells = [[column.cell(row) for column in _COLUMNS] for row in table.rows]
    lines = aligned([[column.title for column in _COLUMNS], *cells], num_left=2)
    if not table.num_paired:
        lines.append(f"No intervals: they need the same {MIN_QUESTIONS} questions or more of every configuration.")
    return "\n".join([engine_title(table.engine), *lines, _LEGEND, best_line(table)])


def difference_table(table: Table) -> str:
    """Every configuration's mean speedup less the best one's and less the AR baseline's, as text; "": none compared."""
    rows = [row for row in table.rows if row.rank is not None]
    if not table.num_paired or len(rows) < 2:
        return ""
    references = {"to_best": ("best", rows[0].drafter_name), "to_ar": ("AR baseline", table.ar_baseline)}
    known = {key: (title, visible(name)) for key, (title, name) in references.items() if name}
    head = ["drafter"]
    for title, _ in known.values():
        head += [f"less {title}", _INTERVAL, "p (Holm)", "more questions"]
    cells = [[_name(row), *(text for key in known for text in _differing(row.differences.get(key)))] for row in rows]
    names = "; ".join(f"{title}: {name}" for title, name in known.values())
    title = f"Paired differences of the mean speedup over {table.num_paired} questions ({names})"
    legend = "More questions: about how many would separate the two with 80% chance, if the difference is as it looks."
    return "\n".join([title, *aligned([head, *cells]), legend])


def ceiling_table(table: Table) -> str:
    """Per drafter the share of the ceiling, and what of its time is lost to what; "" if no ceiling is known."""
    quantities = [QUANTITIES[name] for name in CEILING_SHARES]
    rows = [row for row in table.rows if row.has(*CEILING_SHARES)]
    cells = [(row.drafter_name, *(one.text(row.values[one.name]) for one in quantities)) for row in rows]
    head = ("drafter", *(one.title for one in quantities))
    return "\n".join([*aligned([head, *cells], is_ruled=False), _CEILING_LEGEND]) if rows else ""


def best_line(table: Table) -> str:
    """`Best configuration: NAME (...)`, or why there is none."""
    first = table.best
    if table.doubt:
        return f"Best configuration: none ({table.doubt})"
    if first is None:
        missing = "plain decoding of the same questions" if table.engine == MEASURED else "prices"
        return f"Best configuration: none ({missing} missing)"
    mean, ratio = (QUANTITIES[name].text(first.values[name]) for name in COMPARED)
    name = visible(first.drafter_name)
    return f"Best configuration: {name} ({mean} mean of questions, {ratio} ratio of sums, {table.engine})"


def _quantity(name: str) -> Column:
    return Column(QUANTITIES[name].title, lambda row: QUANTITIES[name].text(row.values.get(name)), (name,))


def _count(title: str, name: str) -> Column:
    return Column(title, lambda row: f"{row.sums.get(name, '-')}", (name,))


def _counts(title: str, part: str, whole: str) -> Column:
    return Column(title, lambda row: f"{row.sums[part]}/{row.sums[whole]}" if row.sums[whole] else "-", (part, whole))


def _interval(name: str) -> Column:
    return Column(_INTERVAL, lambda row: _bounds(row.values.get(name)))


def _name(row: Row) -> str:
    return visible(row.drafter_name)


def _standing(row: Row) -> str:
    if row.is_level is None:
        return "-"
    return "best" if "to_best" not in row.differences else "level" if row.is_level else "behind"


def _bounds(value: Value | None) -> str:
    return "-" if value is None or value.low is None else f"{value.low:.2f} to {value.high:.2f}"


def _differing(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["-"] * 4
    one, more = difference.estimate, "-" if difference.is_clear else difference.num_more_questions
    interval, questions = f"{one.low:.2f} to {one.high:.2f}", "any" if more is None else f"{more}"
    return [f"{one.value:+.2f}", interval, f"{difference.p_holm:.4f}", questions]


_COLUMNS = (
    Column("rank", lambda row: "-" if row.rank is None else f"{row.rank}", ("rank",)),
    Column("drafter", _name, ("drafter_name",)),
    _count("questions", "num_questions"),
    Column("left out", lambda row: f"{row.num_left_out}", ("num_left_out",)),
    _quantity("speedup_mean"),
    _interval("speedup_mean"),
    Column("standing", _standing),
    _quantity("speedup_ratio"),
    _interval("speedup_ratio"),
    _quantity("acceptance_rate"),
    _counts("correct", "num_correct", "num_graded"),
    _counts("degenerate", "num_degenerate", "num_checked"),
    _quantity("acceptance_len"),
    _count("rounds", "num_rounds"),
    _quantity("passes_per_round"),
    _quantity("draft_ms"),
    _quantity("verify_ms"),
    _quantity("total_ms"),
    _count("drafted", "num_drafted"),
    _count("accepted", "num_accepted"),
)


def row_dict(row: Row) -> dict[str, Any]:
    """A row as flat keys: its attributes, unrounded; `mean_low`, ..., `to_best_p_holm`, ...; None where there is no
    value."""
    cells: dict[str, Any] = {key: row.number(key) for column in _COLUMNS for key in column.keys}
    cells |= {name: getattr(row, name) for name in ("rank", "drafter_name", "num_left_out")}
    if row.has("ceiling_share"):
        cells |= {name: row.number(name) for name in _CEILING}
    cells |= _bound_cells(row, COMPARED)
    for name in _DIFFERENCES:
        difference = row.differences.get(name)
        estimate = getattr(difference, "estimate", None)
        cells |= {f"{name}_{part}": _rounded(getattr(estimate, part, None)) for part in ("value", "low", "high")}
        cells[f"{name}_p_holm"] = _rounded(getattr(difference, "p_holm", None))
        cells[f"{name}_more_questions"] = getattr(difference, "num_more_questions", None)
    cells["is_level_with_best"] = row.is_level
    return cells | _bound_cells(row, _BOUNDED + ("ceiling_share",) * row.has("ceiling_share"))


def _bound_cells(row: Row, names: Iterable[str]) -> dict[str, Any]:
    ends = [(name, end) for name in names for end in ("low", "high")]
    return {f"{QUANTITIES[name].key}_{end}": _rounded(getattr(row.values.get(name), end, None)) for name, end in ends}


def _rounded(value: float | None) -> float | None:
    """To 9 digits: the order of summation, which the number of threads decides, shows in the last ones."""
    return float(f"{value:.9g}") if value is not None and math.isfinite(value) else None


def ranking_csv(stats: Sequence[Entry]) -> str:
    """All engines in one CSV: `engine` and the keys of `row_dict`, unrounded, empty for none. Plain decoding is one
    more row, without a rank, under "measured"."""
    out = io.StringIO()
    known = Row("", values=dict.fromkeys(CEILING_SHARES, Value(0.0)))  # of which everything is said
    writer = csv.DictWriter(out, ["engine", *row_dict(known)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"engine": table.engine} | row_dict(row) for table in _tables(stats) for row in table.rows)
    if plain := plain_row(stats):
        cells = {"engine": MEASURED, "drafter_name": PLAIN}
        writer.writerow(cells | {"num_questions": plain.num_questions, "total_ms": plain.total_ms})
    return out.getvalue()


def ranking_json(stats: Sequence[Entry], note: str = "") -> str:
    """`ranking_document` as JSON text."""
    return json.dumps(ranking_document(stats, note), indent=2, allow_nan=False)


def ranking_document(stats: Sequence[Entry], note: str = "") -> dict[str, Any]:
    """Per engine the rows and the best; plain decoding's measured time. `note`: what to know of the questions."""
    plain = plain_row(stats)
    return {
        "engines": [
            {
                "engine": table.engine,
                "pass_accounting": table.accounting,
                "best": None if table.best is None else table.best.drafter_name,
                "ar_baseline": table.ar_baseline,
                **({"doubt": table.doubt} if table.doubt else {}),
                "rows": [row_dict(row) for row in table.rows],
            }
            for table in _tables(stats)
        ],
        "plain": None if plain is None else vars(plain) | {"ms_per_token": plain.ms_per_token},
        "sources": [source.to_builtins() for source in sorted({entry.source for entry in stats})],
        "losslessness": count_grades(stats),
        "acceptance_len": "tokens per round, bonus included",
        "intervals": f"paired symmetric bootstrap-t over questions, {LEVEL:.0%}, {NUM_RESAMPLES} resamples",
        "note": note,
    }


def _tables(stats: Sequence[Entry]) -> list[Table]:
    return [table_of(stats, engine, (*_BOUNDED, "ceiling_share")) for engine in engines_of(stats)]
