"""Divergence: whether an output equals plain decoding's, and if not, whether a near-tie or a bug parted them.

In exact arithmetic every drafter leaves the target's text as it is. In float arithmetic a pass over several tokens
rounds otherwise than one over a single token, so where the target's two best logits all but agree, either may win, and
everything behind that token is another, equally valid greedy text. So the first difference is judged, and only it.

It computes no logits: who asks brings them (`jobs.py`). What many records say together is `losslessness.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from specdec import fields
from specdec.errors import UserError

EXACT, TIE, BUG = "exact", "tie", "bug"
# A tie: the worse of the two tokens lies at most so many roundings (epsilon x the best logit) below the best. The
# bundled target's logits, in one pass against token by token, differ by 7, 1.2 and 1.5 roundings at most (600 tokens,
# 2 CPU cores, 2026-11-24), and each of two logits may be off by as much.
EPSILONS = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
TIE_ROUNDINGS = {"float32": 64, "bfloat16": 4, "float16": 4}


@dataclass(frozen=True)
class Logits:
    """The target's answer at one position: its two best logits, and those of the two tokens in question."""

    best: float
    second: float
    token: float
    plain_token: float


@dataclass(frozen=True)
class Divergence:
    """What came of comparing one output with plain decoding's; `kind` is EXACT, TIE or BUG.

    `position` counts output tokens from 0; None for an exact one.
    `top2_gap`: the target's best less its second logit there; `shortfall`: the best less the worse of the two
    tokens. Both None where one text ends inside the other, which no tie explains.
    """

    kind: str
    position: int | None = None
    top2_gap: float | None = None
    shortfall: float | None = None

    def to_builtins(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_builtins(cls, data: Any) -> Divergence:
        """The inverse of `to_builtins`; UserError for anything else."""
        made = cls(
            kind=fields.take(data, "kind", lambda value: value in (EXACT, TIE, BUG)),
            position=fields.take(data, "position", fields.is_token_or_none),
            top2_gap=fields.take(data, "top2_gap", lambda value: value is None or fields.is_ms(value)),
            shortfall=fields.take(data, "shortfall", lambda value: value is None or fields.is_ms(value)),
        )
        if (made.kind == EXACT) != (made.position is None):
            raise UserError("a divergence that contradicts itself")
        return made


def first_difference(tokens: Sequence[int], plain_tokens: Sequence[int]) -> int | None:
    """The first position where two outputs differ, an end being no token; None if they are equal.

    >>> first_difference([1, 2, 3], [1, 2, 4]), first_difference([1, 2], [1, 2, 4]), first_difference([1], [1])
    (2, 2, None)
    """
    for position, (token, plain_token) in enumerate(zip(tokens, plain_tokens, strict=False)):
        if token != plain_token:
            return position
    return None if len(tokens) == len(plain_tokens) else min(len(tokens), len(plain_tokens))


def judge_difference(position: int, logits: Logits | None, dtype: str) -> Divergence:
    """Grade a difference at `position`, in the run's `dtype` ("bfloat16"); `logits` None: a text ends there."""
    if logits is None:
        return Divergence(BUG, position)
    shortfall = logits.best - min(logits.token, logits.plain_token)
    reach = TIE_ROUNDINGS[dtype] * EPSILONS[dtype] * max(abs(logits.best), 1.0)
    kind = TIE if shortfall <= reach else BUG
    return Divergence(kind, position, float(logits.best - logits.second), float(shortfall))
