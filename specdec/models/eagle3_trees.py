"""The network of an EAGLE-3 head where its drafts branch: new nodes of a tree, all of a level in one pass.

A node stands in the cache after the rows of the text, in the order in which nodes are run; it is turned by its depth,
and sees the text up to the tree's root, the nodes that it goes on from and itself. Which nodes are run is decided by
who asks; chains are `eagle3_network.py`'s.

Shape suffixes: as there; B new nodes, K candidates, N nodes that there is room for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from specdec.models.eagle3_network import Eagle3Network
from specdec.models.eagle3_settings import Eagle3Settings
from specdec.models.heads import LoadedHead
from specdec.models.tree_rows import TreeRows

INITIAL_NODES = 128
ROOT = -1  # as a parent
PLACE, NODE = 3, 3  # numbers that a pass is sent of the tree's place, and of each node beside what it sees


class Eagle3Trees(Eagle3Network):
    """A head that also writes trees."""

    def __init__(self, loaded: LoadedHead[Eagle3Settings]) -> None:
        super().__init__(loaded)
        self._root = -1  # the last row of the text that a tree sees
        self._parents: list[int] = []  # of the nodes that were run
        self._node_states_NC = self._states_T1C[0].clone()  # the root's, then each node's
        self._sent = self._ids_L.new_zeros(0)
        self._make_nodes(INITIAL_NODES)

    def forget_nodes(self) -> None:
        """The tree begins anew, after the same row."""
        self._parents = []

    def prepare(self, top_k: int, depth: int, stop_ids: Collection[int] = ()) -> None:
        """Make room for `depth` levels of which `top_k` nodes go on, none of them one of `stop_ids`, and record the
        pass of a level, so that no measured one does. It forgets the text."""
        self.clear()
        self._root = -1
        self.forget_nodes()
        if top_k * depth > len(self._node_states_NC) - 1:
            self._make_nodes(top_k * depth)
        if self._graphs is not None:
            self.grow([0] * top_k, [ROOT] * top_k, top_k)

    def begin_trees(self, top_k: int, depth: int, stop_ids: Collection[int] = ()) -> None:
        """The next trees are of a kind that was prepared: several drafters may share a network, text by text."""

    def take_root(self, features_LF: Tensor, tokens: Sequence[int], top_k: int, num_ahead: int = 0) -> np.ndarray:
        """`take_in`, and the candidates of the token after it, as `grow` gives them: the root of a new tree.
        `num_ahead`: levels that are sure to be asked for, so that they may run before they are."""
        self.take_in(features_LF, tokens)
        return self._begin(self.length - 1, self._states_T1C[0], top_k)

    @torch.inference_mode()
    def root_at(self, row: int, top_k: int) -> np.ndarray:
        """The same after a row of a text that was read with `read_text`."""
        _, _, fed_1C = self._predicted(self._outs_LC[row : row + 1])
        return self._begin(row, fed_1C, top_k)

    @torch.inference_mode()
    def _begin(self, root: int, state_1C: Tensor, top_k: int) -> np.ndarray:
        self._root, self._parents = root, []
        self._node_states_NC[:1] = state_1C
        return self._on_host(self._candidates(state_1C, top_k))

    @torch.inference_mode()
    def grow(self, tokens: Sequence[int], parents: Sequence[int], top_k: int) -> np.ndarray:
        """A pass over new nodes, each a token and its parent: the number of a node that was run before, from 0, or -1
        for the root. Of each the `top_k` most probable tokens after it, [B, K, 2] float64: the target's tokens, and
        their log-probabilities in the draft vocabulary. Raises UserError where these are not numbers.
        """
        known, num_new = len(self._parents), len(tokens)
        # A recorded pass is always of the same number of nodes: its padding is written over by the next nodes.
        count = num_new if self._graphs is None else max(num_new, top_k)
        if known + count > len(self._node_states_NC) - 1:
            self._make_nodes(2 * (known + count))
        self._make_room(self.length + known + count)
        self._parents += parents
        self._send(tokens, known, count)
        span = self.length + known + count
        if self._graphs is None:
            found_BK2 = self._grown(count, span, top_k)
        else:
            key = "tree", count, top_k
            found_BK2 = self._graphs.run(key, lambda: self._grown(count, self._cache_2GPD.shape[2], top_k))
        return self._on_host(found_BK2[:num_new])

    def _make_nodes(self, num_nodes: int) -> None:
        """Room for `num_nodes` nodes; their states move along."""
        known_NC = self._node_states_NC
        self._node_states_NC = known_NC.new_zeros(1 + num_nodes, known_NC.shape[1])
        self._node_states_NC[: len(known_NC)] = known_NC
        self._sent = self._ids_L.new_zeros(PLACE + num_nodes * (NODE + num_nodes))
        if self._graphs is not None:
            self._graphs.clear()

    def _send(self, tokens: Sequence[int], known: int, count: int) -> None:
        """The tree's place, then of each new node its token, parent, depth and which nodes it sees, in one transfer."""
        room, num_new, rows = len(self._node_states_NC) - 1, len(tokens), TreeRows.of(self._parents)
        nodes = np.zeros((count, NODE + room), np.int64)
        nodes[:num_new, 0] = tokens
        nodes[:num_new, 1] = 1 + np.array(self._parents[known:])
        nodes[:num_new, 2] = 1 + np.array(rows.depths[known:])
        nodes[:num_new, NODE : NODE + known + num_new] = rows.sees_LL[known:]
        place = np.array([self._root, self.length, known])
        sent = torch.from_numpy(np.concatenate([place, nodes.flatten()]))
        self._sent[: len(sent)] = sent.to(self.device)

    def _grown(self, count: int, span: int, top_k: int) -> Tensor:
        """The pass: its candidates; keys, values and states of the nodes are kept."""
        room = len(self._node_states_NC) - 1
        root_1, first_1, known_1 = self._sent[:PLACE].split(1)
        nodes_BX = self._sent[PLACE : PLACE + count * (NODE + room)].view(count, -1)
        ids_B, parents_B, depths_B = nodes_BX[:, :NODE].unbind(1)
        new_B, positions_P = (torch.arange(size, device=self.device) for size in (count, span))
        own_P = positions_P - first_1
        is_own_P = (own_P >= 0) & (own_P < room)
        sees_BP = nodes_BX[:, NODE:].index_select(1, own_P.clamp(0, room - 1)) > 0
        visible_BP = (positions_P <= root_1) | (is_own_P & sees_BP)
        attend = self._over(first_1 + known_1 + new_B, visible_BP)
        states_BC = self._node_states_NC.index_select(0, parents_B)
        out_BC = self._layer(self._embedded(ids_B), states_BC, root_1 + depths_B, attend)
        fed_BC = self._final(out_BC) if self.head.feeds_normed else out_BC
        self._node_states_NC.index_copy_(0, 1 + known_1 + new_B, fed_BC)
        return self._candidates(fed_BC, top_k)

    def _candidates(self, fed_BC: Tensor, top_k: int) -> Tensor:
        """Of each state the `top_k` most probable tokens (all, of a smaller vocabulary), [B, K, 2]."""
        normed_BC = fed_BC if self.head.feeds_normed else self._final(fed_BC)
        logits_BV = linear(normed_BC, self._w["lm_head.weight"]).index_fill(1, self._never, -torch.inf)
        best = logits_BV.float().log_softmax(-1).topk(min(top_k, logits_BV.shape[1]))
        return torch.stack([self._tokens_V[best.indices].double(), best.values.double()], dim=-1)

    def _on_host(self, found_BK2: Tensor) -> np.ndarray:
        return self._checked(found_BK2.cpu().numpy())

    def _checked(self, found: np.ndarray) -> np.ndarray:
        self.target.require_numbers(found[:, 0, 1].tolist(), self.title)
        return found
