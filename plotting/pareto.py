"""Figure: what settings trade: acceptance length over drafter passes per round, and those that none beats in both.

Where a drafter pass and a verification cost the same everywhere, settings on one straight line are equally fast; such
lines are drawn for whole speedups.

    python -m plotting.pareto results --out pareto.pdf
"""

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import style
from plotting.cli import RANKINGS, Command, rankings
from specdec.drafters.families import kinds
from specdec.errors import UserError
from specdec.ranking.statistics import Value
from specdec.ranking.table import Row, Table
from specdec.views import palette
from specdec.views.captions import engine_note, full_note
from specdec.views.palette import label_of

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
        draw(axes, known, references)
        axes.set_title(table.title)
    shown = [[one for one in table.rows if one.has(X, Y)] for table in tables]
    passes, lengths = ([one.values[name].value for known in shown for one in known] for name in (X, Y))
    grid[0][0].set_xlim(0, max(passes) * 1.1)
    grid[0][0].set_ylim(1, max(lengths) * 1.25)
    for axes, known in zip(grid[0], shown, strict=True):
        draw_speeds(axes, known)
    style.name_axes(grid, "drafter passes per round", "acceptance length\n(tokens per round, bonus included)")
    style.legend(drawn)
    note = f"{engine_note(tables[0].engine)}; {full_note(tables, references)}"
    style.note(drawn, f"{note}, drawn for those that none beats in both")
    return drawn


def draw(axes: Axes, known: Sequence[Row], references: Sequence[Table]) -> None:
    """A mark per setting, those that no other beats in both with their names and intervals, and joined."""
    front = frontier(known)
    plain = [replace(one, values={name: Value(one.values[name].value) for name in (X, Y)}) for one in known]
    shown = [one if one in front else bare for one, bare in zip(known, plain, strict=True)]
    for kind in kinds().values():  # in the palette's order, so that legends are alike
        if members := [one for one in shown if isinstance(one.spec, kind)]:
            style.points(axes, members, X, Y, kind.title)
    for reference in references:
        if points := [one for one in reference.rows if one.has(X, Y)]:
            style.points(axes, points, X, Y, reference.title, palette.REFERENCE)
    places = [(one.values[X].value, one.values[Y].value) for one in front]
    axes.plot(*zip(*places, strict=True), color=palette.GREY, linewidth=1, zorder=1, label="beaten by none in both")
    names = [(one, label_of(one.drafter_name)) for one in named(front)]
    names += [(one, one.spec.variant) for one in known if one.spec.variant]  # what neither colour nor shape shows
    for one, name in names:
        place, colour = (one.values[X].value, one.values[Y].value), palette.family_look(type(one.spec)).colour
        style.name_point(axes, name, place, colour)


def named(front: Sequence[Row]) -> list[Row]:
    """The fastest of them, and the first and the last of each kind."""
    by_kind = [[one for one in front if isinstance(one.spec, kind)] for kind in kinds().values()]
    fastest = max(front, key=lambda one: one.number("speedup_mean") or 0.0)
    chosen = [fastest, *(one for members in by_kind if members for one in (members[0], members[-1]))]
    return [one for at, one in enumerate(chosen) if one not in chosen[:at]]


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
        label = "equal speedup" if speedup == 2 else f"_{speedup}"
        way = [0, end], [speedup, speedup * (1 + cost * end)]
        axes.plot(*way, color=palette.GREY, linestyle=":", linewidth=0.8, label=label)
        style.name_point(axes, f"{speedup}×", (0.97 * end, speedup * (1 + cost * 0.97 * end)), palette.GREY)


main = Command("pareto", __doc__, figure, RANKINGS, rankings)

if __name__ == "__main__":
    raise SystemExit(main())
