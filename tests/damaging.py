"""Damage for tests: the values or the bytes of a document changed, and what reads it tried."""

from __future__ import annotations

import dataclasses
import json
import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from experiments.damage import damaged, exchanged
from specdec.errors import UserError

Use = Callable[[Path], Any]  # reads a file and uses what was read; raises UserError
SEEDS = st.integers(0, 2**64)


def tried(work: Callable[[], Any]) -> Any:
    """What `work` gives; None where it refuses in one line, as a user is told."""
    try:
        return work()
    except UserError as error:
        assert " ".join(str(error).split())
        return None


def either(
    data: bytes, rng: random.Random, read: Callable[[bytes], Any], write: Callable[[Any], bytes], of_bytes: float = 0.5
) -> bytes:
    """Damage in the bytes, in that share of cases, or to the values that they hold."""
    return damaged(data, rng) if rng.random() < of_bytes else write(exchanged(read(data), rng))


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def is_told(use: Use, data: bytes) -> bool:
    """Whether a file of these bytes, alone in a folder, is refused in one line; else it is read, and no number in what
    is made of it was more than a float holds."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # numpy's, of numbers that are none
        path = Path(folder) / "document.json"
        path.write_bytes(data)

        def work() -> bool:
            use(path)
            return True

        return tried(work) is None


def numbers_of(value: Any) -> list[float]:
    """All numbers in it, however deep."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return numbers_of(vars(value))
    if isinstance(value, dict):
        return [number for one in value.items() for number in numbers_of(one)]
    if isinstance(value, list | tuple | set | frozenset):
        return [number for one in value for number in numbers_of(one)]
    if isinstance(value, np.ndarray):
        return [float(number) for number in value.flat]
    return [value] if isinstance(value, int | float) else []


def sound(value: Any) -> Any:
    """The same; every number in it is one that can be reckoned with."""
    for number in numbers_of(value):
        assert abs(number) < 1e300, number
    return value
