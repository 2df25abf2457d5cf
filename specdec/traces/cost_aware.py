"""The cost-aware policy: after every pass go on drafting or have the draft verified, whichever gives more tokens a
millisecond.

More passes bring tokens only if all tokens so far are accepted; the probability of that, and what they bring then, is
learnt from other questions (`calibration.py`). They pay if they bring more than the time they take is worth: its
worth is the policy's own rate in the long run (the marginal-value rule of renewal-reward processes). No torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from specdec.errors import UserError
from specdec.latency import LatencyProfile, verification_ms
from specdec.records import identity_difference
from specdec.specs import CostAware
from specdec.traces.calibration import Calibration, ease_of, load_calibration, place_of
from specdec.windows import Run


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
        return max(
            survival * gain - self.rate * (self.pass_ms * passes + self._longer_ms(known, more))
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

    def _longer_ms(self, known: int, more: float) -> float:
        return self._verify_ms(known + round(more)) - self._verify_ms(known)

    def _verify_ms(self, draft_len: int) -> float:
        return self.verify_ms[min(draft_len, len(self.verify_ms) - 1)]


@dataclass
class CostAwareWindow:
    """A draft under advice, of at most `size` tokens; `size` shrinks to the draft's length when it stops."""

    advice: Advice
    size: int
    _survivals: list[float] = field(default_factory=list)
    _least: float = 1.0

    def test(self, run: Run) -> str | None:
        known = run.num_known
        if known >= self.size:
            return "max_len"
        if known == 0:
            return None
        for confidence in run.confidences(known)[len(self._survivals) :]:
            acceptance = self.advice.calibration.curve(confidence)
            self._survivals.append(acceptance * (self._survivals[-1] if self._survivals else 1.0))
            self._least = min(self._least, acceptance)
        blocks = self.advice.calibration.identity
        left = place_of(run.prefix_len + known, blocks["block_size"], blocks["small_block_size"])
        if self.advice.profit(self._survivals[-1], left, ease_of(self._least), known) > 0:
            return None
        self.size = self.advice.best_len(self._survivals)
        return "low_gain"

    def recorded(self, run: Run, draft_len: int) -> list[float]:
        return run.confidences(draft_len)


def engine_costs(profile: LatencyProfile, entry: str, longest: int) -> tuple[float, list[float]]:
    """What a pass costs, and the verification of a draft of 0 .. `longest` tokens, in ms."""
    return profile.draft_pass_ms, [verification_ms(profile, entry, n + 1) for n in range(longest + 1)]


def advice_of(
    spec: CostAware, calibration_file: str | Path, profiles: Iterable[LatencyProfile], identity: dict[str, object]
) -> Advice:
    """The advice for a drafter whose records have `identity`.

    Raises UserError for a calibration of another drafter, or one without the rate of the spec's engine.
    """
    entry, _, profile_name = spec.engine.rpartition("@")
    profile = next((one for one in profiles if one.name == profile_name), None)
    if profile is None or entry not in profile.target_ms_per_token:
        raise UserError(f"{spec.name}: give the profile with --latency_profile, which has to hold the target {entry!r}")
    name = spec.name.partition("_ca_")[0]
    calibration = load_calibration(Path(calibration_file), name)
    difference = identity_difference(calibration.identity, {key: identity.get(key) for key in calibration.identity})
    if difference is not None:
        raise UserError(f"{calibration_file} was learnt from another drafter ({difference}): calibrate again")
    if spec.engine not in calibration.rates:
        raise UserError(
            f"{calibration_file} has no rate for {spec.engine}: calibrate again with this --latency_profile"
        )
    return Advice(calibration, *engine_costs(profile, entry, spec.max_draft_len), calibration.rates[spec.engine])
