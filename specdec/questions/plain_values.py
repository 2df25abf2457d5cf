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

# Kinds that JSON lacks: a mark, the type, what its parts are, and how it is made of them again.
_KINDS: tuple[tuple[str, type, Callable[[Any], Any], Callable[[list[Any]], Any]], ...] = (
    ("tuple", tuple, list, tuple),
    ("set", set, list, set),
    ("frozenset", frozenset, list, frozenset),
    ("dict", dict, lambda value: [part for pair in dict.items(value) for part in pair], lambda parts: _paired(parts)),
    ("bytes", bytes, list, bytes),
    ("bytearray", bytearray, list, bytearray),
    ("deque", deque, list, deque),
    ("range", range, lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    ("complex", complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    ("decimal", Decimal, lambda value: [str(value)], lambda parts: Decimal(*parts)),
    ("fraction", Fraction, lambda value: [value.numerator, value.denominator], lambda parts: Fraction(*parts)),
    ("keys", KeysView, list, lambda parts: dict.fromkeys(parts).keys()),
    ("values", ValuesView, list, lambda parts: dict(enumerate(parts)).values()),
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


def _paired(parts: list[Any]) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _encoded(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return ["list", *map(_encoded, value)]
    for mark, kind, parts_of, _ in _KINDS:
        if isinstance(value, kind):
            return [mark, *map(_encoded, parts_of(value))]
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return _encoded(value.item())
    return ["other"]


def _decoded(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    mark, parts = value[0], [_decoded(part) for part in value[1:]]
    if mark in ("list", "other"):
        return parts if mark == "list" else Other()
    return {name: make for name, _, _, make in _KINDS}[mark](parts)
