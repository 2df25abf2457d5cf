"""Figure: how long drafts are, and how much of them is accepted: cumulative distributions over rounds, per drafter.

python -m plotting.acc_pro_len_cdf results --drafters ar_None_sf_8 dllm_0.05_df_0.45_60_10 --out lengths.pdf
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure

from plotting import style
from plotting.cdfs import draw_cdf, finish, question_values, run
from specdec.errors import UserError
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.views.palette import label_of, look_of


@style.styled
def figure(records: Mapping[str, Sequence[Record]]) -> Figure:
    """Two panels: drafted and accepted tokens per round. `records` by drafter; UserError for a single drafter."""
    if len(records) < 2:
        raise UserError("one drafter has nothing to be compared with: give records of two or more, AR and FailFast say")
    drawn, grid = style.panels(1, 2, 3.2, sharey=True)
    for axes, title, length in zip(grid[0], ("drafted", "accepted"), (_drafted, _accepted), strict=True):
        longest = max(length(turn) for found in records.values() for one in found for turn in one.rounds)
        grid_xs = range(longest + 1)
        for name, found in records.items():
            per_question = question_values(found, partial(lengths, length))
            draw_cdf(axes, grid_xs, per_question, look_of(name), label_of(name))
        axes.set_xlabel(f"tokens {title} per round")
    grid[0][0].set_ylabel("share of rounds with as many or fewer\n(mean of questions)")
    return finish(drawn, grid[0], records)


def lengths(length: Callable[[Round], int], record: Record) -> list[int]:
    """The lengths of a record's drafts."""
    return [length(turn) for turn in record.rounds if turn.draft_len]


def _drafted(turn: Round) -> int:
    return turn.draft_len


def _accepted(turn: Round) -> int:
    return turn.accepted_len


def main(arguments: Sequence[str] | None = None) -> int:
    return run("acc_pro_len_cdf", __doc__, figure, arguments)


if __name__ == "__main__":
    sys.exit(main())
