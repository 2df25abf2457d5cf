"""Tree rules: how many of the nodes that a drafter offers are verified, and the trees that are built so.

Whatever might be drafted stands in the order of falling path probability (`trees.py`), and a rule is where that order
is cut: the first n are the best tree of n nodes there is. Sources: EAGLE-2 (arXiv 2406.16858), DDTree, CaDDTree;
FailFast (arXiv 2512.20573).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import exp, inf
from operator import neg
from typing import ClassVar, Protocol

from specdec.decoding.trees import Candidates, Expand, Tree, log_of, scored_tree, slots_first


class NodeRule(Protocol):
    """How many nodes are verified of those that a drafter offers, at most `max_nodes`."""

    max_nodes: int
    stop_reason: ClassVar[str]

    def num_nodes(self, log_probs: Sequence[float]) -> int:
        """Of nodes with falling path log-probabilities, of which there are `max_nodes` at most."""

    def reason(self, num_nodes: int, num_offered: int) -> str:
        """Why a tree has no more nodes (`Draft.stop_reason`)."""
        return self.stop_reason if num_nodes < min(self.max_nodes, num_offered) else "max_len"


@dataclass(frozen=True)
class FixedNodes(NodeRule):
    """All that there are."""

    max_nodes: int
    stop_reason = "length"

    def num_nodes(self, log_probs: Sequence[float]) -> int:
        return min(self.max_nodes, len(log_probs))

    def reason(self, num_nodes: int, num_offered: int) -> str:
        return self.stop_reason


@dataclass(frozen=True)
class SureNodes(NodeRule):
    """FailFast's idea on trees: nodes only where the drafter is sure, so that a tree ends early where it is not, and
    grows deep where it is: those whose path has at least the probability `floor`. The first is always verified."""

    floor: float
    max_nodes: int
    stop_reason = "low_confidence"

    def num_nodes(self, log_probs: Sequence[float]) -> int:
        num_sure = bisect_right(log_probs, -log_of(self.floor), key=neg)
        return min(max(num_sure, 1), self.max_nodes, len(log_probs))


@dataclass(frozen=True)
class CostAwareNodes(NodeRule):
    """CaDDTree's rule: as many as give the most expected tokens a millisecond, (1 + sum of path probabilities) / (draft
    + verification), as if probabilities were calibrated and all rounds like this one.

    `verify_ms[n]`: the verification of n nodes; a longer tree than it knows costs as its last. Where verification grows
    ever faster, as the authors fit it, that is to add nodes while the rate rises; over steps it is the best of all.
    """

    draft_ms: float
    verify_ms: Sequence[float]
    max_nodes: int
    stop_reason = "low_gain"

    def num_nodes(self, log_probs: Sequence[float]) -> int:
        best, best_rate, expected = min(len(log_probs), 1), -inf, 1.0
        for n, log_prob in enumerate(log_probs[: self.max_nodes], start=1):
            expected += exp(log_prob)
            rate = expected / (self.draft_ms + self.verify_ms[min(n, len(self.verify_ms) - 1)])
            if rate > best_rate:
                best, best_rate = n, rate
        return best


def best_first(candidates: Candidates, num_nodes: int, stop_ids: Collection[int] = ()) -> Tree:
    """DDTree: of all trees of `num_nodes` nodes over the slots the one with the greatest sum of path probabilities."""
    return by_rule(slots_first(candidates, num_nodes, stop_ids), FixedNodes(num_nodes))


def sure_tree(candidates: Candidates, floor: float, max_nodes: int, stop_ids: Collection[int] = ()) -> Tree:
    """The nodes that a drafter is sure of (`SureNodes`)."""
    return by_rule(slots_first(candidates, max_nodes, stop_ids), SureNodes(floor, max_nodes))


def cost_aware_tree(
    candidates: Candidates,
    verify_ms_of: Callable[[int], float],
    draft_ms: float,
    max_nodes: int,
    stop_ids: Collection[int] = (),
) -> Tree:
    """CaDDTree (`CostAwareNodes`). `verify_ms_of(n)`: the verification of n nodes beside the last known token."""
    rule = CostAwareNodes(draft_ms, [verify_ms_of(n) for n in range(max_nodes + 1)], max_nodes)
    return by_rule(slots_first(candidates, max_nodes, stop_ids), rule)


def by_rule(falling: Tree, rule: NodeRule) -> Tree:
    """The tree that a rule leaves of nodes in the order of falling path probability."""
    return falling.first(rule.num_nodes(falling.log_probs[: rule.max_nodes]))


def growing_tree(
    expand: Expand, depth: int, top_k: int, num_nodes: int, *, sure: float = 0.0, stop_ids: Collection[int] = ()
) -> Tree:
    """EAGLE-2's dynamic tree: see `scored_tree`, of which the `num_nodes` most probable nodes are left."""
    scored = scored_tree(expand, depth, top_k, sure=sure, stop_ids=stop_ids)
    return by_rule(scored.falling(num_nodes), FixedNodes(num_nodes))
