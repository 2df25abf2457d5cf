"""Cumulative distributions of whole numbers, with intervals over questions: what all figures of them share."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plotting import style
from plotting.inputs import by_drafter, read_drafts
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS, SEED, Value
from specdec.records.record import Record
from specdec.records.turns import row_of
from specdec.views.captions import interval_note, questions_note
from specdec.views.palette import Look

NUM_RESAMPLES = 2_000
MAX_DRAFTERS = 6

Records = Mapping[str, Sequence[Record]]


def read(options: Namespace) -> tuple[Records]:
    """The records of a few drafters. Raises UserError for more."""
    return (by_drafter(read_drafts(options), MAX_DRAFTERS),)


def finish(drawn: Figure, panels: Sequence[Axes], records: Records, about: str = "") -> Figure:
    """The key, above the panels, and the note: `about`, over which questions, and with which intervals."""
    style.legend(drawn)
    datasets = ", ".join(sorted({record.identity.dataset for found in records.values() for record in found}))
    questions = questions_note(len(question_values(found, lambda _: [0])) for found in records.values())
    style.note(drawn, f"{about}{datasets}; {questions}; {interval_note(bool(panels[0].collections))}")
    return drawn


def question_values(records: Sequence[Record], values: Callable[[Record], list[int]]) -> list[list[int]]:
    """The values of every question, the turns of a conversation together; questions without any left out."""
    found: dict[tuple[str, int], list[int]] = {}
    for record in records:
        found.setdefault((record.identity.dataset, row_of(record.question_id)), []).extend(values(record))
    return [one for one in found.values() if one]


def cdf_points(xs: Sequence[int], per_question: Sequence[Sequence[int]]) -> list[Value]:
    """The share of a question's values that are x or less, mean of the questions, with intervals over questions.

    The mean of the questions, or one endless answer would decide. The intervals are percentiles of resampled
    questions: near 0 and 1, where few questions have anything, those of `ranking/statistics.py` become infinite.

    Example: `[p.value for p in cdf_points([0, 1, 2], [[0, 1], [1, 2, 2, 2]])] == [0.25, 0.625, 1.0]`.
    """
    shares_QX = np.array([[np.mean(np.array(values) <= x) for x in xs] for values in per_question])
    values = shares_QX.mean(0).tolist()
    if len(per_question) < MIN_QUESTIONS:
        return [Value(value) for value in values]
    picks_BQ = np.random.default_rng(SEED).integers(len(shares_QX), size=(NUM_RESAMPLES, len(shares_QX)))
    low, high = np.quantile(shares_QX[picks_BQ].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Value(*point) for point in zip(values, low.tolist(), high.tolist(), strict=True)]


def draw_cdf(axes: Axes, xs: Sequence[int], per_question: Sequence[Sequence[int]], look: Look, label: str) -> None:
    """A step line, and its intervals as a band."""
    points = cdf_points(xs, per_question)
    places = [(x, point.value) for x, point in zip(xs, points, strict=True)]
    style.line(axes, places, look, drawstyle="steps-post", label=label)
    style.band(axes, xs, points, look, label, "post")
    axes.set_ylim(-0.02, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 4, 5, 10]))
