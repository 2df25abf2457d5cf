"""Figure: what settings trade: acceptance length over drafter passes per round, and those that none beats in both.

Where a drafter pass and a verification cost the same everywhere, settings on one straight line are equally fast; such
lines are drawn for whole speedups.

    python -m plotting.pareto results --out pareto.pdf
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import style
from plotting.cli import RANKINGS, Command, rankings
from specdec.drafters.families import kinds
from specdec.errors import UserError
from specdec.ranking.table import Row, Table
from specdec.views import palette
from specdec.views.captions import engine_note, full_note

X, Y = "passes_per_round", "acceptance_len"
SAME = 1e-3  # how nearly alike costs must be, to be taken for the same


@style.styled
def figure(tables: Sequence[Table], references: Sequence[Table] = ()) -> Figure:
    """A panel per ranking. UserError where passes or lengths are not known."""
    drawn, grid = style.panels(1, len(tables), 4.2, sharex=True, sharey=True)
    for axes, table in zip(grid[0], tables, strict=True):
        known = [one for one in table.rows if one.has(X, Y)]
        if not known:
            raise UserError(f"{table.title}: neither passes nor acceptance lengths are known")
        for kind in kinds().values():  # in the palette's order, so that legends are alike
            if members := [one for one in known if isinstance(one.spec, kind)]:
                style.points(axes, members, X, Y, kind.title)
                name_variants(axes, members)
        for reference in references:
            points = [one for one in reference.rows if one.has(X, Y)]
            if points:
                style.points(axes, points, X, Y, reference.title, palette.REFERENCE)
        front = frontier(known)
        places = [(one.values[X].value, one.values[Y].value) for one in front]
        axes.plot(*zip(*places, strict=True), color=palette.GREY, linewidth=1, zorder=1, label="beaten by none in both")
        axes.set_xlim(0, max(one.values[X].value for one in known) * 1.1)
        axes.set_ylim(1, max(one.values[Y].value for one in known) * 1.25)
        draw_speeds(axes, known)
        axes.set_title(table.title)
        axes.set_xlabel("drafter passes per round")
    grid[0][0].set_ylabel("acceptance length\n(tokens per round, bonus included)")
    drawn.legend(handles=grid[0][0].get_legend_handles_labels()[0], loc="outside upper left", ncols=3)
    style.note(drawn, f"{engine_note(tables[0].engine)}; {full_note(tables, references)}")
    return drawn


def name_variants(axes: Axes, settings: Sequence[Row]) -> None:
    """Say beside marks what neither their colour nor their shape shows: first windows and rules, as in names."""
    for one in settings:
        if one.spec.variant:
            place = (one.values[X].value, one.values[Y].value)
            axes.annotate(one.spec.variant, place, (4, 3), textcoords="offset points", fontsize=6)


def frontier(settings: Sequence[Row]) -> list[Row]:
    """Those that no other beats in both, by passes: fewer passes, more tokens.

    Example: of (passes, tokens) (1, 2), (2, 3), (3, 2.5) the first two.
    """
    found: list[Row] = []
    for one in sorted(settings, key=lambda one: (one.values[X].value, -one.values[Y].value)):
        if not found or one.values[Y].value > found[-1].values[Y].value:
            found.append(one)
    return found


def pass_cost(settings: Sequence[Row]) -> float | None:
    """What a drafter pass costs, in verifications; None unless it is the same for all, and verifying costs as much as
    a token of plain decoding."""
    needed = (X, Y, "draft_ms", "verify_ms", "speedup_ratio")
    costs = []
    for one in settings:
        if not one.has(*needed) or not one.values[X].value:
            return None
        passes, emitted, draft, verify, speedup = (one.values[name].value for name in needed)
        costs.append(draft / (verify * passes))
        if abs(speedup * (1 + costs[-1] * passes) / emitted - 1) > SAME:
            return None
    return costs[0] if max(costs) - min(costs) <= SAME * costs[0] else None


def draw_speeds(axes: Axes, settings: Sequence[Row]) -> None:
    """Lines of equal speed for whole speedups within the axes: length = speedup x (1 + cost x passes)."""
    cost = pass_cost(settings)
    if cost is None:
        return
    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    fastest = max(one.values["speedup_ratio"].value for one in settings)
    for speedup in range(2, int(fastest) + 2):
        end = min(right, (top / speedup - 1) / cost)
        axes.plot([0, end], [speedup, speedup * (1 + cost * end)], color=palette.GREY, linestyle=":", linewidth=0.8)
        place = (end, speedup * (1 + cost * end))
        axes.annotate(f"{speedup}×", place, (-8, -12), textcoords="offset points", fontsize=7, color=palette.GREY)


main = Command("pareto", __doc__, figure, RANKINGS, rankings)

if __name__ == "__main__":
    raise SystemExit(main())
