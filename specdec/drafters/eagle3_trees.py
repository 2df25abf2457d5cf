"""Trees over EAGLE-3: a head that grows a tree level by level, a pass each, of whose nodes the most probable are
verified: a fixed number (EAGLE-2's dynamic tree), or those that are sure (FailFast's idea; it grows no further than it
is sure either).

The authors' depth counts the levels after the first; here `tree_depth` counts all of them, as passes are counted.
Sources: EAGLE-2 (arXiv 2406.16858), EAGLE-3 (arXiv 2503.01840); FailFast (arXiv 2512.20573).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdec.decoding.trees import ROOT, Candidates, Tree, scored_tree
from specdec.drafters.base import Drafter, Family, Recorded, Recording, Setup
from specdec.drafters.eagle3 import EAGLE3_HEAD, LEAST_PREFIX, NAME
from specdec.drafters.flags import LENGTHS, Flag, Options
from specdec.drafters.head_reader import HeadReader
from specdec.drafters.tree_drafter import (
    TREE_FLOOR,
    TREE_NODES,
    FixedTree,
    RecordedTrees,
    SureTree,
    TreeDrafter,
    TreeSpec,
)
from specdec.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from specdec.models.eagle3_trees import Eagle3Trees

TREE_DEPTH = Flag("tree_depth", "trees that grow level by level: levels, at most", (8,), (), LENGTHS)
TREE_TOP_K = Flag("tree_top_k", "trees that grow level by level: nodes of a level that go on", (10,), (), LENGTHS)
OFFERS = "eagle3_levels_"


class _Eagle3Tree(TreeSpec):
    """What they have in common."""

    tree_depth: int
    tree_top_k: int

    role = EAGLE3_HEAD
    priced_as = NAME

    @property
    def chains_name(self) -> str:
        """Fewer candidates of a level give another tree, fewer levels a part of it."""
        return f"{OFFERS}{self.tree_top_k}"

    def chain_len(self, options: Options) -> int:
        """Levels."""
        return self.tree_depth

    @property
    def most_levels(self) -> int:
        return self.tree_depth

    def check_context(self, options: Options, context_len: int) -> None:
        """A node that goes on has a place in the head's cache, as a token has."""
        going_on = self.tree_top_k * (self.tree_depth - 1)
        if going_on >= context_len:
            raise UserError(
                f"{self.name} grows trees of which {going_on} nodes go on, and the models' context takes "
                f"{context_len - 1}: ask for fewer levels, or fewer nodes of a level"
            )

    def drafter(self, setup: Setup) -> Drafter:
        return Eagle3TreeDrafter(setup.lm, self, setup)

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        return RecordedTrees(trace, self, setup, LEAST_PREFIX)


@dataclass(frozen=True)
class Eagle3Tree(_Eagle3Tree, FixedTree):
    """The `tree_nodes` most probable of all nodes that were scored: EAGLE-2's dynamic tree."""

    tree_depth: int
    tree_top_k: int
    tree_nodes: int

    name_pattern = "eagle3_tree_{tree_depth}_{tree_top_k}_{tree_nodes}"
    label_pattern = "EAGLE-3, tree of {tree_nodes}, depth {tree_depth}, top {tree_top_k}"
    swept = (TREE_DEPTH, TREE_TOP_K, TREE_NODES)
    kind = "eagle3_tree"
    title = "EAGLE-3, tree"
    hue = "#E08214"
    marker = "2"
    serving = {
        "SGLang": {
            "algorithm": "EAGLE3",
            "draft-model-path": "{model}",
            "num-steps": "{tree_depth}",
            "eagle-topk": "{tree_top_k}",
            "num-draft-tokens": "{num_verified}",
        },
    }
    not_served = "its EAGLE-3 heads write in a row"


