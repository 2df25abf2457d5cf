"""Figures of sweeps: some quantities over one number that settings differ in, a column per data set. Shared by the four
figures that show a sweep; which one each shows is in its own file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import cli, style
from plotting.sweeps import Series, require_sweep, sweeps
from specdec.drafters.base import Spec
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
def sweep_figure(sweep: Sweep, tables: Sequence[Table], references: Sequence[Table]) -> Figure:
    """A column per ranking, a row per quantity. UserError where nothing varies."""
    rows, columns = len(sweep.quantities), len(tables)
    height = 0.7 + 2.1 * rows
    drawn, grid = style.panels(rows, columns, height, sharex=True, sharey="row")
    for column, table in enumerate(tables):
        found = [series for kind in sweep.kinds for series in sweeps(table.rows, kind, sweep.axis)]
        require_sweep(found, " or ".join(palette.short(kind) for kind in sweep.kinds), sweep.flag)
        for row, quantity in enumerate(sweep.quantities):
            draw_quantity(grid[row][column], found, quantity)
            draw_references(grid[row][column], sweep, references, quantity)
            _label(grid[row][column], quantity, is_first=column == 0)
        grid[0][column].set_title(table.title)
        grid[-1][column].set_xlabel(sweep.x_label)
    handles = {handle.get_label(): handle for line in grid for axes in line for handle in axes.lines}
    drawn.legend(handles=list(handles.values()), loc="outside upper left", ncols=2)
    style.note(drawn, f"{engine_note(tables[0].engine)}; {full_note(tables)}")
    return drawn


def draw_quantity(axes: Axes, found: Sequence[Series], quantity: str) -> None:
    """A curve per series, its marks in their drafters' own colours."""
    for series in (whole.having(quantity) for whole in found):
        if series.xs:
            values = [row.values[quantity] for row in series.rows]
            style.curve(axes, series.xs, values, series.look, _name(series))
            style.own_marks(axes, series.xs, [one.value for one in values], series.rows)


def draw_references(axes: Axes, sweep: Sweep, references: Sequence[Table], quantity: str) -> None:
    """The reference's series in grey, whatever their kind."""
    for table in references:
        for kind in sweep.kinds:
            for series in sweeps(table.rows, kind, sweep.axis, quantity):
                values = [row.values[quantity] for row in series.rows]
                style.curve(axes, series.xs, values, palette.REFERENCE, f"{table.title}: {_name(series)}")


def main(name: str, about: str | None, sweep: Sweep, arguments: Sequence[str] | None) -> int:
    """The command of a figure that shows `sweep`."""
    return cli.run_tables(name, about, partial(sweep_figure, sweep), arguments)


def _name(series: Series) -> str:
    kind = palette.short(series.kind)
    return f"{kind}, {series.label}" if series.label else kind


def _label(axes: Axes, quantity: str, is_first: bool) -> None:
    if is_first:
        axes.set_ylabel(QUANTITY_LABELS[quantity])
    if quantity == "acceptance_rate":
        style.percent_axis(axes.yaxis)
