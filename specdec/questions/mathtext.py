"""Math as answers have it: the last box of a text, and whether two answers say the same, numerically where possible.

Plain TeX arithmetic is understood (fractions, roots, powers, pi, thousands separators); everything else is compared as
text without its typesetting. Nothing is evaluated as code.
"""

import math
import re

BOXES = ("\\boxed", "\\fbox")
MAX_LENGTH = 400  # a longer answer is compared as text
_RELATIVE = 1e-9
_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|,|!|;|:|quad|\s|\$|%)|\^\\circ|\^\{\\circ\}|\$|%|°|\\degree"
    r"|(?<=[\d}\s])\\text\{\s*[a-z .]*\}$"  # a unit
)
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
_NAMED = re.compile(r"^(?:[a-zA-Z]|[a-zA-Z]\([a-zA-Z]\))=(?!=)")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:,|\{,\}|\\,)\d{3})+(?![\d,])")
_TOKEN = re.compile(r"\d+\.?\d*|\.\d+|\\frac|\\sqrt|\\pi|\\cdot|\\times|\\div|[-+*/^(){}\[\]]")


def last_boxed(text: str) -> str | None:
    r"""What the last \boxed{...} of `text` holds; None if there is none, or it is never closed.

    >>> last_boxed(r"so \boxed{\frac{1}{2}} it is"), last_boxed("no box")
    ('\\frac{1}{2}', None)
    """
    begin = max(text.rfind(box) for box in BOXES)
    if begin < 0:
        return None
    rest = text[begin:].lstrip("\\abcdefghijklmnopqrstuvwxyz").lstrip(" ")
    if not rest.startswith("{"):
        return None
    depth = 0
    for position, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:position].strip()
    return None


def is_same_answer(given: str, reference: str) -> bool:
    r"""Whether two answers agree, by value where both are numbers, else item by item or as text.

    Two equal texts agree, whatever they say, unless they are empty.

    >>> is_same_answer(r"\dfrac{1}{2}", "0.5"), is_same_answer("1,080", "1080"), is_same_answer("(1,2)", "(2,1)")
    (True, True, False)
    """
    if given.strip() == reference.strip():
        return bool(given.strip())
    given, reference = _plain(given), _plain(reference)
    if given == reference:
        return bool(given)
    value, wanted = number(given), number(reference)
    if value is not None and wanted is not None:
        return math.isclose(value, wanted, rel_tol=_RELATIVE, abs_tol=1e-12)
    ours, theirs = _items(given), _items(reference)
    if len(ours) < 2 or len(ours) != len(theirs):
        return False
    if given[0] in "([{" or reference[0] in "([{":  # order and kind of bracket count, as in points and intervals
        return given[0] == reference[0] and given[-1] == reference[-1] and all(map(is_same_answer, ours, theirs))
    return all(any(is_same_answer(mine, other) for other in theirs) for mine in ours) and all(
        any(is_same_answer(mine, other) for mine in ours) for other in theirs
    )


def number(text: str) -> float | None:
    r"""The value of plain TeX arithmetic; None for anything else.

    >>> number(r"-\frac{3}{4}"), number("2^{10}"), number("x + 1")
    (-0.75, 1024.0, None)
    """
    text = text.replace(" ", "")
    tokens = _TOKEN.findall(text)
    if not tokens or len(text) > MAX_LENGTH or "".join(tokens) != text:
        return None
    try:
        value = _Arithmetic(tokens).value()
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _plain(answer: str) -> str:
    """An answer without what only typesets it."""
    answer = answer.strip().rstrip(".").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    answer = _DROPPED.sub("", answer)
    answer = _WRAPPED.sub(r"\1", answer)
    answer = _THOUSANDS.sub(lambda found: re.sub(r"\D", "", found[0]), answer)
    return _NAMED.sub("", re.sub(r"\s+", "", answer))


def _items(answer: str) -> list[str]:
    """The parts between the commas that stand in no bracket but an outermost one."""
    inner = answer[1:-1] if answer[:1] in ("(", "[", "{") and answer[-1:] in (")", "]", "}") else answer
    parts, depth = [""], 0
    for character in inner:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


class _Arithmetic:
    """Recursive descent over TeX tokens; ValueError for what is not arithmetic."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def value(self) -> float:
        result = self._sum()
        if self.at < len(self.tokens):
            raise ValueError("something follows")
        return result

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self, *wanted: str) -> str:
        """The next token if it is one of `wanted`, else ""."""
        token = self._peek()
        if token not in wanted or not token:
            return ""
        self.at += 1
        return token

    def _sum(self) -> float:
        result = self._product()
        while sign := self._take("+", "-"):
            result += self._product() if sign == "+" else -self._product()
        return result

    def _product(self) -> float:
        if sign := self._take("-", "+"):
            return -self._product() if sign == "-" else self._product()
        result = self._power()
        while self._peek() not in ("", "+", "-", ")", "]", "}", "^"):
            if self._take("/", "\\div"):
                result /= self._power()
            elif self._take("*", "\\cdot", "\\times") or not self._peek()[0].isdigit():
                result *= self._power()  # also without a sign: 2\pi, 3\sqrt{2}
            else:
                raise ValueError("two numbers side by side")
        return result

    def _power(self) -> float:
        base = self._atom()
        if not self._take("^"):
            return base
        exponent = -self._atom() if self._take("-") else self._atom()
        if abs(exponent) > 1000:
            raise ValueError("too high a power")
        return base**exponent

    def _atom(self) -> float:
        if self._take("\\pi"):
            return math.pi
        if self._take("\\frac"):
            return self._argument() / self._argument()
        if self._take("\\sqrt"):
            degree = self._group("[", "]") if self._peek() == "[" else 2.0
            return self._argument() ** (1 / degree)
        for opening, closing in (("(", ")"), ("{", "}")):
            if self._peek() == opening:
                return self._group(opening, closing)
        token = self._peek()
        if not token[:1].isdigit() and token[:1] != ".":
            raise ValueError("no number")
        self.at += 1
        return float(token)

    def _argument(self) -> float:
        r"""A group or, as TeX has it, one digit: \frac12 is a half."""
        token = self._peek()
        if token[:1].isdigit() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        return self._atom()

    def _group(self, opening: str, closing: str) -> float:
        if not self._take(opening):
            raise ValueError(f"no {opening}")
        result = self._sum()
        if not self._take(closing):
            raise ValueError(f"no {closing}")
        return result
