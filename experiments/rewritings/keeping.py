"""Keeping: rewritings of a reference answer that keep its value."""

import re
from collections.abc import Callable
from fractions import Fraction

from experiments.rewritings.forms import (
    DECIMAL,
    INTEGER,
    MATRIX,
    ROOT,
    TEXT,
    changed,
    decimal,
    is_expression,
    items_of,
    number,
    point_of,
)


def display_fractions(reference: str) -> str | None:
    return changed(reference, re.sub(r"\\t?frac", r"\\dfrac", reference))


def short_fractions(reference: str) -> str | None:
    return changed(reference, re.sub(r"\\d?frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", reference))


def braces(reference: str) -> str | None:
    return changed(reference, re.sub(r"([\^_])(\d+|[a-zA-Z])", r"\1{\2}", reference))


def bare_arguments(reference: str) -> str | None:
    return changed(reference, re.sub(r"(\\sqrt|\^|_)\{([0-9a-zA-Z])\}(?![0-9])", r"\1 \2", reference))


def no_blanks(reference: str) -> str | None:
    if re.search(r"\\(?:text|mbox|phantom)", reference):
        return None
    return changed(reference, re.sub(r"(?<!\\)\s+(?![A-Za-z])|(?<=[^A-Za-z\\])\s+", "", reference))


def tildes(reference: str) -> str:
    return (reference if TEXT.search(reference) else re.sub(r"(?<=\d) (?=[-+])", "~", reference)) + "~"


def wide_blanks(reference: str) -> str:
    return f"\\; {reference} \\qquad"


def other_text(reference: str) -> str | None:
    return changed(reference, re.sub(r"\\(?:text|mbox)\s*\{", r"\\textrm{", reference))


def dollars(reference: str) -> str:
    return f"${reference}$"


def parentheses_of_tex(reference: str) -> str:
    return f"\\({reference}\\)"


def display_style(reference: str) -> str:
    return f"\\displaystyle {reference}."


def left_right(reference: str) -> str | None:
    if "\\left" in reference or re.search(r"\\[{}]|\\text", reference):
        return None
    return changed(reference, re.sub(r"[)\]]", r"\\right\g<0>", re.sub(r"[(\[]", r"\\left\g<0>", reference)))


def named(reference: str) -> str | None:
    return f"x = {reference}" if is_expression(reference) else None


def side_by_side(reference: str) -> str | None:
    """An equation the other way round."""
    sides = reference.split("=")
    return f"{sides[1].strip()} = {sides[0].strip()}" if len(sides) == 2 and "," not in reference else None


def trailing_zeros(reference: str) -> str | None:
    if INTEGER.fullmatch(reference):
        return f"{reference}.00"
    return f"{reference}0" if DECIMAL.fullmatch(reference) else None


def leading_zero(reference: str) -> str | None:
    if INTEGER.fullmatch(reference):
        return re.sub(r"\d+", r"0\g<0>", reference)
    return changed(reference, re.sub(r"^(-?)(?=\.)", r"\g<1>0", reference)) if DECIMAL.fullmatch(reference) else None


def as_fraction(reference: str) -> str | None:
    value = number(reference)
    return None if value is None else f"\\frac{{{3 * value.numerator}}}{{{3 * value.denominator}}}"


def as_decimal(reference: str) -> str | None:
    value = number(reference)
    return None if value is None else decimal(value)


def as_mixed(reference: str) -> str | None:
    value = number(reference)
    if value is None or value.denominator == 1 or abs(value) < 1:
        return None
    whole, rest = divmod(abs(value.numerator), value.denominator)
    return f"{'-' if value < 0 else ''}{whole}\\frac{{{rest}}}{{{value.denominator}}}"


def as_improper(reference: str) -> str | None:
    found = re.fullmatch(r"(-?)(\d+) ?\\frac\{(\d+)\}\{(\d+)\}", reference)
    return f"{found[1]}\\frac{{{int(found[2]) * int(found[4]) + int(found[3])}}}{{{found[4]}}}" if found else None


