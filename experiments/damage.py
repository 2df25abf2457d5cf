"""Damage: the bytes of real files and the values of real documents, changed at random, as hostile as it gets.

A pure function of what is given and of a `random.Random`. It reads no file and judges nothing: who uses it does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

# What a page, a log, a terminal or a number's reader might trip over.
TEXTS = (
    *("", "\x00", "\u202e", "\ud800", "\x1b[2J", "a" * 5000),
    *("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--", "]]>", "\u2028", "&#60;b&#62;"),
    *("[Problem 7, ar_None_sf_3] Totals: {}", "\n", "\r", "../../x", "%s{0}", "NaN", "1e999", '"', "'", "`${1}`"),
)
NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.0, -0.0, 1e308, 5e-324, math.inf, -math.inf, math.nan)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"a": {}}, [0] * 300)
BYTES = (b"\xff\xfe", b"\xed\xa0\x80", b"{" * 3000, b"[" * 3000, b"\x00" * 64)

# Pickle opcodes that call code, name it, share, or say that gigabytes follow.
CALL = b"\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R"
CALLS = (CALL, b"cposix\nsystem\n(S'true'\ntR", b"(cposix\nsystem\nS'true'\no", b"(S'true'\niposix\nsystem\n")
NAMES = (b"cbuiltins\neval\n", b"\x82\x01", b"Pabc\n", b"Q", b"b", b"\x81", b"\x92", b"\x8c\x02os\x8c\x04exec\x93")
SHARING = (b"2", b"0", b"1", b"]", b"}", b"(", b"e", b"u", b"s", b"a", b"t", b"h\x00", b"h\xff", b"\x94", b".")
DEEP = (
    b"]" * 3000,
    b"}" * 3000,
    b"(" * 3000,
    b"\x80\x05",
    b"\x80\xff",
    b"F1e999\n",
    b"V\\ud800\n",
    b"I" + b"1" * 5000 + b"\n",
)
HUGE = (
    *(b"j\x00\x00\x00\x80", b"r\xff\xff\xff\xff", b"X\x00\x00\x00\x80", b"\x8b\xff\xff\xff\x7f"),
    *(letter + b"\x00" * 5 + b"\x01\x00\x00" for letter in (b"\x8d", b"\x8e", b"\x95", b"\x96")),
)
OPCODES = (*CALLS, *NAMES, *SHARING, *DEEP, *HUGE)
Edit = Callable[[bytes, random.Random], bytes]


def damaged(data: bytes, rng: random.Random, snippets: Sequence[bytes] = ()) -> bytes:
    """`data` after one to four edits: a bit turned, a part cut out or doubled, a snippet put in, the end lost.

    Snippets are TEXTS and BYTES, and those that are given.
    """
    snippets = (*(text.encode("utf-8", "surrogatepass") for text in TEXTS), *BYTES, *snippets)
    edits: tuple[Edit, ...] = (_turn, _turn, _cut, _double, _end, lambda data, rng: _put(data, rng, snippets))
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(edits)(data, rng)
    return data


def exchanged(document: Any, rng: random.Random) -> Any:
    """A copy of a document of plain builtins, with one to three of its values, or keys, exchanged for others."""
    for _ in range(rng.randint(1, 3)):
        document = _exchange(document, rng)
    return document


def _exchange(value: Any, rng: random.Random) -> Any:
    """One place below `value`, each level as likely to be it as to be passed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            rest = {one: inner for one, inner in value.items() if one != key}
            return rest if rng.random() < 0.5 else {**rest, rng.choice(TEXTS): value[key]}
        return {**value, key: _exchange(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], _exchange(value[place], rng), *value[place + 1 :]]
    return _other(value, rng)


def _other(value: Any, rng: random.Random) -> Any:
    """Something else, of the same type in two cases of three."""
    alike = {str: TEXTS, int: NUMBERS, float: NUMBERS}.get(type(value))
    if alike is not None and rng.random() < 0.67:
        return value + rng.choice(TEXTS) if isinstance(value, str) and rng.random() < 0.5 else rng.choice(alike)
    return rng.choice((*TEXTS, *NUMBERS, *OTHERS))


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    begin = rng.randint(0, len(data))
    return begin, min(len(data), begin + rng.choice((1, 2, 8, 64, 512)))


def _turn(data: bytes, rng: random.Random) -> bytes:
    place = rng.randint(0, len(data))
    turned = bytes(byte ^ (1 << rng.randrange(8)) for byte in data[place : place + 1])
    return data[:place] + turned + data[place + 1 :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + data[end:]


def _double(data: bytes, rng: random.Random) -> bytes:
    (begin, end), place = _span(data, rng), rng.randint(0, len(data))
    return data[:place] + data[begin:end] + data[place:]


def _end(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))] if rng.random() < 0.5 else data


def _put(data: bytes, rng: random.Random, snippets: Sequence[bytes]) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + rng.choice(snippets) + data[end if rng.random() < 0.5 else begin :]
