"""Figure: how many easy tokens come in a row: distributions of the runs between two corrections, per drafter.

An output token is easy for a drafter if the target did not have to correct it: it was accepted, or it is the bonus
after a wholly accepted draft. What was emitted without a draft ends a run, and is in none.

    python -m plotting.consecutive_easy_cdf results --drafters ar_None_sf_8 dllm_0.05_df_0.45_60_10 --out runs.pdf
"""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from plotting import style
from plotting.cdfs import draw_cdf, finish, question_values, read
from plotting.cli import DRAFTS, Command
from specdec.errors import UserError
from specdec.records.record import Record
from specdec.views.palette import label_of, look_of


@style.styled
def figure(records: Mapping[str, Sequence[Record]]) -> Figure:
    """Two panels: the share of runs, and of the easy tokens, in runs of N tokens or fewer."""
    drawn, grid = style.panels(1, 2, 3.2, sharey=True, sharex=True)
    runs = {name: question_values(found, easy_runs) for name, found in records.items()}
    if not any(runs.values()):
        raise UserError("no token in these records was easy: give records of a drafter that gets tokens accepted")
    xs = range(max(run for found in runs.values() for one in found for run in one) + 1)
    for name, found in runs.items():
        draw_cdf(grid[0][0], xs, found, look_of(name), label_of(name))
        weighted = [[run for run in one for _ in range(run)] for one in found]
        draw_cdf(grid[0][1], xs, weighted, look_of(name), label_of(name))
    style.name_axes(grid, "consecutive easy tokens (tokens)", "share in runs of as many or fewer\n(mean of questions)")
    for axes, title in zip(grid[0], ("of all runs", "of all easy tokens"), strict=True):
        axes.set_title(title)
    return finish(drawn, grid[0], records, "easy: accepted, or the bonus after a wholly accepted draft; ")


def easy_runs(record: Record) -> list[int]:
    """The lengths of the runs, in order. Example: 3 accepted and a bonus, then 2 accepted and a correction: `[6]`."""
    runs: list[int] = []
    length = 0
    for turn in record.rounds:
        length += turn.accepted_len + (turn.bonus_token is not None and turn.draft_len > 0)
        if turn.correction_token is not None or not turn.draft_len:
            runs, length = runs + [length], 0
    return [run for run in [*runs, length] if run]


main = Command("consecutive_easy_cdf", __doc__, figure, DRAFTS, read)

if __name__ == "__main__":
    raise SystemExit(main())
