"""Changing: rewritings of a reference answer that change its value."""

import re
from collections.abc import Callable
from fractions import Fraction
from math import isqrt

from experiments.rewritings.forms import (
    INTEGER,
    MATRIX,
    ROOT,
    TEXT,
    changed,
    decimal,
    is_expression,
    is_zero,
    items_of,
    number,
    point_of,
    tex,
)

_VARIABLE = re.compile(r"(?<![A-Za-z\\])[xyz](?![A-Za-z])")


def one_more(reference: str) -> str | None:
    """The first number increased by one."""
    if re.search(r"\\approx|=.*\\%|phantom", reference):
        return None  # says a value twice
    made, count = re.subn(r"(?<![\d.])\d+", lambda found: str(int(found[0]) + 1), reference, count=1)
    return made if count else None


def negated(reference: str) -> str | None:
    value = number(reference)
    return None if value is None or value == 0 else reference[1:] if reference[0] == "-" else f"-{reference}"


def doubled(reference: str) -> str | None:
    return f"2 \\cdot \\left({reference}\\right)" if is_expression(reference) and not is_zero(reference) else None


def nearly(reference: str) -> str | None:
    """A number and a ten-millionth, or its first seven decimals where there are more."""
    value = number(reference)
    if value is None:
        return None
    return decimal(value + Fraction(1, 10**7)) or decimal(Fraction(int(value * 10**7), 10**7))


def upside_down(reference: str) -> str | None:
    value = number(reference)
    return None if value is None or value == 0 or abs(value) == 1 else tex(1 / value)


def product_for_sum(reference: str) -> str | None:
    """The mixed number of a fraction as a product."""
    value = number(reference)
    if value is None or value.denominator == 1 or abs(value) < 1:
        return None
    whole, rest = divmod(abs(value.numerator), value.denominator)
    return tex(Fraction(whole * rest, value.denominator) * (-1 if value < 0 else 1))


def digit_less(reference: str) -> str | None:
    return reference[:-1] if re.fullmatch(r"-?[1-9]\d+", reference) else None


def item_less(reference: str) -> str | None:
    items = items_of(reference)
    return ", ".join(items[:-1]) if items else None


def other_bracket(reference: str) -> str | None:
    point = point_of(reference)
    if not point or "infty" in point[1][0]:
        return None
    return f"{'[' if point[0] == '(' else '('}{', '.join(point[1])}{point[2]}"


def swapped_point(reference: str) -> str | None:
    point = point_of(reference)
    if not point or point[1] == point[1][::-1]:
        return None
    return f"{point[0]}{', '.join(point[1][::-1])}{point[2]}"


def glued_point(reference: str) -> str | None:
    """(20,100) as (20100)."""
    point = point_of(reference)
    return f"{point[0]}{''.join(point[1])}{point[2]}" if point and all(map(INTEGER.fullmatch, point[1])) else None


def other_cell(reference: str) -> str | None:
    """A matrix with its first cell increased, or transposed where that is another."""
    found = MATRIX.fullmatch(reference.strip())
    rows = [row.split("&") for row in found[1].split("\\\\")] if found else []
    turned = [list(column) for column in zip(*rows, strict=True)]
    if not rows or [[one.strip() for one in row] for row in turned] == [[one.strip() for one in row] for row in rows]:
        return None
    cells = r" \\ ".join("&".join(row) for row in turned)
    return f"\\begin{{pmatrix}}{cells}\\end{{pmatrix}}"


def other_variable(reference: str) -> str | None:
    return changed(reference, _VARIABLE.sub("w", reference)) if not TEXT.search(reference) else None


def rootless(reference: str) -> str | None:
    found = ROOT.fullmatch(reference)
    is_square = found and isqrt(int(found[3])) ** 2 == int(found[3])
    return f"{found[1]}{found[2] or 1} \\cdot {found[3]}" if found and not is_square else None


def other_base(reference: str) -> str | None:
    found = re.fullmatch(r"(.*)_\{?(\d+)\}?", reference)
    return f"{found[1]}_{{{int(found[2]) + 1}}}" if found else None


def baseless(reference: str) -> str | None:
    found = re.fullmatch(r"(\d\d+)_\{?(\d+)\}?", reference)
    return found[1] if found and found[2] != "10" else None


def other_unit(reference: str) -> str | None:
    units = {"cm": "km", "feet": "inches", "inches": "feet", "miles": "feet", "dollars": "cents", "cents": "dollars",
             "days": "hours", "hours": "days", "min": "s", "degrees": "radians", "p.m.": "a.m."}  # fmt: skip
    for unit, other in units.items():
        if re.search(rf"[\s{{]{re.escape(unit)}(?![a-z])", reference):
            return reference.replace(unit, other)
    return None


def millions(reference: str) -> str | None:
    value = number(reference)
    return f"{reference} \\text{{ million}}" if value is not None and value != 0 else None


def squared(reference: str) -> str | None:
    value = number(reference)
    return f"{reference} squared" if value is not None and value not in (0, 1) else None


def with_variable(reference: str) -> str | None:
    return f"{reference} x" if number(reference) is not None and not is_zero(reference) else None


def conjugate(reference: str) -> str | None:
    found = re.fullmatch(r"(-?\d+) ?([-+]) ?(\d*)i", reference)
    return f"{found[1]} {'-' if found[2] == '+' else '+'} {found[3]}i" if found else None


def other_word(reference: str) -> str | None:
    return (
        changed(reference, re.sub(r"(\\(?:text|mbox)\{)([A-Za-z]{3,})\}$", r"\g<1>not \2}", reference))
        if re.match(r"\\(?:text|mbox)\{[A-Za-z]+\}$", reference)
        else None
    )


def other_letter(reference: str) -> str | None:
    found = re.fullmatch(r"(?:\\text\{)?\(?([A-Z])\)?\}?", reference)
    return f"({chr((ord(found[1]) - 64) % 26 + 65)})" if found else None


CHANGING: tuple[Callable[[str], str | None], ...] = (
    one_more, negated, doubled, nearly, upside_down, product_for_sum, digit_less, item_less, other_bracket,
    swapped_point, glued_point, other_cell, other_variable, rootless, other_base, baseless, other_unit, millions,
    squared, with_variable, conjugate, other_word, other_letter,
)  # fmt: skip
