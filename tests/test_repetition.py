"""Repetition is seen at every period, in a part of an answer, and not where there is none."""

import random

import pytest

from specdec.questions.repetition import is_degenerate, repeated_share, repeated_shares


@pytest.mark.parametrize("period", [1, 2, 7, 50, 100])
def test_a_loop_is_degenerate(period):
    assert is_degenerate((list(range(period)) * 200)[: max(6 * period, 10)])


def test_a_loop_behind_a_long_beginning_counts_by_its_share():
    beginning, loop = list(range(1000, 1100)), [1, 2, 3, 4]
    assert not is_degenerate(beginning + loop * 20)
    assert is_degenerate(beginning + loop * 40)
    assert repeated_share(beginning + loop * 25) == pytest.approx(96 / 200)


def test_plain_text_and_short_answers_are_not():
    rng = random.Random(0)
    assert not is_degenerate([rng.randrange(30) for _ in range(300)])
    assert repeated_share([]) == repeated_share([5]) == repeated_share([5, 5]) == 0.0


def test_many_texts_together_are_judged_as_one_by_one():
    rng = random.Random(1)
    texts = [[rng.randrange(4) for _ in range(rng.choice([0, 1, 7, 7, 40, 320]))] for _ in range(60)]
    assert repeated_shares(texts) == [repeated_share(text) for text in texts]
    assert repeated_shares([]) == []
