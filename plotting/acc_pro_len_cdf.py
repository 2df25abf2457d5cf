"""Figure: how long drafts are, and how much of them is accepted: cumulative distributions over rounds, per drafter.

python -m plotting.acc_pro_len_cdf results --drafters ar_None_sf_8 dllm_0.05_df_0.45_60_10 --out lengths.pdf
"""

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure

from plotting import style
from plotting.cdfs import draw_cdf, finish, question_values, read
from plotting.cli import DRAFTS, Command
from specdec.errors import UserError
from specdec.records.record import Record
from specdec.views.palette import label_of, look_of

LENGTHS = {"drafted": "draft_len", "accepted": "accepted_len"}  # what of a round each panel shows


@style.styled
def figure(records: Mapping[str, Sequence[Record]]) -> Figure:
    """Two panels: drafted and accepted tokens per round. `records` by drafter; UserError for a single drafter."""
    if len(records) < 2:
        raise UserError("one drafter has nothing to be compared with: give records of two or more, AR and FailFast say")
    drawn, grid = style.panels(1, 2, 3.2, sharey=True)
    for axes, (title, length) in zip(grid[0], LENGTHS.items(), strict=True):
        longest = max(getattr(turn, length) for found in records.values() for one in found for turn in one.rounds)
        grid_xs = range(longest + 1)
        for name, found in records.items():
            per_question = question_values(found, partial(lengths, length))
            draw_cdf(axes, grid_xs, per_question, look_of(name), label_of(name))
        axes.set_xlabel(f"tokens {title} per round")
    style.name_axes(grid, y="share of rounds with as many or fewer\n(mean of questions)")
    return finish(drawn, grid[0], records)


def lengths(length: str, record: Record) -> list[int]:
    """The lengths of a record's drafts."""
    return [getattr(turn, length) for turn in record.rounds if turn.draft_len]


main = Command("acc_pro_len_cdf", __doc__, figure, DRAFTS, read)

if __name__ == "__main__":
    raise SystemExit(main())
