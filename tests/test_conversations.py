"""Conversations: the turns of one row are one observation, in intervals, tests and in what more questions would do."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from test_comparisons import NAMES, entry, example

from specdec.latency.pricing import Price
from specdec.ranking.entries import Entry
from specdec.ranking.quantities import QUANTITIES
from specdec.ranking.question_sets import num_rows
from specdec.ranking.source import Source
from specdec.ranking.statistics import Value
from specdec.ranking.table import table_of
from specdec.records.turns import turn_id
from specdec.views.tables import ranking_report


def again(entries: list[Entry], num_turns: int = 2) -> list[Entry]:
    """Every question as the first of `num_turns` turns, whose numbers are all the same."""
    return [
        replace(one, question_id=turn_id(one.question_id, turn)) for turn in range(num_turns) for one in entries
    ]  # fmt: skip


def random_entries(seed: int, num_questions: int) -> list[Entry]:
    rng = random.Random(seed)
    made = []
    for question in range(num_questions):
        hardness = rng.gauss(0, 0.4)
        for place, name in enumerate(NAMES[: 2 + seed % 3]):
            tokens, rounds = rng.randint(60, 140), rng.randint(20, 50)
            total = rng.uniform(60, 140)
            counts = {"num_output_tokens": tokens, "num_rounds": rounds, "num_accepted": tokens - rounds}
            speedup = max(0.2, 2.0 + hardness - 0.15 * place + rng.gauss(0, 0.2))
            prices = {"E": Price(0.4 * total, 0.6 * total, speedup * total)}
            made.append(entry(question, name, 1.0, prices=prices, num_drafted=2 * tokens, **counts))
    return made


def said(value: Value) -> dict[str, float]:
    """What there is of a value and its interval."""
    return {name: number for name, number in vars(value).items() if number is not None}


@many(10)
@given(st.integers(0, 1000), st.integers(5, 14), st.integers(2, 3))
def test_the_same_numbers_again_say_nothing_new(seed: int, num_questions: int, num_turns: int) -> None:
    """Neither an interval nor a p value moves; sums, and their intervals, are as many times as large."""
    entries = random_entries(seed, num_questions)
    once, twice = table_of(entries, "E"), table_of(again(entries, num_turns), "E")
    assert once.num_paired == twice.num_paired == num_questions == num_rows(again(entries, num_turns))
    for before, after in zip(once.rows, twice.rows, strict=True):
        assert before.drafter_name == after.drafter_name and before.standing == after.standing
        for name, value in before.values.items():
            factor = 1 if QUANTITIES[name].per else num_turns
            assert said(after.values[name]) == pytest.approx(said(value.times(factor)), rel=1e-9), name
        for key, difference in before.differences.items():
            other = after.differences[key]
            assert vars(other.estimate) == pytest.approx(vars(difference.estimate), rel=1e-9, abs=1e-12)
            assert (other.p_holm, other.p_equivalence) == (difference.p_holm, difference.p_equivalence)
            assert other.num_more_questions == difference.num_more_questions
    assert once.num_needed == twice.num_needed


def test_independent_questions_do_narrow_it() -> None:
    """The same numbers as other rows would: that is what a turn must not count as."""
    entries = example(10)
    rows = [replace(one, question_id=one.question_id + 100) for one in entries]
    narrow, wide = (table_of([*entries, *more], "E").rows[0].values["speedup_mean"] for more in (rows, again(entries)))
    assert narrow.high - narrow.low < 0.8 * (wide.high - wide.low)


def test_turns_that_differ_are_weighed_by_their_own_numbers() -> None:
    """The ratio of sums over turns is that over questions, however they are grouped."""
    entries = random_entries(3, 24)
    turns = [replace(one, question_id=turn_id(one.question_id % 8, one.question_id // 8)) for one in entries]
    for before, after in zip(table_of(entries, "E").rows, table_of(turns, "E").rows, strict=True):
        for name, value in before.values.items():
            assert after.values[name].value == pytest.approx(value.value), name
            assert after.values[name].low <= value.value <= after.values[name].high


def test_too_few_conversations_have_no_interval() -> None:
    entries = again(example(4), 3)
    table = table_of(entries, "E")
    assert len(entries) == 4 * 12 and not table.num_paired and table.rows[0].values["speedup_mean"].low is None
    assert "Too few questions to say (4 conversations; at least 5 needed)" in ranking_report(entries)
    text = ranking_report(again(example(6)))
    assert "over 6 conversations" in text and "over 6 questions" in ranking_report(example(6))


def test_one_question_under_two_budgets_is_one_row() -> None:
    entries = example(8)
    sources = [Source("bundled", "gsm8k", budget) for budget in (64, 128)]
    both = [replace(one, source=source) for source in sources for one in entries]
    other = [replace(one, source=Source("bundled", name, 64)) for name in ("gsm8k", "math") for one in entries]
    assert (table_of(both, "E").num_paired, table_of(other, "E").num_paired) == (8, 16)
