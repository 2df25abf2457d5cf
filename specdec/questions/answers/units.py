"""Units: what may stand after a number and does not change its value, and when two of them are the same.

It converts nothing: 3 m and 300 cm are not taken for the same answer, because the question says in what it asks.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_SPELLINGS = {
    "m": "m meter metre", "cm": "cm centimeter centimetre", "mm": "mm millimeter millimetre",
    "km": "km kilometer kilometre", "in": "in inch inches", "ft": "ft foot feet", "yd": "yd yard", "mi": "mi mile",
    "s": "s sec second", "ms": "ms millisecond", "min": "min minute", "h": "h hr hour", "day": "day",
    "week": "week wk", "month": "month", "year": "year yr", "g": "g gram gm", "kg": "kg kilogram kilo",
    "mg": "mg milligram", "pound": "pound lb £", "oz": "oz ounce", "ton": "ton tonne", "l": "l liter litre",
    "ml": "ml milliliter millilitre", "gal": "gal gallon", "cup": "cup", "pint": "pint pt", "quart": "quart qt",
    "$": "$ dollar usd buck", "cent": "cent ¢", "€": "€ euro eur", "¥": "¥ yen", "rupee": "rupee rs inr",
    "%": "% percent percentage pct", "degree": "degree deg", "radian": "radian rad", "mph": "mph", "kph": "kph kmh",
    "unit": "unit", "kwh": "kwh", "point": "point pts",
    "n": "n newton", "j": "j joule", "w": "w watt", "v": "v volt", "hz": "hz hertz",
    "ha": "ha hectare", "acre": "acre",
}  # fmt: skip


def _by_spelling() -> dict[str, str]:
    return {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}


_CANONICAL = _by_spelling()
_WHOLE = {"mi/h": "mph", "km/h": "kph"}
_PER = re.compile(r"\*?\b([a-z]+)\^-(\d)")  # km*h^-1
_POWERS = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cu": "3", "cubed": "3"}
_LETTERS = frozenset(
    {"m", "g", "s", "h", "l", "L", "J", "N", "W", "V"}
)  # units of one letter that may also be variables
# Words after which a number is not what it was.
_CHANGING = frozenset({
    "hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "halves", "third", "thirds", "fourth",
    "fourths", "quarter", "quarters", "fifth", "fifths", "tenth", "tenths", "hundredth", "hundredths", "thousandth",
    "below", "less", "fewer", "minus", "plus", "times", "over", "divided", "by", "factorial", "not", "no", "pi",
    "root", "negative", "nor", "except", "to", "mod", "modulo", "base", "choose", "than",
})  # fmt: skip
_EMPTY_WORDS = frozenset({"of", "the", "a", "an", "in", "each", "more", "total", "about"})


class Unit(NamedTuple):
    """What is measured in (`$/h`, `cm^2`), and the nouns that are counted (`right triangles`)."""

    measure: str = ""
    nouns: frozenset[str] = frozenset()


def is_unit(letters: str) -> bool:
    """Whether a run of two letters or more is a unit: cm, USD, dollars."""
    return len(letters) > 1 and (_canonical(letters) is not None or letters.lower() in _POWERS)


def is_unit_letter(letter: str) -> bool:
    """Whether a single letter may be a unit: m, s, g."""
    return letter in _LETTERS


def unit_of(words: Sequence[str]) -> Unit | None:
    """The unit that `words` are: words, "/", "*", and "^2" for a power; None where they are more than a unit.

    >>> unit_of(["square", "centimeters"]) == unit_of(["cm", "^2"]), unit_of(["million"])
    (True, None)
    """
    measures: list[str] = []
    nouns, power = set(), ""
    for word in words:
        lower = word.lower()
        if lower in _CHANGING or not re.fullmatch(r"[A-Za-z]+|\^-?\d|[/*$%€£¥¢]", word):
            return None
        canonical = _canonical(word)
        if lower in ("squared", "cubed") and measures:
            measures[-1] += f"^{_POWERS[lower]}"
        elif lower in _POWERS:
            power = f"^{_POWERS[lower]}"
        elif word[0] == "^" and measures:
            measures[-1] += word
        elif lower in ("per", "/", "*"):
            measures.append("/" if lower != "*" else "*")
        elif canonical and canonical != "$" or canonical and "$" not in measures:
            is_next = bool(measures) and measures[-1] not in ("/", "*")
            measures += ["*"] * is_next + [canonical + power]
            power = ""
        elif not canonical and lower not in _EMPTY_WORDS and word[0] != "^":
            nouns.add(_singular(lower))
    if power or (words and not measures and not nouns and words[-1].lower() not in _EMPTY_WORDS):
        return None
    measure = _PER.sub(r"/\1^\2", "".join(measures)).replace("^1", "").strip("/*")
    return Unit(_WHOLE.get(measure, measure), frozenset(nouns))


NO_PERCENTAGE = Unit("1")  # of a percentage as the number that it is: 0.5 of 50 %


def may_agree(one: Unit | None, other: Unit | None) -> bool:
    """Whether the same number in two units is one answer: one has none, or they say the same, one in more words."""
    if one is None or other is None:
        return True
    return one.measure == other.measure and (one.nouns <= other.nouns or other.nouns <= one.nouns)


def _canonical(word: str) -> str | None:
    lower = word.lower()
    return _CANONICAL.get(lower) or _CANONICAL.get(_singular(lower)) or _CANONICAL.get(lower.removesuffix("s"))


def _singular(word: str) -> str:
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and len(word) > 3 and not word.endswith("ss") else word
