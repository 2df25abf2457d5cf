"""Splitting: tokens into items, sides, rows and cells, a number from its unit. It gives nothing a value."""

from collections.abc import Collection, Iterator, Sequence

from specdec.questions.answers import units
from specdec.questions.answers.tokens import CALLED, FUNCTIONS, NotUnderstood, Token

Tokens = Sequence[Token]
RELATIONS = ("=", "<", ">", "<=", ">=", "!=", "~", "in")
_OPENING, _CLOSING = ("(", "[", "{", "\\{", "<<"), (")", "]", "}", "\\}", ">>")
_PREFACE = frozenset({
    "about", "either", "both", "approximately", "approx", "roughly", "answer", "is", "the", "final", "exactly",
    "equals", "so", "option", "choice",
})  # fmt: skip
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MONEY = ("$", "€", "£", "¥", "¢")


def texts(tokens: Tokens) -> list[str]:
    return [token.text for token in tokens]


def joined(tokens: Tokens) -> str:
    """Tokens as one text, to be compared: words, and letters in a row, without their capitals."""
    return " ".join(_folded(token) for token in tokens)


def _folded(token: Token) -> str:
    is_word = len(token.text) > 1 and (token.kind == "word" or (token.kind == "name" and token.text.isupper()))
    return token.text.lower() if is_word else token.text


def depths(tokens: Tokens) -> list[int]:
    """How many brackets are open at each token; an opening one and its closing one stand outside."""
    found, depth = [], 0
    for token in tokens:
        is_sign = token.kind == "sign"
        if is_sign and (token.text in _CLOSING or token.text.startswith("end ")):
            depth -= 1
        found.append(depth)
        if is_sign and (token.text in _OPENING or token.text.startswith("begin ")):
            depth += 1
    return found


def split(tokens: Tokens, at: Collection[str], kinds: Collection[str] = ("sign",)) -> tuple[list[Tokens], list[Token]]:
    """The parts between the separators that stand in no bracket, and those separators."""
    if not any(token.text.lower() in at for token in tokens):  # most often
        return [tokens], []
    parts: list[list[Token]] = [[]]
    separators = []
    for token, depth in zip(tokens, depths(tokens), strict=True):
        if depth == 0 and token.kind in kinds and token.text.lower() in at:
            parts.append([])
            separators.append(token)
        else:
            parts[-1].append(token)
    return list(parts), separators


def items(tokens: Tokens) -> tuple[list[Tokens], set[str]]:
    """What is listed, between commas, semicolons, "and" and "or", and which of these there are."""
    parts, separators = split(tokens, (",", ";", "and", "or"), ("sign", "word"))
    return [part for part in parts if part], {token.text.lower() for token in separators}


def trimmed(tokens: Tokens) -> Tokens:
    """Without what ends or begins a sentence, and without braces around the whole."""
    while True:
        before = len(tokens)
        while tokens and tokens[-1].kind == "sign" and tokens[-1].text in (".", ",", ";", "?", "\\\\"):
            tokens = tokens[:-1]
        while len(tokens) > 1 and (tokens[0].text in ("~", "=", ":") or _is_preface(tokens[0])):
            tokens = tokens[1:]
        if is_bracketed(tokens, "{", "}"):
            tokens = tokens[1:-1]
        if len(tokens) == before:
            return tokens


def _is_preface(token: Token) -> bool:
    return token.kind == "word" and token.text.lower() in _PREFACE


def is_bracketed(tokens: Tokens, opening: str = "", closing: str = "") -> bool:
    """Whether one pair of brackets holds the whole."""
    if len(tokens) < 2 or tokens[0].text not in (opening or _OPENING) or tokens[-1].text not in (closing or _CLOSING):
        return False
    return tokens[0].kind == tokens[-1].kind == "sign" and all(depths(tokens)[1:-1]) and depths(tokens)[-1] == 0


