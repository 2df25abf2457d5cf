"""The cost-aware policy: after every pass go on drafting or have the draft verified, whichever gives more tokens a
millisecond.

More passes bring tokens only if all tokens so far are accepted; the probability of that, and what they bring then, is
learnt from other questions (`calibration.py`). They pay if they bring more than the time they take is worth: its
worth is the policy's own rate in the long run (the marginal-value rule of renewal-reward processes). No torch.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from specdec.decoding.stopping import Run, Window, stops_within
from specdec.errors import MALFORMED, UserError, user_error
from specdec.records.fields import is_confidences, is_number, is_tokens, parse_json
from specdec.records.identity import Identity, current_name

VERSION = 1
FILE_NAME = "calibration.json"
PASSES_AHEAD = 6
MAX_TOKENS = 1e9  # that a pass could bring
EASE_EDGES = (0.4, 0.6, 0.75, 0.85, 0.93, 0.97)  # between classes of the least probable token's acceptance


@dataclass(frozen=True)
class Curve:
    """A confidence's probability of acceptance, never falling: linear between its points, flat beyond them."""

    confidences: list[float]
    acceptance: list[float]

    def check(self) -> None:
        """Raises ValueError unless it has points in order, of probabilities."""
        if not (is_confidences(self.confidences) and is_confidences(self.acceptance)):
            raise ValueError("a curve of what are not probabilities")
        if not 0 < len(self.confidences) == len(self.acceptance) or self.confidences != sorted(self.confidences):
            raise ValueError("a curve without points, or not in their order")

    def __call__(self, confidence: float) -> float:
        """Example: `Curve([0.2, 0.6], [0.1, 0.9])(0.4) == 0.5`."""
        right = bisect_right(self.confidences, confidence)
        if right == 0:
            return self.acceptance[0]
        if right == len(self.confidences):
            return self.acceptance[-1]
        low, high = self.confidences[right - 1], self.confidences[right]
        weight = (confidence - low) / (high - low)
        return self.acceptance[right - 1] + weight * (self.acceptance[right] - self.acceptance[right - 1])


@dataclass(frozen=True)
class Calibration:
    """What was learnt of a drafter. `gains[left][ease][m - 1]`: accepted tokens that m more passes bring while all so
    far are accepted; `growth` likewise: tokens that become known. `left` and `ease`: see `place_in` and `ease_of`.
    `rates`: tokens per ms that the cost-aware policy reaches, by "TARGET@PROFILE". `learnt_from`: [data set, question,
    SHA-256 of its prompt] of each question; empty in files of before, which hold the numbers alone.
    """

    name: str
    identity: dict[str, Any]
    question_ids: list[int]
    reliability: list[dict[str, float]]
    curve: Curve
    gains: list[list[list[float]]]
    growth: list[list[list[float]]]
    rates: dict[str, float]
    learnt_from: list[list[Any]] = field(default_factory=list)

    def has_seen(self, question: Identity) -> bool:
        """Whether it has learnt from this question: by its place in the data set or by its prompt; by its number alone
        where no more is known."""
        if not self.learnt_from:
            return question.question_id in self.question_ids
        place, prompt = (question.dataset, question.question_id), question.settings.get("prompt_sha256")
        return any((dataset, number) == place or asked == prompt for dataset, number, asked in self.learnt_from)

    def to_builtins(self) -> dict[str, Any]:
        return vars(self) | {"version": VERSION, "curve": vars(self.curve)}

    @classmethod
    def from_builtins(cls, data: Any) -> Self:
        """The inverse. Raises TypeError, KeyError or ValueError for anything else."""
        if data.pop("version") != VERSION:
            raise ValueError("made by another version")
        made = cls(**data | {"curve": Curve(**data["curve"])})
        sizes = [made.identity[name] for name in ("block_size", "small_block_size") if "block_size" in made.identity]
        if not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f"blocks of {sizes}")
        for table in (made.gains, made.growth):
            if len(table) != num_places(made.identity) or not all(map(_is_of_place, table)):
                raise ValueError("a table of another size, or of no numbers of tokens")
        made.curve.check()
        if not all(is_number(rate) and rate > 0 for rate in made.rates.values()):
            raise ValueError("a rate that is none")
        for dataset, number, prompt in made.learnt_from:
            if (type(dataset), type(number), type(prompt)) != (str, int, str):
                raise ValueError("a question that is none")
        if not is_tokens(made.question_ids):
            raise ValueError("a question without a number")
        return made


def _is_of_place(rows: list[list[float]]) -> bool:
    """Whether these are what more passes bring at one place, by ease and number of passes."""
    sizes = [len(row) for row in rows]
    are_tokens = (is_number(value) and 0 <= value < MAX_TOKENS for row in rows for value in row)
    return sizes == [PASSES_AHEAD] * (len(EASE_EDGES) + 1) and all(are_tokens)


def place_of(position: int, block_size: int, small_block_size: int) -> int:
    """Where the first unknown position stands: how many are left in its sub-block; 0: a block begins with it, so that
    the block before is committed next. Example: `place_of(33, 32, 8) == 7`."""
    return small_block_size - position % small_block_size if position % block_size else 0


def place_in(identity: Mapping[str, Any], position: int) -> int:
    """The same for chains of this identity; where they have no blocks, all places are one."""
    has_blocks = "block_size" in identity
    return place_of(position, identity["block_size"], identity["small_block_size"]) if has_blocks else 0


def num_places(identity: Mapping[str, Any]) -> int:
    """How many places `place_in` tells apart."""
    return int(identity["small_block_size"]) + 1 if "block_size" in identity else 1


