"""Figures of sweeps: some quantities over one number that settings differ in, a column per data set. Shared by the four
figures that show a sweep; which one each shows is in its own file.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import cli, style
from plotting.settings import Ranking, engine_note
from plotting.sweeps import Series, require_sweep, sweeps
from specdec.drafters.specs import DrafterSpec

QUANTITY_LABELS = {
    "speedup_mean": "speedup (× plain decoding)",
    "acceptance_rate": "acceptance rate",
    "acceptance_len": "acceptance length\n(tokens per round, bonus included)",
    "passes_per_round": "drafter passes per round",
}
KIND_NAMES = {"ArStatic": "AR", "DllmStatic": "dLLM", "FailFast": "FailFast"}


@dataclass(frozen=True)
class Sweep:
    """What a figure shows: these kinds of drafter along `axis`, in words `x_label`; a row per quantity."""

    kinds: tuple[type[DrafterSpec], ...]
    axis: str
    x_label: str
    quantities: tuple[str, ...]
    flag: str  # of failfast.py, that makes such settings


@style.styled
def sweep_figure(sweep: Sweep, rankings: Sequence[Ranking], references: Sequence[Ranking]) -> Figure:
    """A column per ranking, a row per quantity. UserError where nothing varies."""
    rows, columns = len(sweep.quantities), len(rankings)
    height = 0.7 + 2.1 * rows
    drawn, grid = style.panels(rows, columns, height, sharex=True, sharey="row")
    for column, ranking in enumerate(rankings):
        found = [series for kind in sweep.kinds for series in sweeps(ranking.settings, kind, sweep.axis)]
        require_sweep(found, " or ".join(KIND_NAMES[kind.__name__] for kind in sweep.kinds), sweep.flag)
        for row, quantity in enumerate(sweep.quantities):
            draw_quantity(grid[row][column], found, quantity)
            draw_references(grid[row][column], sweep, references, quantity)
            _label(grid[row][column], quantity, is_first=column == 0)
        grid[0][column].set_title(ranking.title)
        grid[-1][column].set_xlabel(sweep.x_label)
    handles = {handle.get_label(): handle for line in grid for axes in line for handle in axes.lines}
    drawn.legend(handles=list(handles.values()), loc="outside upper left", ncols=2)
    style.note(drawn, f"{engine_note(rankings[0].engine)}; {style.full_note(rankings)}")
    return drawn


def draw_quantity(axes: Axes, found: Sequence[Series], quantity: str) -> None:
    """A curve per series; series of the same kind look different from each other."""
    used: set[str] = set()
    for whole in found:
        series = whole.having(quantity)
        look = style.LOOKS[series.kind]
        if look.colour in used:
            look = next((one for one in style.SPARE if one.colour not in used), look)
        used.add(look.colour)
        if series.xs:
            points = [setting.points[quantity] for setting in series.settings]
            style.curve(axes, series.xs, points, look, _name(series))


def draw_references(axes: Axes, sweep: Sweep, references: Sequence[Ranking], quantity: str) -> None:
    """The reference's series in grey, whatever their kind."""
    for ranking in references:
        for kind in sweep.kinds:
            for series in sweeps(ranking.settings, kind, sweep.axis, quantity):
                points = [setting.points[quantity] for setting in series.settings]
                style.curve(axes, series.xs, points, style.REFERENCE, f"{ranking.title}: {_name(series)}")


def main(name: str, about: str | None, sweep: Sweep, arguments: Sequence[str] | None) -> int:
    """The command of a figure that shows `sweep`."""

    def build(options: Namespace) -> Figure:
        return sweep_figure(sweep, cli.rankings(options), cli.references(options))

    return cli.run(name, about, build, cli.RANKING_FLAGS, arguments)


def _name(series: Series) -> str:
    kind = KIND_NAMES[series.kind.__name__]
    return f"{kind}, {series.label}" if series.label else kind


def _label(axes: Axes, quantity: str, is_first: bool) -> None:
    if is_first:
        axes.set_ylabel(QUANTITY_LABELS[quantity])
    if quantity == "acceptance_rate":
        style.percent_axis(axes.yaxis)
