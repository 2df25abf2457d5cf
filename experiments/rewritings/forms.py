"""Forms: what kind of answer a reference is, told by its text alone. They use nothing of the grader."""

import re
from fractions import Fraction

FRACTION = re.compile(r"(-?)\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")
INTEGER, DECIMAL = re.compile(r"-?\d+"), re.compile(r"-?\d*\.\d+")
TEXT = re.compile(r"\\(?:text|mbox|textnormal|begin)\b")
ROOT = re.compile(r"(-?)(\d*) ?\\sqrt\{(\d+)\}")
POINT = re.compile(r"([(\[])([^()\[\]{}]*|(?:[^()\[\]]*\\frac[^()\[\]]*))([)\]])")
MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)


def number(reference: str) -> Fraction | None:
    """The value of an integer, a decimal or a fraction of integers."""
    if INTEGER.fullmatch(reference) or DECIMAL.fullmatch(reference):
        return Fraction(reference)
    found = FRACTION.fullmatch(reference)
    if not found or not int(found[3]):
        return None
    return Fraction(int(found[1] + "1") * int(found[2]), int(found[3]))


def tex(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def decimal(value: Fraction) -> str | None:
    """A terminating decimal of at most 9 places."""
    for places in range(1, 10):
        scaled = abs(value) * 10**places
        if scaled.denominator == 1:
            digits = str(scaled.numerator).rjust(places + 1, "0")
            return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
    return None


def changed(reference: str, made: str) -> str | None:
    return None if made == reference else made


def items_of(reference: str) -> list[str]:
    """The items of a list without brackets and words; fewer than two where it is none."""
    if re.search(r"[()\[\]=]|\{,\}|\\\{|\\text|\\pm|\\begin|\d,\d{3}(?!\d)|\\!", reference):
        return []
    items = [item.strip() for item in re.split(r",(?:\\,|\\;)?", reference)]
    return items if len(items) > 1 and all(items) else []


def point_of(reference: str) -> tuple[str, list[str], str] | None:
    """Opening bracket, items and closing bracket of a point or an interval."""
    plain = reference.replace("\\left", "").replace("\\right", "").strip()
    found = POINT.fullmatch(plain)
    items = [item.strip() for item in found[2].split(",")] if found else []
    return (found[1], items, found[3]) if found and len(items) > 1 and all(items) else None


def is_expression(reference: str) -> bool:
    """One value: no list, bracket pair, words, relation, unit or base."""
    is_more = re.search(r"[,;:=<>_%]|\.$|\\(?:le|ge|in|approx|cup|pm|\$)", reference)
    return not (
        is_more
        or items_of(reference)
        or point_of(reference)
        or TEXT.search(reference)
        or "circ" in reference
        or re.search("[A-Z]|triangle", reference)
    )


def is_zero(reference: str) -> bool:
    return number(reference) == 0
