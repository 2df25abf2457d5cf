"""Regions: sets of real numbers as intervals, put in order, so that two ways of writing one are the same."""

import math
from collections.abc import Iterable
from fractions import Fraction

from specdec.questions.answers.expressions import Value, is_close
from specdec.questions.answers.tokens import NotUnderstood

Interval = tuple[float | Fraction, bool, float | Fraction, bool]  # low, whether it belongs to it, high, likewise
REALS: tuple[Interval, ...] = ((-math.inf, False, math.inf, False),)


def normal(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Without empty ones, in order, and those that touch made one.

    >>> normal([(3, False, 5, True), (1, True, 3, True)])
    ((1, True, 5, True),)
    """
    apart: list[Interval] = []
    for low, has_low, high, has_high in sorted(intervals, key=lambda one: (one[0], not one[1])):
        if low > high or (low == high and not (has_low and has_high)):
            continue
        before = apart[-1] if apart else None
        if before and (low < before[2] or (low == before[2] and (has_low or before[3]))):
            end = max((before[2], before[3]), (high, has_high))
            apart[-1] = (before[0], before[1], *end)
        else:
            apart.append((low, has_low, high, has_high))
    return tuple(apart)


def common(one: Iterable[Interval], other: Iterable[Interval]) -> tuple[Interval, ...]:
    """The intersection of two regions."""
    found = []
    for a in one:
        for b in other:
            low, has_low = max((a[0], not a[1]), (b[0], not b[1]))
            high, has_high = min((a[2], a[3]), (b[2], b[3]))
            found.append((low, not has_low, high, has_high))
    return normal(found)


def without(region: Iterable[Interval], points: Iterable[float | Fraction]) -> tuple[Interval, ...]:
    """The region without some points."""
    left = tuple(region)
    for point in points:
        left = common(left, [(-math.inf, False, point, False), (point, False, math.inf, False)])
    return left


def related(relation: str, end: Value) -> tuple[Interval, ...]:
    """All x with x RELATION end."""
    point = real(end)
    if relation == "!=":
        return without(REALS, [point])
    if relation in ("<", "<="):
        return normal([(-math.inf, False, point, relation == "<=")])
    return normal([(point, relation == ">=", math.inf, False)])


def real(value: Value | None) -> float | Fraction:
    """A value as an end of an interval. Raises NotUnderstood for one that is not real."""
    if value is None or isinstance(value, complex):
        raise NotUnderstood("not a real number")
    return value


def is_same(one: tuple[Interval, ...], other: tuple[Interval, ...]) -> bool:
    return len(one) == len(other) and all(
        a[1] == b[1] and a[3] == b[3] and is_close(a[0], b[0]) and is_close(a[2], b[2])
        for a, b in zip(one, other, strict=True)
    )
