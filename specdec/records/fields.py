"""Checks for what was read from disk: a JSON document's numbers, the fields of a dict: present, of the exact type, in
agreement.

Not the schema itself (`records.py`).
"""

import json
import math
from collections.abc import Callable
from typing import Any

from specdec.errors import UserError

MAX_NAME = 255  # bytes, of a file in any folder
MIN_MS = 1e-9  # less is nothing that a clock tells, and what is divided by it may be no number
MAX_MS = 3e13  # a thousand years: sums of times are numbers as well


def parse_json(text: str | bytes) -> Any:
    """The JSON document in a text. Raises ValueError, also for NaN, a number that a float does not hold, and what is
    nested too deep."""
    try:
        return json.loads(text, parse_int=_checked(int), parse_float=_checked(float), parse_constant=_checked(float))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _checked(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(digits: str) -> Any:
        value = kind(digits)
        if not is_number(value):
            raise ValueError(f"it has a number that is not finite, or too large: {digits:.40}")
        return value

    return read


def take(data: Any, key: str, is_valid: Callable[[Any], bool]) -> Any:
    """`data[key]`; UserError if `data` is not a dict, lacks the key or holds an invalid value."""
    if not isinstance(data, dict):
        raise UserError(f"a {type(data).__name__} where a dict belongs")
    if key not in data:
        raise UserError(f"{key} is missing")
    if not is_valid(data[key]):
        raise UserError(f"{key} is wrong: {shown(data, key)}")
    return data[key]


def require_equal(derived: dict[str, Any], data: dict[str, Any]) -> None:
    """UserError unless `data` holds every key of `derived` with the same value."""
    for key, value in derived.items():
        if key not in data:
            raise UserError(f"{key} is missing")
        if not is_same(data[key], value):
            raise UserError(f"{key} does not agree with the rest")


def is_same(left: Any, right: Any) -> bool:
    """Equal in value and in type, at every depth (True is not 1); NaN equals itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(is_same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(is_same, left, right))
    return left == right or (left != left and right != right)


def shown(data: dict[str, Any], key: str) -> str:
    """`data[key]` for an error message: at most 80 characters."""
    text = repr(data[key]) if key in data else "nothing"
    return text if len(text) <= 80 else text[:77] + "..."


def is_exactly(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


is_str, is_dict, is_list, is_flag = is_exactly(str), is_exactly(dict), is_exactly(list), is_exactly(bool)


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def is_token_or_none(value: Any) -> bool:
    return value is None or is_count(value)


def is_file_name(value: Any) -> bool:
    """A text by which a file or a folder could be called, maybe after others that it is in."""
    try:
        parts = value.encode().split(b"/") if is_str(value) else [b"\0"]
    except UnicodeEncodeError:
        return False
    return all(len(part) <= MAX_NAME and b"\0" not in part for part in parts)


def is_tokens(value: Any) -> bool:
    return type(value) is list and all(map(is_count, value))


def is_indices(value: Any) -> bool:
    """A list of indices; -1: none."""
    return type(value) is list and all(type(item) is int and -1 <= item < 2**63 for item in value)


def is_floats(value: Any) -> bool:
    return type(value) is list and all(type(item) is float and math.isfinite(item) for item in value)


def is_confidences(value: Any) -> bool:
    """A list of probabilities, 1 but for rounding at most."""
    return is_probabilities(value) and None not in value


def is_probabilities(value: Any) -> bool:
    """A list of probabilities, 1 but for rounding at most; None where there is none."""
    return type(value) is list and all(item is None or (type(item) is float and 0 <= item < 1.001) for item in value)


def is_number(value: Any) -> bool:
    """Finite, and an int only if it is one as a float as well."""
    return type(value) in (int, float) and abs(value) < 1e300


def is_ms(value: Any) -> bool:
    return type(value) is float and is_duration(value)


def is_duration(number: float) -> bool:
    return number == 0 or MIN_MS <= number < MAX_MS
