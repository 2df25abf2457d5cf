"""Figure: one answer, from left to right. The acceptance rate of every round over its position in the output, and below
it what was drafted there: accepted, rejected, and who wrote each token in the end.

    python -m plotting.acc_rate_over_time results/pickles/bundled/gsm8k/0/ar_None_sf_8/256.pickle --out rate.pdf
"""

from argparse import Namespace
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from plotting import cli, style
from plotting.cli import DRAFTS, Command
from plotting.inputs import read_drafts
from specdec.errors import UserError
from specdec.records.record import Record, identity_path
from specdec.views import palette
from specdec.views.palette import label_of

MAX_RECORDS = 6
HEIGHT = 3.2  # inches per record


@style.styled
def figure(records: Sequence[Record]) -> Figure:
    """Two panels per record. The records have drafts; UserError for more than fit."""
    if len(records) > MAX_RECORDS:
        raise UserError(f"{len(records)} records do not fit: choose {MAX_RECORDS} by --drafters and --question_ids")
    ratios = [2, 3] * len(records)
    drawn, grid = style.panels(2 * len(records), 1, HEIGHT * len(records), gridspec_kw={"height_ratios": ratios})
    for index, record in enumerate(records):
        rate, raster = grid[2 * index][0], grid[2 * index + 1][0]
        rate.sharex(raster)
        draw_rates(rate, record)
        draw_raster(raster, record)
    style.legend(drawn, {str(one.get_label()): one for one in (*grid[0][0].lines, *raster_key())})
    return drawn


def spans(record: Record) -> list[tuple[int, int]]:
    """Where in the output each round begins and ends, in tokens: `[(0, 3), (3, 5), ...]`."""
    ends = list(accumulate(len(turn.emitted_tokens) for turn in record.rounds))
    return list(zip([0, *ends], ends, strict=False))


def draw_rates(axes: Axes, record: Record) -> None:
    """Per round a level as wide as what it emitted, and the rate of all rounds so far."""
    edges = [0, *(end for _, end in spans(record))]
    rates = [turn.acceptance_rate if turn.draft_len else float("nan") for turn in record.rounds]
    levels: dict[str, Any] = {"drawstyle": "steps-post", "color": style.ACCEPTED, "linewidth": 1.2}
    axes.plot(edges, [*rates, rates[-1]], label="acceptance rate of the round", **levels)
    accepted = accumulate(turn.accepted_len for turn in record.rounds)
    drafted = accumulate(turn.draft_len for turn in record.rounds)
    so_far = [a / d if d else float("nan") for a, d in zip(accepted, drafted, strict=True)]
    axes.plot(edges[1:], so_far, color=palette.VERMILLION, linestyle="--", label="of all rounds so far")
    axes.set_ylim(-0.04, 1.04)
    axes.set_ylabel("acceptance rate")
    axes.tick_params(labelbottom=False)
    style.percent_axis(axes.yaxis)
    dataset = record.identity.dataset
    axes.set_title(
        f"{label_of(record.drafter_name)}; {dataset}, question {record.question_id}: "
        f"{record.acceptance_rate:.1%} of {record.num_drafted} drafted tokens accepted"
    )


def draw_raster(axes: Axes, record: Record) -> None:
    """Per round a bar as wide as what it emitted: accepted tokens, on them rejected; below, who wrote each token."""
    starts = [start for start, _ in spans(record)]
    widths = [end - start for start, end in spans(record)]
    accepted = [turn.accepted_len for turn in record.rounds]
    rejected = [turn.draft_len - turn.accepted_len for turn in record.rounds]
    bar: dict[str, Any] = {"align": "edge", "edgecolor": "white", "linewidth": 0.3}
    axes.bar(starts, accepted, widths, color=style.ACCEPTED, label="accepted", **bar)
    bar |= {"hatch": style.REJECTED_HATCH, "label": "rejected"}
    axes.bar(starts, rejected, widths, accepted, color=style.REJECTED, **bar)
    height = 0.05 * max(turn.draft_len for turn in record.rounds)
    drafted = list(zip(starts, accepted, strict=True))
    own = [(start + length, 1) for (start, length), width in zip(drafted, widths, strict=True) if width > length]
    axes.broken_barh(drafted, (-1.8 * height, height), color=style.ACCEPTED, gid="drafted and accepted")
    axes.broken_barh(own, (-1.8 * height, height), color=style.CORRECTION, gid="the target's own token")
    axes.axhline(0, color=palette.GREY, linewidth=0.6)
    axes.set_xlim(0, record.num_output_tokens)
    axes.set_ylim(bottom=-2.4 * height)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("position in the output (tokens)")
    axes.set_ylabel("draft length (tokens)")


def raster_key() -> list[Patch]:
    """What the colours of drafted tokens mean."""
    return [
        Patch(facecolor=style.ACCEPTED, label="drafted and accepted"),
        Patch(facecolor=style.REJECTED, hatch=style.REJECTED_HATCH, edgecolor="white", label="drafted and rejected"),
        Patch(facecolor=style.CORRECTION, label="the target's own token"),
    ]


def write_figure(record: Record, output_dir: str | Path) -> None:
    """The record's figure at OUTPUT_DIR/figures/TARGET/DATASET/QUESTION/DRAFTER/MAX_NEW_TOKENS.png; none for a record
    that never drafted. Raises UserError."""
    if record.num_drafted:
        place = identity_path(output_dir, record.identity).relative_to(Path(output_dir, "pickles"))
        cli.save(figure([record]), Path(output_dir, "figures", place.with_suffix(".png")))


def build(options: Namespace) -> Figure:
    return figure(read_drafts(options))


main = Command("acc_rate_over_time", __doc__, build, DRAFTS)

if __name__ == "__main__":
    raise SystemExit(main())
