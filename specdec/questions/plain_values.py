"""Plain values as text: what a function is called with and gives back, on its way between two processes.

Numbers, strings, the built-in containers and what iterates over them. A value of any other kind arrives as an object
that equals nothing, so that no answer can hand over one that claims to equal all. Standard library only.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, KeysView, ValuesView
from decimal import Decimal
from fractions import Fraction
from typing import Any

_Parts = list[Any]


def _of_dict(value: dict[Any, Any]) -> _Parts:
    return [part for pair in dict.items(value) for part in pair]


def _to_dict(parts: _Parts) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _of_range(value: range) -> _Parts:
    return [value.start, value.stop, value.step]


def _to_range(parts: _Parts) -> range:
    return range(*parts)


def _of_complex(value: complex) -> _Parts:
    return [value.real, value.imag]


def _to_complex(parts: _Parts) -> complex:
    return complex(*parts)


def _of_decimal(value: Decimal) -> _Parts:
    return [str(value)]


def _to_decimal(parts: _Parts) -> Decimal:
    return Decimal(*parts)


def _of_fraction(value: Fraction) -> _Parts:
    return [value.numerator, value.denominator]


def _to_fraction(parts: _Parts) -> Fraction:
    return Fraction(*parts)


def _to_keys(parts: _Parts) -> KeysView[Any]:
    return dict.fromkeys(parts).keys()


def _to_values(parts: _Parts) -> ValuesView[Any]:
    return dict(enumerate(parts)).values()


# Kinds that JSON lacks: a mark, the type, what its parts are, and how it is made of them again.
_KINDS: tuple[tuple[str, type, Callable[[Any], _Parts], Callable[[_Parts], Any]], ...] = (
    ("tuple", tuple, list, tuple),
    ("set", set, list, set),
    ("frozenset", frozenset, list, frozenset),
    ("dict", dict, _of_dict, _to_dict),
    ("bytes", bytes, list, bytes),
    ("bytearray", bytearray, list, bytearray),
    ("deque", deque, list, deque),
    ("range", range, _of_range, _to_range),
    ("complex", complex, _of_complex, _to_complex),
    ("decimal", Decimal, _of_decimal, _to_decimal),
    ("fraction", Fraction, _of_fraction, _to_fraction),
    ("keys", KeysView, list, _to_keys),
    ("values", ValuesView, list, _to_values),
    ("iterator", Iterator, list, iter),
)


class Other:
    """A value that is not plain: equal to no other."""


def to_text(value: Any) -> str:
    """One line; iterators are read to their end."""
    return json.dumps(_encoded(value))


def from_text(line: str | bytes) -> Any:
    """The value of such a line. ValueError, TypeError, KeyError or RecursionError where it is none."""
    return _decoded(json.loads(line))


def _encoded(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return ["list", *map(_encoded, value)]
    for mark, kind, parts_of, _ in _KINDS:
        if isinstance(value, kind):
            return [mark, *map(_encoded, parts_of(value))]
    if type(value).__module__ == "numpy" and hasattr(value, "ndim"):
        plain = value.tolist()
        return _encoded(plain if value.ndim == 0 else deque(plain))  # an array has parts, but is not a list
    return ["other"]


def _decoded(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    mark, parts = value[0], [_decoded(part) for part in value[1:]]
    if mark in ("list", "other"):
        return parts if mark == "list" else Other()
    return {name: make for name, _, _, make in _KINDS}[mark](parts)
