"""Brief: a ranking in one look: the columns that matter and fit, what they show and why, in a hundred columns or less.

All columns and all tables: `tables.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from specdec.ranking.comparisons import BEHIND, BEST, EQUAL, MARGIN, UNDECIDED
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS
from specdec.ranking.table import QUANTITIES, Row, Table
from specdec.text import TEXT, cut
from specdec.text import columns as text_columns
from specdec.views.captions import engine_title, time_words
from specdec.views.labels import label, short_labels
from specdec.views.verdict import in_short, too_few_line, verdict_line
from specdec.views.view import View
from specdec.views.why import ceiling_line, why_line

NUM_NAMED = 6  # drafters of a line about another engine
_STANDINGS = {
    BEST: "faster than plain decoding and all others that are not level",
    EQUAL: f"not told from the first, and within {MARGIN:.0%} of it",
    UNDECIDED: "more questions would tell",
    BEHIND: "slower than the first",
}


@dataclass(frozen=True)
class Brief:
    """A column. `worth`: those of the least go first where there is no room; None: never."""

    title: str
    cell: Callable[[Row], str]
    worth: int | None = None


def _interval(row: Row) -> str:
    mean = row.values.get("speedup_mean")
    return "-" if mean is None or mean.low is None else f"{mean.low:.2f} to {mean.high:.2f}"


def _quantity(name: str, form: str = "") -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.values.get(name)
        return form.format(value.value) if form and value is not None else QUANTITIES[name].text(value)

    return cell


COLUMNS = (
    Brief("rank", lambda row: "-" if row.rank is None else f"{row.rank}"),
    Brief("drafter", label),
    Brief("speedup", _quantity("speedup_mean")),
    Brief(f"{LEVEL:.0%} interval", _interval, 4),
    Brief("standing", lambda row: row.standing or "-", 5),
    Brief("tokens", _quantity("acceptance_len"), 3),
    Brief("passes", _quantity("passes_per_round"), 2),
    Brief("accepted", _quantity("acceptance_rate", "{:.0%}"), 1),
)


def shown_rows(table: Table, view: View) -> list[Row]:
    """The first rows, as many as are asked for, and plain decoding."""
    most = len(table.rows) if view.top is None else view.top
    return [row for row in table.with_plain if row is table.plain or (row.rank or len(table.rows)) <= most]


def brief_table(table: Table, view: View) -> list[str]:
    """The rows that are asked for and plain decoding, as lines no wider than the view; what was left out is said."""
    rows = shown_rows(table, view)
    columns, dropped = fitting_columns(rows, view)
    cells = [[one.title for one in columns], *([one.cell(row) for one in columns] for row in rows)]
    if view.format == TEXT:
        cells = _cut(cells, view.width)
    lines = view.table(cells, num_left=2, is_ruled=False)
    num_more = len(table.with_plain) - len(rows)
    lines += [f"and {num_more} more"] if num_more > 0 else []
    lines += [view.wrapped(f"No room for: {', '.join(dropped)} (a wider terminal, or --wide).")] if dropped else []
    return lines


def fitting_columns(rows: Sequence[Row], view: View) -> tuple[list[Brief], list[str]]:
    """(the columns that fit into the view, the titles of the others). Those of which nothing is known are left out."""
    known = [one for one in COLUMNS if one.worth is None or any(one.cell(row) != "-" for row in rows)]
    columns, dropped = list(known), []
    while view.format == TEXT and _width(rows, columns) > view.width:
        least = min((one for one in columns if one.worth is not None), key=lambda one: one.worth or 0, default=None)
        if least is None:
            break
        columns.remove(least)
        dropped.append(least.title)
    return columns, dropped


def _width(rows: Sequence[Row], columns: Sequence[Brief]) -> int:
    widths = [max(text_columns(one.title), *(text_columns(one.cell(row)) for row in rows)) for one in columns]
    return sum(widths) + 2 * (len(columns) - 1)


def _cut(cells: list[list[str]], width: int) -> list[list[str]]:
    """The cells with names cut so that the lines fit, where nothing else could be left out."""
    others = sum(max(text_columns(row[index]) for row in cells) + 2 for index in range(len(cells[0])) if index != 1)
    room = max(width - others, 8)
    return [[text if index != 1 else cut(text, room) for index, text in enumerate(row)] for row in cells]


def brief_tables(tables: Sequence[Table], view: View, before: str = "") -> str:
    """What is said of one set of questions: the first engine's table and what it shows, a line for each other."""
    first, *others = tables
    head = [before + engine_title(first.engine), *filter(None, [too_few_line(first)])]
    after = [verdict_line(first), why_line(first), ceiling_line(first), *map(other_line, others)]
    if not first.num_paired and len(first.rows) > 1:
        after.insert(0, f"No intervals: they need the same {MIN_QUESTIONS} questions or more of every configuration.")
    said = [*map(view.wrapped, head), *brief_table(first, view), *map(view.wrapped, filter(None, after))]
    return "\n".join(said)


def other_line(table: Table) -> str:
    """Another engine's order in one line, and what it shows."""
    rows = [row for row in table.rows if row.rank is not None]
    if not rows:
        return f"{time_words(table.engine)}: {verdict_line(table)}."
    names = short_labels([row.drafter_name for row in rows])
    shown = [f"{names[row.drafter_name]} {QUANTITIES['speedup_mean'].text(row.values['speedup_mean'])}" for row in rows]
    more = [f"and {len(shown) - NUM_NAMED} more"] * (len(shown) > NUM_NAMED)
    plain = table.plain and table.plain.ms_per_token
    shown = [*shown[:NUM_NAMED], *more, *([f"plain decoding {plain:.1f} ms a token"] if plain else [])]
    return f"{time_words(table.engine)}: {', '.join(shown)}. {in_short(table)}."


def notes(table: Table) -> list[str]:
    """What the brief columns do not show and nobody should miss."""
    said = []
    looped, checked = (
        sum(int(row.sums.get(name, 0)) for row in table.rows) for name in ("num_degenerate", "num_checked")
    )
    if looped:
        said.append(f"Careful: {looped} of {checked} outputs are mostly one loop, which inflates acceptance (--wide).")
    if any(row.num_left_out for row in table.rows):
        said.append("Careful: some configurations have questions without a price, which are left out (--wide).")
    return said


def legend(table: Table) -> str:
    """What the columns mean, in words; of the standings those that there are."""
    there = dict.fromkeys(row.standing for row in table.rows if row.standing)
    standings = "; ".join(f"{one}: {_STANDINGS[one]}" for one in there)
    return f"Tokens, passes: a round. {standings[:1].upper()}{standings[1:]}{standings and '.'}".rstrip()
