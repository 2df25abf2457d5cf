"""Fit: what makes a drawn figure fit its page, however narrow: labels are broken, ticks thinned, names of points moved
to where there is room. It knows neither drafters nor data.
"""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FixedLocator, MaxNLocator
from matplotlib.transforms import Bbox

NAME = "name"  # the gid of a text that may be moved, and left out where there is no room
HEAD = "head"  # of one inside a panel that may be broken
NAMED = 0.36  # of the figure's width: what the names of ticks may take
GAP = 4.0  # pixels between neighbours
TICK_GAP = 7.0  # between the labels of ticks
_SHARE = 0.85  # of the height that a figure's panels were meant to have
_SAMPLES = 60  # of a line's way
_BESIDE = 1.0  # inches: what stands beside panels in a figure of its own size
_DISTANCES = (4.0, 11.0, 20.0)  # points
_COVERED = 1  # marks that a name may cover
_SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
_SUBSCRIPTS = {"N_max": "Nₘₐₓ"}


def fit(figure: Figure, can_grow: bool) -> None:
    """Lay the figure out so that no text meets another or the edge, as far as there is room; taller, if it may be."""
    typeset(figure)
    figure.align_ylabels()
    figure.draw_without_rendering()
    changed = [_break_names(axes.yaxis, NAMED * figure.bbox.width) for axes in figure.axes]
    if any(changed):
        figure.draw_without_rendering()
    if any([*changed, *[broken(text, room) for text, room in _rooms(figure)]]):
        figure.draw_without_rendering()
    if can_grow and (more := lacking(figure)) > 0:
        figure.set_figheight(figure.get_figheight() + more)
        figure.draw_without_rendering()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            thin(axis)
    settle(figure)


def typeset(figure: Figure) -> None:
    """Subscripts where texts have an underscore for one."""
    for text in figure.findobj(Text):
        for plain, set_well in _SUBSCRIPTS.items():
            if isinstance(text, Text) and plain in text.get_text() and "monospace" not in text.get_fontfamily():
                text.set_text(typeset_text(text.get_text(), plain, set_well))


def typeset_text(text: str, plain: str = "N_max", set_well: str = _SUBSCRIPTS["N_max"]) -> str:
    """Example: `typeset_text("N_max 60") == "Nₘₐₓ 60"`. The characters are Unicode's, so that text stays text."""
    return text.replace(plain, set_well)


def broken(text: Text, room: float) -> bool:
    """Break the text into lines no longer than `room` pixels, along its own direction; whether it was broken."""
    before, along = text.get_text(), "height" if text.get_rotation() else "width"
    limit, least = (max(map(len, parts), default=0) for parts in (before.split("\n"), before.split()))
    while limit > least and getattr(text.get_window_extent(), along) > room:
        limit -= 1
        text.set_text(wrapped(before, limit))
    return text.get_text() != before


def wrapped(text: str, limit: int) -> str:
    """In lines of at most `limit` characters; longer words stay whole. Breaks that are there stay."""
    lines = [textwrap.wrap(line, limit, break_long_words=False, break_on_hyphens=False) for line in text.split("\n")]
    return "\n".join("\n".join(line) for line in lines)


def _rooms(figure: Figure) -> Iterator[tuple[Text, float]]:
    """Titles and labels of panels, and how many pixels each may take along its direction."""
    boxes = {axes: axes.get_window_extent() for axes in figure.axes}
    for axes, box in boxes.items():
        beside = [one.x0 - box.x0 for one in boxes.values() if one.x0 > box.x1 and _share_rows(one, box)]
        yield _title(axes), min([*beside, figure.bbox.x1 - box.x0]) - GAP
        across = [max(one.x0 - box.x1, box.x0 - one.x1) for one in boxes.values() if _share_rows(one, box)]
        middle, gap = (box.x0 + box.x1) / 2, min((one for one in across if one > 0), default=figure.bbox.width)
        yield axes.xaxis.label, min(box.width + gap, 2 * middle, 2 * (figure.bbox.x1 - middle)) - GAP
        along = [max(one.y0 - box.y1, box.y0 - one.y1) for one in boxes.values() if _share_columns(one, box)]
        middle, gap = (box.y0 + box.y1) / 2, min((one for one in along if one > 0), default=figure.bbox.height)
        yield axes.yaxis.label, min(box.height + gap, 2 * middle, 2 * (figure.bbox.y1 - middle)) - GAP

    for text in (text for text in figure.findobj(Text) if text.get_gid() == HEAD):
        yield cast(Text, text), cast(Text, text).axes.get_window_extent().width - GAP  # type: ignore[union-attr]


def _break_names(axis: Axis, room: float) -> bool:
    """Set the names of named ticks well, and break them; whether any was changed."""
    if not isinstance(axis.get_major_locator(), FixedLocator) or axis.axes is None or not axis.axes.axison:
        return False
    labels = tick_labels(axis)
    before = [text.get_text() for text in labels]
    for text, words in zip(labels, before, strict=True):
        text.set_text(typeset_text(words))
        broken(text, room)
    axis.set_ticklabels([text.get_text() for text in labels])
    return before != [text.get_text() for text in labels]


