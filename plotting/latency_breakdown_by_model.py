"""Figure: where the time of an answer goes: drafting and verifying, per drafter, a group of bars per target.

    python -m plotting.latency_breakdown_by_model results --latency_target Qwen2.5-14B-Instruct Qwen2.5-32B-Instruct \\
        --drafters ar_None_sf_8 dllm_0.05_df_0.45_60_10 --out latency.pdf
"""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from plotting import cli, fit, style
from plotting.cli import RANKINGS, Command
from plotting.inputs import read_tables, under_engine
from specdec.errors import UserError
from specdec.ranking.table import Row, Table
from specdec.views import palette
from specdec.views.captions import full_note
from specdec.views.palette import label_of

MAX_DRAFTERS = 7
NEEDED = ("draft_ms", "verify_ms")


@style.styled
def figure(tables: Sequence[Table]) -> Figure:
    """A group of stacked bars per ranking, a bar per drafter. UserError without times or for too many drafters."""
    names = list(dict.fromkeys(one.drafter_name for table in tables for one in table.rows if one.has(*NEEDED)))
    if not names:
        raise UserError("the input has no times of drafting and verifying: give records, or parse_log.py --json's")
    if len(names) > MAX_DRAFTERS:
        raise UserError(f"{len(names)} drafters do not fit: choose {MAX_DRAFTERS} by --drafters")
    more = int(style.page().is_narrow)  # a row, for heads of two lines or three
    drawn, grid = style.panels(1, 1, 1.6 + 0.25 * len(tables) * (len(names) + 2 + more))
    axes, row, ticks = grid[0][0], 0, []
    for table in tables:
        found = {one.drafter_name: one for one in table.rows if one.has(*NEEDED)}
        whose = f"{table.target + ' on ' if table.target else ''}{table.title}; {table.engine}"
        row += more
        look: dict[str, Any] = {"fontsize": style.page().letters - 1, "weight": "bold", "gid": fit.HEAD}
        axes.annotate(whose, (0, row - more / 2), va="center", in_layout=False, **look)
        first = next((one for one in found.values() if one.has("baseline_ms")), None)
        if first is not None:
            row += 1
            seconds = first.per_question("baseline_ms").value / 1e3
            axes.barh(row, seconds, color="#DDDDDD", edgecolor=palette.GREY, label="plain")
            ticks.append((row, "plain decoding"))
        for name in (name for name in names if name in found):
            row += 1
            draw_bar(axes, row, found[name])
            ticks.append((row, found[name].own_label or label_of(name)))
        row += 1
    axes.set_yticks([place for place, _ in ticks], [label for _, label in ticks])
    axes.set_ylim(row - 0.5, -0.7)
    rows = [one for table in tables for one in table.rows]
    times = [one.per_question(name) for one in rows for name in ("total_ms", "baseline_ms") if one.has(name)]
    limits = style.framed([one.times(1e-3) for one in times]) if times else None
    axes.set_xlim(0, limits[1] if limits else None)
    axes.grid(visible=False, axis="y")
    axes.set_ylabel("drafter setting")
    axes.set_xlabel("time per question (s)")
    key = [
        Patch(facecolor="white", edgecolor="black", hatch="////", label="drafting"),
        Patch(facecolor=palette.GREY, edgecolor="black", label="verifying"),
    ]
    style.legend(drawn, {str(one.get_label()): one for one in key})
    style.note(drawn, full_note(tables))
    return drawn


def draw_bar(axes: Axes, place: int, row: Row) -> None:
    """One drafter's mean time: drafting hatched, verifying full; the interval is that of both together."""
    look = palette.look(row.spec)
    draft, verify = (row.per_question(name).value / 1e3 for name in NEEDED)
    axes.barh(place, draft, color="white", edgecolor=look.colour, hatch="////", label="drafting")
    axes.barh(place, verify, left=draft, color=look.colour, edgecolor=look.colour, label="verifying")
    total = row.per_question("total_ms") if row.has("total_ms") else None
    if total is not None and total.low is not None:
        bars: dict[str, Any] = {"marker": "", "linestyle": "", "ecolor": "black", "elinewidth": 1, "capsize": 3}
        seconds = total.times(1e-3)
        axes.errorbar([seconds.value], [place], xerr=style.reach([seconds]), label="_drafting and verifying", **bars)


def build(options: Namespace) -> Figure:
    found = under_engine(read_tables(options.inputs, cli.asked(options)), options.engine)
    return figure([*found, *cli.references(options)])


main = Command("latency_breakdown_by_model", __doc__, build, RANKINGS)

if __name__ == "__main__":
    raise SystemExit(main())
