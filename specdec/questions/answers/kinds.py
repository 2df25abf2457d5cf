"""Kinds: what an answer can be, as values that can be compared. They neither read a text nor compare."""

from __future__ import annotations

from dataclasses import dataclass

from specdec.questions.answers.expressions import Value
from specdec.questions.answers.regions import Interval
from specdec.questions.answers.units import Unit

Values = tuple[Value | None, ...]


@dataclass(frozen=True)
class Quantity:
    """A value, or an expression's values at the fixed points, with what it is measured in."""

    values: Values
    unit: Unit | None = None


@dataclass(frozen=True)
class Words:
    """What is not a value: a name, a day, the letter of an option."""

    text: str


@dataclass(frozen=True)
class Based:
    """Digits in a base that is not ten."""

    digits: str
    base: int


@dataclass(frozen=True)
class Ratio:
    """3:4, or a time of day; `half` is "am", "pm" or ""."""

    parts: tuple[Value, ...]
    half: str
    may_be_time: bool


@dataclass(frozen=True)
class Named:
    """x = 5, f(x) = 2x + 3, x in [1, 2]; `values`: of name minus value, where it is an equation."""

    name: str
    readings: tuple[Reading, ...]
    values: Values | None


@dataclass(frozen=True)
class Equation:
    """Left side minus right side; `relation` is "=", "<" or "<="."""

    values: Values
    relation: str


@dataclass(frozen=True)
class Region:
    """A set of real numbers, in its normal form; `name`: the x of x > 3."""

    intervals: tuple[Interval, ...]
    name: str = ""


@dataclass(frozen=True)
class Items:
    """Items, each with its readings. `kind`: "list", "set", or the two brackets of a tuple or an interval."""

    kind: str
    items: tuple[tuple[Reading, ...], ...]


@dataclass(frozen=True)
class Matrix:
    """`kind`: "matrix", or of determinants "vmatrix"; cells with their readings."""

    kind: str
    rows: tuple[tuple[tuple[Reading, ...], ...], ...]


Reading = Quantity | Words | Based | Ratio | Named | Equation | Region | Items | Matrix