def thousands(tokens: Tokens) -> Iterator[Tokens]:
    """The readings of commas between digits: as thousands separators, where they may be, and as they are.

    In a tuple (20,100) they are none, unless a blank follows others there: (1,000, 2,000).
    """
    if sum(token.kind == "number" for token in tokens) < 2:
        yield tokens
        return
    made: list[Token] = []
    inner = depths(tokens)
    for at, token in enumerate(tokens):
        if made and _goes_on(made, token, tokens, at, inner):
            made[-1] = Token("number", made[-1].text + token.text, made[-1].is_spaced)
        else:
            made.append(token)
    if len(made) < len(tokens):
        yield [Token(kind, text.replace(",", "") if kind == "number" else text, blank) for kind, text, blank in made]
    yield tokens


def _goes_on(made: list[Token], token: Token, tokens: Tokens, at: int, inner: list[int]) -> bool:
    """Whether `token` is the comma, or after one the three digits, of the number that `made` ends with."""
    if made[-1].kind != "number":
        return False
    if token.is_spaced:  # 1 000 000
        is_group = token.kind == "number" and _is_group(token.text) and len(tokens[at - 1].text) <= 3
        return is_group and inner[at] == 0 and tokens[at - 1].text.isdigit() and made[-1].text[0] != "0"
    if token.text == "," and token.kind == "sign":
        follower = tokens[at + 1] if at + 1 < len(tokens) else None
        if follower is None or follower.kind != "number" or follower.is_spaced or not _is_group(follower.text):
            return False
        first = made[-1].text.partition(",")[0]
        return len(first) <= 3 and first.isdigit() and first[0] != "0" and _may_join(tokens, at, inner)
    return made[-1].text.endswith(",") and token.kind == "number"


def _is_group(text: str) -> bool:
    whole, _, decimals = text.partition(".")
    return len(whole) == 3 and whole.isdigit() and (not decimals or decimals.isdigit())


def _may_join(tokens: Tokens, at: int, inner: list[int]) -> bool:
    """Outside of brackets and in arguments always; in a tuple only where a blank tells its own commas apart."""
    begin = at
    while begin >= 0 and inner[begin] >= inner[at]:
        begin -= 1
    if inner[at] == 0 or tokens[begin].text == "{":
        return True
    end = at
    while end < len(tokens) and inner[end] >= inner[at]:
        end += 1
    commas = [n for n in range(begin + 1, end) if tokens[n].text == "," and inner[n] == inner[at]]
    return any(n + 1 < len(tokens) and tokens[n + 1].is_spaced for n in commas)


def relations(tokens: Tokens) -> tuple[list[Tokens], list[str]]:
    """The sides of a chain of relations, and these."""
    sides, separators = split(tokens, RELATIONS)
    return sides, [token.text for token in separators]


def is_name(tokens: Tokens) -> bool:
    r"""Whether what is said to be something is a name: x, x_1, f(x), AB, \angle A, (x, y), words."""
    outside = [token for token, depth in zip(tokens, depths(tokens), strict=True) if depth == 0]
    heads = [token for token in outside if token.text not in ("(", ")", "{", "}", "_", "'", "\\angle", "\\triangle")]
    inside = [token for token, depth in zip(tokens, depths(tokens), strict=True) if depth]
    if not tokens or any(token.kind == "sign" and token.text not in (",", "(", ")") for token in inside):
        return bool(len(heads) == 1 and heads[0].text in CALLED)
    if not heads:
        return len(inside) > 1 and all(token.kind == "name" or token.text == "," for token in inside)
    is_angle = any(token.text == "\\angle" for token in tokens)
    if not all(token.kind == "word" or (token.kind == "name" and token.text not in ("pi", "i")) for token in heads):
        return False
    names = [token for token in heads if token.kind == "name"]
    return (len(names) <= 1 or is_angle) and not any(token.text in FUNCTIONS for token in names)


