"""Round: one draft-verify-accept turn and its entry in `stats_each_round`.

Not the loop that makes rounds (`speculate.py`), not the record that holds them (`records.py`).
"""

from dataclasses import dataclass
from typing import Any

from specdec.errors import UserError
from specdec.records import fields

PASSES = "num_prefill_passes", "num_denoise_passes", "num_commit_passes"
PROBABILITY_KEYS = ("target_probabilities", "draft_probabilities")


@dataclass(frozen=True)
class Round:
    """One draft-verify-accept turn. Token ids are ints, times are milliseconds."""

    prefix_len: int  # prompt + output tokens before this round
    draft_tokens: list[int]
    confidences: list[float]  # as the stop rule in force records them: not one per drafted token in general
    num_prefill_passes: int
    num_denoise_passes: int
    num_commit_passes: int
    stop_reason: str
    accepted_len: int
    next_token: int | None  # correction or bonus; None when the cut fell inside the accepted draft
    draft_ms: float
    verify_ms: float
    # Of each drafted token, where the target samples: under the target's warped distribution (after the first rejected
    # token: given that one), and what the drafter gave it as it chose it (None: it cost no pass). None: greedy.
    target_probabilities: list[float] | None = None
    draft_probabilities: list[float | None] | None = None

    @property
    def draft_len(self) -> int:
        return len(self.draft_tokens)

    @property
    def num_forward_passes(self) -> int:
        """Passes of the drafter, whatever their kind."""
        return self.num_prefill_passes + self.num_denoise_passes + self.num_commit_passes

    @property
    def emitted_tokens(self) -> list[int]:
        """What this round adds to the output: the accepted draft tokens, then the correction or bonus."""
        tail = [] if self.next_token is None else [self.next_token]
        return self.draft_tokens[: self.accepted_len] + tail

    @property
    def final_token(self) -> int | None:
        """The target's correction after a rejected draft token, else None."""
        return self.next_token if self.accepted_len < self.draft_len else None

    @property
    def bonus_token(self) -> int | None:
        """The target's own token after a wholly accepted (or empty) draft, else None."""
        return self.next_token if self.accepted_len == self.draft_len else None

    @property
    def acceptance_rate(self) -> float:
        """Accepted / drafted tokens; 0.0 for an empty draft."""
        return self.accepted_len / self.draft_len if self.draft_tokens else 0.0

    def to_builtins(self) -> dict[str, Any]:
        """The entry of `stats_each_round`: the published keys, then ours; probabilities in sampled rounds only."""
        probabilities = {key: getattr(self, key) for key in PROBABILITY_KEYS if getattr(self, key) is not None}
        return probabilities | {
            "target_tokens": self.emitted_tokens,
            "prefix_len": self.prefix_len,
            "spec_len": self.draft_len,
            "~draft_proposal": list(self.draft_tokens),
            "accepted_len": self.accepted_len,
            "acceptance_rate": self.acceptance_rate,
            "num_forward_passes": self.num_forward_passes,
            "final_token": self.final_token,
            "bonus_token": self.bonus_token,
            "confidences": [float(confidence) for confidence in self.confidences],
            **{key: getattr(self, key) for key in PASSES},
            "stop_reason": self.stop_reason,
            "draft_ms": float(self.draft_ms),
            "verify_ms": float(self.verify_ms),
        }

    @classmethod
    def from_builtins(cls, data: Any) -> "Round":
        """The inverse of `to_builtins`; UserError names what is missing, wrong or inconsistent."""
        final = fields.take(data, "final_token", fields.is_token_or_none)
        bonus = fields.take(data, "bonus_token", fields.is_token_or_none)
        made = cls(
            prefix_len=fields.take(data, "prefix_len", fields.is_count),
            draft_tokens=list(fields.take(data, "~draft_proposal", fields.is_tokens)),
            confidences=list(fields.take(data, "confidences", fields.is_confidences)),
            **{key: fields.take(data, key, fields.is_count) for key in PASSES},
            stop_reason=fields.take(data, "stop_reason", fields.is_str),
            accepted_len=fields.take(data, "accepted_len", fields.is_count),
            next_token=bonus if final is None else final,
            draft_ms=fields.take(data, "draft_ms", fields.is_ms),
            verify_ms=fields.take(data, "verify_ms", fields.is_ms),
            **{key: fields.take(data, key, fields.is_probabilities) for key in PROBABILITY_KEYS if key in data},
        )
        if made.accepted_len > made.draft_len:
            raise UserError(f"accepted_len {made.accepted_len} is more than the {made.draft_len} drafted")
        for key in PROBABILITY_KEYS:
            if len(data.get(key, made.draft_tokens)) != made.draft_len:
                raise UserError(f"{key}: not one per drafted token")
        fields.require_equal(made.to_builtins(), data)
        return made
