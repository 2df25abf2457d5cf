"""Figure: how near each policy comes to the clairvoyant, and where the rest of its time is lost.

Blue is the share of the ceiling; what follows is the time lost to drafting on for too long, to stopping too early, and
to passes that a better choice of drafter, or a kept cache, would save (`specdec/ranking/ceiling.py`).

    python -m specdec.replay results --grid paper --json > ranking.json
    python -m plotting.oracle_gap ranking.json --out gap.pdf
    python -m plotting.oracle_gap results/replayed --trace_dir results --out gap.pdf
"""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import cli, style
from plotting.cli import TABLES, Command
from specdec.errors import UserError
from specdec.ranking.quantities import CEILING_SHARES
from specdec.ranking.table import Row, Table
from specdec.views import palette
from specdec.views.captions import engine_note, full_note
from specdec.views.palette import label_of

MAX_SETTINGS = 16
# Part of the time -> words, colour, hatch.
PARTS = {
    "ceiling_share": ("share of the ceiling", palette.BLUE, ""),
    "over_share": ("lost: drafting on for too long", palette.ORANGE, "////"),
    "under_share": ("lost: stopping too early", palette.SKY, "...."),
    "passes_share": ("lost: drafter passes", "white", "\\\\\\\\"),
}


@style.styled
def figure(tables: Sequence[Table]) -> Figure:
    """A panel per ranking, its best MAX_SETTINGS settings by share. UserError where no ceiling is known."""
    chosen = [best_known(table) for table in tables]
    rows = max(map(len, chosen))
    drawn, grid = style.panels(1, len(tables), 1.5 + 0.24 * rows, sharex=True)
    for axes, table, settings in zip(grid[0], tables, chosen, strict=True):
        draw(axes, settings)
        shown = "" if len(settings) == len(table.rows) else f", best {len(settings)} of {len(table.rows)}"
        axes.set_title(f"{table.title}{shown}")
        style.percent_axis(axes.xaxis)
    style.name_axes(grid, "share of the time taken", "drafter setting")
    style.legend(drawn)
    style.note(drawn, f"{engine_note(tables[0].engine)}; {full_note(tables)}")
    return drawn


def best_known(table: Table) -> list[Row]:
    """The settings with a ceiling, nearest first."""
    known = [one for one in table.rows if one.has(*CEILING_SHARES)]
    if not known:
        raise UserError(
            "the ceiling is not known: give --trace_dir with records, or a ranking from specdec.replay --json or "
            "parse_log.py --trace_dir DIR --json"
        )
    return sorted(known, key=lambda one: -one.values["ceiling_share"].value)[:MAX_SETTINGS]


def draw(axes: Axes, settings: Sequence[Row]) -> None:
    """A bar per setting, its parts side by side; the interval is the share's."""
    rows, left = range(len(settings)), [0.0] * len(settings)
    for part, (label, colour, hatch) in PARTS.items():
        widths = [one.values[part].value for one in settings]
        axes.barh(rows, widths, left=left, color=colour, edgecolor="#444444", linewidth=0.4, hatch=hatch, label=label)
        left = [begin + width for begin, width in zip(left, widths, strict=True)]
    shares = [one.values["ceiling_share"] for one in settings]
    known = [(row, point) for row, point in zip(rows, shares, strict=True) if point.low is not None]
    if known:
        places, points = zip(*known, strict=True)
        values = [point.value for point in points]
        bars: dict[str, Any] = {"marker": "", "linestyle": "", "ecolor": "black", "elinewidth": 1, "capsize": 2}
        axes.errorbar(values, places, xerr=style.reach(points), label="_interval of the share of the ceiling", **bars)
    axes.set_yticks(rows, [label_of(one.drafter_name) for one in settings])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1)


def build(options: Namespace) -> Figure:
    return figure(cli.tables(options))


main = Command("oracle_gap", __doc__, build, TABLES)

if __name__ == "__main__":
    raise SystemExit(main())
