"""Flags as data: a setting, what it says of itself, what its text may be; and those that several families share.

Parsers are made of them in `commands/flags.py`.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from specdec.records.fields import is_count, is_number

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

    def of(self, options: Options) -> Any:
        """What the options say of it, or its default."""
        return options.get(self.name, self.default)


def setting(help_text: str, default: Any = False, **more: Any) -> Any:
    """A field and, in its metadata, its flag; the name is the field's own."""
    if isinstance(default, tuple):
        more = {"nargs": "+", **more}
    return field(default=default, metadata={"flag": Flag("", help_text, default, more=more)})


def number(
    kind: type, is_fine: Callable[[Any], bool], wanted: str, is_held: Callable[[Any], bool] | None = None
) -> Callable[[str], Any]:
    """What argparse reads a flag's numbers by; of any other text it says that it is not `wanted`, and of a number that
    no record could hold that it is too large. `is_held`: what one holds (default: counts, and finite numbers)."""
    is_held = is_held or (is_count if kind is int else is_number)

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not is_fine(value):
            several = f": give several with blanks, {' '.join(text.split(','))}" if _is_list(text) else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}{several}")
        if not is_held(value):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is too large: no record could hold it")
        return value

    return read


def _is_list(text: str) -> bool:
    return "," in text and all(part.strip() for part in text.split(","))


positive_int = number(int, lambda value: value >= 1, "a positive integer")
index = number(int, lambda value: value >= 0, "an index (0, 1, ...)")
seed_number = number(int, lambda value: value >= 0, "a seed (0, 1, ...)", is_number)  # of any length
count = number(int, lambda value: value >= 0, "a count (0, 1, ...)")
probability = number(float, lambda value: 0 <= value <= 1, "a probability (0 to 1)")
share = number(float, lambda value: 0 < value <= 1, "above 0 and at most 1")
amount = number(float, lambda value: 0 <= value < math.inf, "a number of 0 or more")
price = number(float, lambda value: 0 < value < math.inf, "a price above 0")
rate = number(float, lambda value: 1e-9 <= value < math.inf, "a number of requests a second above 0 (1e-9 or more)")
at_a_time = number(int, lambda value: 1 <= value <= 4096, "a positive integer up to 4096")  # more take hours
degree = number(float, lambda value: 0 <= value < math.inf, "a temperature (0 or more)")

# Flags that several families read. Lengths and thresholds are lists: every combination is run.
LENGTHS = {"nargs": "+", "type": positive_int}
AMOUNTS = {"nargs": "+", "type": amount}
PROBABILITIES = {"nargs": "+", "type": probability}
PRICINGS = Flag("pricings", "no flag: what the profiles of the run price", ())
DRAFT_LEN = Flag("draft_len", "static draft lengths", (10,), ("spec_len",), LENGTHS)
TAU = Flag("tau", "FailFast's tau: stop below this confidence", (0.45,), ("sweep_lowconf_threshold",), PROBABILITIES)
MAX_DRAFT_LEN = Flag("max_draft_len", "FailFast's N_max", (60,), ("sweep_max_spec_len",), LENGTHS)
PRICINGS = Flag("pricings", "no flag: what the profiles of the run price", ())
DRAFT_STEP = Flag("draft_step", "FailFast's N: growth of the window", (10,), ("sweep_incr_len",), LENGTHS)
