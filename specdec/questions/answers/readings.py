"""Readings: what the text of an answer may say (`kinds.py`).

A text has more than one reading where it is ambiguous: 20,100 is a number and a pair. It compares nothing.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from specdec.questions.answers import regions
from specdec.questions.answers.expressions import is_equal
from specdec.questions.answers.kinds import (
    Equation,
    Items,
    Matrix,
    Named,
    Quantity,
    Reading,
    Region,
)
from specdec.questions.answers.plain import constant, difference, plain
from specdec.questions.answers.splitting import (
    Tokens,
    is_bracketed,
    is_name,
    items,
    joined,
    matrix_of,
    relations,
    split,
    texts,
    thousands,
    trimmed,
)
from specdec.questions.answers.tokens import FUNCTIONS, NotUnderstood, Token, tokens_of

MAX_LENGTH = 1000  # characters; a longer answer is compared as text
MAX_ITEMS = 60
_NUMBER = re.compile(r"-?(?:\d{1,40}(?:\.\d{1,40})?|\.\d{1,40})", re.ASCII)
_REALS = ("all real numbers", "all reals", "real numbers", "\\mathbb { R }", "\\mathbb R", "\\R", "all real number")
_OF_SUMS = {"+", "-", "*", "/", "\\frac", "{", "}", "(", ")"}
_SIGNS = {"+-": ("+", "-"), "-+": ("-", "+")}


@lru_cache(maxsize=4096)
def readings_of(text: str) -> tuple[str, tuple[Reading, ...]]:
    """The text without its typesetting, and its readings; none where it is not understood."""
    if _NUMBER.fullmatch(text):  # most often, and no need to be looked at further
        return text, (Quantity((Fraction(text),)),)
    try:
        tokens = trimmed(tokens_of(text))
        return joined(tokens), _read(tokens)
    except (ValueError, ArithmeticError, RecursionError):  # NotUnderstood is a ValueError
        return " ".join(text.split()), ()


def _read(tokens: Tokens) -> tuple[Reading, ...]:
    """All readings of an answer or of an item of it."""
    tokens = trimmed(tokens)
    if not tokens:
        return ()
    found: list[Reading] = []
    for variant in thousands(tokens):
        parts, separators = items(variant)
        try:
            found += _list(parts, separators) if len(parts) > 1 or _is_double(variant) else _single(variant)
        except NotUnderstood:
            continue
    return tuple(found)


def _is_double(tokens: Tokens) -> bool:
    return any(token.kind == "sign" and token.text in _SIGNS for token in tokens)


def _doubled(tokens: Tokens) -> list[Tokens]:
    """An item with plus-minus as two."""
    if not _is_double(tokens):
        return [tokens]
    return [[_signed(token, side) for token in tokens] for side in (0, 1)]


def _signed(token: Token, side: int) -> Token:
    return token._replace(text=_SIGNS[token.text][side]) if token.text in _SIGNS else token


def _list(parts: Sequence[Tokens], separators: set[str], kind: str = "list") -> list[Reading]:
    read = [_read(item) for part in parts for item in _doubled(part)]
    if len(read) > MAX_ITEMS or not all(read):
        raise NotUnderstood("an item that is not understood")
    found: list[Reading] = [Items(kind, tuple(read))]
    areas = [next((one for one in item if isinstance(one, Region)), None) for item in read]
    known = [area for area in areas if area is not None]
    if kind == "list" and len(known) == len(areas) and len({area.name for area in known}) == 1:
        found += _joint_region(known, separators)
    return found


def _joint_region(areas: Sequence[Region], separators: set[str]) -> list[Reading]:
    """x < 1 or x > 3: a union; x > 1 and x < 3: what is common."""
    if separators == {"or"}:
        return [Region(regions.normal(one for area in areas for one in area.intervals), areas[0].name)]
    if separators == {"and"}:
        intervals = areas[0].intervals
        for area in areas[1:]:
            intervals = regions.common(intervals, area.intervals)
        return [Region(intervals, areas[0].name)]
    return []


def _single(tokens: Tokens) -> list[Reading]:
    """Readings of what is not a list."""
    if joined(tokens) in _REALS:
        return [Region(regions.REALS)]
    sides, signs = relations(tokens)
    if signs:
        return _related(sides, signs)
    if any(token.text.startswith("begin ") for token in tokens):
        kind, rows = matrix_of(tokens)
        read = tuple(tuple(_read(cell) for cell in row) for row in rows)
        if not all(all(row) for row in read):
            raise NotUnderstood("a cell that is not understood")
        return [Matrix(kind, read)]
    area = _area(tokens)
    if area is not None:
        return [Region(area)]
    found = _bracketed(tokens)
    return found if found is not None else plain(tokens)


def _bracketed(tokens: Tokens) -> list[Reading] | None:
    """A set, a tuple or an interval; None where brackets do not hold more than one thing."""
    if texts(tokens) in (["empty"], ["\\{", "\\}"]):
        return [Items("set", ())]
    if not is_bracketed(tokens):
        return None
    kind, inner = tokens[0].text + tokens[-1].text, tokens[1:-1]
    if kind == "\\{\\}":
        condition = split(inner, ("|", ":"))[0]
        if len(condition) == 2 and len(condition[0]) <= 6:
            return [one for one in _read(condition[1]) if isinstance(one, Region)]
        return _list(items(inner)[0], set(), "set")
    parts = split(inner, (",", ";"))[0]
    if len(parts) < 2 or not all(parts):
        return None
    if _is_double(inner):
        return [Items("list", tuple(tuple(_single(one)) for one in _doubled(tokens)))]
    return _list(parts, set(), kind)


def _area(tokens: Tokens) -> tuple[regions.Interval, ...] | None:
    r"""A union of intervals, or the real line without some points; None where it is neither."""
    parts = _united(tokens)
    if len(parts) > 1:
        return regions.normal(one for part in parts for one in _intervals(part))
    parts, signs = split(tokens, ("minus",))
    if len(parts) == 2 and signs and is_bracketed(parts[1], "\\{", "\\}"):
        points = [regions.real(constant(item)) for item in items(parts[1][1:-1])[0]]
        return regions.without(_intervals(parts[0]), points)
    return None


def _united(tokens: Tokens) -> list[Tokens]:
    parts, _ = split(tokens, ("union",))
    if len(parts) > 1:
        return parts
    parts, _ = split(tokens, ("u",), ("name",))  # (1,2) U (3,4)
    return parts if all(is_bracketed(part) for part in parts) else [tokens]


def _intervals(tokens: Tokens) -> tuple[regions.Interval, ...]:
    for one in _single(trimmed(tokens)):
        area = region_of(one)
        if area is not None:
            return area.intervals
    raise NotUnderstood("no interval")


def region_of(reading: Reading) -> Region | None:
    """The region that a reading is, if it may be one: an interval, or a finite set of real numbers."""
    if isinstance(reading, Region):
        return reading
    if not isinstance(reading, Items):
        return None
    ends = [_end(item) for item in reading.items]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return None
    if reading.kind == "set":
        return Region(regions.normal((point, True, point, True) for point in known))
    if len(known) != 2 or reading.kind not in ("()", "(]", "[)", "[]") or known[0] > known[1]:
        return None
    closed = (reading.kind[0] == "[", reading.kind[1] == "]")
    return Region(regions.normal([(known[0], closed[0], known[1], closed[1])]))


def _end(item: tuple[Reading, ...]) -> float | Fraction | None:
    for one in item:
        if isinstance(one, Quantity) and len(one.values) == 1 and not isinstance(one.values[0], complex):
            return one.values[0]
    return None


def _related(sides: list[Tokens], signs: list[str]) -> list[Reading]:
    """Equations, inequalities, and what is only said to be something: x = 5, x in [1, 2]."""
    if not all(sides):
        raise NotUnderstood("a side is missing")
    if signs[0] in ("=", "in", "~") and is_name(sides[0]):
        return _named(sides, signs)
    if set(signs) <= {"=", "~"}:
        if signs == ["="] and is_name(sides[1]):
            return _named(sides[::-1], signs)
        return _equal(sides, signs)
    found = _inequality(sides, signs)
    if len(sides) == 2 and signs[0] in ("<", "<=", ">", ">="):
        left, right = sides if signs[0] in ("<", "<=") else sides[::-1]
        found += [Equation(difference(left, right), signs[0].replace(">", "<"))]
    if not found:
        raise NotUnderstood("a relation of another kind")
    return found


def _named(sides: list[Tokens], signs: list[str]) -> list[Reading]:
    if "in" in signs and len(signs) > 1:
        raise NotUnderstood("a chain with an element")
    read = _read(sides[-1])
    if not read:
        raise NotUnderstood("named, but not understood")
    try:
        values = difference(sides[0], sides[1]) if signs == ["="] else None
    except NotUnderstood:
        values = None
    return [Named(joined(sides[0]), read, values)]


def _equal(sides: list[Tokens], signs: list[str]) -> list[Reading]:
    """A chain of equal numbers is each of them; about equal ones are each for itself; else it is an equation."""
    read = [plain(side) for side in sides]
    quantities = [[one for one in side if isinstance(one, Quantity)] for side in read]
    if all(side and len(side[0].values) == 1 for side in quantities):
        if "~" in signs or all(_is_any_equal(quantities[0], side) for side in quantities[1:]):
            return [one for side in quantities for one in side]
        raise NotUnderstood("numbers that are not equal")
    found = _sum_of_names(sides)
    if signs == ["="]:
        found += [Equation(difference(*sides), "=")]
    if not found:
        raise NotUnderstood("a chain of equations")
    return found


def _sum_of_names(sides: list[Tokens]) -> list[Reading]:
    r"""m + n = 204, \frac{a}{b} = \frac{3}{4}: what is asked for, with its value last."""
    first, rest = sides[0], [plain(side) for side in sides[1:]]
    values = [[one for one in side if isinstance(one, Quantity)] for side in rest]
    names = {token.text for token in first if token.kind == "name"}
    others = {token.text for token in first if token.kind != "name"}
    if names & {"pi", "i", "e", *FUNCTIONS} or not others <= _OF_SUMS or first[0].text == "-":
        return []
    if not all(side and len(side[0].values) == 1 for side in values):
        return []
    is_one = all(_is_any_equal(values[-1], side) for side in values)
    return [Named(joined(first), tuple(values[-1]), None)] if is_one else []


def _is_any_equal(ours: list[Quantity], theirs: list[Quantity]) -> bool:
    return any(is_equal(one.values, other.values) for one in ours for other in theirs)


def _inequality(sides: list[Tokens], signs: list[str]) -> list[Reading]:
    """x > 3, 1 < x <= 2, 5 >= f(x): the region of what is named."""
    names = [at for at, side in enumerate(sides) if is_name(side)]
    ends = [None if is_name(side) else constant(side, is_needed=False) for side in sides]
    if len(names) != 1 or len(sides) > 3 or (len(sides) == 3 and names != [1]):
        return []
    area = regions.REALS
    for at, sign in enumerate(signs):
        end = ends[at] if at + 1 == names[0] else ends[at + 1]
        if end is None or sign not in ("<", "<=", ">", ">=", "!="):
            return []
        mirrored = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(sign, sign)
        area = regions.common(area, regions.related(mirrored if at + 1 == names[0] else sign, end))
    if len(signs) == 2 and signs[0][0] != signs[1][0]:
        return []
    return [Region(area, joined(sides[names[0]]))]