def _title(axes: Axes) -> Text:
    """The title at the left, where all figures have it."""
    return axes.set_title(axes.get_title(loc="left"), loc="left")


def _share_rows(one: Bbox, other: Bbox) -> bool:
    return bool(one.y0 < other.y1 and other.y0 < one.y1)


def _share_columns(one: Bbox, other: Bbox) -> bool:
    return bool(one.x0 < other.x1 and other.x0 < one.x1)


def lacking(figure: Figure) -> float:
    """Inches that the panels lack of the height they were meant to have, because labels and keys took more."""
    rows = {round(box.y0): box.height for box in (axes.get_window_extent() for axes in figure.axes)}
    return _SHARE * (figure.get_figheight() - _BESIDE) - sum(rows.values()) / figure.dpi


def thin(axis: Axis) -> None:
    """Fewer ticks, until their labels do not meet; named ticks stay all."""
    locator = axis.get_major_locator()
    if not isinstance(locator, MaxNLocator):
        return
    for count in (6, 5, 4, 3, 2):
        boxes = sorted((text.get_window_extent() for text in tick_labels(axis)), key=lambda box: (box.x0, box.y0))
        if not any(meet(one, other, TICK_GAP) for one, other in pairwise(boxes)):
            return
        locator.set_params(nbins=count)


def tick_labels(axis: Axis) -> list[Text]:
    """Those that are drawn: of ticks within the limits."""
    axis.get_ticklabels()  # places the ticks anew, where their number was changed
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()] if axis.get_visible() else []
    found = [tick.label1 for tick in ticks if low - slack <= tick.get_loc() <= high + slack]
    return [text for text in found if text.get_visible() and text.get_text()]


def texts_of(figure: Figure) -> list[Text]:
    """All texts that are drawn."""
    ticks, shown = set(), set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks |= {id(text) for text in axis.findobj(Text)} - {id(axis.label), id(axis.get_offset_text())}
            shown |= {id(text) for text in tick_labels(axis) if axes.axison}
    found = [cast(Text, text) for text in figure.findobj(Text)]
    found = [text for text in found if text.get_visible() and text.get_text().strip()]
    return [text for text in found if id(text) not in ticks or id(text) in shown]


def meet(one: Bbox, other: Bbox, gap: float = 0.0) -> bool:
    """Whether two boxes overlap, or come nearer than `gap` pixels in both directions."""
    return bool(
        one.x0 < other.x1 + gap and other.x0 < one.x1 + gap and one.y0 < other.y1 + gap and other.y0 < one.y1 + gap
    )


def settle(figure: Figure) -> None:
    """Each name to that side of its point where it meets no text and covers the fewest points; else it is left out."""
    texts = texts_of(figure)
    names = [text for text in texts if text.get_gid() == NAME]
    taken = [Text.get_window_extent(text) for text in texts if text.get_gid() != NAME]
    for name in names:
        place = _best_place(name, taken) if isinstance(name, Annotation) else _as_it_is(name, taken)
        name.set_visible(place is not None)
        if place is not None:
            taken.append(place)


def _as_it_is(name: Text, taken: Sequence[Bbox]) -> Bbox | None:
    box = name.get_window_extent()
    return None if any(meet(box, one) for one in taken) else box


def _best_place(name: Annotation, taken: Sequence[Bbox]) -> Bbox | None:
    """Move the name to its best place, and give the box; None if there is none."""
    axes = name.axes
    assert axes is not None
    points, within = _points(cast(Axes, axes)), axes.get_window_extent()
    best: tuple[int, float, float] | None = None
    for distance in _DISTANCES:
        for right, up in _SIDES:
            box = _move(name, right * distance, up * distance)
            is_inside = box.x0 >= within.x0 and box.x1 <= within.x1 and box.y0 >= within.y0 and box.y1 <= within.y1
            if is_inside and not any(meet(box, one) for one in taken):
                covered = sum(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for x, y in points)
                best = (covered, right * distance, up * distance) if best is None or covered < best[0] else best
    return None if best is None or best[0] > _COVERED else _move(name, *best[1:])


def _move(name: Annotation, right: float, up: float) -> Bbox:
    """Put the name at this offset in points; its box in pixels."""
    name.xyann = (right, up)
    name.set_horizontalalignment("left" if right > 0 else "right" if right else "center")
    name.set_verticalalignment("bottom" if up > 0 else "top" if up else "center")
    return Text.get_window_extent(name)  # without its line


def _points(axes: Axes) -> list[tuple[float, float]]:
    """Where marks stand and lines go, in pixels."""
    found: list[tuple[float, float]] = []
    for line in axes.lines:
        places = np.asarray(line.get_transform().transform(line.get_xydata()))
        if line.get_linestyle() != "None" and len(places) > 1:
            along = np.linspace(0, len(places) - 1, _SAMPLES)
            places = np.stack([np.interp(along, range(len(places)), places[:, side]) for side in (0, 1)], axis=1)
        found += [(float(x), float(y)) for x, y in places]
    return found
