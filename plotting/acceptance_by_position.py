"""Figure: how often a draft's tokens are accepted by their position in it, of all drafts and of those that came so far,
and how many tokens of a draft are accepted, per drafter.

python -m plotting.acceptance_by_position results --drafters ar_None_sf_8 dllm_0.05_df_0.45_60_10 --out positions.pdf
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plotting import style
from plotting.cdfs import NUM_RESAMPLES, finish, read
from plotting.cli import DRAFTS, Command
from specdec.ranking.acceptance import RoundCounts
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS, SEED, Value
from specdec.records.record import Record
from specdec.records.turns import row_of
from specdec.views.palette import label_of, look_of

MIN_DRAFTS = 10  # that came to a position: a rate of fewer is noise
Counts = Callable[[RoundCounts], Sequence[int]]


@style.styled
def figure(records: Mapping[str, Sequence[Record]]) -> Figure:
    """Three panels: unconditional and conditional acceptance over the position, and the share of drafts of which
    exactly k tokens are accepted. `records` by drafter."""
    drawn, grid = style.panels(1, 3, 3.2, sharey=True)
    for name, found in records.items():
        rows = list(by_row(found).values())
        lines = (unconditional(rows), conditional(rows), accepted(rows))
        for axes, (first, values) in zip(grid[0], lines, strict=True):
            style.curve(axes, range(first, first + len(values)), values, look_of(name), label_of(name))
    place = "position in the draft (tokens)"
    heads = {
        "of all drafts\n(unconditional)": place,
        "of those that came to it\n(conditional)": place,
        "accepted of a draft\n(histogram)": "accepted tokens per round",
    }
    for axes, (title, x) in zip(grid[0], heads.items(), strict=True):
        axes.set_title(title)
        axes.set_xlabel(x)
        axes.set_ylim(-0.02, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    grid[0][0].set_ylabel("share accepted, or of drafts")
    style.percent_axis(grid[0][0].yaxis)
    about = f"rates of all rounds together, where {MIN_DRAFTS} drafts or more came; "
    return finish(drawn, grid[0], records, about)


def by_row(records: Sequence[Record]) -> dict[tuple[str, int], RoundCounts]:
    """The rounds of each row of a data set, all turns of a conversation together; rows that never drafted left out."""
    found: dict[tuple[str, int], list[RoundCounts]] = {}
    for record in records:
        found.setdefault((record.identity.dataset, row_of(record.question_id)), []).append(RoundCounts.of(record))
    united = {key: RoundCounts.united(counts) for key, counts in found.items()}
    return {key: counts for key, counts in united.items() if counts.num_drafts}


def unconditional(rows: Sequence[RoundCounts]) -> tuple[int, list[Value]]:
    """The first position, and from it on the shares of drafts that were accepted up to there."""
    num = _num_positions(rows)
    return 1, _rates(_padded(rows, lambda one: one.num_accepted_at, num), _all_drafts(rows, num))


def conditional(rows: Sequence[RoundCounts]) -> tuple[int, list[Value]]:
    """The first position, and from it on the shares accepted there of the drafts that came there."""
    num = _num_positions(rows)
    came = _padded(rows, lambda one: one.num_reached_at, num)
    return 1, _rates(_padded(rows, lambda one: one.num_accepted_at, num), came)


def accepted(rows: Sequence[RoundCounts]) -> tuple[int, list[Value]]:
    """No token, and from there on the shares of drafts of which exactly so many were accepted."""
    num = 1 + _num_positions(rows)
    return 0, _rates(_padded(rows, lambda one: one.histogram, num), _all_drafts(rows, num))


def _num_positions(rows: Sequence[RoundCounts]) -> int:
    """As far as MIN_DRAFTS drafts came, and one position at least."""
    came = RoundCounts.united(rows).num_reached_at
    return max(1, sum(count >= MIN_DRAFTS for count in came))


def _padded(rows: Sequence[RoundCounts], counts: Counts, num: int) -> np.ndarray:
    """[questions, positions]: zeros where a question has none."""
    return np.array([[*counts(one), *[0] * num][:num] for one in rows])


def _all_drafts(rows: Sequence[RoundCounts], num: int) -> np.ndarray:
    return np.array([[one.num_drafts] * num for one in rows])


def _rates(numerators_QP: np.ndarray, denominators_QP: np.ndarray) -> list[Value]:
    """Ratios of sums over questions, with intervals over questions: percentiles of resampled ones, as in `cdfs.py`."""
    values = (numerators_QP.sum(0) / denominators_QP.sum(0)).tolist()
    num_questions = len(numerators_QP)
    if num_questions < MIN_QUESTIONS:
        return [Value(value) for value in values]
    rng = np.random.default_rng(SEED)
    times_BQ = rng.multinomial(num_questions, [1 / num_questions] * num_questions, size=NUM_RESAMPLES)
    whole_BP = times_BQ @ denominators_QP
    shares_BP = np.divide(times_BQ @ numerators_QP, whole_BP, out=np.full(whole_BP.shape, np.nan), where=whole_BP > 0)
    low, high = np.nanquantile(shares_BP, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Value(*point) for point in zip(values, low.tolist(), high.tolist(), strict=True)]


main = Command("acceptance_by_position", __doc__, figure, DRAFTS, read)

if __name__ == "__main__":
    raise SystemExit(main())
