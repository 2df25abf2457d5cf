"""Figure: how near each policy comes to the clairvoyant, and where the rest of its time is lost.

Blue is the share of the ceiling; what follows is the time lost to drafting on for too long, to stopping too early, and
to passes that a better choice of drafter, or a kept cache, would save (`specdec/ranking/ceiling.py`).

    python -m specdec.replay results --grid paper --json > ranking.json
    python -m plotting.oracle_gap ranking.json --out gap.pdf
    python -m plotting.oracle_gap results/replayed --trace_dir results --out gap.pdf
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import cli, style
from plotting.settings import CEILING_PARTS, Ranking, Setting, engine_note
from specdec.errors import UserError

MAX_SETTINGS = 16
# Part of the time -> words, colour, hatch.
PARTS = {
    "ceiling_share": ("share of the ceiling", style.BLUE, ""),
    "over_share": ("lost: drafting on for too long", style.ORANGE, "////"),
    "under_share": ("lost: stopping too early", style.SKY, "...."),
    "passes_share": ("lost: drafter passes", "white", "\\\\\\\\"),
}


@style.styled
def figure(rankings: Sequence[Ranking]) -> Figure:
    """A panel per ranking, its best MAX_SETTINGS settings by share. UserError where no ceiling is known."""
    chosen = [best_known(ranking) for ranking in rankings]
    rows = max(map(len, chosen))
    drawn, grid = style.panels(1, len(rankings), 1.5 + 0.24 * rows, sharex=True)
    for axes, ranking, settings in zip(grid[0], rankings, chosen, strict=True):
        draw(axes, settings)
        shown = "" if len(settings) == len(ranking.settings) else f", best {len(settings)} of {len(ranking.settings)}"
        axes.set_title(f"{ranking.title}{shown}")
        axes.set_xlabel("share of the time taken")
        style.percent_axis(axes.xaxis)
    grid[0][0].set_ylabel("drafter setting")
    drawn.legend(handles=grid[0][0].get_legend_handles_labels()[0], loc="outside upper left", ncols=2)
    style.note(drawn, f"{engine_note(rankings[0].engine)}; {style.full_note(rankings)}")
    return drawn


def best_known(ranking: Ranking) -> list[Setting]:
    """The settings with a ceiling, nearest first."""
    known = [one for one in ranking.settings if one.has(*CEILING_PARTS)]
    if not known:
        raise UserError(
            "the ceiling is not known: give --trace_dir with records, or a ranking from specdec.replay --json or "
            "parse_log.py --trace_dir DIR --json"
        )
    return sorted(known, key=lambda one: -one.points["ceiling_share"].value)[:MAX_SETTINGS]


def draw(axes: Axes, settings: Sequence[Setting]) -> None:
    """A bar per setting, its parts side by side; the interval is the share's."""
    rows, left = range(len(settings)), [0.0] * len(settings)
    for part, (label, colour, hatch) in PARTS.items():
        widths = [one.points[part].value for one in settings]
        axes.barh(rows, widths, left=left, color=colour, edgecolor="#444444", linewidth=0.4, hatch=hatch, label=label)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    shares = [one.points["ceiling_share"] for one in settings]
    known = [(row, point) for row, point in zip(rows, shares, strict=True) if point.low is not None]
    if known:
        places, points = zip(*known, strict=True)
        values = [point.value for point in points]
        axes.errorbar(values, places, xerr=style.reach(points), fmt="none", ecolor="black", elinewidth=1, capsize=2)
    axes.set_yticks(rows, [style.label_of(one.drafter_name) for one in settings])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1)


def build(options: Namespace) -> Figure:
    return figure(cli.rankings(options))


def main(arguments: Sequence[str] | None = None) -> int:
    flags = [flag for flag in cli.RANKING_FLAGS if flag != "reference"]
    return cli.run("oracle_gap", __doc__, build, flags, arguments)


if __name__ == "__main__":
    sys.exit(main())