def matrix_of(tokens: Tokens) -> tuple[str, list[list[Tokens]]]:
    """The kind ("matrix", or of determinants "vmatrix") and cells of a matrix, a factor before it put into each."""
    begins = [at for at, token in enumerate(tokens) if token.text.startswith("begin ")]
    kind = tokens[begins[0]].text.removeprefix("begin ")
    factor, rest = tokens[: begins[0]], tokens[begins[0] + 1 :]
    if len(begins) != 1 or not rest:
        raise NotUnderstood("not one matrix")
    is_turned = texts(rest)[-4:] == ["^", "{", "T", "}"]
    rest = rest[:-4] if is_turned else rest
    if len(factor) == 1 and factor[0].text in ("(", "[") and rest and rest[-1].text in (")", "]"):
        factor, rest = [], rest[:-1]
    if not rest or rest[-1].text != f"end {kind}" or not (kind.endswith("matrix") or kind == "array"):
        raise NotUnderstood("not one matrix")
    rows = [row for row in split(rest[:-1], ("\\\\",))[0] if row]
    sign = Token("sign", "*")
    begin, end = [Token("sign", "(")], [Token("sign", ")")]
    wrapped = [*begin, *factor, *end, sign] if factor and factor[-1].text not in ("*", "-") else list(factor)
    cells = [[[*wrapped, *begin, *cell, *end] if wrapped else cell for cell in split(row, ("&",))[0]] for row in rows]
    if is_turned:
        cells = [list(column) for column in zip(*cells, strict=True)]
    return kind if kind.lower() == "vmatrix" else "matrix", cells


def without_unit(tokens: Tokens) -> tuple[Tokens, units.Unit | None, int]:
    """A quantity without its unit, the unit, and what a word such as million multiplies by.

    Raises NotUnderstood where words follow that are more than a unit.
    """
    tokens, before = _without_money(tokens)
    end = next((at for at in range(1, len(tokens)) if _begins_unit(tokens, at)), len(tokens))
    after = _unit_words(tokens[end:])
    if after == ["degree"] and any(token.text in FUNCTIONS for token in tokens):
        return tokens, None, 1
    scale = _SCALES.get(after[0].lower(), 1) if after else 1
    words = before + after[1 if scale > 1 else 0 :]
    unit = units.unit_of(words) if words else None
    if words and unit is None:
        raise NotUnderstood("words that are not a unit")
    return tokens[:end], unit, scale


def unit_letters(tokens: Tokens) -> int | None:
    """Where a unit of a single letter may begin that may also be a variable: 5 m, 3 m/s; None where there is none."""
    for at in range(1, len(tokens)):
        token = tokens[at]
        if tokens[at - 1].kind == "number" and token.kind == "name" and token.is_spaced:
            rest = tokens[at:]
            is_unit = all(units.is_unit_letter(one.text) for one in rest if one.kind == "name")
            return at if is_unit and len(rest) <= 9 else None
    return None


def _without_money(tokens: Tokens) -> tuple[Tokens, list[str]]:
    r"""\$5, -\$5, US\$5, USD 5: the amount, and the currency."""
    sign = [tokens[0]] if len(tokens) > 1 and tokens[0].text == "-" else []
    rest = tokens[len(sign) :]
    if len(rest) > 1 and rest[0].text in ("US", "AU", "CA") and rest[1].text == "$":
        rest = rest[1:]
    if len(rest) > 1 and rest[0].text in (*_MONEY, "USD", "EUR", "Rs"):
        return [*sign, *rest[1:]], ["$" if rest[0].text == "USD" else rest[0].text]
    return tokens, []


def _begins_unit(tokens: Tokens, at: int) -> bool:
    token, follower = tokens[at], tokens[at + 2] if at + 2 < len(tokens) else None
    is_start = token.kind == "word" or (token.kind == "sign" and token.text in (*_MONEY, "%", "degree"))
    is_fraction = token.text == "\\frac" and follower is not None and follower.kind == "word"
    if not (is_start or is_fraction) or depths(tokens)[at] != 0:
        return False
    try:
        return bool(_unit_words(tokens[at:]))
    except NotUnderstood:
        return False


def _unit_words(tokens: Tokens) -> list[str]:
    """The words, signs and powers of a unit. Raises NotUnderstood for anything else."""
    words, at = [], 0
    all_texts = texts(tokens)
    while at < len(tokens):
        token = tokens[at]
        if token.kind in ("word", "name") or token.text in (*_MONEY, "%", "degree", "/", "*"):
            words.append(token.text)
        elif token.text == "^":
            end = all_texts.index("}", at)
            words.append("^" + "".join(all_texts[at + 2 : end]))
            at = end
        elif token.text == "}" and all_texts[at + 1 : at + 2] == ["{"]:
            words.append("/")
        elif token.text not in ("\\frac", "{", "}", "(", ")", ".", "-"):
            raise NotUnderstood("not a unit")
        at += 1
    return words
