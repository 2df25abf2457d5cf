"""Style: the one look that all figures share: sizes, fonts, and how values with intervals are drawn.

Not here: colours and line styles of drafters (`specdec/views/palette.py`), data, and saving (`cli.py`).
"""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from specdec.ranking.statistics import Value
from specdec.ranking.table import Row
from specdec.views import palette
from specdec.views.palette import BLACK, BLUE, ORANGE, Look

Arguments = ParamSpec("Arguments")
Steps = Literal["pre", "post", "mid"] | None

ACCEPTED, REJECTED, CORRECTION = BLUE, ORANGE, BLACK  # dark, light and hatched, black: also in greyscale
REJECTED_HATCH = "////"
WIDTH = 7.2  # inches
MARK = 4.5  # points
RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "figure.titlesize": 10,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 9,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": MARK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    # Text stays text, to be searched, copied and edited; names are never taken for formulas.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "failfast",
    "text.parse_math": False,
    "savefig.dpi": 130,
}


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """The figure function `draw`, in the shared look, whoever calls it."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return drawn


def panels(
    num_rows: int, num_columns: int, height: float, *, width: float = WIDTH, **kwargs: Any
) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """An empty figure and its axes, [rows][columns]; `height` and `width` in inches, of all of it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(num_rows, num_columns, squeeze=False, **kwargs)


def curve(axes: Axes, xs: Sequence[float], values: Sequence[Value], look: Look, label: str) -> None:
    """A line with markers and, where they are known, its 95 % intervals as a band."""
    line(axes, [(x, one.value) for x, one in zip(xs, values, strict=True)], look, label=label, marker=look.marker)
    band(axes, xs, values, look)


def line(axes: Axes, places: Sequence[tuple[float, float]], look: Look, **more: Any) -> None:
    """A line in its colour and dashes; `more` as matplotlib has it."""
    axes.plot(*zip(*places, strict=True), color=look.colour, linestyle=look.line, **more)


def band(axes: Axes, xs: Sequence[float], values: Sequence[Value], look: Look, step: Steps = None) -> None:
    """The intervals that are known, as a band."""
    known = [(x, one.low, one.high) for x, one in zip(xs, map(bounded, values), strict=True) if one.low is not None]
    if known:
        places, low, high = zip(*known, strict=True)
        axes.fill_between(places, low, high, step=step, color=look.colour, alpha=0.15, linewidth=0)


def bounded(value: Value) -> Value:
    """What figures show of it: nothing in them is below 0."""
    return value.within(0.0, math.inf)


def own_marks(axes: Axes, xs: Sequence[float], ys: Sequence[float], rows: Sequence[Row]) -> None:
    """Over the marks of drafters of a kind the same, each in the drafter's own colour."""
    looks = [palette.look(row.spec) for row in rows]
    axes.scatter(xs, ys, MARK**2, [look.colour for look in looks], marker=looks[0].marker, zorder=3)


def marks(axes: Axes, places: tuple[Sequence[float], Sequence[float]], look: Look, label: str, **bars: Any) -> None:
    """Marks with the error bars `bars` (matplotlib's), fainter than they."""
    axes.errorbar(*places, fmt=look.marker, color=look.colour, ecolor=(look.colour, 0.4), label=label, **bars)


def points(axes: Axes, rows: Sequence[Row], x: str, y: str, label: str, look: Look | None = None) -> None:
    """The quantities `x` and `y` of drafters of a kind, with intervals as bars; in their own colours, or in `look`."""
    xs, ys = ([row.values[quantity] for row in rows] for quantity in (x, y))
    places = [value.value for value in xs], [value.value for value in ys]
    kind = look or palette.family_look(type(rows[0].spec))
    marks(axes, places, kind, label, xerr=reach(xs), yerr=reach(ys), elinewidth=0.5)
    if look is None:
        own_marks(axes, *places, rows)


def reach(values: Sequence[Value]) -> list[list[float]]:
    """The intervals of values as matplotlib's xerr or yerr: distances below and above, 0 where none is known."""
    known = [bounded(one) for one in values]
    below = [0.0 if one.low is None else one.value - one.low for one in known]
    return [below, [0.0 if one.high is None else one.high - one.value for one in known]]


def note(figure: Figure, text: str) -> None:
    """A small line under everything: what was measured or modelled, over what."""
    figure.supxlabel(text, fontsize=7, color="#444444", x=0.01, ha="left", wrap=True)


def percent_axis(axis: Axis) -> None:
    """Shares are shown as percentages."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
