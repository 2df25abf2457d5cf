"""Style: the one look that all figures share: the page that they are drawn on, fonts, keys, and how values with
intervals are drawn.

Not here: colours and line styles of drafters (`specdec/views/palette.py`), data, how labels find room (`fit.py`), and
saving (`cli.py`).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plotting import fit
from plotting.drawn import BAND, NAMES
from specdec.ranking.statistics import Value
from specdec.ranking.table import Row
from specdec.views import palette
from specdec.views.palette import BLACK, BLUE, ORANGE, Look

Arguments = ParamSpec("Arguments")
Steps = Literal["pre", "post", "mid"] | None

ACCEPTED, REJECTED, CORRECTION = BLUE, ORANGE, BLACK  # dark, light and hatched, black: also in greyscale
REJECTED_HATCH = "////"
WIDTH = 7.2  # inches
NARROW = 5.0  # inches: a figure less wide has smaller letters
MIN_PANEL = 1.7  # inches: panels that would be less wide stand below each other
MARK = 4.5  # points
FONT = "DejaVu Sans"  # comes with matplotlib, so that every machine draws the same
RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": MARK,
    # Text stays text, to be searched, copied and edited; names are never taken for formulas.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "failfast",
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Page:
    """What figures are drawn on. Sizes in inches and points; None: the figure's own. `title`: in place of the figure's
    own, "" for none."""

    width: float | None = None
    height: float | None = None
    dpi: int = 130
    font: str = FONT
    font_size: float | None = None
    has_note: bool = True
    title: str | None = None

    @property
    def is_narrow(self) -> bool:
        return (self.width or WIDTH) < NARROW

    @property
    def letters(self) -> float:
        """The size of letters in points."""
        return self.font_size or (7.0 if self.is_narrow else 9.0)

    @property
    def rc(self) -> dict[Any, Any]:
        """The look of figures on this page, as matplotlib's settings."""
        size = self.letters
        sizes = {"font.size": size, "axes.titlesize": size, "axes.labelsize": size, "figure.titlesize": size + 1}
        small = dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), size - 1)
        return RC | sizes | small | {"font.family": [self.font, FONT], "savefig.dpi": self.dpi}


_PAGE: ContextVar[Page | None] = ContextVar("page", default=None)


def page() -> Page:
    """That of the figures that are drawn now."""
    return _PAGE.get() or Page()


@contextmanager
def on(asked: Page) -> Iterator[None]:
    """Figures made inside are drawn on this page."""
    token = _PAGE.set(asked)
    try:
        yield
    finally:
        _PAGE.reset(token)


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """The figure function `draw`, in the shared look and fitted to its page, whoever calls it."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(page().rc):
            figure = draw(*args, **kwargs)
            if page().title is not None:
                _retitle(figure, page().title or "")
            fit.fit(figure, can_grow=page().height is None)
            return figure

    return drawn


def _retitle(figure: Figure, title: str) -> None:
    """No title of a panel, or this one: in place of a single one, above several."""
    titled = [axes for axes in figure.axes if axes.get_title(loc="left")]
    if title and len(titled) > 1:
        figure.suptitle(title, x=0.01, ha="left")
        return
    for axes in titled or figure.axes[:1]:
        axes.set_title(title, loc="left")


def panels(
    num_rows: int, num_columns: int, height: float, *, width: float = WIDTH, **kwargs: Any
) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """An empty figure and its axes, [rows][columns]; `height` and `width` in inches, of all of it, unless the page has
    its own. A row of panels stands below each other where there is no room beside each other."""
    wide, high = page().width or width, page().height
    figure = Figure(figsize=(wide, high or height), layout="constrained")
    if num_rows > 1 or num_columns == 1 or wide / num_columns >= MIN_PANEL:
        return figure, figure.subplots(num_rows, num_columns, squeeze=False, **kwargs)
    figure.set_figheight(high or 1.0 + 0.7 * num_columns * (height - 1.0))
    return figure, figure.subplots(num_columns, 1, squeeze=False, **kwargs).T


def name_axes(grid: Sequence[Sequence[Axes]], x: str = "", y: str = "") -> None:
    """The labels of panels that show the same: at the bottom and at the left of all."""
    for axes in (axes for line in grid for axes in line):
        place = axes.get_subplotspec()
        if place is not None and x and place.is_last_row():
            axes.set_xlabel(x)
        if place is not None and y and place.is_first_col():
            axes.set_ylabel(y)


def legend(figure: Figure, handles: Mapping[str, Any] | None = None) -> None:
    """The key above all panels, by label (default: all that is labelled), in as many columns as fit."""
    found = labelled(figure.axes) if handles is None else handles
    room = 0.97 * figure.bbox.width
    for columns in range(min(4, len(found)), 0, -1):
        made = figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=columns)
        for text in made.get_texts():
            text.set_text(fit.typeset_text(text.get_text()))
            if columns == 1:
                fit.broken(text, room - 4 * page().letters * figure.dpi / 72)
        if columns == 1 or made.get_window_extent().width <= room:
            return
        made.remove()


def labelled(panels: Sequence[Axes]) -> dict[str, Any]:
    """What has a label in any of the panels, each label once."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels]
    return {label: handle for found in pairs for handle, label in found}


