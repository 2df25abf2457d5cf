"""Operations on values: exact on fractions where the result is rational and of bounded size, else in floating point.

What is not defined raises ArithmeticError or ValueError; what would be too large, OverflowError before it is made.
"""

import cmath
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

MAX_BITS, MAX_FACTORIAL = 20_000, 1000
_LOG_SCALE = 0.7390851332151607


def bounded(value: Any) -> Any:
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise OverflowError("too many digits")
    return value


def add(left: Any, right: Any) -> Any:
    return left + right


def subtract(left: Any, right: Any) -> Any:
    return left - right


def multiply(left: Any, right: Any) -> Any:
    return left * right


def divide(left: Any, right: Any) -> Any:
    return left / right


def power(base: Any, exponent: Any) -> Any:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            bits = base.numerator.bit_length() + base.denominator.bit_length()
            if bits > 2 and abs(exponent) * bits > 2 * MAX_BITS:
                raise OverflowError("too high a power")
            return base ** int(exponent)
        if exponent.denominator < 100 and abs(exponent.numerator) < 100 and base >= 0:
            return root(base, Fraction(exponent.denominator)) ** int(exponent.numerator)
    return base**exponent


def root(value: Any, degree: Any) -> Any:
    if isinstance(value, Fraction) and isinstance(degree, Fraction) and degree.denominator == 1 and degree > 0:
        sign = -1 if value < 0 else 1
        above, below = (_whole_root(abs(part), int(degree)) for part in (value.numerator, value.denominator))
        if above is not None and below is not None and (sign > 0 or degree % 2):
            return sign * Fraction(above, below)
        if sign < 0 and degree % 2:
            return -(float(-value) ** (1 / float(degree)))
    if degree == 2:
        return cmath.sqrt(value) if isinstance(value, complex) or value < 0 else math.sqrt(value)
    if isinstance(value, float) and value < 0 and degree % 2 == 1:
        return -((-value) ** (1 / float(degree)))
    return value ** (1 / float(degree))


def _whole_root(value: int, degree: int) -> int | None:
    """The exact root of a whole number, None if it has none."""
    if value < 2 or degree == 1:
        return value
    if degree == 2:
        root = math.isqrt(value)
    else:
        root = round(value ** (1 / degree)) if value.bit_length() < 1000 and degree < 1000 else 0
    return root if root**degree == value else None


def factorial(value: Any) -> Fraction:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise ValueError("no factorial")
    return Fraction(math.factorial(int(value)))


def choose(above: Any, below: Any) -> Fraction:
    numbers = (above, below)
    if not all(isinstance(one, Fraction) and one.denominator == 1 and 0 <= one <= MAX_FACTORIAL for one in numbers):
        raise ValueError("no binomial")
    return Fraction(math.comb(int(above), int(below)))


def floor(value: Any) -> Fraction:
    return Fraction(math.floor(value))


def ceil(value: Any) -> Fraction:
    return Fraction(math.ceil(value))


def ln(value: Any) -> Any:
    if isinstance(value, complex) or value <= 0:
        raise ValueError("no logarithm")
    return Fraction(0) if value == 1 else math.log(value)


def log(value: Any) -> Any:
    """A logarithm whose base is not known: the laws of logarithms hold, but it is not another function's value."""
    return ln(value) * _LOG_SCALE


def exp(value: Any) -> Any:
    return cmath.exp(value) if isinstance(value, complex) else math.exp(value)


def called(name: str, value: Any) -> float:
    """Some function whose value is not another's."""
    if isinstance(value, complex):
        raise ValueError("a function of a real variable")
    return math.sin(float(value) * 1.7320508 + len(name) + ord(name[0])) + 2.2360679


def _real(operation: Callable[[float], float]) -> Callable[[Any], Any]:
    def checked(value: Any) -> float:
        if isinstance(value, complex):
            raise ValueError("of a real variable")
        result = operation(float(value))
        return round(result) + 0.0 if abs(result - round(result)) < 1e-15 else result

    return checked


def _quotient(above: Callable[[float], float], below: Callable[[float], float]) -> Callable[[float], float]:
    return lambda value: above(value) / below(value)


def _one(value: float) -> float:
    return 1.0


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sin": _real(math.sin),
    "cos": _real(math.cos),
    "tan": _real(math.tan),
    "cot": _real(_quotient(math.cos, math.sin)),
    "sec": _real(_quotient(_one, math.cos)),
    "csc": _real(_quotient(_one, math.sin)),
    "arcsin": _real(math.asin),
    "arccos": _real(math.acos),
    "arctan": _real(math.atan),
    "sinh": _real(math.sinh),
    "cosh": _real(math.cosh),
    "tanh": _real(math.tanh),
    "ln": ln,
    "log": log,
    "exp": exp,
}
