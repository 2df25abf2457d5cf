r"""Expressions: the value of TeX arithmetic, exact where rational, and of expressions in variables at fixed points.

Two expressions are equal if they are at every point where both are defined: decidable for polynomials and rational
functions (exact fractions at 12 points), and as good as sure for roots and trigonometry. It runs no text as code: a
tree of known operations is made and worked out. What would grow without end is refused (`NotUnderstood`).
"""

import cmath
import math
from collections.abc import Sequence
from fractions import Fraction

from specdec.questions.answers.parsing import Node, Parser, Point, Value
from specdec.questions.answers.tokens import NotUnderstood, Token

NUM_POINTS, MIN_POINTS = 12, 3
RELATIVE, ABSOLUTE = 1e-12, 1e-12  # of what is not rational


class Expression:
    """An expression and its values: one if it has no variables, else `NUM_POINTS`, None where it is not defined."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        parser = Parser(tokens)
        node = parser.whole()
        self.names = frozenset(parser.names)
        self.is_complex = parser.is_complex or not self.names
        points: list[Point] = list(range(NUM_POINTS)) if self.names else [None]
        self.values = tuple(self._at(node, point) for point in points)
        if all(value is None for value in self.values):
            raise NotUnderstood("defined nowhere")

    def _at(self, node: Node, point: Point) -> Value | None:
        try:
            value = node(point)
        except (ArithmeticError, ValueError):  # a division by zero, a logarithm of a negative number, too large a power
            return None
        if isinstance(value, complex):
            if value.imag == 0:
                value = value.real
            elif not self.is_complex:
                return None
        if isinstance(value, Fraction) or value == value and not cmath.isinf(value):
            return value
        return value if not self.names and value in (math.inf, -math.inf) else None

    @property
    def constant(self) -> Value | None:
        """The value of an expression without variables."""
        return None if self.names else self.values[0]


def is_equal(one: Sequence[Value | None], other: Sequence[Value | None]) -> bool:
    """Whether values agree wherever both are known, at one point for constants, else at `MIN_POINTS` or more."""
    length = max(len(one), len(other))
    ours, theirs = (tuple(values) * (length if len(values) == 1 else 1) for values in (one, other))
    pairs = zip(ours, theirs, strict=True)
    known = [is_close(a, b) for a, b in pairs if a is not None and b is not None]
    return len(known) >= min(length, MIN_POINTS) and all(known)


def is_close(one: Value, other: Value) -> bool:
    """Exactly equal if both are rational, else but for rounding: 0.7500001 is not 3/4."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    try:
        return cmath.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE if 0 in (one, other) else 0.0)
    except OverflowError:
        return False