@dataclass(frozen=True)
class Eagle3SureTree(_Eagle3Tree, SureTree):
    """The nodes whose paths have the probability `tree_floor`; it grows on while a leaf has."""

    tree_floor: float
    tree_depth: int
    tree_top_k: int
    tree_nodes: int

    name_pattern = "eagle3_tree_df_{tree_floor}_{tree_depth}_{tree_top_k}_{tree_nodes}"
    label_pattern = "EAGLE-3, tree above {tree_floor}, at most {tree_nodes}, depth {tree_depth}, top {tree_top_k}"
    swept = (TREE_FLOOR, TREE_DEPTH, TREE_TOP_K, TREE_NODES)
    kind = "eagle3_tree_df"
    title = "EAGLE-3, dynamic tree"
    hue = "#B2182B"
    marker = "3"
    not_served = "its trees have a fixed number of nodes"

    @property
    def sure(self) -> float:  # type: ignore[override]  # there a constant
        return self.tree_floor


class Eagle3TreeDrafter(HeadReader["Eagle3Trees"], TreeDrafter):
    least_prefix = LEAST_PREFIX

    def __init__(self, network: Eagle3Trees, spec: _Eagle3Tree, setup: Setup) -> None:
        super().__init__(spec, setup)
        self.attach(network)
        self._top_k = spec.tree_top_k
        self._tree_kind = spec.tree_top_k, spec.tree_depth, self.stop_ids
        network.prepare(*self._tree_kind)

    def reset(self, features: Tensor | None = None) -> None:
        super().reset(features)
        self.network.begin_trees(*self._tree_kind)

    def _offered(self, prefix_ids: Sequence[int], depth: int) -> tuple[Tree, int]:
        import torch

        tokens = list(prefix_ids[self.network.length + 1 :])
        num_ahead = 0 if self.spec.sure else depth - 1  # who asks whether leaves are sure does so level by level
        root = self.network.take_root(torch.cat(self.taken()), tokens, self._top_k, num_ahead)
        growth = Growth(self.network, root, self._top_k)
        scored = scored_tree(growth.expand, depth, self._top_k, sure=self.spec.sure, stop_ids=self.stop_ids)
        return scored.falling(self.rule.max_nodes), growth.num_passes


class Growth:
    """A tree that grows after a root: which node of the network's each path of tokens leads to."""

    def __init__(self, network: Eagle3Trees, root: np.ndarray, top_k: int) -> None:
        """`root`: the candidates of the first token, for which a pass was made."""
        self.network, self._root, self._top_k = network, root, top_k
        self._nodes: dict[tuple[int, ...], int] = {(): ROOT}
        self.num_passes = 0

    def expand(self, paths: Sequence[tuple[int, ...]]) -> Candidates:
        """What may follow each of these paths; see `scored_tree`."""
        self.num_passes += 1
        if paths == [()]:
            return Candidates.of_pairs(self._root)
        parents = [self._nodes[path[:-1]] for path in paths]
        self._nodes |= {path: len(self._nodes) - 1 + index for index, path in enumerate(paths)}
        return Candidates.of_pairs(self.network.grow([path[-1] for path in paths], parents, self._top_k))


def record(recording: Recording, wanted: Mapping[str, int]) -> dict[str, list[Tree]]:
    """All nodes that are scored after each prefix; after one of a single token there are none."""
    text, network, stop_ids = recording.text, recording.setup.lm, frozenset(recording.setup.stop_ids)
    rows = [at - LEAST_PREFIX for at in text.prefix_lens if at >= LEAST_PREFIX]
    if rows:
        tokens = text.ids[1 : rows[-1] + LEAST_PREFIX]
        network.read_text(recording.features_of(text.ids[: len(tokens)], network.taps), tokens)
    made: dict[str, list[Tree]] = {}
    for name, depth in wanted.items():
        top_k = int(name.removeprefix(OFFERS))
        made[name] = [Tree()] * (text.num_prefixes - len(rows))
        for row in rows:
            growth = Growth(network, network.root_at(row, top_k), top_k)
            made[name].append(scored_tree(growth.expand, depth, top_k, stop_ids=stop_ids))
    return made


FAMILY = Family((Eagle3Tree, Eagle3SureTree), (TREE_DEPTH, TREE_TOP_K, TREE_NODES, TREE_FLOOR), record)
