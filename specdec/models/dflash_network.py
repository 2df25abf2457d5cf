"""The network of a DFlash head over one target: a block of drafts in a single pass, after any known position.

`dflash.py` reads its checkpoint, `dflash_parts.py` has what its kin add, `drafters/dflash.py` says when it is asked.
The context is a cache of keys and values per layer, one row per position of the text but for the anchor: a projection
of the target's features alone. Nothing of a block stays. Blocks after different positions go through one pass side by
side.

Shape suffixes: A layers, B blocks, C hidden size, D head size, F taps x hidden size, G KV heads, H query heads, L rows
of blocks (B x slots), N new rows of context, P positions of the cache with the blocks after them, R = H / G, S slots
that are drafts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

from specdec.models.dflash_parts import Convolution, Markov, Part, Selector, Walk, convolved, each_alone
from specdec.models.graph.reference import norm, rotated
from specdec.models.heads import MadeFor
from specdec.models.llama_like import LlamaLike
from specdec.models.lm import CachedLM

INITIAL_CAPACITY = 2048


@dataclass(frozen=True)
class LayerKind:
    """What a layer's queries see of the block (`is_causal`: what stands before them and themselves), and how far they
    see at all (`window` positions; None: everything)."""

    is_causal: bool
    window: int | None = None


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


Masks = dict[LayerKind, Tensor | None]


class DflashNetwork:
    """A head's weights, and its context.

    Attributes:
        taps: the layers of the target whose outputs it reads.
        length: positions of the context.
    """

    def __init__(
        self, head: DflashSettings, tensors: Mapping[str, Tensor], target: CachedLM, rotary: torch.nn.Module
    ) -> None:
        """`rotary`: the module that makes the angles of positions."""
        self.head, self.target, self.taps = head, target, head.taps
        self.device, dtype = target.device, target.model.dtype
        self.length = 0
        self._w = {name: tensor.to(self.device, dtype) for name, tensor in tensors.items()}
        self._embedding_VC = self._table("embed_tokens.weight", target.model.get_input_embeddings())
        self._head_VC = self._table("lm_head.weight", target.model.get_output_embeddings())
        self._rotary, self._eps = rotary.to(self.device), float(head.layer["rms_norm_eps"])
        self._convolution = next((part for part in head.parts if isinstance(part, Convolution)), None)
        walks: list[Walk] = [part for part in head.parts if isinstance(part, Markov | Selector)]
        self._walk: Walk = walks[-1] if walks else each_alone
        size = 2, head.num_kv_heads, INITIAL_CAPACITY, head.head_size
        self._cache_A2GPD = torch.zeros(len(head.layer_kinds), *size, dtype=dtype, device=self.device)

    def _table(self, name: str, targets: torch.nn.Module) -> Tensor:
        """Its own, or the target's, which may be spread over GPUs."""
        own = self._w.get(name)
        return targets.get_parameter("weight").detach().to(self.device) if own is None else own

    def clear(self) -> None:
        """Forget the text."""
        self.length = 0

    @torch.inference_mode()
    def read(self, features_NF: Tensor) -> None:
        """Take in the target's features of the next positions of the text."""
        count = len(features_NF)
        if not count:
            return
        self._make_room(self.length + count)
        context_NC = self._normed(linear(features_NF.to(self.device), self._w["fc.weight"]), "hidden_norm")
        angles = self._angles(torch.arange(self.length, self.length + count, device=self.device))
        for index, cache_2GPD in enumerate(self._cache_A2GPD):
            place = f"layers.{index}.self_attn"
            self._store(cache_2GPD, self.length, self._keys(context_NC, place, angles), self._values(context_NC, place))
        self.length += count

    @torch.inference_mode()
    def draft(self, anchors: Sequence[int], starts: Sequence[int]) -> Tensor:
        """A block after each anchor, a token at one of the positions `starts` (at most `length`); it sees the context
        before that. [B, S, 2] float64: each slot's token and how sure it is."""
        self.target.require_known(anchors)
        size, anchors_B = self.head.block_size, torch.tensor(list(anchors), device=self.device)
        starts_B = torch.tensor(list(starts), device=self.device)
        ids_BL = torch.full((len(anchors), size), self.head.mask_id, device=self.device)
        ids_BL[:, 0] = anchors_B
        positions_L = (starts_B[:, None] + torch.arange(size, device=self.device)).flatten()
        self._make_room(self.length + len(positions_L))
        is_all_seen = len(starts) == 1 and starts[0] == self.length
        masks: Masks = {
            kind: None if is_all_seen and not kind.is_causal and kind.window is None else self._mask(kind, positions_L)
            for kind in set(self.head.layer_kinds)
        }
        x_LC = embedding(ids_BL.flatten(), self._embedding_VC) * self.head.embedding_scale
        angles = self._angles(positions_L)
        for index, kind in enumerate(self.head.layer_kinds):
            x_LC = self._layer(index, x_LC, angles, masks[kind])
        slots = slice(self.head.first_slot, self.head.first_slot + self.head.num_drafts)
        hidden_BSC = self._normed(x_LC, "norm").unflatten(0, (-1, size))[:, slots]
        return self._walk(self._w, hidden_BSC, self._logits(hidden_BSC), anchors_B)

    def _logits(self, hidden_BSC: Tensor) -> Tensor:
        """Of what the target writes; the mask is never drafted."""
        logits_LV = linear(hidden_BSC.flatten(0, 1), self._head_VC) * self.head.logit_scale
        if self.head.logit_cap:
            logits_LV = torch.tanh(logits_LV / self.head.logit_cap) * self.head.logit_cap
        logits_LV = self.target.of_tokens(logits_LV)
        if self.head.mask_id < logits_LV.shape[1]:
            logits_LV[:, self.head.mask_id] = -torch.inf
        return logits_LV.unflatten(0, hidden_BSC.shape[:2])

    def _layer(self, index: int, x_LC: Tensor, angles: tuple[Tensor, Tensor], mask_LP: Tensor | None) -> Tensor:
        place = f"layers.{index}"
        normed_LC = self._normed(x_LC, f"{place}.input_layernorm")

        def attend(y_LC: Tensor) -> Tensor:
            return self._attended(index, y_LC, angles, mask_LP)

        x_LC = x_LC + self._between(f"{place}.attention_conv", normed_LC, attend)
        normed_LC = self._normed(x_LC, f"{place}.post_attention_layernorm")
        return x_LC + self._between(f"{place}.mlp_conv", normed_LC, lambda y_LC: self._mlp(f"{place}.mlp", y_LC))

    def _between(self, place: str, x_LC: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """A sublayer between its convolutions, where the head has any."""
        if self._convolution is None:
            return sublayer(x_LC)
        x_BSC = x_LC.unflatten(0, (-1, self.head.block_size))
        before, after = self._convolution.kernels(self._w, place, x_BSC)
        inner_LC = sublayer(convolved(x_BSC, before).flatten(0, 1))
        return convolved(inner_LC.unflatten(0, x_BSC.shape[:2]), after).flatten(0, 1)

    def _attended(self, index: int, y_LC: Tensor, angles: tuple[Tensor, Tensor], mask_LP: Tensor | None) -> Tensor:
        """Attention of the blocks over the context and themselves; their keys stand after its own for this pass."""
        place, cache_2GPD = f"layers.{index}.self_attn", self._cache_A2GPD[index]
        self._store(cache_2GPD, self.length, self._keys(y_LC, place, angles), self._values(y_LC, place))
        q_LHD = linear(y_LC, self._weight(f"{place}.q_proj")).unflatten(1, (-1, self.head.head_size))
        q_LHD = rotated(self._normed(q_LHD, f"{place}.q_norm"), *angles)
        rows, groups = len(q_LHD), self.head.num_kv_heads
        q_GMD = q_LHD.unflatten(1, (groups, -1)).permute(1, 2, 0, 3).flatten(1, 2)  # heads of a group, row after row
        keys_GPD, values_GPD = cache_2GPD[:, :, : self.length + rows]
        mask_MP = None if mask_LP is None else mask_LP.repeat(q_GMD.shape[1] // rows, 1)
        out_1GMD = scaled_dot_product_attention(q_GMD[None], keys_GPD[None], values_GPD[None], attn_mask=mask_MP)
        out_LHD = out_1GMD[0].unflatten(1, (-1, rows)).permute(2, 0, 1, 3)
        return linear(out_LHD.flatten(1), self._weight(f"{place}.o_proj"))

    def _mlp(self, place: str, y_LC: Tensor) -> Tensor:
        gated = silu(linear(y_LC, self._weight(f"{place}.gate_proj"))) * linear(y_LC, self._weight(f"{place}.up_proj"))
        return linear(gated, self._weight(f"{place}.down_proj"))

    def _keys(self, x_LC: Tensor, place: str, angles: tuple[Tensor, Tensor]) -> Tensor:
        k_LGD = linear(x_LC, self._weight(f"{place}.k_proj")).unflatten(1, (-1, self.head.head_size))
        return rotated(self._normed(k_LGD, f"{place}.k_norm"), *angles)

    def _values(self, x_LC: Tensor, place: str) -> Tensor:
        return linear(x_LC, self._weight(f"{place}.v_proj")).unflatten(1, (-1, self.head.head_size))

    def _store(self, cache_2GPD: Tensor, begin: int, k_LGD: Tensor, v_LGD: Tensor) -> None:
        for part_GPD, new_LGD in zip(cache_2GPD, (k_LGD, v_LGD), strict=True):
            part_GPD[:, begin : begin + len(new_LGD)] = new_LGD.transpose(0, 1)

    def _mask(self, kind: LayerKind, positions_L: Tensor) -> Tensor:
        """Which keys each row of the blocks sees, [L, P]: the context before its anchor and its own block, as far as
        the layer's kind says."""
        size, context_P = self.head.block_size, torch.arange(self.length, device=self.device)
        blocks_L = torch.arange(len(positions_L), device=self.device) // size
        starts_L = positions_L[blocks_L * size]
        of_context = context_P < starts_L[:, None]
        visible_LP = torch.cat([of_context, blocks_L == blocks_L[:, None]], dim=1)
        back_LP = positions_L[:, None] - torch.cat([context_P, positions_L])
        if kind.is_causal:
            visible_LP &= back_LP >= 0
        if kind.window is not None:
            visible_LP &= back_LP.abs() < kind.window
        return visible_LP

    def _angles(self, positions_L: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of half a head's values, [L, D / 2]."""
        cos, sin = self._rotary(torch.zeros(1, device=self.device), positions_L[None])
        return cos[0, :, : self.head.head_size // 2], sin[0, :, : self.head.head_size // 2]

    def _make_room(self, num_positions: int) -> None:
        known = self._cache_A2GPD
        if num_positions > known.shape[3]:
            layers, two, groups, capacity, size = known.shape
            self._cache_A2GPD = known.new_zeros(layers, two, groups, max(2 * capacity, num_positions), size)
            self._cache_A2GPD[:, :, :, : self.length] = known[:, :, :, : self.length]

    def _weight(self, name: str) -> Tensor:
        return self._w[f"{name}.weight"]

    def _normed(self, x: Tensor, name: str) -> Tensor:
        return norm(x, self._weight(name), self._eps)
