"""Figure: speculative decoding in closed form, beside what settings really reach.

If every drafted token is accepted with the same probability a, k of them give (1 - a^(k+1)) / (1 - a) tokens a round,
and a speedup of that over 1 + c x passes, where a drafter pass costs c verifications (Leviathan et al., ICML 2023). An
AR drafter takes k passes. A block drafter takes one per sub-block at best, so that its speedup over k is a sawtooth if
drafts begin with a sub-block, and smooth if they begin anywhere. Both a and c come from the input.

    python -m plotting.theoretical_analysis results --out theory.pdf
"""

import math
from argparse import Namespace
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import cli, style
from plotting.cli import TABLES, Command
from plotting.pareto import pass_cost
from plotting.sweeps import Series, require_sweep, sweeps
from specdec.drafters.ar import ArStatic
from specdec.drafters.base import number_text
from specdec.drafters.block_diffusion import DllmStatic
from specdec.errors import UserError
from specdec.ranking.table import Table
from specdec.views import palette
from specdec.views.captions import engine_note, full_note

NEEDED = ("acceptance_len", "speedup_ratio", "draft_ms", "verify_ms", "passes_per_round")
STEPS = 60  # of the bisection: far below any rounding


def expected_tokens(acceptance: float, draft_len: float) -> float:
    """Tokens a round, the target's own included. Examples: `expected_tokens(0.5, 1) == 1.5`, `(1.0, 4)`: 5."""
    if acceptance == 1.0:
        return draft_len + 1.0
    return (1 - acceptance ** (draft_len + 1)) / (1 - acceptance)


def speedup(acceptance: float, draft_len: int, pass_cost: float, num_passes: float) -> float:
    """Over plain decoding. Example: `speedup(1.0, 4, 0.25, 4) == 2.5`."""
    return expected_tokens(acceptance, draft_len) / (1 + pass_cost * num_passes)


def aligned_passes(draft_len: int, sub_block: int) -> float:
    """Passes of a block drafter that begins with a sub-block. Examples: `(8, 8)` gives 1, `(9, 8)` gives 2."""
    return math.ceil(draft_len / sub_block)


def mean_passes(draft_len: int, sub_block: int) -> float:
    """The mean number of sub-blocks touched over all beginnings. Examples: `(1, 8)` gives 1, `(9, 8)` gives 2."""
    return 1 + (draft_len - 1) / sub_block


def fitted_acceptance(series: Series) -> float:
    """The a with which the closed form gives as many tokens a round as measured, summed over the settings."""
    measured = sum(one.values["acceptance_len"].value for one in series.rows)
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if sum(expected_tokens(middle, k) for k in series.xs) < measured:
            low = middle
        else:
            high = middle
    return low


@style.styled
def figure(tables: Sequence[Table], sub_block: int = 8) -> Figure:
    """Tokens a round and speedup over the draft length, for AR and block drafting. UserError without such settings."""
    if len(tables) > 1:
        raise UserError(f"{len(tables)} data sets: give only one's records, as OUTPUT_DIR/pickles/TARGET/DATASET")
    chosen = [one for kind in (ArStatic, DllmStatic) for one in sweeps(tables[0].rows, kind, "draft_len", *NEEDED)[:1]]
    require_sweep(chosen, "a static drafter", "--spec_len")
    drawn, grid = style.panels(2, len(chosen), 5.2, sharex=True, sharey="row")
    for column, series in enumerate(chosen):
        draw(grid[0][column], grid[1][column], series, sub_block)
        grid[1][column].set_xlabel("draft length k (tokens)")
    style.legend(drawn)
    grid[0][0].set_ylabel("acceptance length (tokens\nper round, bonus included)")
    grid[1][0].set_ylabel("speedup (× plain decoding,\nratio of sums)")
    style.note(drawn, f"{tables[0].title}; {engine_note(tables[0].engine)}; {full_note(tables)}")
    return drawn


def draw(tokens: Axes, speed: Axes, series: Series, sub_block: int) -> None:
    """One drafter's column: the closed forms as lines, its settings as marks."""
    acceptance, cost = fitted_acceptance(series), pass_cost(series.rows)
    if cost is None:
        raise UserError("passes or verifications of several prices: use an --engine of a profile with one price each")
    is_ar, look = series.kind is ArStatic, palette.family_look(series.kind)
    xs = list(range(1, int(max(series.xs)) + 2))
    tokens.plot(xs, [expected_tokens(acceptance, k) for k in xs], color=palette.BLACK, label="closed form")
    passes: dict[str, tuple[Callable[[int], float], object]] = {"closed form": (float, "-")}
    if not is_ar:
        passes = {
            f"one pass per sub-block of {sub_block}": (lambda k: aligned_passes(k, sub_block), "-"),
            "the same, beginning anywhere": (lambda k: mean_passes(k, sub_block), "--"),
        }
    for label, (num_passes, line) in passes.items():
        values = [speedup(acceptance, k, cost, num_passes(k)) for k in xs]
        speed.plot(xs, values, color=palette.BLACK, linestyle=line, label=label)
    for axes, quantity in ((tokens, "acceptance_len"), (speed, "speedup_ratio")):
        points = [one.values[quantity] for one in series.rows]
        places = series.xs, [point.value for point in points]
        names = [palette.label_of(one.drafter_name) for one in series.rows]
        style.marks(axes, places, look, f"{series.kind.title} k", names, yerr=style.reach(points), elinewidth=0.6)
        style.own_marks(axes, *places, series.rows)
        style.whole_ticks(axes.xaxis, series.xs)
    threshold = "" if is_ar else f" {number_text(series.fixed['unmask_threshold'])}"
    tokens.set_title(f"{palette.short(series.kind)}{threshold}: a = {acceptance:.2f}, c = {cost:.3f}")


def build(options: Namespace) -> Figure:
    return figure(cli.tables(options), options.small_block_size)


main = Command("theoretical_analysis", __doc__, build, (*TABLES, "small_block_size"))

if __name__ == "__main__":
    raise SystemExit(main())
