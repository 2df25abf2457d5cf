"""Pricing: what a record costs, modelled by latency profiles (`Pricing`) or measured by its own clock (`measured`).

It measures nothing itself (profiling/ does); how a profile is read is `profile.py`'s. The formula is the FailFast
paper's (arXiv 2512.20573), per question: passes x draft pass + sum over rounds of verification, against plain decoding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.latency import profile as latency
from specdec.latency.accounting import OURS, num_passes
from specdec.latency.profile import LatencyProfile, has_target, resolve_target, verification_ms

if TYPE_CHECKING:
    from specdec.drafters.base import Spec
    from specdec.records.record import Record
    from specdec.records.rounds import Round


@dataclass(frozen=True)
class Price:
    """What one question costs with one drafter, and what plain decoding of the same number of tokens costs."""

    draft_ms: float
    verify_ms: float
    baseline_ms: float

    @property
    def total_ms(self) -> float:
        return self.draft_ms + self.verify_ms

    @property
    def speedup(self) -> float:
        """`Price(10.0, 30.0, 80.0).speedup == 2.0`."""
        return self.baseline_ms / self.total_ms

    @property
    def drafter_share(self) -> float:
        """The drafter's part of the total, 0 to 1."""
        return self.draft_ms / self.total_ms


def price(record: Record, profile: LatencyProfile, target: str, accounting: str = OURS) -> Price:
    """The modelled price of a record, as if its target were the profile's `target`. `accounting`: whose passes.

    Source: arXiv 2512.20573; with a flat profile, T ms per token, d ms per drafter pass:
    speedup = T x tokens / (d x passes + T x rounds).
    Raises UserError for an unknown target or an empty record.
    """
    entry, spec = resolve_target(profile, target), parse_name(record.drafter_name)
    counts = [r.draft_len + 1 for r in record.rounds]
    verify_ms = {count: verification_ms(profile, entry, count) for count in set(counts)}
    more = [tree_extra_ms(profile, entry, spec, turn) for turn in record.rounds]
    passes_ms = num_passes(record, accounting) * profile.pass_ms(spec.passes_priced_as, entry)
    return Price(
        draft_ms=passes_ms + math.fsum(drafting for drafting, _ in more),
        verify_ms=math.fsum([*(verify_ms[count] for count in counts), *(verifying for _, verifying in more)]),
        baseline_ms=_num_output_tokens(record) * profile.target_ms_per_token[entry],
    )


def tree_extra_ms(profile: LatencyProfile, entry: str, spec: Spec, turn: Round) -> tuple[float, float]:
    """What drafting, and what the rest of a round, cost beyond a draft in a row of as many passes and tokens: more than
    nothing where it was a tree, also one that does not happen to branch, and the profile knows what trees cost."""
    if entry not in profile.trees or not turn.draft_len:
        return 0.0, 0.0
    drafted_by = spec.parts[-1 if turn.num_forward_passes else 0]
    if not (turn.is_tree or drafted_by.most_nodes):
        return 0.0, 0.0
    kind = spec.passes_priced_as
    pass_ms, round_ms = profile.tree_ms(kind, entry, turn.draft_len)
    more_ms = pass_ms - profile.pass_ms(kind, entry)
    return turn.num_forward_passes * more_ms, round_ms - verification_ms(profile, entry, turn.draft_len + 1)