def name_point(axes: Axes, text: str, place: tuple[float, float], colour: str = BLACK) -> None:
    """A point's name beside it, with a fine line to it, where there is room (`fit.settle`)."""
    more: dict[str, Any] = {"textcoords": "offset points", "fontsize": page().letters - 2, "color": colour}
    more["arrowprops"] = {"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
    axes.annotate(text, place, (4, 4), gid=fit.NAME, in_layout=False, **more)


def whole_ticks(axis: Axis, places: Sequence[float]) -> None:
    """No ticks between whole numbers, if that is what the places are."""
    if all(float(place).is_integer() for place in places):
        axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def framed(values: Sequence[Value]) -> tuple[float, float] | None:
    """The limits of an axis on which the values fill a third at least, whatever their intervals; None: no need."""
    middles = [one.value for one in values]
    low, high = min(middles), max(middles)
    slack = max(high - low, 0.3 * abs(high))
    known = [bounded(one) for one in values]
    ends = [end for one in known for end in (one.low, one.high) if end is not None]
    if not ends or (min(ends) >= low - slack and max(ends) <= high + slack):
        return None
    return max(low - slack, min([low - 0.1 * slack, *ends])), min(high + slack, max([high + 0.1 * slack, *ends]))


def curve(axes: Axes, xs: Sequence[float], values: Sequence[Value], look: Look, label: str) -> None:
    """A line with markers and, where they are known, its 95 % intervals as a band."""
    line(axes, [(x, one.value) for x, one in zip(xs, values, strict=True)], look, label=label, marker=look.marker)
    band(axes, xs, values, look, label)


def line(axes: Axes, places: Sequence[tuple[float, float]], look: Look, **more: Any) -> None:
    """A line in its colour and dashes; `more` as matplotlib has it."""
    axes.plot(*zip(*places, strict=True), color=look.colour, linestyle=look.line, **more)


def band(axes: Axes, xs: Sequence[float], values: Sequence[Value], look: Look, label: str, step: Steps = None) -> None:
    """The intervals that are known, as the band of the line with this label."""
    known = [(x, one.low, one.high) for x, one in zip(xs, map(bounded, values), strict=True) if one.low is not None]
    if known:
        places, low, high = zip(*known, strict=True)
        more: dict[str, Any] = {"alpha": 0.15, "linewidth": 0, "label": f"{BAND}{label}"}
        axes.fill_between(places, low, high, step=step, color=look.colour, **more)


def bounded(value: Value) -> Value:
    """What figures show of it: nothing in them is below 0."""
    return value.within(0.0, math.inf)


def own_marks(axes: Axes, xs: Sequence[float], ys: Sequence[float], rows: Sequence[Row]) -> None:
    """Over the marks of drafters of a kind the same, each in the drafter's own colour."""
    looks = [palette.look(row.spec) for row in rows]
    axes.scatter(xs, ys, MARK**2, [look.colour for look in looks], marker=looks[0].marker, zorder=3)


def marks(
    axes: Axes,
    places: tuple[Sequence[float], Sequence[float]],
    look: Look,
    label: str,
    names: Sequence[str] = (),
    **bars: Any,
) -> None:
    """Marks with the error bars `bars` (matplotlib's), fainter than they. `names`: of each, for --data."""
    made = axes.errorbar(*places, fmt=look.marker, color=look.colour, ecolor=(look.colour, 0.4), label=label, **bars)
    NAMES[made.lines[0]] = names


def points(axes: Axes, rows: Sequence[Row], x: str, y: str, label: str, look: Look | None = None) -> None:
    """The quantities `x` and `y` of drafters of a kind, with intervals as bars; in their own colours, or in `look`."""
    xs, ys = ([row.values[quantity] for row in rows] for quantity in (x, y))
    places = [value.value for value in xs], [value.value for value in ys]
    kind = look or palette.family_look(type(rows[0].spec))
    names = [row.own_label or palette.label_of(row.drafter_name) for row in rows]
    marks(axes, places, kind, label, names, xerr=reach(xs), yerr=reach(ys), elinewidth=0.5)
    if look is None:
        own_marks(axes, *places, rows)


def reach(values: Sequence[Value]) -> list[list[float]]:
    """The intervals of values as matplotlib's xerr or yerr: distances below and above, 0 where none is known."""
    known = [bounded(one) for one in values]
    below = [0.0 if one.low is None else one.value - one.low for one in known]
    return [below, [0.0 if one.high is None else one.high - one.value for one in known]]


def note(figure: Figure, text: str) -> None:
    """A small line under everything, if the page has one: what was measured or modelled, over what."""
    if page().has_note:
        size = max(page().letters - 2, 5.5)
        figure.supxlabel(text, fontsize=size, color="#444444", x=0.01, ha="left", wrap=True)


def percent_axis(axis: Axis) -> None:
    """Shares are shown as percentages."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
