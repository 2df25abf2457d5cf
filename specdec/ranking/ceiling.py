"""Ceiling: how near a modelled time comes to the clairvoyant's, and where the rest is lost. Data and its table.

The clairvoyant itself is in `oracle.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import inf
from typing import Any

from specdec.text import aligned


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
    def from_builtins(cls, data: Any) -> Ceiling:
        """The inverse of `vars`. Raises ValueError, TypeError or KeyError for anything else."""
        made = cls(**{part.name: float(data[part.name]) for part in fields(cls)})
        if not 0 < made.total_ms < inf:
            raise ValueError("no time, or no finite one")
        return made


def sum_ceilings(ceilings: Sequence[Ceiling | None]) -> Ceiling | None:
    """The parts of several questions together; None if there is none, or one is not known."""
    if not ceilings or None in ceilings:
        return None
    return Ceiling(*(sum(getattr(one, part.name) for one in ceilings) for part in fields(Ceiling)))


def ceiling_table(rows: Sequence[tuple[str, Ceiling | None]]) -> str:
    """Per drafter the share of the ceiling, and what of its time is lost to what; "" if no ceiling is known."""
    known = [(name, ceiling) for name, ceiling in rows if ceiling is not None]
    if not known:
        return ""
    cells = [("drafter", "of the ceiling", "over-drafting", "under-drafting", "drafter passes")]
    for name, one in known:
        parts = (one.share, *(part / one.total_ms for part in (one.over_ms, one.under_ms, one.passes_ms)))
        cells.append((name, *(f"{part:.1%}" for part in parts)))
    return "\n".join([*aligned(cells, is_ruled=False), _LEGEND])


CEILING_COLUMNS = ("best_ms", "over_ms", "under_ms", "passes_ms", "ceiling_share")
_LEGEND = (
    "Of the ceiling: the least time of any choice of recorded drafters and draft lengths, knowing the text, over the "
    "time taken.\nThe rest of the time is lost to drafting on for too long, to stopping too early, and to passes that "
    "a better choice of drafter would save."
)
