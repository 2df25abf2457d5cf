"""Divergence: whether an output equals plain decoding's, and if not, whether a near-tie or a bug parted them.

In exact arithmetic every drafter leaves the target's text as it is. In float arithmetic a pass over several tokens
rounds otherwise than one over a single token, so where the target's two best logits all but agree, either may win, and
everything after that token is another, equally valid greedy text. So the first difference is judged, and only it.

Data alone: the logits come from `against_plain.py`, and `losslessness.py` says what many records say together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from specdec.errors import UserError
from specdec.records import fields

EXACT, TIE, BUG = "exact", "tie", "bug"


@dataclass(frozen=True)
class Divergence:
    """The outcome of comparing one output with plain decoding's; all but `kind` are None for an exact one.

    `position` of the first difference, in output tokens from 0. `top2_gap`: the target's best less its second logit
    there; `shortfall`: its best less the worse logit of the two tokens in question; `noise`: what rounding alone can
    make of such a distance. They are None where one text ends inside the other, which no rounding explains.
    """

    kind: str
    position: int | None = None
    top2_gap: float | None = None
    shortfall: float | None = None
    noise: float | None = None

    def to_builtins(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_builtins(cls, data: Any) -> "Divergence":
        """The inverse of `to_builtins`; UserError for anything else."""
        distances = {
            name: fields.take(data, name, lambda value: value is None or _is_distance(value))
            for name in ("top2_gap", "shortfall", "noise")
        }
        kind = fields.take(data, "kind", lambda value: value in (EXACT, TIE, BUG))
        made = cls(kind, fields.take(data, "position", fields.is_token_or_none), **distances)
        if (made.kind == EXACT) != (made.position is None):
            raise UserError("a divergence that contradicts itself")
        return made

    def __str__(self) -> str:
        if self.kind == EXACT:
            return EXACT
        if self.shortfall is None:
            return f"{self.kind} at output token {self.position}: one text ends there"
        return (
            f"{self.kind} at output token {self.position} (the target's two best logits are {self.top2_gap:.3g} apart, "
            f"the tokens {self.shortfall:.3g}; rounding explains {self.noise:.3g})"
        )


def _is_distance(value: Any) -> bool:
    """Of logits: where two all but agree, it may be as small as a float is."""
    return type(value) is float and value >= 0 and fields.is_number(value)


def first_difference(tokens: Sequence[int], plain_tokens: Sequence[int]) -> int | None:
    """The first position where two outputs differ, where an end differs from any token; None if they are equal.

    >>> first_difference([1, 2, 3], [1, 2, 4]), first_difference([1, 2], [1, 2, 4]), first_difference([1], [1])
    (2, 2, None)
    """
    return next((at for at, (ours, plain) in enumerate(zip_longest(tokens, plain_tokens)) if ours != plain), None)
