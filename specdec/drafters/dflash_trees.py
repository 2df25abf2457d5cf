"""Trees over DFlash and its kin: of the candidates of a block's slots, which one pass gives, the most probable paths
are verified: a fixed number, those that are sure (FailFast's idea), or as many as pay.

Not for heads whose slots know of each other (a Markov head, a selector): theirs are no distributions of slots. Sources:
DDTree, CaDDTree and JetSpec (arXiv 2606.18394); FailFast (arXiv 2512.20573).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdec.decoding.offers import Slots
from specdec.decoding.pairs import Followers, tied_search
from specdec.decoding.trees import Candidates, Tree, slots_first
from specdec.drafters.base import Drafter, Family, Recorded, Recording, Setup
from specdec.drafters.dflash import BLOCK, DFLASH_HEAD, NAME, DflashReader, blocks_along, check_block
from specdec.drafters.flags import PRICINGS, Options
from specdec.drafters.tree_drafter import (
    SLOT_TOP_K,
    TREE_FLOOR,
    TREE_NODES,
    CostTree,
    FixedTree,
    RecordedTrees,
    SureTree,
    TreeDrafter,
    TreeSpec,
)
from specdec.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from specdec.models.dflash_trees import DflashTrees

OFFERS = "dflash_slots"
VOCABULARY = "dflash_vocab_size"  # no flag: the tokens that a slot has to choose from, by the checkpoint's config.json
IS_WALK = "dflash_is_walk"  # no flag: whether the checkpoint's slots know of each other, by its config.json


class _DflashTree(TreeSpec):
    """What they have in common."""

    role = DFLASH_HEAD
    priced_as = NAME
    chains_name = OFFERS
    not_served = "it verifies blocks in a row, not trees"

    @classmethod
    def stated(cls, config: Mapping[str, Any]) -> Options:
        from specdec.models.dflash import block_size_of, slots_are_alone

        own = {IS_WALK: not slots_are_alone(config), VOCABULARY: config.get("vocab_size")}
        return {BLOCK: block_size_of(config), **own}

    @classmethod
    def filled_block(cls, options: Options) -> int | None:
        size: int | None = options.get(BLOCK)
        return size

    def check_context(self, options: Options, context_len: int) -> None:
        check_block(options, context_len)
        if options.get(IS_WALK):
            raise UserError(
                f"{self.name} is a tree over slots that do not know of each other, and those of this head do: draft "
                "with dflash_sf or dflash_df"
            )
        known = options.get(VOCABULARY)
        if known is not None and self.chain_len(options) > max(known, SLOT_TOP_K.default):
            raise UserError(f"--slot_top_k {self.chain_len(options)}: the head's vocabulary has {known} tokens")

    def chain_len(self, options: Options) -> int:
        """Candidates of a slot."""
        return int(SLOT_TOP_K.of(options))

    def kept_settings(self, setup: Setup) -> dict[str, Any]:
        return {**super().kept_settings(setup), "slot_top_k": self.size(setup)}

    def drafter(self, setup: Setup) -> Drafter:
        return DflashTreeDrafter(setup.lm, self, setup)

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        return RecordedTrees(trace, self, setup)


@dataclass(frozen=True)
class DflashTree(_DflashTree, FixedTree):
    """The `tree_nodes` most probable paths: DDTree."""

    tree_nodes: int

    name_pattern = "dflash_tree_{tree_nodes}"
    label_pattern = "DFlash, tree of {tree_nodes}"
    swept = (TREE_NODES,)
    kind = "dflash_tree"
    title = "DFlash, tree"
    hue = "#33A02C"
    marker = "H"


@dataclass(frozen=True)
class DflashSureTree(_DflashTree, SureTree):
    """The paths that have the probability `tree_floor`, at most `tree_nodes`."""

    tree_floor: float
    tree_nodes: int

    name_pattern = "dflash_tree_df_{tree_floor}_{tree_nodes}"
    label_pattern = "DFlash, tree above {tree_floor}, at most {tree_nodes}"
    swept = (TREE_FLOOR, TREE_NODES)
    kind = "dflash_tree_df"
    title = "DFlash, dynamic tree"
    hue = "#1F78B4"
    marker = "1"


@dataclass(frozen=True)
class DflashCostTree(_DflashTree, CostTree):
    """As many of the most probable paths as pay: CaDDTree."""

    tree_nodes: int
    pricing: str

    name_pattern = "dflash_tree_ca_{tree_nodes}_{pricing}"
    label_pattern = "DFlash, cost-aware tree, at most {tree_nodes}, {pricing}"
    swept = (TREE_NODES, PRICINGS)
    kind = "dflash_tree_ca"
    title = "DFlash, cost-aware tree"
    hue = "#A6761D"
    marker = "+"


@dataclass(frozen=True)
class DflashPairsTree(_DflashTree, SureTree):
    """The paths that have the probability `tree_floor`, at most `tree_nodes`, where slots are tied by the text."""

    tree_floor: float
    tree_nodes: int

    name_pattern = "dflash_tree_pairs_{tree_floor}_{tree_nodes}"
    label_pattern = "DFlash, tree by pairs above {tree_floor}, at most {tree_nodes}"
    swept = (TREE_FLOOR, TREE_NODES)
    kind = "dflash_tree_pairs"
    title = "DFlash, tree by pairs"
    hue = "#B15928"
    marker = "."

    def drafter(self, setup: Setup) -> Drafter:
        return DflashPairsDrafter(setup.lm, self, setup)

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        return RecordedPairs(trace, self, setup)


class DflashTreeDrafter(DflashReader, TreeDrafter):
    def __init__(self, network: DflashTrees, spec: _DflashTree, setup: Setup) -> None:
        super().__init__(spec, setup)
        self.attach(network)
        self._top_k = spec.size(setup)
        self._prepare()

    def _prepare(self) -> None:
        """Paths are found where the candidates are: on a GPU by a kernel."""
        network, size = self.network, (self._top_k, self.rule.max_nodes)
        self._paths: Callable[..., np.ndarray] | None = None
        if not network.finds_paths(*size):
            network.prepare(self._top_k)
            return
        how = *size, tuple(sorted(self.stop_ids))
        network.prepare_paths(*how)
        self._paths = lambda anchors, starts, depth: network.paths(anchors, starts, depth, *how)

    def _offered(self, prefix_ids: Sequence[int], depth: int) -> tuple[Tree, int]:
        at = self.asked_at(prefix_ids)
        if self._paths is not None:
            return Tree.of_rows(self._paths(*at, depth)), 1
        return slots_first(self._slots(at, depth), self.rule.max_nodes, self.stop_ids), 1

    def _slots(self, at: tuple[Sequence[int], list[int]], depth: int) -> Candidates:
        return Candidates.of_pairs(self.network.candidates(*at, self._top_k)[0]).first(depth)


class DflashPairsDrafter(DflashTreeDrafter):
    """The same paths in the order that the text gives them, which the host knows."""

    def _prepare(self) -> None:
        self._followers = Followers()
        self.network.prepare(self._top_k)

    def _offered(self, prefix_ids: Sequence[int], depth: int) -> tuple[Tree, int]:
        slots = self._slots(self.asked_at(prefix_ids), depth)
        self._followers.read(prefix_ids)
        return tied_search(slots, self._followers, prefix_ids, self.stop_ids).first(self.rule.max_nodes), 1


class RecordedPairs(RecordedTrees):
    """Read back from a trace."""

    def _offered(self, prefix_ids: Sequence[int], depth: int) -> tuple[Tree, int]:
        assert isinstance(self._offers, Slots)  # as this family records
        at = len(prefix_ids) - self._prompt_len
        return self._offers.falling_tied(at, depth, self.rule.max_nodes, self.stop_ids, prefix_ids), 1


def record(recording: Recording, wanted: Mapping[str, int]) -> dict[str, list[Candidates]]:
    """The candidates of every slot after each prefix."""

    def ask(anchors: Sequence[int], starts: Sequence[int]) -> Iterable[np.ndarray]:
        found: Iterable[np.ndarray] = recording.setup.lm.candidates(anchors, starts, wanted[OFFERS])
        return found

    return {OFFERS: [Candidates.of_pairs(found) for found in blocks_along(recording, ask)]}


FAMILY = Family(
    (DflashTree, DflashSureTree, DflashCostTree, DflashPairsTree), (TREE_NODES, TREE_FLOOR, SLOT_TOP_K), record
)
