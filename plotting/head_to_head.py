"""Figure: what a round brings over what it costs: acceptance length over the cost of a round in target passes, drafting
and verifying, of drafters that were trained alike. A speedup is the one over the other, so that settings on one line
through the origin are equally fast.

    python -m experiments.heads_table TUNING HELD_OUT ... > heads.json
    python -m plotting.head_to_head heads.json --out heads.pdf

A line is every static length of a drafter; marks are the length and the policies that were tuned on other questions.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import style
from plotting.cli import Command
from specdec.errors import MALFORMED, UserError
from specdec.ranking.scopes import ALL
from specdec.ranking.statistics import Value
from specdec.ranking.table_files import is_finite, read_json
from specdec.records.fields import is_count
from specdec.text import named
from specdec.views import palette
from specdec.views.palette import Look

X, Y = "round_cost", "acceptance_len"
GROUP = "alike"
MOST = 1000  # tokens of a round, and times plain decoding
MARKERS = {"static": "o", "FailFast's rule": "*", "cost-aware": "d"}  # a mark per policy
SIZES = {"*": 9.0}  # points, of marks that are smaller than others of their size
Rows = Sequence[Mapping[str, Any]]


@style.styled
def figure(panels: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel per target. UserError for more drafters than there are colours."""
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel["lines"]))
    if len(names) > len(palette.SERIES):
        raise UserError(f"{len(names)} drafters do not fit: give at most {len(palette.SERIES)}")
    looks = dict(zip(names, palette.SERIES, strict=False))
    drawn, grid = style.panels(1, len(panels), 4.2, sharey=True)
    for axes, (target, panel) in zip((one for line in grid for one in line), panels.items(), strict=True):
        draw(axes, panel, looks)
        axes.set_title(f"as if {target}")
    top = 1.05 * max(one[f"{Y}_high"] or one[Y] for panel in panels.values() for one in marked(panel))
    for axes, panel in zip(drawn.axes, panels.values(), strict=True):
        draw_speeds(axes, marked(panel), top)
    style.name_axes(grid, "cost of a round (target passes)", "acceptance length\n(tokens per round, bonus included)")
    style.legend(drawn)
    style.note(drawn, "; ".join(dict.fromkeys(panel["note"] for panel in panels.values())))
    return drawn


def draw(axes: Axes, panel: Mapping[str, Any], looks: Mapping[str, Look]) -> None:
    lines, points = panel["lines"], panel["points"]
    for name, own in lines.items():
        axes.plot(*places(own), color=looks[name].colour, linewidth=1, alpha=0.6, label=name)
    for policy, marker in MARKERS.items():
        for name, own in points.get(policy, {}).items():
            value = Value(own[Y], own[f"{Y}_low"], own[f"{Y}_high"])
            more = {"markersize": SIZES.get(marker, style.MARK), "elinewidth": 0.5, "yerr": style.reach([value])}
            label = f"_{name}, {policy}"
            style.marks(axes, places([own]), Look(looks[name].colour, marker), label, [label[1:]], **more)
        if points.get(policy):
            axes.plot([], [], marker=marker, color=palette.GREY, linestyle="", label=f"best {policy}")


def marked(panel: Mapping[str, Any]) -> Rows:
    return [one for named in panel["points"].values() for one in named.values()]


def places(rows: Rows) -> tuple[list[float], list[float]]:
    return [one[X] for one in rows], [one[Y] for one in rows]


def draw_speeds(axes: Axes, rows: Rows, top: float) -> None:
    """Axes that hold these marks, up to `top`, and on them lines of equal speed for whole speedups."""
    right = 1.25 * max(one[X] for one in rows)
    axes.set_xlim(1, right)
    axes.set_ylim(1, top)
    for speedup in range(1, int(max(one["speedup_ratio"] for one in rows)) + 2):
        end = min(right, top / speedup)
        if end <= 1:
            break
        label = "equal speedup" if speedup == 1 else f"_{speedup}"
        axes.plot([1, end], [speedup, speedup * end], color=palette.GREY, linestyle=":", linewidth=0.8, label=label)
        at = 1 + 0.96 * (end - 1)
        style.name_point(axes, f"{speedup}×", (at, speedup * at), palette.GREY)


def read(options: Namespace) -> list[Mapping[str, Any]]:
    """Of one file: target -> the lines and the points of its panel. Raises UserError for another file."""
    if len(options.inputs) != 1:
        raise UserError("give one file: drafters of two trainings are not alike")
    try:
        return [_panels(read_json(options.inputs[0]))]
    except MALFORMED:
        how = "give what experiments.heads_table printed"
        raise UserError(f"{options.inputs[0]} holds no drafters head to head: {how}") from None


def _panels(document: Mapping[str, Any]) -> dict[str, Any]:
    made = {}
    for target, one in document["targets"].items():
        points: dict[str, dict[str, Any]] = {}
        rows = one["rankings"][GROUP]["policies"][ALL]
        if not all(map(_is_point, (*rows, *(row for length in one["lengths"].values() for row in length)))):
            raise ValueError(f"what is drawn is not above 0 and below {MOST}")
        for row in rows:
            name, _, policy = row["drafter"].partition(": ")
            points.setdefault(policy, {})[named(name)] = row
        lines = {named(name): one["lengths"][name] for name in document["groups"][GROUP]}
        if not {name for by_name in points.values() for name in by_name} <= lines.keys():
            raise ValueError("a drafter without its lengths")
        if not is_count(rows[0]["num_questions"]):
            raise ValueError("num_questions")
        asked = f"{rows[0]['num_questions']} questions that nothing was tuned on"
        said = (
            f"modelled by {named(document['profile']['name'])}, over {asked}; intervals of the acceptance length: 95 %"
        )
        made[named(target)] = {"lines": lines, "points": points, "note": said}
    if not made:
        raise ValueError("no target")
    return made


def _is_point(row: Mapping[str, Any]) -> bool:
    """Whether a setting of a drafter has its place in the figure."""
    ends = (row.get(f"{Y}_{end}") for end in ("low", "high"))
    is_placed = all(is_finite(row[key]) and 0 < row[key] < MOST for key in (X, Y, "speedup_ratio"))
    return is_placed and all(end is None or is_finite(end) for end in ends)


main = Command("head_to_head", __doc__, figure, read=read, takes="what experiments.heads_table printed")

if __name__ == "__main__":
    raise SystemExit(main())
