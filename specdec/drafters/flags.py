"""Flags as data: a setting, what it says of itself, what its text may be; and those that several families share.

Parsers are made of them in `commands/flags.py`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Options = Mapping[str, Any]  # values of the flags of families, by name; a flag that is not in it has its default


@dataclass(frozen=True)
class Flag:
    """A command-line flag and the setting of the same name; `published`: older spellings, for the border alone.

    `default` False: a switch. `more`: what argparse wants to know beside it.
    """

    name: str
    help: str
    default: Any = False
    published: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def positive_int(text: str) -> int:
    """For flags: 1, 2, ..."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return value


def probability(text: str) -> float:
    """For flags: 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is outside 0..1")
    return value


def index(text: str) -> int:
    """For flags: 0, 1, 2, ..."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not an index (0, 1, ...)")
    return value


def count(text: str) -> int:
    """For flags: 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def degree(text: str) -> float:
    """For flags: a temperature."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a temperature (0 or more)")
    return value


def share(text: str) -> float:
    """For flags: above 0, at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


# Flags that several families read. Lengths and thresholds are lists: every combination is run.
LENGTHS = {"nargs": "+", "type": positive_int}
PROBABILITIES = {"nargs": "+", "type": probability}
DRAFT_LEN = Flag("draft_len", "static draft lengths", (10,), ("spec_len",), LENGTHS)
TAU = Flag("tau", "FailFast's tau: stop below this confidence", (0.45,), ("sweep_lowconf_threshold",), PROBABILITIES)
MAX_DRAFT_LEN = Flag("max_draft_len", "FailFast's N_max", (60,), ("sweep_max_spec_len",), LENGTHS)
DRAFT_STEP = Flag("draft_step", "FailFast's N: growth of the window", (10,), ("sweep_incr_len",), LENGTHS)


def values(options: Options, *flags: Flag) -> list[Any]:
    """What the options say of these flags, or their defaults."""
    return [options.get(flag.name, flag.default) for flag in flags]
