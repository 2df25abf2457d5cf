"""Latency: profiles as data, and what a record costs, modelled by a profile or measured by its own clock.

It measures nothing itself (profiling/ does) and prints nothing. The formula is the FailFast paper's (arXiv
2512.20573), per question: passes x draft pass + sum over rounds of verification, against plain decoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from specdec.errors import UserError
from specdec.latency.profile import LatencyProfile, resolve_target, verification_ms

if TYPE_CHECKING:
    from specdec.records.record import Record


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


def price(record: Record, profile: LatencyProfile, target: str) -> Price:
    """The modelled price of a record, as if its target were the profile's `target`.

    Source: arXiv 2512.20573; with a flat profile, T ms per token, d ms per drafter pass:
    speedup = T x tokens / (d x passes + T x rounds).
    Raises UserError for an unknown target or an empty record.
    """
    entry = resolve_target(profile, target)
    return Price(
        draft_ms=record.num_forward_passes * profile.pass_ms(is_ar=record.drafter_name.startswith("ar_")),
        verify_ms=math.fsum(verification_ms(profile, entry, r.draft_len + 1) for r in record.rounds),
        baseline_ms=_num_output_tokens(record) * profile.target_ms_per_token[entry],
    )


class Timed(Protocol):
    """What a measured price is made of: a Record, or what a ranking keeps of one."""

    question_id: int
    num_output_tokens: int
    draft_ms: float
    verify_ms: float
    measured_ms_per_token: float


def measured(record: Timed, baseline_record: Timed) -> Price:
    """The measured price: the wall clock of every draft and verify call, without the prompt's target pass.

    `baseline_record` is plain decoding (the empty draft) of the same question; its ms per token times this
    record's tokens is the baseline, so that it stays fair where the two outputs differ in length.
    Raises ValueError for another question's record, UserError for an empty record.
    """
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


# --- reading a profile ---
