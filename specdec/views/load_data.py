"""Load data: what the HTML report says of drafters under load: a heading and a short ranking for every load.

Simulated by `ranking/load_study.py`; not how any of it looks (html/).
"""

from collections.abc import Sequence
from typing import Any

from specdec.drafters.plain import PLAIN
from specdec.ranking.comparisons import BEHIND, BEST, UNDECIDED
from specdec.ranking.load_study import Study
from specdec.ranking.load_table import LoadRow, LoadTable
from specdec.ranking.statistics import Value
from specdec.views import verdict
from specdec.views.captions import profile_words
from specdec.views.load_text import advice, load_title
from specdec.views.palette import kind_of

NOT_ASKED = {"why": "failfast report RESULTS --load adds a switch: the ranking at 1 to 256 requests at a time."}
_DIGITS = 5


def load_document(study: Study, tables: Sequence[LoadTable]) -> dict[str, Any]:
    """`loads`: of each table its heading, and its rows, best first: [drafter's name, standing, speedup, low, high,
    acceptance length at which it breaks even]; `advice`: which drafter where, in sentences."""
    return {
        "name": profile_words(study.profile.title),
        "title": load_title(study),
        "over": f"{len(study.requests.questions)} questions",
        "advice": [*advice(tables), *(f"{table.load.label}: {note}." for table in tables for note in table.notes)],
        "loads": [_load(study, table) for table in tables],
    }


def _load(study: Study, table: LoadTable) -> dict[str, Any]:
    heading = vars(load_heading(study, table))
    return {"value": table.load.value, "headline": heading, "rows": [_row(row, table) for row in table.choices]}


def _row(row: LoadRow, table: LoadTable) -> list[Any]:
    numbers = row.values["speedup"], row.values["break_even_len"]
    speedup, even = numbers if row.name != PLAIN else (Value(1.0), None)
    values = speedup.value, speedup.low, speedup.high, None if even is None else even.value
    short = [None if one is None else float(f"{one:.{_DIGITS}g}") for one in values]
    return [row.name, _standing(row, table), *short]


def _standing(row: LoadRow, table: LoadTable) -> str:
    if not row.may_be_best or row.name == PLAIN:
        return BEHIND
    return BEST if row is table.best and len(_level(table)) == 1 else UNDECIDED


def _level(table: LoadTable) -> list[LoadRow]:
    """What may be the best, plain decoding among them."""
    return [row for row in table.choices if row.may_be_best]


def load_heading(study: Study, table: LoadTable) -> verdict.Headline:
    """A heading for a page: how it is known, at which load, and what is first, no stronger than it is."""
    level = _level(table)
    first = next(row for row in table.choices if row.name != PLAIN)
    if not study.has_intervals:
        kind = verdict.TOO_FEW
    elif table.best is not None and table.best.name == PLAIN:
        kind = verdict.MAYBE_PLAIN if first in level else verdict.NOT_PLAIN
    elif any(row.name == PLAIN for row in level):
        kind = verdict.MAYBE_PLAIN
    else:
        kind = verdict.UNDECIDED if len(level) > 1 else verdict.FASTEST
    bounds = ", by bounds" if study.profile.is_bound else ""
    many = f"{table.load.value:g} request{'s' if table.load.value != 1 else ''} at a time"
    when = f"Simulated{bounds}, {many}, as if {study.entry} under {profile_words(study.profile.title)}"
    count = len(level) if kind == verdict.UNDECIDED else len(study.requests.questions)
    return verdict.heading(kind, when, kind_of(first.name).title, count)
