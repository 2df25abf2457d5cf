"""Points: a value with its interval over questions, as figures draw it. No matplotlib.

`specdec/ranking/statistics.py` does the statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

import numpy as np

from specdec.ranking.statistics import MIN_QUESTIONS, PairedBootstrap


@dataclass(frozen=True)
class Point:
    """A value and its 95 % interval; None where there are too few questions, or a file does not say."""

    value: float
    low: float | None = None
    high: float | None = None

    def within(self, least: float, most: float) -> Point:
        """The same with its interval cut to the possible values."""
        if self.low is None or self.high is None:
            return self
        return Point(self.value, max(self.low, least), min(self.high, most))


def ratio_points(numerators_QC: np.ndarray, denominators_QC: np.ndarray) -> list[Point]:
    """Ratios of sums over questions, one per column, with intervals where they exist.

    A column without any denominator is NaN, which no figure draws. Where a column has a question with nothing in
    it (denominator 0), its interval is over the others: they alone make its ratio.
    """
    numerators_QC, denominators_QC = (np.asarray(one, float) for one in (numerators_QC, denominators_QC))
    if (denominators_QC > 0).all():
        return _points(numerators_QC, denominators_QC)
    columns = range(numerators_QC.shape[1])
    has_any_QC = denominators_QC > 0
    return [
        point
        for c in columns
        for point in _points(numerators_QC[has_any_QC[:, c], c : c + 1], denominators_QC[has_any_QC[:, c], c : c + 1])
    ]


def _points(numerators_QC: np.ndarray, denominators_QC: np.ndarray) -> list[Point]:
    if len(numerators_QC) == 0:
        return [Point(float("nan"))] * numerators_QC.shape[1]
    if len(numerators_QC) < MIN_QUESTIONS:
        return [Point(float(value)) for value in numerators_QC.sum(0) / denominators_QC.sum(0)]
    estimates = PairedBootstrap(numerators_QC, denominators_QC).ratios()
    # Questions that are much alike can leave too many resamples without spread: an endless interval is dropped.
    return [Point(one.value, one.low, one.high) if isfinite(one.high) else Point(one.value) for one in estimates]


def have_intervals(points: Iterable[Point]) -> bool:
    """Whether any of them has one."""
    return any(point.low is not None for point in points)