@dataclass(frozen=True)
class Pricing:
    """What records are priced by: `profiles`, and the entry of theirs that the target is priced as.

    `as_if` None: the record's own target, the bundled one as Qwen2.5-32B-Instruct. Without profiles nothing is
    modelled. `accounting`: whose passes are counted and priced, which every engine's name then says. Every method that
    is given a target raises UserError for one that a profile lacks. `others`: profiles that records are priced by only
    to see whether the winner changes, as far as they know the target.
    """

    profiles: tuple[LatencyProfile, ...] = ()
    as_if: str | None = None
    accounting: str = OURS
    is_optional: bool = False
    others: tuple[LatencyProfile, ...] = ()

    @classmethod
    def load(
        cls, names: Sequence[str], as_if: str | None = None, accounting: str = OURS, *, has_measured: bool = False
    ) -> Pricing:
        """Read the profiles of these names or files; ["none"] means no profile; beside the default alone, all others
        that come with the program. Raises UserError.

        `has_measured`: there are measured times as well, so that the default profile, where nobody asked for it, may
        lack a target.
        """
        is_optional = has_measured and as_if is None and names is latency.DEFAULT_PROFILES
        is_default = tuple(names) == latency.DEFAULT_PROFILES
        others = [name for name in latency.shipped_profiles() if name not in names] if is_default else []
        profiles, beside = tuple(latency.load_profiles(names)), tuple(map(latency.load_profile, others))
        return cls(profiles, as_if, accounting, is_optional, beside)

    def without_model(self, target: str) -> str | None:
        """The line that says why a target has no modelled prices although there is a profile; None where it has."""
        if not self.is_optional or len(self.entries(target)) == len(self.profiles):
            return None
        return (
            f"Times are measured only: the default latency profile {self.profiles[0].name} has no target {target!r}. "
            "Give --latency_profile FILE, or --latency_target NAME to price it as one that the profile has."
        )

    def entries(self, target: str) -> dict[str, tuple[LatencyProfile, str]]:
        """The profile and its entry that `target` is priced by, per engine, whose name says "as if ENTRY" where that
        is not the target itself."""
        known = [one for one in self.profiles if not self.is_optional or has_target(one, self._priced_as(target))]
        return self._entries(known, target)

    def _entries(self, profiles: Sequence[LatencyProfile], target: str) -> dict[str, tuple[LatencyProfile, str]]:
        found = {}
        for profile in profiles:
            entry = resolve_target(profile, self._priced_as(target))
            name = latency.engine_name(profile.title, entry, target)
            found[name if self.accounting == OURS else f"{name}, passes as published"] = (profile, entry)
        return found

    def _priced_as(self, target: str) -> str:
        return self.as_if or latency.STAND_INS.get(target, target)

    def engines(self, target: str) -> list[str]:
        """Per profile "ENTRY@PROFILE": what the cost-aware policy reckons with."""
        return [f"{entry}@{profile.name}" for profile, entry in self.entries(target).values()]

    def prices(self, record: Record) -> dict[str, Price]:
        """The modelled prices of a record by engine name; not by a profile that does not know its drafter's family."""
        return self._prices(record, self.entries(record.identity.target))

    def other_prices(self, record: Record) -> dict[str, Price]:
        """The same by those of `others` that know the target."""
        target = record.identity.target
        known = [one for one in self.others if has_target(one, self._priced_as(target))]
        return self._prices(record, self._entries(known, target))

    def _prices(self, record: Record, entries: Mapping[str, tuple[LatencyProfile, str]]) -> dict[str, Price]:
        kind = parse_name(record.drafter_name).passes_priced_as
        known = {engine: (profile, entry) for engine, (profile, entry) in entries.items() if profile.knows(kind, entry)}
        return {engine: price(record, profile, entry, self.accounting) for engine, (profile, entry) in known.items()}


class Timed(Protocol):
    """What a measured price is made of: a Record, or its entry in a ranking (times None where none were taken)."""

    @property
    def question_id(self) -> int: ...
    @property
    def drafter_name(self) -> str: ...
    @property
    def num_output_tokens(self) -> int: ...
    @property
    def draft_ms(self) -> float | None: ...
    @property
    def verify_ms(self) -> float | None: ...
    @property
    def measured_ms_per_token(self) -> float: ...


def measured(record: Timed, baseline_record: Timed) -> Price:
    """The measured price: the wall clock of every draft and verify call, without the prompt's target pass.

    `baseline_record` is plain decoding (the empty draft) of the same question; its ms per token times this
    record's tokens is the baseline, so that it stays fair where the two outputs differ in length.
    Raises ValueError for another question's record or one without times, UserError for an empty record.
    """
    if record.draft_ms is None or record.verify_ms is None:
        raise ValueError(f"question {record.question_id}, {record.drafter_name}: no measured times")
    if record.question_id != baseline_record.question_id:
        raise ValueError(f"question {record.question_id} against baseline {baseline_record.question_id}")
    _num_output_tokens(baseline_record)
    return Price(
        draft_ms=record.draft_ms,
        verify_ms=record.verify_ms,
        baseline_ms=_num_output_tokens(record) * baseline_record.measured_ms_per_token,
    )


def _num_output_tokens(record: Timed | Record) -> int:
    if record.num_output_tokens < 1:
        raise UserError(f"the record of question {record.question_id}, {record.drafter_name}, has no output")
    return record.num_output_tokens