def scientific(reference: str) -> str | None:
    found = re.fullmatch(r"(-?)([1-9])(\d+)", reference)
    return f"{found[1]}{found[2]}.{found[3]} \\times 10^{{{len(found[3])}}}" if found else None


def thousands(reference: str) -> str | None:
    return f"{int(reference):,}" if re.fullmatch(r"-?[1-9]\d{3,}", reference) else None


def braced_thousands(reference: str) -> str | None:
    return f"{int(reference):,}".replace(",", "{,}") if re.fullmatch(r"-?[1-9]\d{3,}", reference) else None


def no_thousands(reference: str) -> str | None:
    plain = re.sub(r",\\!\s*|\{,\}", "", reference)
    return changed(reference, plain if plain != reference else re.sub(r"^(\d{1,3}),(\d{3})$", r"\1\2", reference))


def squared_unit(reference: str) -> str | None:
    return f"{reference} \\text{{ cm}}^2" if number(reference) is not None else None


def compound_unit(reference: str) -> str | None:
    return f"{reference}\\ \\mathrm{{km/h}}" if number(reference) is not None else None


def plain_unit(reference: str) -> str | None:
    return f"{reference} dollars" if number(reference) is not None else None


def capital_unit(reference: str) -> str | None:
    return f"{reference} \\text{{ USD}}" if number(reference) is not None else None


def money(reference: str) -> str | None:
    value = number(reference)
    return f"\\${reference}" if value is not None and value >= 0 else None


def without_money(reference: str) -> str | None:
    found = re.fullmatch(r"\s*\\\$ ?([\d.]+)", reference)
    return f"{found[1]} dollars" if found else None


def percent_in_words(reference: str) -> str | None:
    found = re.fullmatch(r"([\d.]+) ?\\%", reference)
    return f"{found[1]} percent" if found else None


def percent_as_value(reference: str) -> str | None:
    found = re.fullmatch(r"([\d.]+) ?\\%", reference)
    return decimal(Fraction(found[1]) / 100) if found else None


def degrees_in_words(reference: str) -> str | None:
    found = re.fullmatch(r"([\d.]+)\^(?:\\circ|\{\\circ\})", reference)
    return f"{found[1]} \\text{{ degrees}}" if found else None


def unicode_signs(reference: str) -> str | None:
    signs = {"\\pi": "π", "\\infty": "∞", "\\cup": "∪", "^\\circ": "°", "^{\\circ}": "°", "\\pm": "±", "-": "−"}
    if TEXT.search(reference):
        return None
    made = re.sub(r"\\sqrt\{(\d+)\}", r"√\1", reference)
    for tex, sign in signs.items():
        made = re.sub(re.escape(tex) + r"(?![A-Za-z]) ?", sign, made) if tex[-1].isalpha() else made.replace(tex, sign)
    return changed(reference, made)


def wide_digits(reference: str) -> str | None:
    if number(reference) is None:
        return None
    return "".join(chr(ord(one) + 0xFEE0) if one.isdigit() else one for one in reference)


def one_root(reference: str) -> str | None:
    r"""3\sqrt{2} as \sqrt{18}."""
    found = ROOT.fullmatch(reference)
    return f"{found[1]}\\sqrt{{{int(found[2] or 1) ** 2 * int(found[3])}}}" if found and found[2] else None


def rational_root(reference: str) -> str | None:
    r"""3\sqrt{2} as \frac{6}{\sqrt{2}}."""
    found = ROOT.fullmatch(reference)
    if not found or not int(found[3]):
        return None
    return f"{found[1]}\\frac{{{int(found[2] or 1) * int(found[3])}}}{{\\sqrt{{{found[3]}}}}}"


def other_order(reference: str) -> str | None:
    items = items_of(reference)
    return changed(reference, ", ".join(items[::-1])) if items else None


def in_words(reference: str) -> str | None:
    items = items_of(reference)
    return " or ".join(items) if items else None


def as_set(reference: str) -> str | None:
    items = items_of(reference)
    return f"\\{{{', '.join(items)}\\}}" if len(set(items)) == len(items) > 1 else None


