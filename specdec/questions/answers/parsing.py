r"""Parsing: tokens of TeX arithmetic to a function of the point at which it is evaluated. It runs no text as code."""

import math
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from specdec.questions.answers import operations
from specdec.questions.answers.tokens import CALLED, FUNCTIONS, NotUnderstood, Token

Value = Fraction | float | complex
Point = int | None  # which of the fixed points; None: there are no variables
Node = Callable[[Point], Any]

MAX_DEPTH = 40


def value_of(name: str, point: Point) -> Fraction:
    """What a variable is at a point: a whole number, a fraction from -1 to 1, or one of some size, of either sign."""
    seed = zlib.crc32(f"{name} {point}".encode())
    kind = (point or 0) % 4
    if kind == 0:
        return Fraction(2 + seed % 23)
    if kind == 3:
        return -Fraction(100 + seed % 1009, 101)
    return Fraction(1 + seed % 95, 97) if kind == 1 else Fraction(100 + seed % 1009, 103)


class Parser:
    """Recursive descent over tokens; NotUnderstood for what is not an expression."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens, self.at, self.depth = tokens, 0, 0
        self.names: set[str] = set()
        self.is_complex = False
        self.is_in_bars = False

    def whole(self) -> Node:
        node = self._sum()
        if self._take("\\over"):
            node = _combined(node, self._sum(), operations.divide)
        if self.at < len(self.tokens):
            raise NotUnderstood("something follows")
        return node

    def _peek(self, ahead: int = 0) -> str:
        token = self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None
        return "" if token is None else "word" if token.kind == "word" else token.text

    def _kind(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead].kind if self.at + ahead < len(self.tokens) else ""

    def _take(self, *wanted: str) -> str:
        """The next token if it is one of `wanted`, else ""."""
        token = self._peek()
        if not token or token not in wanted:
            return ""
        self.at += 1
        return token

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise NotUnderstood(f"no {wanted}")

    def _sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotUnderstood("nested too deep")
        result = self._signed()
        while sign := self._take("+", "-"):
            result = _combined(result, self._signed(), operations.add if sign == "+" else operations.subtract)
        self.depth -= 1
        return result

    def _signed(self) -> Node:
        sign = self._take("-", "+")
        result = self._product()
        return _combined(_constant(Fraction(0)), result, operations.subtract) if sign == "-" else result

    def _product(self) -> Node:
        result = self._power()
        while True:
            if self._take("/"):
                result = _combined(result, self._factor(), operations.divide)
            elif self._take("*"):
                result = _combined(result, self._factor(), operations.multiply)
            elif self._begins_factor():
                result = _combined(result, self._power(), operations.multiply)  # without a sign: 2\pi, 3\sqrt{2}, xy
            elif self._kind() == "number":
                raise NotUnderstood("two numbers side by side")
            else:
                return result

    def _factor(self) -> Node:
        """After * or /: also a negative one, as in 3 * -2."""
        if self._take("-"):
            return _combined(_constant(Fraction(0)), self._power(), operations.subtract)
        return self._power()

    def _begins_factor(self) -> bool:
        if self._kind() == "name":
            return True
        token = self._peek()
        return token in ("(", "[", "{", "\\frac", "\\sqrt", "\\binom", "\\lfloor", "\\lceil") or (
            token == "|" and not self.is_in_bars
        )

    def _power(self) -> Node:
        base = self._atom()
        while True:
            if self._take("^"):
                base = _combined(base, self._atom(), operations.power)
            elif self._take("!"):
                base = _applied(base, operations.factorial)
            elif self._take("degree"):
                base = _combined(base, _constant(math.pi / 180), operations.multiply)
            else:
                return base

    def _atom(self) -> Node:
        kind, token = self._kind(), self._peek()
        if kind == "number":
            return self._number()
        if kind == "name":
            self.at += 1
            return self._function(token) if token in FUNCTIONS else self._name(token)
        if self._take("infinity"):
            return _constant(math.inf)
        if self._take("\\frac"):
            above = self._atom()
            return _combined(above, self._atom(), operations.divide)
        if self._take("\\binom"):
            above = self._atom()
            return _combined(above, self._atom(), operations.choose)
        if self._take("\\sqrt"):
            degree = self._group("[", "]") if self._peek() == "[" else _constant(Fraction(2))
            return _combined(self._atom(), degree, operations.root)
        return self._bracketed()

    def _bracketed(self) -> Node:
        for opening, closing in (("(", ")"), ("{", "}"), ("[", "]")):
            if self._peek() == opening:
                return self._group(opening, closing)
        for opening, closing, operation in (
            ("\\lfloor", "\\rfloor", operations.floor),
            ("\\lceil", "\\rceil", operations.ceil),
        ):
            if self._peek() == opening:
                return _applied(self._group(opening, closing), operation)
        if self._peek() == "|" and not self.is_in_bars:
            self.is_in_bars = True
            self.at += 1
            node = _applied(self._sum(), abs)
            self.is_in_bars = False
            self._need("|")
            return node
        raise NotUnderstood("no value")

    def _group(self, opening: str, closing: str) -> Node:
        self._need(opening)
        before, self.is_in_bars = self.is_in_bars, False
        node = self._sum()
        if opening == "{" and self._take("\\over"):
            node = _combined(node, self._sum(), operations.divide)
        self.is_in_bars = before
        self._need(closing)
        return node

    def _number(self) -> Node:
        r"""A literal; a whole number right before a fraction of whole numbers is a mixed number."""
        text = self._peek()
        if len(text) > 1000:
            raise NotUnderstood("too long a number")
        self.at += 1
        try:
            value = _literal(text)
        except ValueError as error:  # digits of another script
            raise NotUnderstood(text) from error
        fraction = self._fraction_after() if text.isdigit() else None
        return _constant(value if fraction is None else value + fraction)

    def _fraction_after(self) -> Fraction | None:
        r"""The fraction of a mixed number: \frac{1}{4} or, after a blank, 1/4; None where none follows."""
        texts = [self._peek(ahead) for ahead in range(7)]
        if texts[:2] + texts[3:5] + texts[6:] == ["\\frac", "{", "}", "{", "}"]:
            above, below, length = texts[2], texts[5], 7
        elif texts[1] == "/" and self._kind() == "number" and self.tokens[self.at].is_spaced:
            above, below, length = texts[0], texts[2], 3
        else:
            return None
        if not (above.isdigit() and below.isdigit() and int(below) and max(len(above), len(below)) < 100):
            return None
        self.at += length
        return Fraction(int(above), int(below))

    def _name(self, name: str) -> Node:
        if name == "pi":
            return _constant(math.pi)
        is_plain = self._peek() != "_"
        if is_plain and name == "e":
            return _constant(math.e)
        if is_plain and name == "i":
            self.is_complex = True
            return _constant(1j)
        if name in CALLED and self._peek() == "(":
            argument = self._group("(", ")")
            self.names.add(name)
            return _applied(argument, lambda value: operations.called(name, value))
        while self._peek() in ("_", "'"):
            name += self._subscript()
        self.names.add(name)
        return lambda point: value_of(name, point)

    def _subscript(self) -> str:
        if self._take("'"):
            return "'"
        begin = self.at
        self._need("_")
        while self._peek() not in ("}", ""):
            self.at += 1
        self._need("}")
        return " ".join(token.text for token in self.tokens[begin : self.at])

    def _function(self, name: str) -> Node:
        r"""sin x, \cos^2\alpha, \log_2 8, \tan \frac{x}{2}: what follows up to a sum or the next function."""
        exponent = base = None
        while self._peek() in ("^", "_"):
            if self._take("^"):
                exponent = self._atom()
            else:
                self._need("_")
                base = self._atom()
        if self._peek() in ("(", "{", "[", "|"):
            argument = self._atom()
            if self._peek() in ("^", "!", "degree"):
                raise NotUnderstood("a power of the function or of what it is of")
        else:
            argument = self._bare_argument()
        if base is not None:
            if name != "log":
                raise NotUnderstood("a subscript of a function")
            return _powered(
                _combined(_applied(argument, operations.ln), _applied(base, operations.ln), operations.divide), exponent
            )
        return self._inverse_or_power(name, argument, exponent)

    def _inverse_or_power(self, name: str, argument: Node, exponent: Node | None) -> Node:
        if exponent is not None and exponent(None if not self.names else 0) == -1:
            if f"arc{name}" not in FUNCTIONS:
                raise NotUnderstood("an inverse")
            return _applied(argument, operations.FUNCTIONS[f"arc{name}"])
        return _powered(_applied(argument, operations.FUNCTIONS[name]), exponent)

    def _bare_argument(self) -> Node:
        sign = self._take("-")
        node = self._power()
        while self._begins_factor() and self._peek() not in FUNCTIONS and self._peek() not in ("(", "["):
            node = _combined(node, self._power(), operations.multiply)
        if self._peek() in ("/", "*", "("):
            raise NotUnderstood("how far the function goes")
        return _combined(_constant(Fraction(0)), node, operations.subtract) if sign else node


def _literal(text: str) -> Fraction:
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > 1000:
        raise NotUnderstood("too large a power of ten")
    return Fraction(text)


def _constant(value: Value) -> Node:
    return lambda point: value


def _applied(node: Node, operation: Callable[[Any], Any]) -> Node:
    return lambda point: operation(node(point))


def _combined(left: Node, right: Node, operation: Callable[[Any, Any], Any]) -> Node:
    return lambda point: operations.bounded(operation(left(point), right(point)))


def _powered(node: Node, exponent: Node | None) -> Node:
    return node if exponent is None else _combined(node, exponent, operations.power)
