"""Settings as points in a plane, with intervals both ways; one drawing for all figures of them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from plotting import style
from plotting.settings import Setting
from plotting.style import Look
from specdec.drafters.specs import DrafterSpec

KIND_LABELS = {
    "Plain": "plain decoding",
    "ArStatic": "AR, static",
    "ArDynamic": "AR, dynamic",
    "DllmStatic": "dLLM, static",
    "FailFast": "FailFast",
    "CostAware": "cost-aware",
}


def by_kind(settings: Sequence[Setting]) -> dict[type[DrafterSpec], list[Setting]]:
    """In the order of `style.LOOKS`, so that legends are alike."""
    found = {kind: [one for one in settings if isinstance(one.spec, kind)] for kind in style.LOOKS}
    return {kind: members for kind, members in found.items() if members}


def draw_points(axes: Axes, settings: Sequence[Setting], x: str, y: str, look: Look, label: str) -> None:
    """The quantities `x` and `y` of each setting, with their intervals as bars."""
    xs, ys = ([one.points[quantity] for one in settings] for quantity in (x, y))
    axes.errorbar(
        [point.value for point in xs],
        [point.value for point in ys],
        xerr=style.reach(xs),
        yerr=style.reach(ys),
        fmt=look.marker,
        color=look.colour,
        elinewidth=0.5,
        ecolor=(look.colour, 0.4),
        label=label,
    )


def draw_kinds(axes: Axes, settings: Sequence[Setting], x: str, y: str) -> None:
    """Each kind of drafter in its own look; settings without both quantities are left out."""
    known = [one for one in settings if one.has(x, y)]
    for kind, members in by_kind(known).items():
        draw_points(axes, members, x, y, style.LOOKS[kind], KIND_LABELS[kind.__name__])
