"""Tree costs: what a round takes where its draft is a tree, measured in real rounds. The part of a latency profile that
trees are priced by; `profile.py` has what drafts in a row cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Verify = Callable[[Sequence[int]], list[float]]


@dataclass(frozen=True)
class TreeCosts:
    """Beside one target, in ms, by the nodes of a tree. `pass_ms`: family -> what drafting one takes, by pass: the
    passes, and the making of the tree on the host. `round_ms`: the rest of the round: the tree is sent and verified,
    its accepted path is kept."""

    round_ms: Mapping[int, float]
    pass_ms: Mapping[str, Mapping[int, float]]

    def to_builtins(self) -> dict[str, Any]:
        """As a profile's file has it."""
        of_families = {family: _written(table) for family, table in self.pass_ms.items()}
        return {"round_ms": _written(self.round_ms), "pass_ms": of_families}

    def at(self, priced_as: str, num_nodes: int, verify_ms: Verify) -> tuple[float, float]:
        """A pass of such a drafter (0: not said), and the rest of the round. `verify_ms`: of passes over numbers of
        tokens, which rises in steps, where a pass is padded; what a round takes beside it does not, and is linear
        between points, flat beyond, as the pass is."""
        known = self.pass_ms.get(priced_as)
        verified_ms, *of_points = verify_ms([1 + nodes for nodes in (num_nodes, *self.round_ms)])
        points = zip(self.round_ms.items(), of_points, strict=True)
        beside = {nodes: round_ms - ms for (nodes, round_ms), ms in points}
        return _between(known, num_nodes) if known else 0.0, verified_ms + _between(beside, num_nodes)


def _written(table: Mapping[int, float]) -> dict[str, float]:
    return {str(count): ms for count, ms in table.items()}


def _between(table: Mapping[int, float], count: int) -> float:
    points = sorted(table)
    return float(np.interp(count, points, [table[point] for point in points]))
