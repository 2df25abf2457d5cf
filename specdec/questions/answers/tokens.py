r"""Tokens: the text of an answer without what only typesets it, and with every argument of a TeX command in braces.

`\dfrac12~\mathrm{cm}` and `\frac{1}{2}\text{ cm}` have the same tokens. Nothing is read as a value here, and nothing is
run: an unknown command is a token like others.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from specdec.questions.answers import units
from specdec.questions.answers.unicode import as_tex


class Token(NamedTuple):
    """`kind`: "number", "name" (a variable or function), "word" (of a sentence), "sign" (anything else)."""

    kind: str
    text: str
    is_spaced: bool = False  # a blank stands before it


class NotUnderstood(ValueError):
    """The text is not what is looked for."""


FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "ln",
    "exp", "sqrt",
})  # fmt: skip
CALLED = frozenset({"f", "g", "h", "F", "G", "P", "Q"})  # f(x) is a function's value, and not a product
GREEK = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega", "ell",
})  # fmt: skip
_SIGNS = {
    "frac": "\\frac", "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "nicefrac": "\\frac", "sfrac": "\\frac",
    "binom": "\\binom", "dbinom": "\\binom", "tbinom": "\\binom", "cdot": "*", "cdotp": "*", "times": "*", "ast": "*",
    "div": "/", "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")",
    "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "langle": "<<", "rangle": ">>", "colon": ":", "prime": "'",
    "lt": "<", "gt": ">", "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=",
    "ne": "!=", "neq": "!=", "approx": "~", "simeq": "~", "thickapprox": "~", "in": "in", "infty": "infinity",
    "cup": "union", "bigcup": "union", "setminus": "minus", "backslash": "minus", "smallsetminus": "minus",
    "emptyset": "empty", "varnothing": "empty", "circ": "degree", "degree": "degree", "pm": "+-", "mp": "-+",
    "euro": "€", "texteuro": "€", "pounds": "£", "textsterling": "£", "textdollar": "$", "textcent": "¢",
    "cr": "\\\\",
}  # fmt: skip
_PLAIN_SIGNS = {"<=": "<=", ">=": ">=", "!=": "!=", "≤": "<=", "**": "^", "×": "*"}
_BLANK = frozenset(
    (" ", ",", ";", ":", ">", "quad", "qquad", "enspace", "thinspace", "medspace", "thickspace", "space")
)
_DROPPED = frozenset({
    "!", "(", ")", "[", "]", "left", "right", "middle", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl",
    "Bigr", "biggl", "biggr", "Biggl", "Biggr", "displaystyle", "textstyle", "scriptstyle", "limits", "nolimits",
    "nonumber", "mathstrut", "strut", "rm", "bf", "it", "sf", "boldmath", "unboldmath", "normalsize", "large",
    "small", "hline", "mathbf", "mathit", "bm", "boldsymbol", "boxed", "fbox", "underline", "ensuremath", "hfill",
    "negthinspace", "mathopen", "mathclose", "centering",
})  # fmt: skip
_DROPPED_WITH_ARGUMENT = frozenset({
    "phantom", "hphantom", "vphantom", "hspace", "vspace", "mspace", "label", "tag", "color", "textcolor",
})  # fmt: skip
_PIECE = re.compile(
    r"(?P<row>\\\\(?:\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in)\s*\])?)"
    r"|\\(?P<env>begin|end)\s*\{(?P<name>[A-Za-z]+)\*?\}(?:\{[lcr|\s]*\})?"
    r"|\\(?P<command>[A-Za-z]+|.)"
    r"|(?P<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+(?![\dA-Za-z]))?|\.\d+)"
    r"|(?P<half>(?<![A-Za-z])[ap]\.\s?m(?![A-Za-z])\.?)"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<blank>[\s~]+)"
    r"|(?P<sign><=|>=|!=|\*\*|.)",
    re.DOTALL,
)
_WORD = re.compile(r"(?P<half>[ap]\.\s?m\b\.?)|(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<word>[A-Za-z]+)|(?P<sign>\S)", re.I)
_TEXT_BEGIN = re.compile(
    r"\\(?P<how>text(?:rm|normal|bf|it|sf|tt|up|md)?|math(?:rm|sf|tt|normal)|mbox|hbox|operatorname)\s*\{"
)
_GLUED = re.compile(
    r"(?<=\d)(?:\{,\}|,\\!\s*|\\,(?=\d{3}(?:\D|$))|\\!\s*,)(?=\d{3}(?!\d))"
)  # 24{,}000, 24,\!000, 24\,000
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\overline\s*\{?(\d+)\}?")
_SEGMENT = re.compile(r"\\over(?:line|leftrightarrow|rightarrow)\s*\{([A-Z]{2})\}")  # named by its two ends
_VOWELS = re.compile(r"[aeiou]", re.IGNORECASE)
_PROSE = re.compile(r"[A-Za-z][A-Za-z ,.'-]*")


def tokens_of(text: str) -> list[Token]:
    r"""The tokens of an answer.

    >>> [token.text for token in tokens_of(r"\left( \dfrac12,~x^2 \right)")]
    ['(', '\\frac', '{', '1', '}', '{', '2', '}', ',', 'x', '^', '{', '2', '}', ')']
    """
    text = _REPEATING.sub(_repeating, _SEGMENT.sub(r"{\1}", _GLUED.sub("", as_tex(text.strip("`* ")))))
    if _PROSE.fullmatch(text.strip()) and any(is_word(one) or one.lower() in ("no", "yes") for one in text.split()):
        text = f"\\text{{{text}}}"
    return _Arguments(list(_pieces(text))).all()


def is_word(letters: str) -> bool:
    """Whether a run of letters is a word rather than a product of variables: east, but not xyz, abc or AB."""
    is_alphabet = all(ord(b) - ord(a) == 1 for a, b in zip(letters, letters[1:], strict=False))
    return len(letters) > 2 and letters[1:].islower() and bool(_VOWELS.search(letters)) and not is_alphabet


def _repeating(found: re.Match[str]) -> str:
    r"""0.1\overline{6} as a fraction."""
    whole, start, period = found.groups()
    below = 10 ** len(start) * (10 ** len(period) - 1)
    above = int(whole + start + period or "0") - int(whole + start or "0")
    return f"{{\\frac{{{above}}}{{{below}}}}}"


def _pieces(text: str, last: str = "") -> Iterator[Token]:
    """Tokens before their arguments are in braces; `last` is the kind of the token before."""
    at, is_spaced = 0, False
    while at < len(text):
        begin = _TEXT_BEGIN.match(text, at)
        if begin:
            end = _closing(text, begin.end())
            yield from _text_pieces(text[begin.end() : end], begin["how"])
            at, is_spaced, last = end + 1, text[end - 1 : end] in (" ", "~"), "word"
            continue
        found = _PIECE.match(text, at)
        assert found is not None  # the last alternative matches any character
        at = found.end()
        if found["blank"] or found["command"] in _BLANK:
            is_spaced = True
            continue
        if found["command"] in _DROPPED_WITH_ARGUMENT:
            at = _after_argument(text, at)
        for token in _piece(found, is_spaced, last):
            is_spaced = False
            last = last if token.text == "." else token.kind  # sq. ft
            yield token


def _piece(found: re.Match[str], is_spaced: bool, last: str) -> list[Token]:
    if found["row"]:
        return [Token("sign", "\\\\")]
    if found["env"]:
        return [Token("sign", f"{found['env']} {found['name']}")]
    if found["number"]:
        return [Token("number", found["number"], is_spaced)]
    if found["half"]:
        return [Token("word", f"{found['half'][0]}m", is_spaced)]
    if found["letters"]:
        return _letters(found["letters"], is_spaced, last)
    if found["command"]:
        return _command(found["command"], is_spaced)
    sign = _PLAIN_SIGNS.get(found["sign"], found["sign"])
    return [] if sign in ("$", "\\") else [Token("sign", sign, is_spaced)]


def _command(command: str, is_spaced: bool) -> list[Token]:
    if command in _DROPPED or command in _DROPPED_WITH_ARGUMENT:
        return []
    if command in ("lor", "vee", "land", "wedge"):
        return [Token("word", "or" if command in ("lor", "vee") else "and")]
    if command == "pi" or command in GREEK or command in FUNCTIONS - {"sqrt"}:
        return [Token("name", command, is_spaced)]
    return [Token("sign", _SIGNS.get(command, f"\\{command}" if len(command) > 1 or command in "{}" else command))]


def _letters(run: str, is_spaced: bool, last: str) -> list[Token]:
    """A run of bare letters: a function, a word, a unit after a number, or one variable after another."""
    if run == "sqrt":
        return [Token("sign", "\\sqrt")]
    if run.lower() in ("infinity", "inf"):
        return [Token("sign", "infinity")]
    if run in FUNCTIONS or run == "pi" or len(run) == 1:
        return [Token("name", run, is_spaced)]
    is_unit = last in ("number", "word") and units.is_unit(run)
    is_small = run in ("or", "and", "am", "pm") or (
        is_spaced and last in ("number", "word") and run in ("to", "is", "of", "US")
    )
    if is_unit or is_small or (is_word(run) and (is_spaced or last in ("", "word", "sign"))):
        return [Token("word", run, is_spaced)]
    if not run.islower():
        return [Token("name", run, is_spaced)]
    return [Token("name", letter, is_spaced and not n) for n, letter in enumerate(run)]


def _text_pieces(text: str, how: str) -> Iterator[Token]:
    r"""What stands in \text{...}: words; but \mathrm{i} is a variable, and \operatorname{sin} a function."""
    text = text.replace("~", " ")
    stripped = text.strip().lstrip("\\")
    if how in ("mathrm", "operatorname") and (stripped in FUNCTIONS or stripped in ("i", "e")):
        yield Token("name", stripped)
        return
    if "\\" in text or "$" in text or "^" in text or "_" in text:
        for token in _pieces(text, "word"):
            is_unit = how.startswith("math") and units.is_unit_letter(token.text)
            yield token._replace(kind="word") if is_unit else token
        return
    for found in _WORD.finditer(text):
        is_spaced = found.start() > 0 and text[found.start() - 1].isspace()
        if found["half"]:
            yield Token("word", found["half"][0].lower() + "m", is_spaced)
        else:
            kind = "number" if found["number"] else "word" if found["word"] else "sign"
            yield Token(kind, found[0], is_spaced)


def _closing(text: str, at: int) -> int:
    """Where the group that is open at `at` is closed; the end of the text if it never is."""
    depth = 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        else:
            depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return at
        at += 1
    return len(text)


def _after_argument(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return _closing(text, at + 1) + 1 if text[at : at + 1] == "{" else at + 1


def _is_degree(argument: Sequence[Token]) -> bool:
    """A raised circle, or the letter o for it."""
    return [token.text for token in argument[1:-1]] in (["degree"], ["o"])


class _Arguments:
    r"""Puts every argument of \frac, \sqrt, ^ and _ into braces, by TeX's rule: a group, or the next single token.

    A number after ^, _ and \sqrt is one argument as a whole (2^10 is meant as 1024), after \frac its first digit.
    """

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.at = tokens, 0

    def all(self) -> list[Token]:
        made: list[Token] = []
        while self.at < len(self.tokens):
            made += self._next()
        return made

    def _next(self) -> Sequence[Token]:
        token = self._take()
        if token.text in ("\\frac", "\\binom") and token.kind == "sign":
            return [token, *self._argument(by_digit=True), *self._argument(by_digit=True)]
        if token.text == "\\sqrt":
            degree = self._group("[") if self._peek() == "[" else []
            return [token, *degree, *self._argument()]
        if token.text in ("^", "_") and token.kind == "sign":
            argument = self._argument()
            return [Token("sign", "degree")] if _is_degree(argument) else [token, *argument]
        return [token]

    def _peek(self) -> str:
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    def _take(self) -> Token:
        if self.at >= len(self.tokens):
            raise NotUnderstood("an argument is missing")
        self.at += 1
        return self.tokens[self.at - 1]

    def _argument(self, by_digit: bool = False) -> list[Token]:
        if self._peek() == "{":
            return self._group("{")
        if self._peek() == "(":  # sqrt(2), 2^(1/2)
            return [Token("sign", "{"), *self._group("("), Token("sign", "}")]
        token = self._peek()
        if by_digit and token.isdigit() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = [Token("number", token[0]), Token("number", token[1:])]
        sign = [self._take()] if token == "-" else []
        return [Token("sign", "{"), *sign, *self._next(), Token("sign", "}")]

    def _group(self, opening: str) -> list[Token]:
        closing = {"{": "}", "[": "]", "(": ")"}[opening]
        made = [self._take()]
        while self._peek() != closing:
            made += (
                self._group("{") if self._peek() == "{" else self._group("(") if self._peek() == "(" else self._next()
            )
        return [*made, self._take()]
