"""Figure: where text is easy and where it is hard: one row per question, one cell per output token, by who wrote it.

python -m plotting.difficulty_intuition results --drafters dllm_0.05_df_0.45_60_10 --out difficulty.pdf
"""

from argparse import Namespace
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from plotting import style
from plotting.acc_rate_over_time import spans
from plotting.cli import DRAFTS, Command
from plotting.inputs import by_drafter, read_drafts
from specdec.errors import UserError
from specdec.records.record import Record
from specdec.views import palette
from specdec.views.palette import label_of

MAX_QUESTIONS = 30
COLOURS = {"accepted": style.ACCEPTED, "bonus": palette.SKY, "the target's correction": style.CORRECTION}


@style.styled
def figure(records: Sequence[Record]) -> Figure:
    """A row per record, all of the same drafter. UserError for more than fit."""
    if len(records) > MAX_QUESTIONS:
        raise UserError(f"{len(records)} questions do not fit: choose {MAX_QUESTIONS} by --question_ids")
    drawn, grid = style.panels(1, 1, 1.2 + 0.2 * len(records))
    axes = grid[0][0]
    for row, record in enumerate(records):
        draw_row(axes, row, record)
    axes.set_yticks(range(len(records)), [f"{one.identity.dataset} {one.question_id}" for one in records])
    axes.set_ylim(len(records) - 0.4, -0.6)
    axes.grid(False)
    axes.set_xlim(0, max(record.num_output_tokens for record in records))
    axes.set_xlabel("position in the output (tokens)")
    axes.set_ylabel("question")
    axes.set_title(label_of(records[0].drafter_name))
    style.legend(drawn, {fate: Patch(facecolor=colour) for fate, colour in COLOURS.items()})
    return drawn


def draw_row(axes: Axes, row: int, record: Record) -> None:
    """One question's tokens as cells, 1 token wide."""
    rounds = list(zip(spans(record), record.rounds, strict=True))
    cells = {
        "accepted": [(start, turn.accepted_len) for (start, _), turn in rounds if turn.accepted_len],
        "bonus": [(end - 1, 1) for (_, end), turn in rounds if turn.bonus_token is not None],
        "the target's correction": [(end - 1, 1) for (_, end), turn in rounds if turn.correction_token is not None],
    }
    for fate, colour in COLOURS.items():
        axes.broken_barh(cells[fate], (row - 0.36, 0.72), facecolor=colour, linewidth=0, gid=fate)


def build(options: Namespace) -> Figure:
    return figure(*by_drafter(read_drafts(options), at_most=1).values())


main = Command("difficulty_intuition", __doc__, build, DRAFTS)

if __name__ == "__main__":
    raise SystemExit(main())
