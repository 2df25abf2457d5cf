"""Plain: readings of a single thing: words, the letter of an option, a ratio or time, digits in a base, a quantity."""

from fractions import Fraction

from specdec.questions.answers import units
from specdec.questions.answers.expressions import Expression, Value
from specdec.questions.answers.kinds import Based, Quantity, Ratio, Reading, Values, Words
from specdec.questions.answers.splitting import Tokens, joined, split, texts, thousands, unit_letters, without_unit
from specdec.questions.answers.tokens import NotUnderstood, Token

_SMALL = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def difference(left: Tokens, right: Tokens) -> Values:
    minus, begin, end = Token("sign", "-"), Token("sign", "("), Token("sign", ")")
    left, right = (_unit_free(side) for side in (left, right))
    return Expression([begin, *left, end, minus, begin, *right, end]).values


def _unit_free(tokens: Tokens) -> Tokens:
    return next(iter(thousands(without_unit(tokens)[0])))


def constant(tokens: Tokens, is_needed: bool = True) -> Value | None:
    for one in plain(tokens):
        if isinstance(one, Quantity) and len(one.values) == 1:
            return one.values[0]
    if is_needed:
        raise NotUnderstood("not a constant")
    return None


def plain(tokens: Tokens) -> list[Reading]:
    """Words, letters of options, ratios, digits in a base, quantities."""
    if not tokens:
        raise NotUnderstood("nothing")
    found = _letter(tokens) + _ratio(tokens) + _based(tokens)
    if len(tokens) == 1 and tokens[0].kind == "name" and len(tokens[0].text) > 1 and tokens[0].text.isupper():
        found.append(Words(joined(tokens)))  # CBAD: an order, or the name of a segment
    if all(token.kind == "word" or (token.kind == "sign" and token.text in ("-", "'", ".")) for token in tokens):
        words = [token for token in tokens if token.kind == "word"]
        has_article = len(words) > 1 and words[0].text.lower() in ("a", "an", "the")
        found.append(Words(joined(words[1:] if has_article else words)))
        if joined(tokens) in _SMALL:
            found.append(Quantity((Fraction(_SMALL.index(joined(tokens))),)))
        return found
    try:
        return found + _quantity(tokens)
    except NotUnderstood:
        if found:
            return found
        raise


def _letter(tokens: Tokens) -> list[Reading]:
    """The letter of an option: A, (A), A), A. and more."""
    begin = 1 if tokens[0].text == "(" else 0
    if len(tokens) <= begin or len(tokens[begin].text) != 1 or not "A" <= tokens[begin].text <= "Z":
        return []
    rest = tokens[begin + 1 :]
    if not rest or texts(rest) == [")"]:
        return [Words(tokens[begin].text)]
    if rest[0].text in ((")",) if begin else (")", ".", ":")) and len(rest) > 1 and rest[1].is_spaced:
        return [Words(tokens[begin].text), *plain(rest[1:])]
    return []


def _ratio(tokens: Tokens) -> list[Reading]:
    half = tokens[-1].text.lower() if tokens[-1].text.lower() in ("am", "pm") else ""
    parts, _ = split(tokens[:-1] if half else tokens, (":", "to"), ("sign", "word"))
    if len(parts) < 2 or not all(parts):
        return []
    values = [constant(part, is_needed=False) for part in parts]
    known = tuple(value for value in values if value is not None)
    if len(known) < len(parts):
        return []
    last = parts[-1][-1].text
    return [Ratio(known, half, bool(half) or (last.isdigit() and len(last) == 2))]


def _based(tokens: Tokens) -> list[Reading]:
    r"""12_5, (12)_{\text{five}}; a numeral in base ten is a number."""
    found = texts(tokens)
    if found[-2:-1] == ["base"]:
        found = [*found[:-2], "_", "{", found[-1], "}"]
    sign = found[:1] if found[0] == "-" else []
    if len(found) < 5 or found[-1] != "}" or "_" not in found:
        return []
    at = found.index("_")
    digits, base = found[len(sign) : at], "".join(found[at + 2 : -1]).lower()
    if digits and digits[0] in ("(", "{") and digits[-1] in (")", "}"):
        digits = digits[1:-1]
    number = _SMALL.index(base) if base in _SMALL else int(base) if base.isdigit() and len(base) < 3 else 0
    text = "".join(digits).upper()
    if not (text.isalnum() and text.isascii() and any(one.isdigit() for one in text)) or not 2 <= number <= 36:
        return []
    if any(int(digit, 36) >= number for digit in text):
        return []
    if number == 10:
        return [Quantity((Fraction(int("".join(sign) + text)),))]
    return [Based("".join(sign) + text.lstrip("0"), number)]


def _quantity(tokens: Tokens) -> list[Reading]:
    body, unit, scale = without_unit(tokens)
    if not body:
        raise NotUnderstood("nothing measured")
    found: list[Reading] = []
    at = unit_letters(body)
    if at is not None and unit is None:
        found.append(Quantity(Expression(body[:at]).values, units.unit_of(_letters_of(body[at:]))))
    values = Expression(body).values
    values = tuple(None if value is None else value * scale for value in values) if scale > 1 else values
    if unit is not None and unit.measure == "%":
        hundredths = tuple(None if value is None else value / 100 for value in values)
        return [*found, Quantity(values, unit), Quantity(hundredths, units.NO_PERCENTAGE)]
    return [*found, Quantity(values, unit)]


def _letters_of(tokens: Tokens) -> list[str]:
    """m ^ { 2 } as "m", "^2"."""
    return "".join(texts(tokens)).replace("{", "").replace("}", "").replace("^", " ^").replace("/", " / ").split()
