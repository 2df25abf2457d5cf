"""Figure: what nodes buy: the speedup of trees over how many nodes are verified at most, a line per builder or rule,
beside them the best draft in a row, and the ceiling that no choice of nodes can beat.

A fixed number of nodes rises and falls where verification costs more with every node; a rule that stops where its
drafter is not sure, or where nodes do not pay, stays where it is best.

    failfast replay results --drafters plain dflash_sf dflash_tree dflash_tree_df --tree_nodes 4 8 16 32 64 128 256 \\
        --latency_profile PROFILE --json > ranking.json
    python -m plotting.trees ranking.json --out trees.pdf
"""

from argparse import Namespace
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from plotting import cli, style
from plotting.cli import TABLES, Command
from plotting.sweeps import Series, require_sweep, sweeps
from specdec.drafters.base import Spec
from specdec.drafters.families import kinds
from specdec.drafters.plain import Plain
from specdec.ranking.table import Row, Table
from specdec.views import palette
from specdec.views.captions import engine_note, full_note
from specdec.views.palette import Look, label_of

AXIS, SPEEDUP, SHARE = "tree_nodes", "speedup_ratio", "ceiling_share"


@style.styled
def figure(tables: Sequence[Table]) -> Figure:
    """A panel per ranking. UserError where no two trees differ in their nodes alone."""
    drawn, grid = style.panels(1, len(tables), 3.4, sharex=True, sharey=True)
    for axes, table in zip(grid[0], tables, strict=True):
        found = best_series(table.rows)
        require_sweep(found, "trees", "--tree_nodes")
        draw(axes, found, table.rows)
        axes.set_title(table.title)
    style.name_axes(grid, "nodes of a tree, at most", "speedup (× plain decoding,\nratio of times)")
    style.legend(drawn)
    style.note(drawn, f"{engine_note(tables[0].engine)}; {full_note(tables)}")
    return drawn


def tree_kinds() -> list[type[Spec]]:
    """The kinds whose drafts are trees, in the palette's order."""
    return [kind for kind in kinds().values() if kind.is_tree]


def best_series(rows: Sequence[Row]) -> list[Series]:
    """Of every kind of tree the settings that are fastest at some number of nodes, along all numbers of nodes."""
    of_kinds = [sweeps(rows, kind, AXIS, SPEEDUP) for kind in tree_kinds()]
    return [
        max(found, key=lambda one: max(row.values[SPEEDUP].value for row in one.rows)) for found in of_kinds if found
    ]


def draw(axes: Axes, found: Sequence[Series], rows: Sequence[Row]) -> None:
    """The lines of the series, and across them the best chain's and the ceiling's."""
    xs = sorted({x for series in found for x in series.xs})
    for series in found:
        values = [row.values[SPEEDUP] for row in series.rows]
        name = ", ".join(filter(None, [series.kind.title, series.label]))
        style.curve(axes, series.xs, values, series.look, name)
        style.own_marks(axes, series.xs, [one.value for one in values], series.rows)
    ends = xs[0], xs[-1]
    if chains := [row for row in rows if not row.spec.is_tree and not isinstance(row.spec, Plain) and row.has(SPEEDUP)]:
        best = max(chains, key=lambda row: row.values[SPEEDUP].value)
        level = best.values[SPEEDUP].value
        look = Look(palette.GREY, "", (0, (4, 2)))
        style.line(axes, [(x, level) for x in ends], look, label=f"best in a row: {label_of(best.drafter_name)}")
    if ceilings := [one.values[SPEEDUP].value / one.values[SHARE].value for one in rows if one.has(SPEEDUP, SHARE)]:
        look = Look(palette.BLACK, "", (0, (1, 1)))
        style.line(axes, [(x, max(ceilings)) for x in ends], look, label="ceiling: knowing the text")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(xs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(bottom=0)


def build(options: Namespace) -> Figure:
    return figure(cli.tables(options))


main = Command("trees", __doc__, build, TABLES)

if __name__ == "__main__":
    raise SystemExit(main())
