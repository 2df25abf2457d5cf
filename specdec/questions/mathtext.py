"""Math as answers have it: the last box of a text, and whether two answers say the same.

Numbers, expressions, sets, tuples, intervals, matrices, equations, units and words are understood (`answers/`); what is
not is compared as text without its typesetting, and may be given to math-verify where that is installed
(`second_opinion.py`). What is not sure is not the same. Nothing is evaluated as code.
"""

import math
import re
from functools import lru_cache

from specdec.questions import second_opinion
from specdec.questions.answers.kinds import Quantity
from specdec.questions.answers.readings import MAX_LENGTH, readings_of
from specdec.questions.answers.same import is_any_same

MAX_BOX = 20_000  # characters; what is longer is never an answer
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_MATH_END = re.compile(r"\$|\\\)|\\\]|\n")


def last_boxed(text: str) -> str | None:
    r"""What the last box of `text` holds: \boxed{...}, \fbox{...}, or without braces \boxed 7.

    None if there is no box, or it is never closed.

    >>> last_boxed(r"so \boxed{\frac{1}{2}} it is"), last_boxed(r"$\boxed 42.$"), last_boxed("no box")
    ('\\frac{1}{2}', '42', None)
    """
    begin = max(text.rfind(f"\\{name}") for name in ("boxed", "fbox", "framebox"))
    found = _BOX.match(text, begin) if begin >= 0 else None
    if found is None:
        return None
    rest = text[found.end() : found.end() + MAX_BOX]
    if not rest.startswith("{"):
        return _bare_box(rest)
    depth = 0
    for brace in _BRACE.finditer(rest):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if depth == 0:
            return rest[1 : brace.start()].strip()
    return None


def _bare_box(rest: str) -> str | None:
    """Without braces: up to the end of the formula or, outside of one, of the word."""
    end = _MATH_END.search(rest)
    inside = rest[: end.start()] if end else ""
    if not (0 < len(inside) < 40) or re.search(r"(?<![\\a-z])[a-z]{3,}[ .]", inside):
        inside = rest.split(maxsplit=1)[0] if rest.split() else ""
    return inside.strip().rstrip(".,;:$") or None


@lru_cache(maxsize=8192)
def is_same_answer(given: str, reference: str) -> bool:
    r"""Whether two answers agree: by value where both are understood, else as text without its typesetting.

    Two equal texts agree, whatever they say, unless they are empty.

    >>> is_same_answer(r"\dfrac{1}{2}", "0.5"), is_same_answer("1,080", "1080"), is_same_answer("(1,2)", "(2,1)")
    (True, True, False)
    """
    given, reference = given.strip(), reference.strip()
    if given == reference or not (given and reference):
        return bool(given) and given == reference
    if max(len(given), len(reference)) > MAX_LENGTH:
        return "".join(given.split()) == "".join(reference.split())
    (text, ours), (wanted, theirs) = readings_of(given), readings_of(reference)
    if text == wanted:
        return bool(text)
    if ours and theirs:
        return is_any_same(ours, theirs)
    return second_opinion.is_same(given, reference)


def number(text: str) -> float | None:
    r"""The value of plain TeX arithmetic; None for anything else.

    >>> number(r"-\frac{3}{4}"), number("2^{10}"), number("x + 1")
    (-0.75, 1024.0, None)
    """
    if len(text) > MAX_LENGTH:
        return None
    for reading in readings_of(text)[1]:
        value = reading.values[0] if isinstance(reading, Quantity) and len(reading.values) == 1 else None
        if value is not None and not isinstance(value, complex):
            try:
                return float(value) if math.isfinite(value) else None
            except OverflowError:
                return None
    return None