def blanks_in_points(reference: str) -> str | None:
    point = point_of(reference)
    return f"\\left{point[0]} {' , '.join(point[1])} \\right{point[2]}" if point else None


def tight_points(reference: str) -> str | None:
    point = point_of(reference)
    return changed(reference, f"{point[0]}{','.join(point[1])}{point[2]}") if point else None


def other_union(reference: str) -> str | None:
    parts = [part.strip() for part in reference.split("\\cup")]
    return " \\cup ".join(parts[::-1]) if len(parts) > 1 else None


def reversed_sum(reference: str) -> str | None:
    """A polynomial with its terms in the other order."""
    if not re.fullmatch(r"[-+ \da-z^{}]+", reference) or re.search(r"[a-z]{3}|\{[^}]*[-+]", reference):
        return None
    terms = re.findall(r"[-+]?[^-+]+", reference.replace(" ", ""))
    return None if len(terms) < 2 else "".join(one if one[0] in "+-" else f"+{one}" for one in terms[::-1]).lstrip("+")


def factored_out(reference: str) -> str | None:
    """An expression as half of its double."""
    return f"\\frac{{2\\left({reference}\\right)}}{{2}}" if is_expression(reference) else None


def other_matrix(reference: str) -> str | None:
    found = MATRIX.fullmatch(reference.strip())
    return f"\\begin{{bmatrix}}{re.sub(' +(?![-])', '', found[1])}\\end{{bmatrix}}" if found else None


def rows_apart(reference: str) -> str | None:
    found = MATRIX.fullmatch(reference.strip())
    rows = found[1].replace("\\\\", " \\\\[4pt] ") if found else ""
    return f"\\left(\\begin{{array}}{{cc}}{rows}\\end{{array}}\\right)" if found else None


def letter(reference: str) -> str | None:
    found = re.fullmatch(r"(?:\\text\{)?\(?([A-Z])\)?\}?", reference)
    return f"\\textbf{{({found[1]})}}" if found else None


def letter_with_point(reference: str) -> str | None:
    found = re.fullmatch(r"(?:\\text\{)?\(?([A-Z])\)?\}?", reference)
    return f"{found[1]}." if found else None


def word_in_plain(reference: str) -> str | None:
    found = re.fullmatch(r"\\(?:text|mbox)\{([A-Za-z ]+)\}", reference)
    return found[1] if found else None


def time_of_day(reference: str) -> str | None:
    return changed(reference, re.sub(r"\\!:\\!", ":", reference)) if re.search(r"\d\\!:", reference) else None


def base_in_parentheses(reference: str) -> str | None:
    found = re.fullmatch(r"(\d+)_\{?(\d+)\}?", reference)
    return f"({found[1]})_{{{found[2]}}}" if found else None


def nested_box(reference: str) -> str:
    return f"\\fbox{{${reference}$}}"


def bold(reference: str) -> str | None:
    return f"\\mathbf{{{reference}}}" if not TEXT.search(reference) else None


def bare_box(reference: str) -> str | None:
    r"""\boxed 7, as MATH's own solutions have it."""
    return f"so it is $\\boxed {reference}$." if INTEGER.fullmatch(reference) else None


BARE = bare_box
KEEPING: tuple[Callable[[str], str | None], ...] = (
    display_fractions, short_fractions, braces, bare_arguments, no_blanks, tildes, wide_blanks, other_text, dollars,
    parentheses_of_tex, display_style, left_right, named, side_by_side, trailing_zeros, leading_zero, as_fraction,
    as_decimal, as_mixed, as_improper, scientific, thousands, braced_thousands, no_thousands, squared_unit,
    compound_unit, plain_unit, capital_unit, money, without_money, percent_in_words, percent_as_value,
    degrees_in_words, unicode_signs, wide_digits, one_root, rational_root, other_order, in_words, as_set,
    blanks_in_points, tight_points, other_union, reversed_sum, factored_out, other_matrix, rows_apart, letter,
    letter_with_point, word_in_plain, time_of_day, base_in_parentheses, nested_box, bold, bare_box,
)  # fmt: skip
