"""The network of a DFlash head where its drafts branch: what may stand in every slot of a block, and on a GPU the most
probable paths over the slots, which are found there. Chains are `dflash_network.py`'s.

Shape suffixes: as there; K candidates of a slot, N nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf

import numpy as np
import torch
from torch import Tensor

from specdec.errors import UserError
from specdec.models.dflash_network import DflashNetwork, DflashSettings
from specdec.models.dflash_parts import Markov, Selector
from specdec.models.graph.top import most_probable_of
from specdec.models.heads import LoadedHead

MOST_CANDIDATES, MOST_SLOTS, MOST_NODES = 1 << 12, 1 << 8, 1 << 10  # of a search on the device


class DflashTrees(DflashNetwork):
    """A head that also says what trees are made of."""

    def __init__(self, loaded: LoadedHead[DflashSettings]) -> None:
        super().__init__(loaded)
        self._prepared: set[object] = set()  # what passes are recorded of
        self._depth = torch.zeros(1, dtype=torch.long, device=self.device)
        self._stops: dict[tuple[int, ...], Tensor] = {}

    def finds_paths(self, top_k: int, num_nodes: int) -> bool:
        """Whether `paths` is there: where passes are recorded on a GPU, and for numbers that its kernel takes."""
        is_there = self._graphs is not None and self.device.type == "cuda"
        fits = top_k <= MOST_CANDIDATES and self.head.num_drafts <= MOST_SLOTS and num_nodes <= MOST_NODES
        return is_there and fits

    def prepare(self, top_k: int) -> None:
        """Record the passes of `candidates`, once, so that no measured one does. It forgets the text."""
        self._prepare(top_k, partial(self.candidates, top_k=top_k))

    def prepare_paths(self, top_k: int, num_nodes: int, stop_ids: tuple[int, ...]) -> None:
        """The same of `paths`."""
        how = top_k, num_nodes, stop_ids
        self._prepare(how, lambda anchors, starts: self.paths(anchors, starts, 1, *how))

    def _prepare(self, what: object, ask: Callable[[Sequence[int], Sequence[int]], object]) -> None:
        if what not in self._prepared:
            self._prepared.add(what)
            self._record(ask)

    def candidates(self, anchors: Sequence[int], starts: Sequence[int], top_k: int) -> np.ndarray:
        """Of each such block the `top_k` most probable tokens of every slot, [B, S, top_k, 2] float64: tokens and
        log-probabilities, filled up with what has none where the vocabulary is smaller.

        Raises UserError for a head whose slots know of each other.
        """
        self._require_alone()
        best_BSK2 = self._answered(anchors, starts, ("candidates", top_k), partial(self._best, top_k))
        found: np.ndarray = best_BSK2.cpu().numpy()
        self.target.require_numbers(found[:, :, 0, 1].flatten().tolist(), self.title)
        missing = np.broadcast_to([0.0, -inf], (*found.shape[:2], top_k - found.shape[2], 2))
        return np.concatenate([found, missing], axis=2) if missing.size else found

    def paths(
        self,
        anchors: Sequence[int],
        starts: Sequence[int],
        depth: int,
        top_k: int,
        num_nodes: int,
        stop_ids: tuple[int, ...],
    ) -> np.ndarray:
        """After all that is known, of such candidates the `num_nodes` most probable paths of at most `depth` slots, in
        falling order, [N, 3] float64: token, parent and the logarithm of the path's probability. After a stop token
        nothing grows. Raises UserError as `candidates` does."""
        self._require_alone()
        self._depth.fill_(min(depth, self.head.num_drafts))
        if stop_ids not in self._stops:  # kept: recorded passes read it
            self._stops[stop_ids] = torch.tensor(stop_ids, dtype=torch.long, device=self.device)
        answer = partial(self._searched, top_k, num_nodes, self._stops[stop_ids])
        found_X3: np.ndarray = (
            self._answered(anchors, starts, ("paths", top_k, num_nodes, stop_ids), answer).cpu().numpy()
        )
        self.target.require_numbers(found_X3[num_nodes:, 2].tolist(), self.title)
        found_N3 = found_X3[:num_nodes]
        return found_N3[found_N3[:, 2] > -inf]

    def _require_alone(self) -> None:
        if isinstance(self._walk, Selector) or (isinstance(self._walk, Markov) and self._walk.rank):
            raise UserError("trees need slots that do not know of each other, and those of this DFlash head do")

    def _best(self, top_k: int, hidden_BSC: Tensor, anchors_B: Tensor) -> Tensor:
        logits_BSV = self._logits(hidden_BSC)
        return most_probable_of(logits_BSV.flatten(0, 1), top_k).unflatten(0, logits_BSV.shape[:2])

    def _searched(self, top_k: int, num_nodes: int, stops: Tensor, hidden_BSC: Tensor, anchors_B: Tensor) -> Tensor:
        """The paths, [N, 3], and after them as many columns of each slot's first candidate."""
        from specdec.models.graph.tree_search import search_slots  # needs Triton

        best_SK2 = self._best(top_k, hidden_BSC, anchors_B)[0]
        tokens_SK, log_probs_SK = in_order(best_SK2)
        is_last_SK = (tokens_SK[..., None] == stops).any(-1).int()
        found_N3 = search_slots(tokens_SK, log_probs_SK, is_last_SK, self._depth, num_nodes)
        return torch.cat([found_N3, best_SK2[:, 0, -1:].expand(-1, 3)])


def in_order(best_SK2: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens, int64, and log-probabilities, float32, [S, K], in the order of `Candidates`: falling, equals by their
    ids."""
    tokens_SK, by_id_SK = best_SK2[..., 0].long().sort(-1)
    log_probs_SK, order_SK = best_SK2[..., 1].float().gather(-1, by_id_SK).sort(dim=-1, descending=True, stable=True)
    return tokens_SK.gather(-1, order_SK), log_probs_SK
