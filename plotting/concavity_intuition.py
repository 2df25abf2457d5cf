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
                draw(axes, found[0], rows, f"{reference.title}: ")
        axes.set_title(table.title)
        style.percent_axis(axes.yaxis)
    rows = [row for table in tables for row in table.rows if row.has(X, Y)]
    if limits := style.framed([row.values[Y] for row in rows]):
        grid[0][0].set_ylim(limits)
    style.name_axes(grid, "drafter passes per round", "acceptance rate")
    style.legend(drawn)
    style.note(drawn, full_note(tables, references))
    return drawn


def draw(axes: Axes, series: Series, rows: Sequence[Row], reference: str = "") -> None:
    """The series as a line in the order of passes, its ends named; and the AR drafter of its length. Of a `reference`,
    which its labels begin with, all in grey."""
    ordered = sorted(zip(series.xs, series.rows, strict=True), key=lambda pair: pair[1].values[X].value)
    members = [one for _, one in ordered]
    length, look = number_text(series.fixed["draft_len"]), palette.reference(series.kind) if reference else None
    style.points(axes, members, X, Y, f"{reference}dLLM, static {length}", look)
    where = [(one.values[X].value, one.values[Y].value) for one in members]
    style.line(axes, where, look or series.look)
    for (threshold, _), place in ((ordered[0], where[0]), (ordered[-1], where[-1])):
        style.name_point(axes, f"unmask {number_text(threshold)}", place, (look or series.look).colour)
    ar = [one for one in rows if one.spec == ArStatic(int(series.fixed["draft_len"])) and one.has(X, Y)]
    if ar:
        grey = palette.reference(ArStatic) if reference else None
        style.points(axes, ar, X, Y, f"{reference}AR, static {length}", grey)


main = Command("concavity_intuition", __doc__, figure, RANKINGS, rankings)

if __name__ == "__main__":
    raise SystemExit(main())
