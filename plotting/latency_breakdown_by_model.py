"""Figure: where the time of an answer goes: drafting and verifying, per drafter, a group of bars per target.

    python -m plotting.latency_breakdown_by_model results --latency_target Qwen2.5-14B-Instruct Qwen2.5-32B-Instruct \
        --drafters ar_None_sf_8 dllm_0.05_df_0.45_60_10 --out latency.pdf
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from plotting import cli, style
from plotting.rankings import read_rankings
from plotting.settings import Ranking, Setting
from specdec.errors import UserError
from specdec.latency.profile import MEASURED

MAX_DRAFTERS = 7
NEEDED = ("draft_ms", "verify_ms")


@style.styled
def figure(rankings: Sequence[Ranking]) -> Figure:
    """A group of stacked bars per ranking, a bar per drafter. UserError without times or for too many drafters."""
    settings = [one for ranking in rankings for one in ranking.settings if one.has(*NEEDED)]
    names = list(dict.fromkeys(one.drafter_name for one in settings))
    if not names:
        raise UserError("the input has no times of drafting and verifying: give records, or parse_log.py --json's")
    if len(names) > MAX_DRAFTERS:
        raise UserError(f"{len(names)} drafters do not fit: choose {MAX_DRAFTERS} by --drafters")
    look = style.looks(names)
    drawn, grid = style.panels(1, 1, 1.6 + 0.25 * len(rankings) * (len(names) + 2))
    axes, row, ticks = grid[0][0], 0, []
    for ranking in rankings:
        found = {one.drafter_name: one for one in ranking.settings if one.has(*NEEDED)}
        axes.annotate(group_title(ranking), (0, row), va="center", fontsize=8, weight="bold")
        first = next((one for one in found.values() if one.has("baseline_ms")), None)
        if first is not None:
            row += 1
            draw_plain(axes, row, first)
            ticks.append((row, "plain decoding"))
        for name in (name for name in names if name in found):
            row += 1
            draw_bar(axes, row, found[name], look[name])
            ticks.append((row, found[name].own_label or style.label_of(name)))
        row += 1
    axes.set_yticks([place for place, _ in ticks], [label for _, label in ticks])
    axes.set_ylim(row - 0.5, -0.7)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.set_ylabel("drafter setting")
    axes.set_xlabel("time per question (s)")
    key = [
        Patch(facecolor="white", edgecolor="black", hatch="////", label="drafting"),
        Patch(facecolor=style.GREY, edgecolor="black", label="verifying"),
    ]
    drawn.legend(handles=key, loc="outside upper right", ncols=2)
    style.note(drawn, style.full_note(rankings))
    return drawn


def draw_bar(axes: Axes, row: int, setting: Setting, look: style.Look) -> None:
    """One drafter's mean time: drafting hatched, verifying full; the interval is that of both together."""
    draft, verify = (setting.points[name].value / 1e3 for name in NEEDED)
    axes.barh(row, draft, color="white", edgecolor=look.colour, hatch="////", label="drafting")
    axes.barh(row, verify, left=draft, color=look.colour, edgecolor=look.colour, label="verifying")
    total = setting.points.get("total_ms")
    if total is not None and total.low is not None:
        low, high = total.low / 1e3, total.high / 1e3
        axes.hlines(row, low, high, color="black", linewidth=1)
        axes.vlines([low, high], row - 0.15, row + 0.15, color="black", linewidth=1)


def draw_plain(axes: Axes, row: int, setting: Setting) -> None:
    """Plain decoding of as many tokens."""
    axes.barh(row, setting.points["baseline_ms"].value / 1e3, color="#DDDDDD", edgecolor=style.GREY, label="plain")


def group_title(ranking: Ranking) -> str:
    """Whose time it is: the questions, and the target or clock that prices them."""
    how = "measured" if ranking.engine == MEASURED else ranking.engine
    return f"{ranking.target + ' on ' if ranking.target else ''}{ranking.title}; {how}"


def build(options: Namespace) -> Figure:
    found = read_rankings(options.inputs, cli.asked(options))
    chosen = [ranking for ranking in found if options.engine in (None, ranking.engine)]
    if not chosen:
        raise UserError(f"no --engine {options.engine!r} (there are: {', '.join(one.engine for one in found)})")
    return figure([*chosen, *cli.references(options)])


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run("latency_breakdown_by_model", __doc__, build, cli.RANKING_FLAGS, arguments)


if __name__ == "__main__":
    sys.exit(main())
