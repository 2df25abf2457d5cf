"""Drafters as points in a plane, with intervals both ways; one drawing for all figures of them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from plotting import style
from specdec.drafters.families import kinds
from specdec.ranking.table import Row
from specdec.views import palette
from specdec.views.palette import Look


def draw_points(axes: Axes, rows: Sequence[Row], x: str, y: str, label: str, look: Look | None = None) -> None:
    """The quantities `x` and `y` of drafters of a kind, with their intervals as bars; in their own colours, or all in
    `look`."""
    xs, ys = ([row.values[quantity] for row in rows] for quantity in (x, y))
    places = [value.value for value in xs], [value.value for value in ys]
    kind = look or palette.family_look(type(rows[0].spec))
    style.marks(axes, places, kind, label, xerr=style.reach(xs), yerr=style.reach(ys), elinewidth=0.5)
    if look is None:
        style.own_marks(axes, *places, rows)


def draw_kinds(axes: Axes, rows: Sequence[Row], x: str, y: str) -> None:
    """All kinds, in the palette's order, so that legends are alike; drafters without both quantities are left out."""
    for kind in kinds().values():
        members = [row for row in rows if isinstance(row.spec, kind) and row.has(x, y)]
        if members:
            draw_points(axes, members, x, y, kind.title)
