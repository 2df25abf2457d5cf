"""Figure: what another drafter pass buys: acceptance rate over passes per round, for static drafts of the same length.

A dLLM drafter's passes per round rise with its unmask threshold; the AR drafter takes as many as it drafts.

    python -m plotting.concavity_intuition results --out concavity.pdf
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import cli, style
from plotting.scatter import draw_points
from plotting.settings import Ranking, Setting
from plotting.sweeps import Series, require_sweep, sweeps
from specdec.drafters.specs import ArStatic, DllmStatic, number_text

X, Y = "passes_per_round", "acceptance_rate"


@style.styled
def figure(rankings: Sequence[Ranking], references: Sequence[Ranking] = ()) -> Figure:
    """A column per ranking. UserError where no threshold varies."""
    drawn, grid = style.panels(1, len(rankings), 3.6, sharex=True, sharey=True)
    for axes, ranking in zip(grid[0], rankings, strict=True):
        draw(axes, threshold_sweep(ranking), ranking.settings, style.LOOKS[DllmStatic], style.LOOKS[ArStatic])
        for reference in references:
            found = sweeps(reference.settings, DllmStatic, "unmask_threshold", X, Y)
            if found:
                look = style.REFERENCE
                draw(axes, found[0], reference.settings, look, look, f"{reference.title}: ")
        axes.set_title(ranking.title)
        axes.set_xlabel("drafter passes per round")
        style.percent_axis(axes.yaxis)
    grid[0][0].set_ylabel("acceptance rate")
    drawn.legend(handles=grid[0][0].get_legend_handles_labels()[0], loc="outside upper left", ncols=2)
    style.note(drawn, f"numbers: unmask thresholds; {style.full_note(rankings)}")
    return drawn


def threshold_sweep(ranking: Ranking) -> Series:
    """The longest series of static dLLM drafts of the same length."""
    found = sweeps(ranking.settings, DllmStatic, "unmask_threshold", X, Y)
    require_sweep(found, "the static dLLM drafter", "--drafter_thresholds")
    return found[0]


def draw(
    axes: Axes, series: Series, settings: Sequence[Setting], look: style.Look, ar_look: style.Look, prefix: str = ""
) -> None:
    """The series as a line in the order of passes, its ends named; and the AR drafter of its length."""
    ordered = sorted(zip(series.xs, series.settings, strict=True), key=lambda pair: pair[1].points[X].value)
    members = [one for _, one in ordered]
    length = number_text(series.fixed["draft_len"])
    draw_points(axes, members, X, Y, look, f"{prefix}dLLM, static {length}")
    where = [(one.points[X].value, one.points[Y].value) for one in members]
    axes.plot(*zip(*where, strict=True), color=look.colour, linestyle=look.line)
    for (threshold, _), place in ((ordered[0], where[0]), (ordered[-1], where[-1])):
        axes.annotate(number_text(threshold), place, (4, -10), textcoords="offset points", fontsize=7)
    ar = [one for one in settings if one.spec == ArStatic(int(series.fixed["draft_len"])) and one.has(X, Y)]
    if ar:
        draw_points(axes, ar, X, Y, ar_look, f"{prefix}AR, static {length}")


def build(options: Namespace) -> Figure:
    return figure(cli.rankings(options), cli.references(options))


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run("concavity_intuition", __doc__, build, cli.RANKING_FLAGS, arguments)


if __name__ == "__main__":
    sys.exit(main())