def ease_of(least_acceptance: float) -> int:
    """The class of how easy a draft has been, from its token least likely to be accepted."""
    return bisect_right(EASE_EDGES, least_acceptance)


@dataclass(frozen=True)
class RoundCosts:
    """What a drafter's pass costs and what the verification of a draft of n tokens does (`verify_ms[n]`), in ms."""

    pass_ms: float
    verify_ms: list[float]

    @cached_property
    def digest(self) -> str:
        """SHA-256: what decides the drafts of a rule that reckons with them alone."""
        return hashlib.sha256(json.dumps([self.pass_ms, self.verify_ms]).encode()).hexdigest()


@dataclass(frozen=True)
class Advice:
    """What the policy knows: a drafter's calibration, what a pass and the verification of a draft of n tokens cost,
    and the rate, in tokens per ms, that a millisecond must bring to be worth spending."""

    calibration: Calibration
    pass_ms: float
    verify_ms: list[float]
    rate: float

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it: what decides the policy's drafts."""
        known = self.calibration
        parts = [known.identity, vars(known.curve), known.gains, known.growth, self.pass_ms, self.verify_ms, self.rate]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def profit(self, survival: float, left: int, ease: int, known: int) -> float:
        """The most that 1, 2, ... more passes bring above what their time is worth, in tokens."""
        gains, growth = self.calibration.gains[left][ease], self.calibration.growth[left][ease]
        now_ms = self._verify_ms(known)
        return max(
            survival * gain - self.rate * (self.pass_ms * passes + (self._verify_ms(known + round(more)) - now_ms))
            for passes, (gain, more) in enumerate(zip(gains, growth, strict=True), start=1)
        )

    def best_len(self, survivals: Sequence[float]) -> int:
        """How many tokens of a draft are worth verifying; `survivals`: of the first 1, 2, ... tokens together."""
        best_len, best, expected = 1, -float("inf"), 0.0
        for draft_len, survival in enumerate(survivals, start=1):
            expected += survival
            value = expected - self.rate * self._verify_ms(draft_len)
            if value >= best:
                best_len, best = draft_len, value
        return best_len

    def _verify_ms(self, draft_len: int) -> float:
        return self.verify_ms[min(draft_len, len(self.verify_ms) - 1)]


@dataclass
class Outlook:
    """What one draft is worth by advice: how probable it is that its first 1, 2, ... tokens are all accepted, and
    whether more passes pay."""

    advice: Advice
    survivals: list[float] = field(default_factory=list)
    _least: float = 1.0

    def read(self, confidences: Sequence[float]) -> None:
        """The draft's confidences so far, of which the first are those that were read before."""
        for confidence in confidences[len(self.survivals) :]:
            acceptance = self.advice.calibration.curve(confidence)
            self.survivals.append(acceptance * (self.survivals[-1] if self.survivals else 1.0))
            self._least = min(self._least, acceptance)

    def pays(self, prefix_len: int) -> bool:
        """Whether one more pass does, or several, after what was read of a draft after `prefix_len` tokens."""
        known = len(self.survivals)
        left = place_in(self.advice.calibration.identity, prefix_len + known)
        return self.advice.profit(self.survivals[-1], left, ease_of(self._least), known) > 0

    @property
    def best_len(self) -> int:
        """How many of its tokens are worth verifying."""
        return self.advice.best_len(self.survivals)


@dataclass
class CostAwareWindow(Window):
    """A draft of at most `size` tokens; `size` shrinks to the draft's length when it stops."""

    outlook: Outlook
    size: int

    def test(self, run: Run) -> str | None:
        known = run.num_known
        if known == 0 or stops_within(run, self.size):
            return None
        if known >= self.size:
            return "max_len"
        self.outlook.read(run.confidences(known))
        if self.outlook.pays(run.prefix_len):
            return None
        self.size = self.outlook.best_len
        return "low_gain"


def learning_of(advice: Advice | None, question: Identity) -> dict[str, Any]:
    """For the provenance of a question's record: what taught the policy, and whether this very question did.

    `{"policy": {"advice_sha256": ..., "learnt_from": {"gsm8k": [0, 2]}, "has_seen": True}}`; {} for one that has not
    learnt.
    """
    if advice is None:
        return {}
    known = advice.calibration
    taught: dict[str, list[int]] = {} if known.learnt_from else {"unknown": list(known.question_ids)}
    for dataset, number, _ in known.learnt_from:
        taught.setdefault(dataset, []).append(number)
    return {"policy": {"advice_sha256": advice.digest, "learnt_from": taught, "has_seen": known.has_seen(question)}}


def has_seen(provenance: Mapping[str, Any]) -> bool | None:
    """Whether a record's policy has learnt from its question, by what `learning_of` noted; None where nothing did."""
    policy = provenance.get("policy")
    said = policy.get("has_seen") if isinstance(policy, Mapping) else None
    return said if isinstance(said, bool) else None


def load_calibration(path: Path, name: str) -> Calibration:
    """A drafter's calibration. Raises UserError for a missing, damaged or foreign file, or another drafter's."""
    how = "make it with: python -m specdec.calibrate TRACE_DIR"
    try:
        with user_error(f"read the calibration {path}", how):
            found = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not a calibration ({error}); {how}") from None
    found = {current_name(key): value for key, value in found.items()} if isinstance(found, dict) else {}
    if name not in found:
        raise UserError(f"{path} has no calibration of {name}; {how}")
    try:
        return Calibration.from_builtins(found[name])
    except MALFORMED as error:
        raise UserError(f"{path} is not a calibration of this version ({error}); {how}") from None
