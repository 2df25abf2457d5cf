"""Style: the one look that all figures share. Colours and line styles of drafters, sizes, fonts.

Colours are Okabe and Ito's, which colour-blind people can tell apart (jfly.uni-koeln.de/color); line styles, markers
and hatches say the same again for greyscale. Not here: data, and saving (`cli.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from plotting.points import Point, have_intervals
from plotting.settings import Ranking
from specdec.drafters.specs import (
    ArDynamic,
    ArStatic,
    CostAware,
    DllmStatic,
    DrafterSpec,
    FailFast,
    Plain,
    number_text,
    parse_drafter_name,
)
from specdec.errors import UserError
from specdec.ranking.statistics import LEVEL

Arguments = ParamSpec("Arguments")

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#767676"
ACCEPTED, REJECTED, CORRECTION = BLUE, ORANGE, BLACK  # dark, light and hatched, black: also in greyscale
REJECTED_HATCH = "////"
WIDTH = 7.2  # inches
RC = {
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
    "lines.markersize": 4.5,
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


@dataclass(frozen=True)
class Look:
    """How a drafter's marks look."""

    colour: str
    marker: str
    line: str | tuple


LOOKS: dict[type, Look] = {
    FailFast: Look(BLUE, "o", "-"),
    ArStatic: Look(ORANGE, "s", "--"),
    DllmStatic: Look(GREEN, "^", "-."),
    ArDynamic: Look(PURPLE, "D", ":"),
    CostAware: Look(VERMILLION, "v", (0, (5, 1, 1, 1, 1, 1))),
    Plain: Look(BLACK, "x", (0, (1, 1))),
}
SPARE = (Look(SKY, "P", (0, (4, 2))), Look(BLACK, "X", (0, (1, 1))))
REFERENCE = Look(GREY, "d", (0, (2, 1)))


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """The figure function `draw`, in the shared look, whoever calls it."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return drawn


def panels(num_rows: int, num_columns: int, height: float, **kwargs: object) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """An empty figure of the common width and its axes, [rows][columns]; `height` in inches, of all of it."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(num_rows, num_columns, squeeze=False, **kwargs)


def look_of(spec: DrafterSpec) -> Look:
    return LOOKS[type(spec)]


def looks(drafter_names: Iterable[str]) -> dict[str, Look]:
    """A look per drafter: its kind's, or one that is free where a kind comes twice. UserError when they run out."""
    found: dict[str, Look] = {}
    specs = {name: parse_drafter_name(name) for name in drafter_names}
    free = [look for look in (*SPARE, *LOOKS.values()) if look not in {look_of(spec) for spec in specs.values()}]
    for name, spec in specs.items():
        if look_of(spec) not in found.values():
            found[name] = look_of(spec)
        elif free:
            found[name] = free.pop(0)
        else:
            raise UserError(f"{len(specs)} drafters cannot be told apart in one figure: choose some by --drafters")
    return found


def label_of(drafter_name: str) -> str:
    """A drafter in words. Example: `label_of("ar_None_sf_8") == "AR, static 8"`. UserError for no drafter's name."""
    match parse_drafter_name(drafter_name):
        case Plain():
            return "plain decoding"
        case ArStatic(draft_len):
            return f"AR, static {draft_len}"
        case ArDynamic(tau, longest, step):
            return f"AR, dynamic τ {number_text(tau)}, N_max {longest}, N {step}"
        case DllmStatic(threshold, draft_len):
            return f"dLLM {number_text(threshold)}, static {draft_len}"
        case FailFast(threshold, tau, longest, step):
            unmask = "" if threshold == 0.05 else f" {number_text(threshold)}"
            return f"FailFast{unmask} τ {number_text(tau)}, N_max {longest}, N {step}"
        case CostAware(_, longest, engine):
            return f"cost-aware, N_max {longest}, {engine}"


def curve(axes: Axes, xs: Sequence[float], points: Sequence[Point], look: Look, label: str) -> None:
    """A line with markers and, where they are known, its 95 % intervals as a band."""
    line = {"color": look.colour, "marker": look.marker, "linestyle": look.line, "label": label}
    axes.plot(xs, [point.value for point in points], **line)
    known = [(x, point) for x, point in zip(xs, points, strict=True) if point.low is not None]
    if known:
        band = {"color": look.colour, "alpha": 0.15, "linewidth": 0}
        axes.fill_between([x for x, _ in known], [p.low for _, p in known], [p.high for _, p in known], **band)


def reach(points: Sequence[Point]) -> list[list[float]]:
    """The intervals of points as matplotlib's xerr or yerr: distances below and above, 0 where none is known."""
    below = [0.0 if point.low is None else point.value - point.low for point in points]
    return [below, [0.0 if point.high is None else point.high - point.value for point in points]]


def note(figure: Figure, text: str) -> None:
    """A small line under everything: what was measured or modelled, over what."""
    figure.supxlabel(text, fontsize=7, color="#444444", x=0.01, ha="left", wrap=True)


def questions_note(num_questions: Iterable[int], num_left_out: int = 0) -> str:
    """Examples: "30 questions", "1 question", "28 to 30 questions (2 degenerate left out)"."""
    counts = sorted(set(num_questions))
    if not counts:
        return "questions not counted"
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    left_out = f" ({num_left_out} degenerate left out)" if num_left_out else ""
    return f"{many} question{'' if counts == [1] else 's'}{left_out}"


def interval_note(has_intervals: bool) -> str:
    """What bands and bars are, or that there are none."""
    return f"bands and bars: {LEVEL:.0%} intervals over questions" if has_intervals else "no intervals"


def ranking_note(rankings: Sequence[Ranking]) -> str:
    """How many questions rankings are over."""
    counts = [count for ranking in rankings for count in ranking.num_questions]
    return questions_note(counts, max(ranking.num_left_out for ranking in rankings))


def full_note(rankings: Sequence[Ranking]) -> str:
    """The questions of rankings, and what their intervals are."""
    points = [point for ranking in rankings for one in ranking.settings for point in one.points.values()]
    return f"{ranking_note(rankings)}; {interval_note(have_intervals(points))}"


def percent_axis(axis: Axis) -> None:
    """Shares are shown as percentages."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def has_band(axes: Axes) -> bool:
    """Whether any interval has been drawn as a band or a bar."""
    return bool(axes.collections)
