"""Figures of sweeps: some quantities over one number that settings differ in, a column per data set. Shared by the four
figures that show a sweep; which one each shows is in its own file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import style
from plotting.sweeps import Series, require_sweep, sweeps
from specdec.drafters.base import Spec
from specdec.errors import UserError
from specdec.ranking.statistics import Value
from specdec.ranking.table import Table
from specdec.views import palette
from specdec.views.captions import engine_note, full_note

QUANTITY_LABELS = {
    "speedup_mean": "speedup (× plain decoding)",
    "acceptance_rate": "acceptance rate",
    "acceptance_len": "acceptance length\n(tokens per round, bonus included)",
    "passes_per_round": "drafter passes per round",
}


@dataclass(frozen=True)
class Sweep:
    """What a figure shows: these kinds of drafter along `axis`, in words `x_label`; a row per quantity."""

    kinds: tuple[type[Spec], ...]
    axis: str
    x_label: str
    quantities: tuple[str, ...]
    flag: str  # of failfast.py, that makes such settings

    @style.styled
    def figure(self, tables: Sequence[Table], references: Sequence[Table]) -> Figure:
        """A column per ranking, a row per quantity. UserError where nothing varies."""
        rows = len(self.quantities)
        drawn, grid = style.panels(rows, len(tables), 0.7 + 2.1 * rows, sharex=True, sharey="row")
        for row, quantity in enumerate(self.quantities):
            values: list[Value] = []
            for column, table in enumerate(tables):
                found = [series for kind in self.kinds for series in sweeps(table.rows, kind, self.axis)]
                require_sweep(found, " or ".join(palette.short(kind) for kind in self.kinds), self.flag)
                values += draw_quantity(grid[row][column], [one.having(quantity) for one in found], quantity)
                for one in references:
                    known = [series for kind in self.kinds for series in sweeps(one.rows, kind, self.axis, quantity)]
                    values += draw_quantity(grid[row][column], known, quantity, f"{one.title}: ")
            if not values:
                what = QUANTITY_LABELS[quantity].partition("\n")[0]
                raise UserError(f"the input does not say the {what} of any setting: give records, or a ranking of them")
            if limits := style.framed(values):
                grid[row][0].set_ylim(limits)
            if quantity == "acceptance_rate":
                style.percent_axis(grid[row][0].yaxis)
            grid[row][0].set_ylabel(QUANTITY_LABELS[quantity])
        for axes, table in zip(grid[0], tables, strict=True):
            axes.set_title(table.title)
        style.name_axes(grid, self.x_label)
        style.legend(drawn)
        style.note(drawn, f"{engine_note(tables[0].engine)}; {full_note(tables, references)}")
        return drawn


def draw_quantity(axes: Axes, found: Sequence[Series], quantity: str, reference: str = "") -> list[Value]:
    """A curve per series, its marks in their drafters' own colours; those of a reference all in grey. What it drew."""
    drawn: list[Value] = []
    for series in (one for one in found if one.rows):
        values = [row.values[quantity] for row in series.rows]
        drawn += values
        name = ", ".join(filter(None, [reference + palette.short(series.kind), series.label]))
        style.curve(axes, series.xs, values, palette.reference(series.kind) if reference else series.look, name)
        style.whole_ticks(axes.xaxis, series.xs)
        if not reference:
            style.own_marks(axes, series.xs, [one.value for one in values], series.rows)
    return drawn
