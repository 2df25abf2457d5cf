"""Statistics: coverage on simulated data, agreement of intervals and p-values, Holm, degenerate data, memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from specdec.ranking.statistics import MIN_QUESTIONS, Estimate, PairedBootstrap, holm, more_questions, ratio_values

pytestmark = pytest.mark.slow
NUM_SIMULATIONS = 1_000


def simulate(num_questions: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Plain and drafted ms of two configurations, [Q, 2]: skewed, of unequal length, and alike in what is hard."""
    tokens_Q, hard_Q = rng.lognormal(5, 0.5, num_questions), rng.normal(0, 0.4, num_questions)
    slowness = [
        np.exp(-0.9 - 0.6 * hard_Q + rng.normal(0, 0.15, num_questions)),
        np.exp(-0.8 - 0.8 * hard_Q + rng.normal(0, 0.2, num_questions)),
    ]
    plain_QC = np.stack([tokens_Q, tokens_Q], axis=1)
    return plain_QC, plain_QC * np.stack(slowness, axis=1)


@pytest.mark.parametrize("num_questions", [25, 100])
def test_intervals_cover_the_truth_in_93_to_97_percent(num_questions):
    plain_QC, drafted_QC = simulate(4_000_000, np.random.default_rng(0))
    truths = {"mean": (plain_QC / drafted_QC).mean(0), "ratio": plain_QC.sum(0) / drafted_QC.sum(0)}
    hits = dict.fromkeys([(name, what) for name in truths for what in ("first", "second", "difference")], 0)
    for seed in range(NUM_SIMULATIONS):
        plain_QC, drafted_QC = simulate(num_questions, np.random.default_rng([1, num_questions, seed]))
        bootstraps = {
            "mean": PairedBootstrap(plain_QC / drafted_QC, num_resamples=999),
            "ratio": PairedBootstrap(plain_QC, drafted_QC, num_resamples=999),
        }
        for name, bootstrap in bootstraps.items():
            first, second = truths[name]
            wanted = {"first": first, "second": second, "difference": second - first}
            estimates = [*bootstrap.ratios(), bootstrap.differences(0)[1]]
            for (what, truth), one in zip(wanted.items(), estimates, strict=True):
                hits[name, what] += one.low <= truth <= one.high
    assert {key: count for key, count in hits.items() if not 0.93 <= count / NUM_SIMULATIONS <= 0.97} == {}


def test_false_alarms_among_equal_configurations_are_rare():
    """Of 8 equal configurations against the first, Holm's correction lets a clear one through in about 5 % of runs."""
    alarms = 0
    for seed in range(400):
        rng = np.random.default_rng([2, seed])
        values_QC = rng.lognormal(1, 0.3, (50, 1)) + rng.normal(0, 0.5, (50, 9))
        p_values = [one.p_value for one in PairedBootstrap(values_QC, num_resamples=999).differences(0)[1:]]
        alarms += min(holm(p_values)) <= 0.05
    assert 0.01 <= alarms / 400 <= 0.08


def test_64_configurations_of_1000_questions_fit_into_256_mb():
    """Resamples are made in parts. How long it takes: tests/statistics_speed.py."""
    rng = np.random.default_rng(0)
    plain_QC = rng.lognormal(5, 0.4, (1000, 64))
    drafted_QC = plain_QC / rng.lognormal(1, 0.3, (1000, 64))
    tracemalloc.start()
    for bootstrap in (PairedBootstrap(plain_QC / drafted_QC), PairedBootstrap(plain_QC, drafted_QC)):
        assert len(bootstrap.ratios()) == len(bootstrap.differences(3)) == len(bootstrap.differences(5)) == 64
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 256e6


@given(arrays.arrays(float, st.tuples(st.integers(5, 12), st.integers(1, 4)), elements=st.floats(0.125, 9, width=16)))
@many(60)
def test_an_interval_holds_zero_exactly_where_the_p_value_does_not_reject_it(values_QC):
    bootstrap = PairedBootstrap(values_QC, num_resamples=199)
    for one in [*bootstrap.ratios(), *bootstrap.differences(0)]:
        assert one.low <= one.value <= one.high and 0 < one.p_value <= 1
        assert (one.low <= 0 <= one.high) == (one.p_value > 0.05) or one.low == one.high
    itself = bootstrap.differences(0)[0]
    assert (itself.value, itself.low, itself.high, itself.p_value) == (0, 0, 0, 1)


