"""Cumulative distributions of whole numbers, with intervals over questions. One drawing for all figures of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from plotting.points import Point, have_intervals
from plotting.style import Look
from specdec.records import Record
from specdec.statistics import LEVEL, MIN_QUESTIONS, SEED

NUM_RESAMPLES = 2_000


def question_values(records: Sequence[Record], values: Callable[[Record], list[int]]) -> list[list[int]]:
    """The values of every question, those of a data set's question together; questions without any left out."""
    found: dict[tuple[str, int], list[int]] = {}
    for record in records:
        found.setdefault((str(record.identity["dataset"]), record.question_id), []).extend(values(record))
    return [one for one in found.values() if one]


def num_questions(records: Sequence[Record]) -> int:
    return len({(str(record.identity["dataset"]), record.question_id) for record in records})


def cdf_points(xs: Sequence[int], per_question: Sequence[Sequence[int]]) -> list[Point]:
    """The share of a question's values that are x or less, mean of the questions, with intervals over questions.

    The mean of the questions, or one endless answer would decide. The intervals are percentiles of resampled
    questions: near 0 and 1, where few questions have anything, those of `specdec/statistics.py` become infinite.

    Example: `[p.value for p in cdf_points([0, 1, 2], [[0, 1], [1, 2, 2, 2]])] == [0.25, 0.625, 1.0]`.
    """
    shares_QX = np.array([[np.mean(np.array(values) <= x) for x in xs] for values in per_question])
    values = shares_QX.mean(0).tolist()
    if len(per_question) < MIN_QUESTIONS:
        return [Point(value) for value in values]
    picks_BQ = np.random.default_rng(SEED).integers(len(shares_QX), size=(NUM_RESAMPLES, len(shares_QX)))
    low, high = np.quantile(shares_QX[picks_BQ].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Point(*point) for point in zip(values, low.tolist(), high.tolist(), strict=True)]


def draw_cdf(axes: Axes, xs: Sequence[int], per_question: Sequence[Sequence[int]], look: Look, label: str) -> None:
    """A step line, and its intervals as a band."""
    points = cdf_points(xs, per_question)
    values = [point.value for point in points]
    axes.plot(xs, values, drawstyle="steps-post", color=look.colour, linestyle=look.line, label=label)
    if have_intervals(points):
        low, high = [point.low for point in points], [point.high for point in points]
        axes.fill_between(xs, low, high, step="post", color=look.colour, alpha=0.15, linewidth=0)
    axes.set_ylim(-0.02, 1.02)
    axes.xaxis.get_major_locator().set_params(integer=True)
