"""Tree costs: what a round takes where its draft is a tree, measured in real rounds. The part of a latency profile that
trees are priced by; `profile.py` has what drafts in a row cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TreeCosts:
    """Beside one target, in ms, by the nodes of a tree. `pass_ms`: family -> what drafting one takes, by pass: the
    passes, and the making of the tree on the host. `round_ms`: the rest of the round: the tree is sent and verified,
    its accepted path is kept."""

    round_ms: Mapping[int, float]
    pass_ms: Mapping[str, Mapping[int, float]]

    def at(self, priced_as: str, num_nodes: int) -> tuple[float, float]:
        """A pass of such a drafter (0: not said), and the rest of the round; linear between points, flat beyond."""
        known = self.pass_ms.get(priced_as)
        return _between(known, num_nodes) if known else 0.0, _between(self.round_ms, num_nodes)


def _between(table: Mapping[int, float], count: int) -> float:
    points = sorted(table)
    return float(np.interp(count, points, [table[point] for point in points]))
