"""Same: whether two readings of answers are one answer. It reads no text; what it is not sure of is not the same."""

from collections.abc import Callable, Sequence
from typing import Any

from specdec.questions.answers import regions, units
from specdec.questions.answers.expressions import MIN_POINTS, is_close, is_equal
from specdec.questions.answers.kinds import (
    Based,
    Equation,
    Items,
    Matrix,
    Named,
    Quantity,
    Ratio,
    Reading,
    Region,
    Values,
    Words,
)
from specdec.questions.answers.readings import region_of


def is_any_same(ours: Sequence[Reading], theirs: Sequence[Reading]) -> bool:
    """Whether one of our readings is one of theirs."""
    return any(is_same(one, other) for one in ours for other in theirs)


def is_same(one: Reading, other: Reading) -> bool:
    if type(one) is type(other):
        return _OF_A_KIND[type(one)](one, other)
    return _is_across(one, other) or _is_across(other, one)


def _is_across(one: Reading, other: Reading) -> bool:
    """Two kinds: a name does not count where the other has none; an interval is a region; 3:4 is a fraction."""
    if isinstance(one, Named):
        if isinstance(other, Equation):
            return one.values is not None and other.relation == "=" and _is_multiple(one.values, other.values, False)
        return is_any_same(one.readings, (other,))
    if isinstance(one, Region) and isinstance(other, Items):
        area = region_of(other)
        return area is not None and regions.is_same(one.intervals, area.intervals)
    if isinstance(one, Ratio) and isinstance(other, Quantity):
        is_fraction = len(one.parts) == 2 and not one.may_be_time and one.parts[1] != 0
        return is_fraction and is_equal((one.parts[0] / one.parts[1],), other.values)
    return False


def _quantities(one: Quantity, other: Quantity) -> bool:
    return units.may_agree(one.unit, other.unit) and is_equal(one.values, other.values)


def _words(one: Words, other: Words) -> bool:
    return one.text == other.text


def _numerals(one: Based, other: Based) -> bool:
    return one == other


def _ratios(one: Ratio, other: Ratio) -> bool:
    if one.half and other.half and one.half != other.half:
        return False
    if len(one.parts) == len(other.parts) and all(map(is_close, one.parts, other.parts)):
        return True
    if one.may_be_time or other.may_be_time or len(one.parts) != 2 or len(other.parts) != 2:
        return False
    return is_close(one.parts[0] * other.parts[1], other.parts[0] * one.parts[1])


def _named(one: Named, other: Named) -> bool:
    if one.name == other.name and is_any_same(one.readings, other.readings):
        return True
    return one.values is not None and other.values is not None and _is_multiple(one.values, other.values, False)


def _equations(one: Equation, other: Equation) -> bool:
    return one.relation == other.relation and _is_multiple(one.values, other.values, one.relation != "=")


def _is_multiple(ours: Values, theirs: Values, is_positive: bool) -> bool:
    """Whether one side is the other times a constant, which keeps an equation, and an inequality if it is positive."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a is not None and b is not None]
    if len(pairs) < MIN_POINTS or any((a == 0) != (b == 0) for a, b in pairs):
        return False
    factors = [a / b for a, b in pairs if b != 0]
    if len(factors) < MIN_POINTS or not all(is_close(factor, factors[0]) for factor in factors):
        return False
    return not is_positive or (not isinstance(factors[0], complex) and factors[0] > 0)


def _regions(one: Region, other: Region) -> bool:
    is_one_name = not one.name or not other.name or one.name == other.name
    return is_one_name and regions.is_same(one.intervals, other.intervals)


def _sequences(one: Items, other: Items) -> bool:
    """Tuples item by item, with the same brackets; sets and lists in any order."""
    kinds = {one.kind, other.kind}
    if kinds == {"list", "()"}:
        return _is_point(one, other) or _is_point(other, one)
    if not kinds <= {"list", "set"}:
        same_kind = len(kinds) == 1 or kinds == {"()", "<<>>"}
        return same_kind and len(one.items) == len(other.items) and all(map(is_any_same, one.items, other.items))
    if kinds == {"set"}:
        return all(_has(other, item) for item in one.items) and all(_has(one, item) for item in other.items)
    if len(one.items) != len(other.items):
        return False
    if _is_ordered_by_name(one, other) or _is_ordered_by_name(other, one):
        return all(map(is_any_same, one.items, other.items))
    left = list(other.items)
    for item in one.items:
        match = next((at for at, candidate in enumerate(left) if is_any_same(item, candidate)), None)
        if match is None:
            return False
        del left[match]
    return True


def _has(items: Items, wanted: tuple[Reading, ...]) -> bool:
    return any(is_any_same(item, wanted) for item in items.items)


def _is_ordered_by_name(one: Items, other: Items) -> bool:
    """AB=9, CD=4 against 9, 4: what is not named stands in the order of the names."""
    names = {reading.name for item in one.items for reading in item if isinstance(reading, Named)}
    return len(names) > 1 and not any(isinstance(reading, Named) for item in other.items for reading in item)


def _is_point(one: Items, other: Items) -> bool:
    """x=3, y=4 against (3, 4): a point has its coordinates in the order of their names."""
    named = [next((reading for reading in item if isinstance(reading, Named)), None) for item in one.items]
    known = sorted((reading for reading in named if reading is not None), key=lambda reading: reading.name)
    letters = {reading.name for reading in known if len(reading.name) == 1}
    if other.kind != "()" or not len(letters) == len(named) == len(other.items):
        return False
    return all(is_any_same(reading.readings, item) for reading, item in zip(known, other.items, strict=True))


def _matrices(one: Matrix, other: Matrix) -> bool:
    if one.kind != other.kind or [len(row) for row in one.rows] != [len(row) for row in other.rows]:
        return False
    return all(all(map(is_any_same, ours, theirs)) for ours, theirs in zip(one.rows, other.rows, strict=True))


_OF_A_KIND: dict[type, Callable[[Any, Any], bool]] = {
    Quantity: _quantities,
    Words: _words,
    Based: _numerals,
    Ratio: _ratios,
    Named: _named,
    Equation: _equations,
    Region: _regions,
    Items: _sequences,
    Matrix: _matrices,
}
