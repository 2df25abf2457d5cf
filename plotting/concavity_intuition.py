"""Figure: what another drafter pass buys: acceptance rate over passes per round, for static drafts of the same length.

A dLLM drafter's passes per round rise with its unmask threshold; the AR drafter takes as many as it drafts.

    python -m plotting.concavity_intuition results --out concavity.pdf
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import style
from plotting.cli import RANKINGS, Command, rankings
from plotting.sweeps import Series, require_sweep, sweeps
from specdec.drafters.ar import ArStatic
from specdec.drafters.base import number_text
from specdec.drafters.block_diffusion import DllmStatic
from specdec.ranking.table import Row, Table
from specdec.views import palette
from specdec.views.captions import full_note
from specdec.views.palette import Look

X, Y = "passes_per_round", "acceptance_rate"


@style.styled
def figure(
    tables: Sequence[Table], references: Sequence[Table] = (), *, has_ar: bool = True, width: float = style.WIDTH
) -> Figure:
    """A column per ranking, with the AR drafter or without. UserError where no threshold varies."""
    drawn, grid = style.panels(1, len(tables), 3.6, width=width, sharex=True, sharey=True)
    for axes, table in zip(grid[0], tables, strict=True):
        found = sweeps(table.rows, DllmStatic, "unmask_threshold", X, Y)
        require_sweep(found, "the static dLLM drafter", "--drafter_thresholds")
        draw(axes, found[0], table.rows if has_ar else ())  # the longest
        for reference in references:
            found = sweeps(reference.rows, DllmStatic, "unmask_threshold", X, Y)
            if found:
                rows = reference.rows if has_ar else ()
                draw(axes, found[0], rows, palette.REFERENCE, f"{reference.title}: ")
        axes.set_title(table.title)
        axes.set_xlabel("drafter passes per round")
        style.percent_axis(axes.yaxis)
    grid[0][0].set_ylabel("acceptance rate")
    drawn.legend(handles=grid[0][0].get_legend_handles_labels()[0], loc="outside upper left", ncols=2 if has_ar else 1)
    style.note(drawn, f"numbers: unmask thresholds; {full_note(tables, references)}")
    return drawn


def draw(axes: Axes, series: Series, rows: Sequence[Row], look: Look | None = None, prefix: str = "") -> None:
    """The series as a line in the order of passes, its ends named; and the AR drafter of its length. `look`: of all."""
    ordered = sorted(zip(series.xs, series.rows, strict=True), key=lambda pair: pair[1].values[X].value)
    members = [one for _, one in ordered]
    length, line = number_text(series.fixed["draft_len"]), look or series.look
    style.points(axes, members, X, Y, f"{prefix}dLLM, static {length}", look)
    where = [(one.values[X].value, one.values[Y].value) for one in members]
    style.line(axes, where, line)
    for (threshold, _), place in ((ordered[0], where[0]), (ordered[-1], where[-1])):
        axes.annotate(number_text(threshold), place, (4, -10), textcoords="offset points", fontsize=7)
    ar = [one for one in rows if one.spec == ArStatic(int(series.fixed["draft_len"])) and one.has(X, Y)]
    if ar:
        style.points(axes, ar, X, Y, f"{prefix}AR, static {length}", look)


main = Command("concavity_intuition", __doc__, figure, RANKINGS, rankings)

if __name__ == "__main__":
    raise SystemExit(main())
