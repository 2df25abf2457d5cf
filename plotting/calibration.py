"""Figure: whether a drafter's confidence means what it says: acceptance over the confidence that tokens were drafted
with, a panel per recorded drafter, with its expected calibration error.

Every drafted token up to the first that is rejected counts, after every prefix of the recorded texts.

    python -m plotting.calibration results --chains ar dllm_0.05 --out calibration.pdf
"""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plotting import style
from plotting.cli import Command
from plotting.inputs import read_traces
from specdec.drafters.families import kind_of_chains
from specdec.errors import UserError
from specdec.ranking.statistics import Value, ratio_values
from specdec.records.turns import row_of
from specdec.traces.calibration import expected_calibration_error, fit_curve, reliability_table, tokens_seen
from specdec.traces.trace import Trace
from specdec.views import palette
from specdec.views.captions import interval_note, questions_note

MAX_PANELS = 3
Seen = list[tuple[float, bool]]  # confidence, was accepted


@style.styled
def figure(traces: Sequence[Trace], names: Sequence[str]) -> Figure:
    """A panel for each of the chains `names`. UserError for one that a trace lacks, or that has no tokens."""
    ratios = {"height_ratios": [3, 1]}
    drawn, grid = style.panels(2, len(names), 3.8, sharex=True, sharey="row", gridspec_kw=ratios)
    for axes, shares, name in zip(*grid, names, strict=True):
        lacking = [trace.question_id for trace in traces if name not in trace.chains]
        if lacking:
            where = f"the trace of question {lacking[0]}"
            raise UserError(f"{where} has no chains {name}: record them with failfast.py --record")
        draw(axes, shares, name, list(seen_by_question(traces, name).values()))
        shares.set_xlabel("drafter's confidence")
    grid[0][0].set_ylabel("accepted tokens / tokens seen")
    grid[1][0].set_ylabel("share of\nthe tokens")
    style.legend(drawn, style.labelled(grid[0]))
    for line in grid:
        style.percent_axis(line[0].yaxis)
    has_any = len(grid[0][0].collections) > 0
    note = f"{questions_note([len(seen_by_question(traces, names[0]))])}; {interval_note(has_any)}"
    style.note(drawn, f"{', '.join(sorted({t.identity.dataset for t in traces}))}; {note}")
    return drawn


def seen_by_question(traces: Sequence[Trace], name: str) -> dict[tuple[str, int], Seen]:
    """The tokens of the chains `name`; the turns of a conversation, which hang together, are of one question."""
    found: dict[tuple[str, int], Seen] = {}
    for trace in traces:
        key = trace.identity.dataset, row_of(trace.question_id)
        found.setdefault(key, []).extend(tokens_seen(trace, name))
    return found


def draw(axes: Axes, shares: Axes, name: str, per_question: Sequence[Seen]) -> None:
    """One reliability diagram: tenths as marks with intervals, the isotonic fit and the ideal; below it, in `shares`,
    how many of the tokens each tenth has."""
    seen = [pair for one in per_question for pair in one]
    if not seen:
        raise UserError(f"the traces hold no token of {name}: record more questions")
    curve = fit_curve(seen)
    rows = reliability_table(seen, curve)
    points = [tenth_point(per_question, row) for row in rows]
    look = palette.family_look(kind_of_chains(name))
    axes.plot([0, 1], [0, 1], color=palette.GREY, linewidth=0.8, label="ideal")
    axes.plot(
        curve.confidences, curve.acceptance, color=palette.BLACK, linestyle=":", linewidth=1, label="isotonic fit"
    )
    places, values = [row["mean_confidence"] for row in rows], [point.value for point in points]
    style.marks(axes, (places, values), look, "tenths of the confidences", yerr=style.reach(points))
    heights = [row["num_tokens"] / len(seen) for row in rows]
    bar: dict[str, Any] = {"color": look.colour, "edgecolor": "white", "label": "share of the tokens"}
    shares.bar([row["low"] for row in rows], heights, 0.1, align="edge", **bar)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    shares.set_ylim(0, 1)
    axes.set_title(f"{palette.chains_label(name)}: ECE {expected_calibration_error(rows):.3f}\n{len(seen):,} tokens")


def tenth_point(per_question: Sequence[Seen], row: dict[str, float]) -> Value:
    """The acceptance rate in a tenth of the confidences, with its interval over the questions that have any there."""
    low, high = row["low"], row["high"]
    inside = [[accepted for c, accepted in seen if low <= c < high or c == high == 1.0] for seen in per_question]
    return ratio_values(
        np.array([[sum(accepted)] for accepted in inside]), np.array([[len(accepted)] for accepted in inside])
    )[0].within(0.0, 1.0)


def build(options: Namespace) -> Figure:
    traces = read_traces(options.inputs, options.question_ids)
    names = options.chains or sorted(set.intersection(*(set(trace.chains) for trace in traces)))
    if not 0 < len(names) <= MAX_PANELS:
        raise UserError(f"{len(names)} recorded drafters ({', '.join(names[:4])}): choose {MAX_PANELS} by --chains")
    return figure(traces, names)


main = Command("calibration", __doc__, build, ("chains", "question_ids"))

if __name__ == "__main__":
    raise SystemExit(main())
