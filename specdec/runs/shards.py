"""Shards: which part of the questions one task of many works on.

Shard i of n takes every n-th question from the i-th on, so that an array of any size covers all of them, and questions
of similar difficulty, which tend to be neighbours, spread over the tasks. What tasks write, they share by files.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from specdec.errors import UserError

SLURM = "slurm"
_NAMES = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count`."""

    index: int
    count: int

    def of(self, items: Sequence[Item]) -> list[Item]:
        """`Shard(1, 3).of([0, 1, 2, 3, 4]) == [1, 4]`."""
        return list(items[self.index :: self.count])


EVERYTHING = Shard(0, 1)


def parse_shard(text: str | None, environment: Mapping[str, str]) -> Shard:
    """--shard as given: "2/8" is the third of eight parts, "slurm" what the array task's variables say, None all.

    "slurm" outside an array is all as well, so that one script serves both. Raises UserError for anything else.
    """
    if text is None:
        return EVERYTHING
    if text == SLURM:
        return _slurm_shard(environment)
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if found is None:
        raise UserError(f"--shard {text!r} is neither i/n, such as 0/8, nor {SLURM}")
    shard = Shard(int(found[1]), int(found[2]))
    if shard.index >= shard.count:
        raise UserError(f"--shard {text} is outside its range: the parts of {shard.count} are 0 to {shard.count - 1}")
    return shard


def _slurm_shard(environment: Mapping[str, str]) -> Shard:
    """The task's place among those of an array without gaps, whatever number it begins with (--array=0-7, 1-8, 3)."""
    if not any(environment.get(name) for name in _NAMES):
        return EVERYTHING
    task, count, first, last = (_number(environment, name) for name in _NAMES)
    if last - first + 1 != count or not first <= task <= last:
        raise UserError(
            f"--shard {SLURM}: task {task} of {count} from {first} to {last} has no place in an array without gaps: "
            "submit --array=0-N, or give --shard i/n"
        )
    return Shard(task - first, count)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
        raise UserError(f"--shard {SLURM}: {name} is {value!r}, which is not a number: give --shard i/n")
    return int(value)
