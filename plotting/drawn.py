"""Drawn: what a figure shows, as numbers: a row per mark, point of a line, bar or cell, read from the figure itself, so
that another program can draw it again.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PolyCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

NAMES: WeakKeyDictionary[Artist, Sequence[str]] = WeakKeyDictionary()  # what each mark of an artist is called
BAND = "_band of "  # begins the label of a line's band; legends leave out what begins with "_"


@dataclass(frozen=True)
class Point:
    """`low` and `high` bound y, `x_low` and `x_high` x: intervals, or where a cell begins and ends. "": not known, or
    none. A place that has a name instead of a number is called by it."""

    panel: str
    series: str
    x: float | str
    y: float | str
    low: float | str = ""
    high: float | str = ""
    x_low: float | str = ""
    x_high: float | str = ""
    name: str = ""


def as_csv(figure: Figure) -> str:
    """All points of a figure, with a head."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([one.name for one in fields(Point)])
    rows.writerows(astuple(point) for point in points(figure))
    return text.getvalue()


def points(figure: Figure) -> list[Point]:
    """Panel by panel."""
    return [point for axes in figure.axes for point in _of_panel(axes)]


def _of_panel(axes: Axes) -> Iterator[Point]:
    panel = _plain(axes.get_title(loc="left") or axes.get_ylabel())
    done: set[Any] = set()
    for container in axes.containers:
        if isinstance(container, ErrorbarContainer):
            done |= {container.lines[0], *container.lines[1]}
            yield from _marks(panel, axes, container)
        elif isinstance(container, BarContainer):
            done |= set(container.patches)
            yield from _bars(panel, axes, container)
    for line in axes.lines:
        if line not in done and not str(line.get_label()).startswith("_"):
            yield from _line(panel, axes, line)
    for cells in axes.collections:
        if isinstance(cells, PolyCollection) and cells.get_gid():
            boxes = [path.get_extents() for path in cells.get_paths()]
            row = None if not boxes else _place(axes.yaxis, (boxes[0].y0 + boxes[0].y1) / 2)
            yield from (Point(panel, str(cells.get_gid()), box.x0, row or 0.0, "", "", box.x0, box.x1) for box in boxes)
    for patch in axes.patches:
        if patch not in done and isinstance(patch, Rectangle) and patch.get_gid():
            left, width, name = patch.get_x(), patch.get_width(), str(patch.get_label())
            line_number = patch.get_y() + patch.get_height() / 2
            yield Point(panel, str(patch.get_gid()), left, line_number, "", "", left, left + width, name)


def _marks(panel: str, axes: Axes, container: ErrorbarContainer) -> Iterator[Point]:
    line, _, bars = container.lines
    segments = [bar.get_segments() for bar in bars]
    across = segments.pop(0) if container.has_xerr else None
    along = segments.pop(0) if container.has_yerr else None
    if not isinstance(line, Line2D):
        return
    names = NAMES.get(line, ())
    for at, (x, y) in enumerate(np.asarray(line.get_xydata()).tolist()):
        x_low, x_high = ("", "") if across is None else _ends(across[at][:, 0])
        low, high = ("", "") if along is None else _ends(along[at][:, 1])
        series = str(container.get_label()).lstrip("_")  # with which what is not in the key begins
        where = _place(axes.yaxis, y)
        yield Point(panel, series, x, where, low, high, x_low, x_high, names[at] if names else "")


def _ends(places: np.ndarray) -> tuple[float | str, float | str]:
    """Of an error bar; one without length says that nothing is known."""
    low, high = float(places[0]), float(places[-1])
    return (low, high) if low < high else ("", "")


def _bars(panel: str, axes: Axes, container: BarContainer) -> Iterator[Point]:
    series = str(container.get_label())
    for bar in container.patches:
        left, bottom, width, height = bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()
        if container.orientation == "horizontal":
            yield Point(panel, series, width, _place(axes.yaxis, bottom + height / 2), "", "", left, left + width)
        else:
            yield Point(panel, series, left, height, bottom, bottom + height, left, left + width)


def _line(panel: str, axes: Axes, line: Line2D) -> Iterator[Point]:
    bounds = _band(axes, line)
    for x, y in np.asarray(line.get_xydata()).tolist():
        yield Point(panel, str(line.get_label()), x, y, *bounds.get(x, ("", "")))


def _band(axes: Axes, line: Line2D) -> dict[float, tuple[float, float]]:
    """x -> low and high of the line's band. It goes along one bound and back along the other; in steps each place but
    the last has two corners on either way."""
    for band in axes.collections:
        if band.get_label() == f"{BAND}{line.get_label()}":
            corners = np.asarray(band.get_paths()[0].vertices)
            half = (len(corners) - 3) // 2
            there, back = corners[1 : 1 + half], corners[2 + half : 2 + 2 * half][::-1]
            step = 2 if str(line.get_drawstyle()).startswith("steps") else 1
            pairs = zip(there[::step].tolist(), back[::step].tolist(), strict=True)
            return {x: (min(one, other), max(one, other)) for (x, one), (_, other) in pairs}
    return {}


def _place(axis: Axis, place: float) -> float | str:
    """What a tick at this place is called, where ticks have names."""
    if isinstance(axis.get_major_locator(), FixedLocator):
        for tick in axis.get_major_ticks():
            if abs(tick.get_loc() - place) < 0.5:
                return _plain(tick.label1.get_text())
    return place


def _plain(text: str) -> str:
    """A label as it was before it was fitted to its page."""
    return " ".join(text.split()).replace("Nₘₐₓ", "N_max")
