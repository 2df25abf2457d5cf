"""The network of a DFlash head over one target: a block of drafts in a single pass, after any known position.

`dflash.py` reads its checkpoint, `dflash_trees.py` says what may stand in its slots, `dflash_parts.py` has what its kin
add, `drafters/dflash.py` says when it is asked.
The context is a cache of keys and values per layer, one row per position of the text but for the anchor: a projection
of the target's features alone. Nothing of a block stays. Blocks after different positions go through one pass side by
side.

Shape suffixes: A layers, B blocks, C hidden size, D head size, F taps x hidden size, G KV heads, H query heads, L rows
of blocks (B x slots), N new rows of context, P positions of the cache with the blocks after them, R = H / G, S slots
that are drafts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

from specdec.models.dflash_joined import JoinedLayers
from specdec.models.dflash_layers import LayerKind, seen
from specdec.models.dflash_parts import Convolution, Markov, Part, Selector, Walk, convolved, each_alone
from specdec.models.graph.graphs import MAX_ROWS, PADDED, Graphs, padded
from specdec.models.graph.reference import norm, rotated
from specdec.models.heads import LoadedHead, MadeFor
from specdec.models.llama_like import LlamaLike

INITIAL_CAPACITY = 2048
WALKED = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # slots of a recorded pass that are walked through, or all
LEAST_SPAN = 256  # positions that a recorded pass looks at, twice as many whenever they do not suffice
Answer = Callable[[Tensor, Tensor], Tensor]  # of the states of slots [B, S, C] and the anchors [B]
Result = TypeVar("Result")


@dataclass(frozen=True)
class DflashSettings(LlamaLike):
    """What decides how a head computes.

    `layer`: the settings of its layers, under the names of a Llama's. `block_size`: tokens of a pass, the anchor
    first. `first_slot`: the first slot that is a draft, of `num_drafts`. `embedding_scale`, `logit_scale`, `logit_cap`:
    what embeddings and logits are multiplied with, and what bounds these (0: nothing). `parts`: what it has beside a
    DFlash's layers.
    """

    made_for: MadeFor
    layer: dict[str, Any]
    layer_kinds: tuple[LayerKind, ...]
    block_size: int
    mask_id: int
    first_slot: int
    num_drafts: int
    embedding_scale: float = 1.0
    logit_scale: float = 1.0
    logit_cap: float = 0.0
    parts: tuple[Part, ...] = ()

    @property
    def slots(self) -> slice:
        """Those of a block that are drafts."""
        return slice(self.first_slot, self.first_slot + self.num_drafts)


Masks = dict[LayerKind, Tensor | None]


class DflashNetwork:
    """A head's weights, and its context. In the graph backend its passes are recorded and replayed, as those of
    `graph/` are: those that take in features, and a block after all that is known.

    Attributes:
        taps: the layers of the target whose outputs it reads.
        context_norms: by which layer's norm each layer's keys of the context go: its own, but in some servers.
        title: what messages call it.
        length: positions of the context.
    """

    def __init__(self, loaded: LoadedHead[DflashSettings]) -> None:
        head, tensors, target, source, is_recorded = loaded
        self.head, self.target, self.taps, self.title = head, target, head.taps, source.title
        self.device, dtype = target.device, target.model.dtype
        self.length, self.context_norms = 0, tuple(range(len(head.layer_kinds)))
        self._w = {name: tensor.to(self.device, dtype).contiguous() for name, tensor in tensors.items()}
        self._embedding_VC = self._table("embed_tokens.weight", target.model.get_input_embeddings())
        self._head_VC = self._table("lm_head.weight", target.model.get_output_embeddings())
        self._rotary, self._eps = head.rotary(source).to(self.device), float(head.layer["rms_norm_eps"])
        self._convolution = next((part for part in head.parts if isinstance(part, Convolution)), None)
        walks: list[Walk] = [part for part in head.parts if isinstance(part, Markov | Selector)]
        self._walk: Walk = walks[-1] if walks else each_alone
        self._walk_of_one, self._counts = self._walk, [head.num_drafts]
        if isinstance(self._walk, Markov) and self._walk.rank:  # each slot takes time of its own
            self._counts = [*(count for count in WALKED if count < head.num_drafts), head.num_drafts]
            self._walk_of_one = self._walk.by_kernels if is_recorded and self.device.type == "cuda" else self._walk
        self._graphs = Graphs(self.device) if is_recorded else None
        self._joined = JoinedLayers.of(head, self._w) if is_recorded else None
        self._features_NF = torch.zeros(MAX_ROWS, self._w["fc.weight"].shape[1], dtype=dtype, device=self.device)
        self._first, self._anchor = torch.zeros(2, 1, dtype=torch.long, device=self.device)
        size = 2, head.num_kv_heads, 0, head.head_size
        self._cache_A2GPD = torch.zeros(len(head.layer_kinds), *size, dtype=dtype, device=self.device)
        self._allocate(INITIAL_CAPACITY)

    @property
    def num_weight_bytes(self) -> int:
        """Bytes of the weights that a draft reads, the output head's among them."""
        own = (one for name, one in self._w.items() if not name.startswith(("embed_tokens", "lm_head")))
        return self._head_VC.nbytes + sum(one.nbytes for one in own)

    def _table(self, name: str, targets: torch.nn.Module) -> Tensor:
        """Its own, or the target's, which may be spread over GPUs."""
        own = self._w.get(name)
        return targets.get_parameter("weight").detach().to(self.device) if own is None else own

    @torch.inference_mode()
    def _allocate(self, capacity: int) -> None:
        """A cache of `capacity` positions; what is in it moves along."""
        known = self._cache_A2GPD
        layers, two, groups, num_known, size = known.shape
        self._cache_A2GPD = known.new_zeros(layers, two, groups, capacity, size)
        self._cache_A2GPD[:, :, :, :num_known] = known
        wide, positions_1P = torch.zeros(1, device=self.device), torch.arange(capacity, device=self.device)[None]
        self._angles_2PE = torch.stack([part[0, :, : size // 2] for part in self._rotary(wide, positions_1P)])
        if self._graphs is not None:
            self._graphs.clear()

    def _make_room(self, num_positions: int) -> None:
        capacity = self._cache_A2GPD.shape[3]
        if num_positions > capacity:
            self._allocate(max(2 * capacity, num_positions))

    def warm_up(self) -> None:
        """Record the passes of drafts over a short text, so that no measured one does."""
        self._record(lambda anchors, starts: [self.draft(anchors, starts, count) for count in self._counts])

    def _record(self, ask: Callable[[Sequence[int], Sequence[int]], object]) -> None:
        """Ask for a block after texts of all lengths that a short text's passes are padded to."""
        if self._graphs is None:
            return
        for count in PADDED:
            self.clear()
            self.read(self._features_NF[:count])
            ask([self.head.mask_id], [count])
        self.clear()

    def clear(self) -> None:
        """Forget the text."""
        self.length = 0

    @torch.inference_mode()
    def read(self, features_NF: Tensor) -> None:
        """Take in the target's features of the next positions of the text."""
        for begin in range(0, len(features_NF), MAX_ROWS):
            part_NF = features_NF[begin : begin + MAX_ROWS]
            count = len(part_NF) if self._graphs is None else padded(len(part_NF), PADDED)
            self._make_room(self.length + count)
            self._features_NF[: len(part_NF)] = part_NF
            self._first.fill_(self.length)
            self._run(("read", count, self.context_norms), partial(self._take_in, count))
            self.length += len(part_NF)

    def _run(self, key: Hashable, body: Callable[[], Result]) -> Result:
        """A pass: as it is, or recorded."""
        return body() if self._graphs is None else self._graphs.run(key, body)

    def _take_in(self, count: int) -> None:
        projected_NC = linear(self._features_NF[:count], self._w["fc.weight"])
        if self._joined is not None and self.context_norms == tuple(range(len(self.head.layer_kinds))):
            self._joined.store(projected_NC, self._first, self._cache_A2GPD, self._angles_2PE)
            return
        positions_N = self._first + torch.arange(count, device=self.device)
        context_NC = self._normed(projected_NC, "hidden_norm")
        for index, like in enumerate(self.context_norms):
            self._store(index, context_NC, positions_N, positions_N, like)

    def draft(self, anchors: Sequence[int], starts: Sequence[int], num_slots: int | None = None) -> Tensor:
        """A block after each anchor, a token at one of the positions `starts` (at most `length`); it sees the context
        before that. [B, S, 2] float64: each slot's token and how sure it is; good until the next pass. `num_slots`: of
        the first slots at least that many, the same as without (None: all)."""
        most = self._counts[-1]
        count = padded(most if num_slots is None else min(num_slots, most), self._counts)
        walk = self._walk if self._recorded_by(starts) is None else self._walk_of_one
        return self._answered(anchors, starts, ("draft", count), partial(self._walked, walk, count))

    def on_host(self, packed_S2: Tensor | np.ndarray) -> tuple[list[int], list[float]]:
        """A drafted block on the host: its tokens, how sure each is. Raises UserError where these are not numbers."""
        return self.target.on_host(packed_S2, self.title)

    def _walked(self, walk: Walk, count: int, hidden_BSC: Tensor, anchors_B: Tensor) -> Tensor:
        # Logits of all slots: a product of fewer rows might round otherwise.
        logits_BSV = self._logits(hidden_BSC)
        return walk(self._w, hidden_BSC[:, :count], logits_BSV[:, :count], anchors_B)

    def _recorded_by(self, starts: Sequence[int]) -> Graphs | None:
        """What records the pass, if it is of a single block after all that is known; None: it is not recorded."""
        return self._graphs if list(starts) == [self.length] else None

    @torch.inference_mode()
    def _answered(
        self, anchors: Sequence[int], starts: Sequence[int], kind: tuple[Hashable, ...], answer: Answer
    ) -> Tensor:
        """What `answer`, of this `kind`, makes of the slots of such blocks."""
        self.target.require_known(anchors)
        size = self.head.block_size
        self._make_room(self.length + len(anchors) * size)
        if self._recorded_by(starts) is not None:
            self._anchor.fill_(anchors[0])  # copies from the host would wait for what the device still does
            self._first.fill_(self.length)
            if self._joined is not None:
                return self._run(kind, partial(self._joined_block, self._joined, answer))
            capacity, least = self._cache_A2GPD.shape[3], 1 << (self.length + size - 1).bit_length()
            span = min(max(LEAST_SPAN, least), capacity)
            return self._run((*kind, span), partial(self._only_block, span, answer))
        at_B = torch.tensor([list(anchors), list(starts)], device=self.device)
        positions_L = (at_B[1][:, None] + torch.arange(size, device=self.device)).flatten()
        places_L = self.length + torch.arange(len(positions_L), device=self.device)
        is_all_seen = list(starts) == [self.length]
        masks: Masks = {
            kind: None if is_all_seen and not kind.is_causal and kind.window is None else self._mask(kind, positions_L)
            for kind in set(self.head.layer_kinds)
        }
        return answer(self._blocks(at_B[0], positions_L, places_L, masks), at_B[0])

    def _joined_block(self, joined: JoinedLayers, answer: Answer) -> Tensor:
        """A block after all that is known."""
        hidden_LC = joined.block(self._embedded(self._anchor), self._first, self._cache_A2GPD, self._angles_2PE)
        return answer(hidden_LC[None, self.head.slots], self._anchor)

    def _only_block(self, span: int, answer: Answer) -> Tensor:
        """A block after all that is known, looking at `span` positions of the cache."""
        positions_L = self._first + torch.arange(self.head.block_size, device=self.device)
        keys_P = torch.arange(span, device=self.device)
        back_LP = positions_L[:, None] - keys_P
        visible_LP = (keys_P <= positions_L[-1]).expand_as(back_LP)
        masks: Masks = {kind: seen(kind, visible_LP, back_LP) for kind in set(self.head.layer_kinds)}
        return answer(self._blocks(self._anchor, positions_L, positions_L, masks), self._anchor)

    def _blocks(self, anchors_B: Tensor, positions_L: Tensor, places_L: Tensor, masks: Masks) -> Tensor:
        """The states of the slots that are drafts, after the last norm, [B, S, C], by a pass over blocks that stand at
        `places_L` of the cache for its time."""
        x_LC = self._embedded(anchors_B)
        for index, kind in enumerate(self.head.layer_kinds):
            x_LC = self._layer(index, x_LC, (positions_L, places_L), masks[kind])
        return self._normed(x_LC, "norm").unflatten(0, (-1, self.head.block_size))[:, self.head.slots]

    def _embedded(self, anchors_B: Tensor) -> Tensor:
        """The rows of blocks: each anchor, and masks after it."""
        ids_BL = torch.full((len(anchors_B), self.head.block_size), self.head.mask_id, device=self.device)
        ids_BL[:, 0] = anchors_B
        x_LC = embedding(ids_BL.flatten(), self._embedding_VC)
        return x_LC if self.head.embedding_scale == 1.0 else x_LC * self.head.embedding_scale

    def _logits(self, hidden_BSC: Tensor) -> Tensor:
        """Of what the target writes; the mask is never drafted."""
        logits_LV = linear(hidden_BSC.flatten(0, 1), self._head_VC)
        if self.head.logit_scale != 1.0:
            logits_LV = logits_LV * self.head.logit_scale
        if self.head.logit_cap:
            logits_LV = torch.tanh(logits_LV / self.head.logit_cap) * self.head.logit_cap
        logits_LV = self.target.of_tokens(logits_LV)
        if self.head.mask_id < logits_LV.shape[1]:
            logits_LV[:, self.head.mask_id] = -torch.inf
        return logits_LV.unflatten(0, hidden_BSC.shape[:2])

    def _layer(self, index: int, x_LC: Tensor, at: tuple[Tensor, Tensor], mask_LP: Tensor | None) -> Tensor:
        place = f"layers.{index}"
        normed_LC = self._normed(x_LC, f"{place}.input_layernorm")

        attend = partial(self._attended, index, at=at, mask_LP=mask_LP)
        x_LC = x_LC + self._between(f"{place}.attention_conv", normed_LC, attend)
        normed_LC = self._normed(x_LC, f"{place}.post_attention_layernorm")
        return x_LC + self._between(f"{place}.mlp_conv", normed_LC, partial(self._mlp, f"{place}.mlp"))

    def _between(self, place: str, x_LC: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """A sublayer between its convolutions, where the head has any."""
        if self._convolution is None:
            return sublayer(x_LC)
        x_BSC = x_LC.unflatten(0, (-1, self.head.block_size))
        before, after = self._convolution.kernels(self._w, place, x_BSC)
        inner_LC = sublayer(convolved(x_BSC, before).flatten(0, 1))
        return convolved(inner_LC.unflatten(0, x_BSC.shape[:2]), after).flatten(0, 1)

    def _attended(self, index: int, y_LC: Tensor, at: tuple[Tensor, Tensor], mask_LP: Tensor | None) -> Tensor:
        """Attention of the blocks over the context and themselves; their keys stand in the cache for this pass."""
        place, (positions_L, places_L) = f"layers.{index}.self_attn", at
        self._store(index, y_LC, positions_L, places_L, index)
        q_LHD = linear(y_LC, self._weight(f"{place}.q_proj")).unflatten(1, (-1, self.head.head_size))
        q_LHD = rotated(self._normed(q_LHD, f"{place}.q_norm"), *self._angles_2PE[:, positions_L])
        rows, groups = len(q_LHD), self.head.num_kv_heads
        q_GMD = q_LHD.unflatten(1, (groups, -1)).permute(1, 2, 0, 3).flatten(1, 2)  # heads of a group, row after row
        span = self.length + rows if mask_LP is None else mask_LP.shape[1]
        keys_GPD, values_GPD = self._cache_A2GPD[index, :, :, :span]
        mask_MP = None if mask_LP is None else mask_LP.repeat(q_GMD.shape[1] // rows, 1)
        out_1GMD = scaled_dot_product_attention(q_GMD[None], keys_GPD[None], values_GPD[None], attn_mask=mask_MP)
        out_LHD = out_1GMD[0].unflatten(1, (-1, rows)).permute(2, 0, 1, 3)
        return linear(out_LHD.flatten(1), self._weight(f"{place}.o_proj"))

    def _mlp(self, place: str, y_LC: Tensor) -> Tensor:
        gated = silu(linear(y_LC, self._weight(f"{place}.gate_proj"))) * linear(y_LC, self._weight(f"{place}.up_proj"))
        return linear(gated, self._weight(f"{place}.down_proj"))

    def _store(self, index: int, x_LC: Tensor, positions_L: Tensor, places_L: Tensor, like: int) -> None:
        """Keys, turned by their positions, and values of a layer's rows go to `places_L` of its cache; keys by the norm
        of layer `like`."""
        place = f"layers.{index}.self_attn"
        k_LGD, v_LGD = (
            linear(x_LC, self._weight(f"{place}.{name}_proj")).unflatten(1, (-1, self.head.head_size)) for name in "kv"
        )
        k_LGD = rotated(self._normed(k_LGD, f"layers.{like}.self_attn.k_norm"), *self._angles_2PE[:, positions_L])
        for part_GPD, new_LGD in zip(self._cache_A2GPD[index], (k_LGD, v_LGD), strict=True):
            part_GPD.index_copy_(1, places_L, new_LGD.transpose(0, 1))

    def _mask(self, kind: LayerKind, positions_L: Tensor) -> Tensor:
        """Which keys each row of the blocks sees, [L, P]: the context before its anchor and its own block, as far as
        the layer's kind says."""
        size, context_P = self.head.block_size, torch.arange(self.length, device=self.device)
        blocks_L = torch.arange(len(positions_L), device=self.device) // size
        starts_L = positions_L[blocks_L * size]
        of_context = context_P < starts_L[:, None]
        visible_LP = torch.cat([of_context, blocks_L == blocks_L[:, None]], dim=1)
        return seen(kind, visible_LP, positions_L[:, None] - torch.cat([context_P, positions_L]))

    def _weight(self, name: str) -> Tensor:
        return self._w[f"{name}.weight"]

    def _normed(self, x: Tensor, name: str) -> Tensor:
        return norm(x, self._weight(name), self._eps)
