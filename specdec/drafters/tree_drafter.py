"""Trees: what specs share whose drafts branch, and the drafter itself, over a network or read back from a trace. Of no
family: `dflash_trees.py` is one.

The rules are the live drafter's and the replayed one's alike: both are given what might be drafted in the order of
falling path probability (`decoding/trees.py`), and cut it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from specdec.decoding.offers import Offers
from specdec.decoding.stopping import Draft, Passes
from specdec.decoding.tree_rules import CostAwareNodes, FixedNodes, NodeRule, SureNodes, by_rule
from specdec.decoding.trees import Tree
from specdec.drafters.base import Drafter, Recorded, Setup, Spec
from specdec.drafters.flags import LENGTHS, PROBABILITIES, Flag, positive_int

TREE_NODES = Flag("tree_nodes", "trees: nodes that are verified, at most", (64,), (), LENGTHS)
TREE_FLOOR = Flag("tree_floor", "trees: verify no node whose path is less probable", (0.02,), (), PROBABILITIES)
SLOT_TOP_K = Flag("slot_top_k", "trees: candidates of a slot", 32, (), {"type": positive_int})


class TreeSpec(Spec):
    """A spec whose drafts are trees: how much might be drafted, and which rule says how much of it is verified."""

    is_tree = True
    is_default = False
    draws = False
    sure = 0.0  # a tree that grows level by level grows on while its best leaf is as probable

    @abstractmethod
    def rule(self, setup: Setup) -> NodeRule:
        """How many nodes are verified."""

    @property
    def most_nodes(self) -> int:
        return int(vars(self)["tree_nodes"])

    @property
    def most_levels(self) -> int | None:
        """Levels of a tree, at most; None: as many as its drafter has."""
        return None

    def size(self, setup: Setup) -> int:
        """What a trace must hold of its offers."""
        return self.chain_len(setup.options)


class FixedTree(TreeSpec):
    """As many nodes as `tree_nodes` says."""

    tree_nodes: int

    def rule(self, setup: Setup) -> NodeRule:
        return FixedNodes(self.tree_nodes)

    @property
    def first_asked(self) -> int:
        return self.tree_nodes


class SureTree(TreeSpec):
    """The nodes whose paths have a probability of `tree_floor`, at most `tree_nodes`."""

    tree_floor: float
    tree_nodes: int

    def rule(self, setup: Setup) -> NodeRule:
        return SureNodes(self.tree_floor, self.tree_nodes)


class CostTree(TreeSpec):
    """As many nodes as pay by `pricing` ("TARGET@PROFILE"), at most `tree_nodes`: CaDDTree's rule."""

    needs_costs = True
    tree_nodes: int

    def rule(self, setup: Setup) -> NodeRule:
        if setup.costs is None:
            raise ValueError(f"{self.name} without costs")
        return CostAwareNodes(setup.costs.pass_ms, setup.costs.verify_ms, self.tree_nodes)

    def kept_settings(self, setup: Setup) -> dict[str, Any]:
        costs = {} if setup.costs is None else {"costs_sha256": setup.costs.digest}
        return {**super().kept_settings(setup), **costs}


class TreeDrafter(Drafter):
    """Drafts trees; what became of one shows in the next prefix. `least_prefix`: tokens of a prefix after which it can
    draft at all."""

    least_prefix = 1

    def __init__(self, spec: TreeSpec, setup: Setup) -> None:
        self.spec, self.stop_ids, self.rule = spec, frozenset(setup.stop_ids), spec.rule(setup)

    @abstractmethod
    def _offered(self, prefix_ids: Sequence[int], depth: int) -> tuple[Tree, int]:
        """What might be drafted after a prefix in at most `depth` levels, the most probable first, as many nodes as the
        rule may verify at least; and the passes that it took."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        depth = min(budget, self.spec.most_levels or budget)
        if depth < 1 or len(prefix_ids) < self.least_prefix:
            return Draft(asked_len=self.spec.first_asked)
        offered, num_passes = self._offered(prefix_ids, depth)
        tree = by_rule(offered, self.rule)
        sure = tree.token_probs
        return Draft(
            tree.tokens,
            sure,
            Passes(denoise=num_passes),
            self.rule.reason(len(tree), len(offered)),
            list(sure),
            asked_len=max(len(tree), self.spec.first_asked),
            parents=tree.parents,
        )


class RecordedTrees(TreeDrafter):
    """Read back from a trace."""

    def __init__(self, trace: Recorded, spec: TreeSpec, setup: Setup, least_prefix: int = 1) -> None:
        """Raises UserError where the trace holds less than the spec needs."""
        super().__init__(spec, setup)
        self.least_prefix, self._prompt_len = least_prefix, len(trace.prompt_ids)
        recorded, size = trace.offers_of(spec), spec.size(setup)
        recorded.require(size, spec.name, trace.question_id)
        self._offers: Offers = recorded.of_size(size)

    def _offered(self, prefix_ids: Sequence[int], depth: int) -> tuple[Tree, int]:
        at = len(prefix_ids) - self._prompt_len
        num_passes = self._offers.num_passes(at, depth, self.spec.sure, self.stop_ids)
        depth = self._offers.levels_of(num_passes, depth)
        return self._offers.falling(at, depth, self.rule.max_nodes, self.stop_ids), num_passes
