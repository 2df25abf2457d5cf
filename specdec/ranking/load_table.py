"""Load tables: drafters and policies at one load, best first, each quantity with its interval over questions and seeds.

They are made by `load_study.py`; words for people are `views/load_text.py`'s.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from specdec.drafters.families import parse_name
from specdec.drafters.plain import PLAIN
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS, Value, student

FIXED, OFF, SCHEDULED, CLAIRVOYANT = "fixed", "off", "scheduled", "clairvoyant"
POLICIES = (FIXED, OFF, SCHEDULED, CLAIRVOYANT)
CONCURRENCY, REQUEST_RATE = "concurrency", "request_rate"
TAILS = (50, 90, 99)
# Beside them, where plain decoding has it too: `speedup` against it, and the acceptance length at which that is 1.
QUANTITIES = (
    "tokens_per_s",
    *(f"{what}_p{share}" for what in ("tpot_ms", "ttft_ms") for share in TAILS),
    "accepted_per_s",
    "wasted_per_s",
    "speedup",
    "break_even_len",
)


@dataclass(frozen=True)
class Load:
    """`value` requests at a time (`kind` CONCURRENCY), or that many that come in a second (REQUEST_RATE)."""

    kind: str
    value: float

    @property
    def label(self) -> str:
        return f"{self.value:g} at a time" if self.kind == CONCURRENCY else f"{self.value:g} a second"


@dataclass(frozen=True)
class LoadRow:
    """A drafter's records under a policy, or the chains of one. `acceptance_len`: tokens a round, bonus included, of
    records; None of a policy that has none. `has_kept_up` False: requests come faster than it serves them."""

    name: str
    policy: str
    values: Mapping[str, Value] = field(default_factory=dict)
    acceptance_len: float | None = None
    has_kept_up: bool = True
    may_be_best: bool = False
    draws: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def kind(self) -> str:
        """What of its own kind is compared: a kind of drafter, or the policy where that is not a drafter's own."""
        return parse_name(self.name).kind if self.policy == FIXED else f"{self.policy} {self.name}"

    def number(self, quantity: str) -> float:
        return self.values[quantity].value if quantity in self.values else math.nan


@dataclass(frozen=True)
class LoadTable:
    """`rows`: best first, plain decoding among them; those that did not keep up last, and the clairvoyant, which is a
    bound and no choice, before all. `batch_1`: the drafter that is best for one request alone, as recorded, and
    `batch_1_loss` the share that it loses here of what the best of them gives. `level`: the drafters, as recorded, that
    cannot be told from the best of them, itself among them."""

    load: Load
    rows: tuple[LoadRow, ...]
    batch_1: str = ""
    batch_1_loss: Value | None = None
    notes: tuple[str, ...] = ()
    level: tuple[str, ...] = ()

    @property
    def choices(self) -> list[LoadRow]:
        return [row for row in self.rows if row.policy != CLAIRVOYANT]

    @property
    def best(self) -> LoadRow | None:
        """None where nothing keeps up."""
        return next((row for row in self.choices if row.has_kept_up), None)

    def row(self, name: str, policy: str = FIXED) -> LoadRow | None:
        return next((row for row in self.rows if (row.name, row.policy) == (name, policy)), None)


def value_of(draws: np.ndarray, has_spread: bool = True) -> Value:
    """The first of the draws, which is of the questions themselves, and the interval that the others, of questions
    drawn again, give it; none for fewer than MIN_QUESTIONS of them, or where these are not known."""
    others = draws[1:]
    if not has_spread or len(others) < MIN_QUESTIONS or not np.isfinite(draws).all():
        return Value(float(draws[0]))
    reach = student((1 + LEVEL) / 2, len(others) - 1) * float(np.std(others, ddof=1))
    return Value(float(draws[0]), float(draws[0]) - reach, float(draws[0]) + reach)


def table_of(load: Load, rows: Sequence[LoadRow], batch_1: str = "", notes: Sequence[str] = ()) -> LoadTable:
    """The rows against plain decoding, in order. Of rows with 3 and 5 tokens a second the second is first."""
    plain = next((row for row in rows if row.name == PLAIN), None)
    known = [_against_plain(row, plain, load) for row in rows]
    key = "tokens_per_s" if load.kind == CONCURRENCY else "tpot_ms_p50"
    sign = -1 if load.kind == CONCURRENCY else 1
    places = {True: 1, False: 2}
    known.sort(key=lambda row: (0 if row.policy == CLAIRVOYANT else places[row.has_kept_up], sign * row.number(key)))
    best = next((row for row in known if row.policy != CLAIRVOYANT and row.has_kept_up), None)
    told = tuple(_beside_best(row, best, key) for row in known)
    recorded = [row for row in told if row.policy == FIXED]
    level = [row.name for row in recorded if _beside_best(row, recorded[0], key).may_be_best and row.has_kept_up]
    one, loss = next((row for row in recorded if row.name == batch_1), None), None
    if one is not None and load.kind == CONCURRENCY:
        loss = value_of(1 - one.draws[key] / recorded[0].draws[key]).within(0.0, 1.0)
    return LoadTable(load, told, batch_1, loss, tuple(notes), tuple(level))


def _against_plain(row: LoadRow, plain: LoadRow | None, load: Load) -> LoadRow:
    if plain is None or not (row.has_kept_up and plain.has_kept_up):
        return row
    ours, theirs = row.draws, plain.draws
    if load.kind == CONCURRENCY:
        speedup = ours["tokens_per_s"] / theirs["tokens_per_s"]
    else:
        speedup = theirs["tpot_ms_p50"] / ours["tpot_ms_p50"]
    found = {"speedup": value_of(speedup)}
    if row.acceptance_len is not None and load.kind == CONCURRENCY:
        found["break_even_len"] = value_of(row.acceptance_len / speedup)
    return replace(row, values={**row.values, **found})


def _beside_best(row: LoadRow, best: LoadRow | None, key: str) -> LoadRow:
    """Whether it cannot be told from the best one, over the same draws of questions; of too few draws nothing can."""
    if best is None or row.policy == CLAIRVOYANT or not row.has_kept_up:
        return row
    distance = value_of(np.log(row.draws[key] / best.draws[key]))
    is_open = distance.low is None or distance.high is None or distance.low <= 0 <= distance.high
    return replace(row, may_be_best=row is best or is_open)
