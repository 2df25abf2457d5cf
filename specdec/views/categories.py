"""Categories: the ranking of each category of questions apart, in a line each; all of a category: `rank --category`."""

from collections.abc import Sequence
from typing import Any

from specdec.ranking.entries import PLAIN, Entry
from specdec.ranking.question_sets import num_rows
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS
from specdec.ranking.table import Table, first_by_number, table_of
from specdec.text import visible
from specdec.views.labels import title
from specdec.views.view import ALL, View


def by_category(stats: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Category -> its entries, in order of first appearance. Empty where all questions are of one, or of none."""
    found: dict[str, list[Entry]] = {}
    for entry in stats:
        found.setdefault(entry.category, []).append(entry)
    return found if len(found) > 1 else {}


def category_table(stats: Sequence[Entry], engine: str, view: View = ALL) -> str:
    """For each category which configuration is first under an engine, and how many cannot be told from it; "" for a
    single category. Categories with too few questions for an interval are named."""
    cells = [["category", "questions", "first", "speedup, mean", f"{LEVEL:.0%} interval", "not told from it"]]
    few: list[str] = []
    for category, entries in by_category(stats).items():
        num, name = num_questions(entries), visible(category) or "none"
        if num_rows(entries) < MIN_QUESTIONS:
            few.append(f"{name} ({num})")
        else:
            cells += _cells(name, num, table_of(entries, engine, intervals=()))
    lines = ["By category", *view.table(cells)] if len(cells) > 1 else []
    if few:
        lines.append(view.wrapped(f"Categories of too few questions to be ranked apart: {', '.join(few)}."))
    return "\n".join(lines)


def category_line(stats: Sequence[Entry], engine: str) -> str:
    """The first of each category in one line; "" where no two categories have questions enough."""
    groups = by_category(stats)
    known = {name: own for name, own in groups.items() if num_questions(own) >= MIN_QUESTIONS}
    firsts = {name: first for name, own in known.items() if (first := first_by_number(own, engine)) is not None}
    said = [
        f"{visible(name) or 'none'} {title(first)} {first.values['speedup_mean'].value:.2f}x"
        for name, first in firsts.items()
    ]
    others = [f"{len(groups) - len(said)} of too few questions"] * (len(groups) > len(said))
    return f"First by category: {'; '.join([*said, *others])}." if len(said) > 1 else ""


def _cells(name: str, num: int, table: Table) -> list[list[str]]:
    first = table.best
    if first is None:
        return []
    mean = first.values["speedup_mean"]
    bounds = "-" if mean.low is None else f"{mean.low:.2f} to {mean.high:.2f}"
    num_level = sum(bool(row.may_be_best) for row in table.rows if row is not first)
    return [[name, f"{num}", visible(first.drafter_name), f"{mean.value:.2f}x", bounds, f"{num_level}"]]


def num_questions(entries: Sequence[Entry]) -> int:
    """How many questions the entries are of."""
    return len({(entry.source, entry.question_id) for entry in entries if entry.drafter_name != PLAIN})


def category_document(stats: Sequence[Entry], engine: str) -> list[dict[str, Any]]:
    """As `category_table`, for programs: every configuration's mean speedup by category."""
    return [
        {
            "category": category,
            "num_questions": num_questions(entries),
            "speedup_mean": {row.drafter_name: row.number("speedup_mean") for row in table_of(entries, engine).rows},
        }
        for category, entries in by_category(stats).items()
    ]
