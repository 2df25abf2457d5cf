"""Ceiling: how near a modelled time comes to the clairvoyant's, and where the rest is lost.

The clairvoyant itself is in `oracle.py`.
"""

from dataclasses import dataclass, fields
from math import inf
from typing import Any


@dataclass(frozen=True)
class Ceiling:
    """Where a record's modelled time goes: the sum of the parts is its total.

    `best_ms`: what the clairvoyant needs, choosing among all recorded drafters in every round. `over_ms`,
    `under_ms`: lost in rounds that drafted on for longer, or stopped earlier, than it would with the record's own
    drafter. `passes_ms`: the passes that the best choice among drafters, or a kept cache, would save.
    """

    best_ms: float
    over_ms: float
    under_ms: float
    passes_ms: float

    @property
    def total_ms(self) -> float:
        return self.best_ms + self.over_ms + self.under_ms + self.passes_ms

    @property
    def share(self) -> float:
        """How much of the ceiling is reached: 1.0 is the clairvoyant's speed."""
        return self.best_ms / self.total_ms

    @classmethod
    def from_builtins(cls, data: Any) -> "Ceiling":
        """The inverse of `vars`. Raises ValueError, TypeError or KeyError for anything else."""
        made = cls(**{part.name: float(data[part.name]) for part in fields(cls)})
        if not 0 < made.total_ms < inf:
            raise ValueError("no time, or no finite one")
        return made
