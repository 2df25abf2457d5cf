"""Statistics: how far averages over questions can be believed, and which configurations they separate.

Paired throughout: all configurations answered the same questions, so a resample picks questions and takes them for
every configuration alike. Arrays only: what a configuration or a speedup is, `comparisons.py` knows.

Shape suffixes: B resamples, C configurations, K columns, Q questions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVEL = 0.95  # of every interval
POWER = 0.8  # the chance that "N more questions" do separate two configurations
MIN_QUESTIONS = 5  # fewer can be resampled, but say nothing about their own spread
NUM_RESAMPLES = 9_999  # the smallest p-value, 1 / 10,000, still passes Holm's 0.05 / 500
SEED = 20251220
_MAX_WEIGHTS = 4_000_000  # numbers held at once: 32 MB
_ROUNDING = 1e-12  # a spread below this share of its terms is rounding, and none


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and its interval at LEVEL; `p_value` is that of the value being zero.

    `p_equivalence`: that of the value being as far from zero as a margin, or farther, on either side (two one-sided
    tests, Schuirmann, J. Pharmacokin. Biopharm. 15 (1987)); 1 where no margin was asked for.
    """

    value: float
    standard_error: float
    low: float
    high: float
    p_value: float
    p_equivalence: float = 1.0


@dataclass(frozen=True)
class Value:
    """A value and its interval at LEVEL; None where there are too few questions, or a file does not say."""

    value: float
    low: float | None = None
    high: float | None = None

    def within(self, least: float, most: float) -> "Value":
        """The same with its interval cut to the possible values."""
        if self.low is None or self.high is None:
            return self
        return Value(self.value, max(self.low, least), min(self.high, most))

    def times(self, factor: float) -> "Value":
        """In another unit: of all questions instead of each, say."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Value(self.value * factor, low, high)


class PairedBootstrap:
    """Ratios of sums over questions, one per configuration, and their differences, on one set of resamples.

    The mean of a quantity is the ratio with denominators of 1. Intervals are symmetric bootstrap-t (Hall, The
    Bootstrap and Edgeworth Expansion, 1992, section 3.6: their error of coverage is of order 1/Q^2): each resample's
    error is measured in standard errors of that resample, by the delta method.
    """

    def __init__(
        self, numerators_QC: np.ndarray, denominators_QC: np.ndarray | None = None, num_resamples: int = NUM_RESAMPLES
    ) -> None:
        """Denominators (default: 1) are positive. Raises ValueError below MIN_QUESTIONS."""
        numerators_QC = np.asarray(numerators_QC, dtype=float)
        ones_QC = np.ones_like(numerators_QC)
        weights_QC = ones_QC if denominators_QC is None else np.asarray(denominators_QC, dtype=float)
        self._weights_QC = weights_QC
        self.num_questions = len(numerators_QC)
        if self.num_questions < MIN_QUESTIONS:
            raise ValueError(f"{self.num_questions} questions: at least {MIN_QUESTIONS} are needed")
        self._num_resamples = num_resamples
        self.ratios_C = numerators_QC.sum(0) / weights_QC.sum(0)
        expected_QC = self.ratios_C * weights_QC
        self._errors_QC = errors_QC = _difference(numerators_QC, expected_QC)
        self._influence_QC = errors_QC / weights_QC.mean(0)
        self._sums_BC = self._resample(errors_QC, weights_QC, errors_QC**2, errors_QC * weights_QC, weights_QC**2)
        self._shifts_BC = self._sums_BC[0] / self._sums_BC[1]  # each resample's ratio less that of all questions

    def ratios(self) -> list[Estimate]:
        """Every configuration's ratio."""
        return self._estimates(self.ratios_C, self._influence_QC, self._shifts_BC, self._squares_BC())

    def differences(self, reference: int, margin: float = 0.0) -> list[Estimate]:
        """Every configuration's ratio less that of configuration `reference` (whose own is zero, p-value 1).

        `margin`: what a difference must be smaller than for the two to count as equivalent.
        """
        sums_BC, shifts_BC, squares_BC = self._sums_BC, self._shifts_BC, self._squares_BC()
        weights_BC, their_weights_B1 = sums_BC[1], sums_BC[1][:, [reference]]
        their_shifts_B1, their_squares_B1 = shifts_BC[:, [reference]], squares_BC[:, [reference]]
        pair = self._errors_QC, self._weights_QC
        products_QC = [ours_QC * theirs_QC[:, [reference]] for ours_QC in pair for theirs_QC in pair]
        ee_BC, ew_BC, we_BC, ww_BC = self._resample(*products_QC)
        products_BC = ee_BC - their_shifts_B1 * ew_BC - shifts_BC * we_BC + shifts_BC * their_shifts_B1 * ww_BC
        products_BC *= self.num_questions**2 / (weights_BC * their_weights_B1)
        return self._estimates(
            self.ratios_C - self.ratios_C[reference],
            self._influence_QC - self._influence_QC[:, [reference]],
            _difference(shifts_BC, their_shifts_B1),
            _difference(squares_BC + their_squares_B1, 2 * products_BC),
            margin,
        )

    def _squares_BC(self) -> np.ndarray:
        """Sums of squared influences of a resample's questions upon its own ratio."""
        errors2_BC, products_BC, weights2_BC = self._sums_BC[2:]
        shifts_BC = self._shifts_BC
        squares_BC = _difference(errors2_BC + shifts_BC**2 * weights2_BC, 2 * shifts_BC * products_BC)
        return squares_BC * (self.num_questions / self._sums_BC[1]) ** 2

    def _estimates(
        self,
        values_C: np.ndarray,
        influence_QC: np.ndarray,
        shifts_BC: np.ndarray,
        squares_BC: np.ndarray,
        margin: float = 0.0,
    ) -> list[Estimate]:
        scale = 1 / (self.num_questions * (self.num_questions - 1))
        errors_C = np.sqrt((influence_QC**2).sum(0) * scale)
        spreads_BC = _in_errors(shifts_BC, np.sqrt(np.maximum(squares_BC, 0.0) * scale))
        # The interval holds exactly the values that the p-value, a rank among the resamples, does not reject.
        position = math.ceil(LEVEL * (len(spreads_BC) + 1)) - 1
        reach_C = np.partition(spreads_BC, position, axis=0)[position] * np.where(errors_C > 0, errors_C, 0.0)
        p_values_C = _rank(spreads_BC, _in_errors(values_C, errors_C))
        # Each side is tested at half the level: equivalent is what has its whole interval within the margin.
        room_C = np.maximum(margin - abs(values_C), 0.0)
        p_equivalences_C = np.where(room_C > 0, _rank(spreads_BC, _in_errors(room_C, errors_C)), 1.0)
        low_C, high_C = values_C - reach_C, values_C + reach_C
        columns = {"value": values_C, "standard_error": errors_C, "low": low_C, "high": high_C, "p_value": p_values_C}
        columns["p_equivalence"] = p_equivalences_C
        rows = zip(*(column_C.tolist() for column_C in columns.values()), strict=True)
        return [Estimate(**dict(zip(columns, row, strict=True))) for row in rows]

    def _resample(self, *columns_QC: np.ndarray) -> list[np.ndarray]:
        """Each array's sums over every resample's questions, [B, C] each; the same resamples in every call."""
        columns_QK = np.concatenate(columns_QC, axis=1)
        rng = np.random.default_rng(SEED)
        num_at_once = max(1, _MAX_WEIGHTS // self.num_questions)
        parts_BK = []
        for begin in range(0, self._num_resamples, num_at_once):
            size = min(num_at_once, self._num_resamples - begin)
            picks_BQ = rng.integers(self.num_questions, size=(size, self.num_questions))
            picks_BQ += self.num_questions * np.arange(size)[:, None]
            counts = np.bincount(picks_BQ.ravel(), minlength=size * self.num_questions)
            parts_BK.append(counts.reshape(size, -1).astype(float) @ columns_QK)
        return np.split(np.concatenate(parts_BK), len(columns_QC), axis=1)


def ratio_values(numerators_QC: np.ndarray, denominators_QC: np.ndarray) -> list[Value]:
    """Ratios of sums over questions, one per column, with intervals where they exist.

    A column without any denominator is NaN. Where a column has a question with nothing in it (denominator 0), its
    interval is over the others: they alone make its ratio.
    """
    has_any_QC = denominators_QC > 0
    if has_any_QC.all():
        return _values(numerators_QC, denominators_QC)
    made = []
    for column in range(numerators_QC.shape[1]):
        kept_Q = has_any_QC[:, column]
        made += _values(numerators_QC[kept_Q, column : column + 1], denominators_QC[kept_Q, column : column + 1])
    return made


def _values(numerators_QC: np.ndarray, denominators_QC: np.ndarray) -> list[Value]:
    if len(numerators_QC) == 0:
        return [Value(math.nan)] * numerators_QC.shape[1]
    if len(numerators_QC) < MIN_QUESTIONS:
        return [Value(float(value)) for value in numerators_QC.sum(0) / denominators_QC.sum(0)]
    return values_of(PairedBootstrap(numerators_QC, denominators_QC).ratios())


def values_of(estimates: Sequence[Estimate]) -> list[Value]:
    """Estimates without what only tests need.

    Questions that are much alike can leave too many resamples without spread: an endless interval is dropped.
    """
    return [Value(one.value, one.low, one.high) if math.isfinite(one.high) else Value(one.value) for one in estimates]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: compare each with 0.05, and any false alarm among them has a chance of 0.05 at most.

    Holm, Scand. J. Statist. 6 (1979). `holm([0.01, 0.04, 0.02]) == [0.03, 0.04, 0.04]`.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for num_smaller, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - num_smaller) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def more_questions(difference: Estimate, num_questions: int, num_comparisons: int = 1) -> int | None:
    """About how many further questions would separate two configurations, if the difference is as it looks.

    With a chance of POWER at the level of the first of `num_comparisons` Holm steps, by Student's t. None if the two
    do not differ at all, so that no number would do.

    >>> more_questions(Estimate(0.1, 0.1, -0.1, 0.3, 0.3), num_questions=50)
    345
    """
    if difference.value == 0:
        return None
    share = 1 - (1 - LEVEL) / num_comparisons / 2

    def needed(num: float) -> float:
        """Questions, if the test had the tails of `num` questions."""
        reach = student(share, max(num, MIN_QUESTIONS) - 1) + NormalDist().inv_cdf(POWER)
        return num_questions * (reach * difference.standard_error / difference.value) ** 2

    low, high = 0.0, needed(0.0)  # fewer questions have longer tails: the two meet once
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) > middle else (low, middle)
    return max(0, math.ceil(high - num_questions))


def student(share: float, freedom: float) -> float:
    """About the value that a share of Student's t with `freedom` degrees lies below (Abramowitz and Stegun, 26.7.5).

    >>> round(student(0.975, 9), 2)
    2.26
    """
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def _difference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left - right, and 0 where that is only rounding."""
    difference = left - right
    return np.where(abs(difference) <= _ROUNDING * (abs(left) + abs(right)), 0.0, difference)


def _rank(spreads_BC: np.ndarray, distances_C: np.ndarray) -> np.ndarray:
    """The share of resamples that lie as far out, or farther."""
    return (1 + (spreads_BC >= distances_C).sum(0)) / (len(spreads_BC) + 1)


def _in_errors(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """|values| / errors; without any spread, no distance is 0 and every other infinite."""
    return np.divide(abs(values), errors, out=np.where(values == 0, 0.0, np.inf), where=errors > 0)