def test_pairing_finds_a_difference_that_the_spread_of_questions_hides():
    rng = np.random.default_rng(3)
    questions_Q = rng.lognormal(1, 0.6, 60)
    values_QC = np.stack([questions_Q, questions_Q + 0.05 + rng.normal(0, 0.02, 60)], axis=1)
    bootstrap = PairedBootstrap(values_QC)
    first, second = bootstrap.ratios()
    assert first.high > second.value and second.low < first.value  # apart, they overlap widely
    assert bootstrap.differences(0)[1].low > 0


def test_constant_data_has_no_spread_and_no_alarm_of_its_own():
    same = PairedBootstrap(np.full((10, 2), [2.0, 2.0]))
    assert all(one.low == one.value == one.high for one in same.ratios())
    assert same.differences(0)[1].p_value == 1
    apart = PairedBootstrap(np.full((10, 2), [2.0, 2.1])).differences(0)[1]
    assert apart.low == apart.high == pytest.approx(0.1) and apart.p_value < 0.001


@given(arrays.arrays(int, (5, 2), elements=st.integers(1, 30)))
@many(60)
def test_a_resample_of_one_question_alone_has_no_spread_and_not_one_of_rounding(counts_Q2):
    """Its standard error was 1e-17 instead of 0, and an interval millions wide."""
    for factor in (1, 3, 7):
        (one,) = ratio_values(*np.split(factor * counts_Q2, 2, axis=1))
        assert one.high is None or one.high < 1e4


def test_the_result_depends_on_the_data_alone():
    rng = np.random.default_rng(4)
    values_QC = rng.lognormal(1, 0.5, (30, 3))
    assert PairedBootstrap(values_QC).ratios() == PairedBootstrap(values_QC).ratios()
    alone = PairedBootstrap(values_QC[:, :1]).ratios()[0]
    assert alone.low == pytest.approx(PairedBootstrap(values_QC).ratios()[0].low, rel=1e-9)


def test_the_ratio_is_that_of_sums():
    plain_QC, drafted_QC = simulate(50, np.random.default_rng(5))
    one = PairedBootstrap(plain_QC, drafted_QC).ratios()[0]
    assert one.value == pytest.approx(plain_QC[:, 0].sum() / drafted_QC[:, 0].sum())


def test_too_few_questions_are_refused():
    with pytest.raises(ValueError, match="questions"):
        PairedBootstrap(np.ones((MIN_QUESTIONS - 1, 2)))


@given(st.lists(st.floats(0, 1), max_size=8))
@many(50)
def test_holm(p_values):
    adjusted = holm(p_values)
    assert all(raw <= one <= 1 for raw, one in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert sorted(adjusted) == [adjusted[index] for index in order]
    assert holm([0.01, 0.04, 0.02]) == [0.03, 0.04, 0.04]


def test_as_many_more_questions_as_said_do_separate_two_configurations():
    rng = np.random.default_rng(6)

    def difference(num_questions: int) -> Estimate:
        values_QC = rng.normal([3.0, 3.1], 0.35, (num_questions, 2))
        return PairedBootstrap(values_QC, num_resamples=499).differences(0)[1]

    spread = 0.35 * 2**0.5
    as_it_is = Estimate(0.1, spread / 40**0.5, 0, 0, 1)
    needed = 40 + more_questions(as_it_is, num_questions=40)
    share = sum(difference(needed).p_value <= 0.05 for _ in range(200)) / 200
    assert 0.7 <= share <= 0.9
    assert more_questions(as_it_is, 40, num_comparisons=10) > needed - 40
    assert more_questions(Estimate(0.0, 0.1, 0, 0, 1), 40) is None
    assert more_questions(Estimate(1.0, 0.01, 0, 0, 1), 40) == 0
