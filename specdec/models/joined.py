"""Joined layers: a dense decoder's passes on a CPU in few operations. They stand for a network's own modules up to its
head; masks, cache and the hooks on layers are the same. It knows nothing of GPUs.

A pass over a small network is mostly the calls of its operations: a layer of transformers makes about forty, this one
half of them. Products that share an input are one, residual sums are part of the products, queries, keys and values
turn together as complex numbers, and weights lie as the matrix library reads them fastest.

Shape suffixes: B rows, C hidden size, D head size, E heads of queries, keys and values, G KV heads, H query heads, I
MLP size, L new tokens, M = B * L, N = E * D, P past and new positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers import PreTrainedModel

from specdec.models.graph.weights import LayerWeights, Weights, join_weights, not_joinable
from specdec.models.int8 import in_full, is_quantised
from specdec.models.kv_buffer import JointCache
from specdec.models.layer_settings import FULL, SLIDING

INITIAL_POSITIONS = 512
# Parameters up to which layers are joined: in bigger networks the calls weigh little, and some weights are held twice.
JOINED_UP_TO = 256_000_000


def body_of(model: PreTrainedModel) -> nn.Module:
    """What runs a model up to its head: its own modules, or what gives the same but for roundings, sooner. In float32
    on a CPU all its matrices are laid as the matrix library reads them fastest. Weights in 8 bits stay with its own
    modules: joined layers would hold them in full."""
    own = model.get_submodule("model")
    if model.device.type != "cpu" or model.dtype != torch.float32:
        return own
    for product in (module for module in model.modules() if isinstance(module, nn.Linear)):
        product.weight.data = as_columns(product.weight.detach()).t()
    is_small = sum(parameter.numel() for parameter in model.parameters()) <= JOINED_UP_TO
    is_joined = is_small and not is_quantised(model) and not_joinable(model.config) is None
    return JoinedBody(own, join_weights(model, None)) if is_joined else own


def as_columns(weight_NC: Tensor) -> Tensor:
    """[C, N], what an input is multiplied with: a CPU's library reads it up to twice as fast as its transpose."""
    return weight_NC.t().contiguous()


@dataclass(frozen=True)
class Output:
    """As transformers' networks without a head give it, [B, L, C]."""

    last_hidden_state: Tensor


@dataclass(frozen=True)
class Shared:
    """What the layers of a pass share. `shape`: B, L, E and D. `turns_MN`: what queries, keys and values are multiplied
    with, N / 2 complex numbers. `masks`: by whether a layer slides; None: all is seen."""

    shape: tuple[int, int, int, int]
    turns_MN: Tensor
    masks: Mapping[bool, Tensor | None]
    cache: JointCache


class JoinedBody(nn.Module):
    """A network without its head."""

    def __init__(self, own: nn.Module, weights: Weights) -> None:
        """Of transformers' `own` modules, which keep working."""
        super().__init__()
        self.embed, self.rotary = own.get_submodule("embed_tokens"), own.get_submodule("rotary_emb")
        layers = (JoinedLayer(index, weights, layer) for index, layer in enumerate(weights.layers))
        self.layers = nn.ModuleList(layers)
        self.norm = Norm(weights.hidden_size, weights.norm_eps)
        self.norm_C = self.norm.root * weights.norm_C
        self.num_turned, self.num_still = weights.num_heads + weights.num_kv_heads, weights.num_kv_heads
        self._turns_PED = torch.empty(0)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | Mapping[str, Tensor],
        position_ids: Tensor,
        cache: JointCache,
        use_cache: bool = True,
        kept_K: Tensor | None = None,
    ) -> Output:
        """As transformers' own: ids and positions [B, L], masks true where a position is seen. `kept_K`: of the M rows
        those whose outputs are wanted, [K, C]; None: all, [B, L, C]."""
        turns_BLED = self._turns(position_ids)
        num_rows, num_new, num_heads, half = turns_BLED.shape
        shape = num_rows, num_new, num_heads, 2 * half
        shared = Shared(shape, turns_BLED.flatten(0, 1).flatten(1), added_masks(attention_mask), cache)
        hidden_MC = self.embed(input_ids.flatten())
        *others, last = self.layers
        for layer in others:
            hidden_MC = layer(hidden_MC, shared)
        hidden_MC = last(hidden_MC, shared, kept_K)
        output_MC = self.norm(hidden_MC) * self.norm_C
        return Output(output_MC.view(*input_ids.shape, -1) if kept_K is None else output_MC)

    def _turns(self, positions_BL: Tensor) -> Tensor:
        """By position, [B, L, E, D / 2]; kept, for twice as many as were asked for."""
        end = int(positions_BL.max()) + 1
        if end > len(self._turns_PED):
            self._turns_PED = self._made_turns(max(INITIAL_POSITIONS, 2 * end))
        return self._turns_PED[positions_BL]

    def _made_turns(self, num_positions: int) -> Tensor:
        """As the network's own module turns; values stay as they are."""
        cos_PD, sin_PD = (part[0] for part in self.rotary(torch.zeros(1), torch.arange(num_positions)[None]))
        half = cos_PD.shape[-1] // 2
        turns_P1D = torch.complex(cos_PD[:, None, :half], sin_PD[:, None, :half])
        still_PGD = turns_P1D.new_ones(num_positions, self.num_still, half)
        return torch.cat([turns_P1D.expand(-1, self.num_turned, -1), still_PGD], dim=1)


class JoinedLayer(nn.Module):
    """One layer: hidden states [M, C] in and out."""

    def __init__(self, index: int, weights: Weights, own: LayerWeights) -> None:
        super().__init__()
        self.index, self.slides = index, own.window is not None
        self.heads = Heads(weights.num_heads, weights.num_kv_heads, weights.head_size)
        self.norm = Norm(weights.hidden_size, weights.norm_eps)
        self.head_norm = Norm(weights.head_size, weights.norm_eps)
        self.head_norms_ED = None if own.head_norms_2D is None else self._head_norms(own.head_norms_2D)
        scale = weights.head_size**-0.5 if self.head_norms_ED is None else 1.0
        attention_C, mlp_C = self.norm.root * own.attention_norm_C, self.norm.root * own.mlp_norm_C
        self.qkv_CN = as_columns(self.heads.paired(in_full(own.qkv_NC), scale) * attention_C)
        self.bias_N = None if own.qkv_bias_N is None else self.heads.paired(own.qkv_bias_N, scale)
        self.output_NC = as_columns(in_full(own.output_CHD))
        self.gate_up_C2I = as_columns(in_full(own.gate_up_2IC) * mlp_C)
        self.down_IC = as_columns(in_full(own.down_CI))

    def forward(self, hidden_MC: Tensor, shared: Shared, kept_K: Tensor | None = None) -> Tensor:
        """`kept_K`: the rows that go on, after all have been seen by each other; None: all."""
        all_MN = self._projected(self.norm(hidden_MC))
        seen_MN = self._attended(all_MN, shared)
        if kept_K is not None:
            hidden_MC, seen_MN = hidden_MC[kept_K], seen_MN[kept_K]
        hidden_MC = torch.addmm(hidden_MC, seen_MN, self.output_NC)
        gate_MI, up_MI = torch.mm(self.norm(hidden_MC), self.gate_up_C2I).chunk(2, dim=1)
        return torch.addmm(hidden_MC, silu(gate_MI).mul_(up_MI), self.down_IC)

    def _projected(self, normed_MC: Tensor) -> Tensor:
        """Queries, scaled, keys and values."""
        if self.bias_N is None:
            all_MN = torch.mm(normed_MC, self.qkv_CN)
        else:
            all_MN = torch.addmm(self.bias_N, normed_MC, self.qkv_CN)
        if self.head_norms_ED is not None:
            turned_MED = self.heads.turned(all_MN)
            turned_MED.copy_(self.head_norm(turned_MED) * self.head_norms_ED)
        return all_MN

    def _attended(self, all_MN: Tensor, shared: Shared) -> Tensor:
        """What each query saw, head after head; keys and values are stored on the way."""
        all_MN.view(torch.complex64).mul_(shared.turns_MN)
        all_BELD = all_MN.view(shared.shape).transpose(1, 2)
        queries_BHLD, new_BFLD = all_BELD.split_with_sizes(self.heads.split, 1)
        keys_BGPD, values_BGPD = shared.cache.store(new_BFLD, self.index).chunk(2, dim=1)
        mask = shared.masks[self.slides]
        seen_BHLD = scaled_dot_product_attention(
            queries_BHLD, keys_BGPD, values_BGPD, mask, scale=1.0, enable_gqa=self.heads.share_keys
        )
        return seen_BHLD.transpose(1, 2).reshape(all_MN.shape[0], -1)

    def _head_norms(self, norms_2D: Tensor) -> Tensor:
        """The weights of the norms of each head of queries, with their scale, and of keys."""
        counts = torch.tensor([self.heads.queries, self.heads.keys])
        weights_ED = (self.head_norm.root * norms_2D).repeat_interleave(counts, dim=0)
        still_GD = weights_ED.new_empty(self.heads.keys, self.heads.size)
        paired_N = self.heads.paired(torch.cat([weights_ED, still_GD]).flatten(), self.heads.size**-0.5)
        return paired_N.view(-1, self.heads.size)[: -self.heads.keys]


@dataclass(frozen=True)
class Heads:
    """How many heads of `queries`, and of `keys` and as many of values, stand side by side, each of `size` values."""

    queries: int
    keys: int
    size: int

    @cached_property
    def split(self) -> list[int]:
        return [self.queries, 2 * self.keys]

    @cached_property
    def share_keys(self) -> bool:
        return self.queries != self.keys

    def turned(self, all_MN: Tensor) -> Tensor:
        """Those of queries and keys, a view [M, H + G, D]."""
        return all_MN.view(all_MN.shape[0], -1, self.size).narrow(1, 0, self.queries + self.keys)

    def paired(self, rows_N: Tensor, scale: float) -> Tensor:
        """The rows of queries, times `scale`, of keys and of values ([N, ...]), where the two that turn together as one
        complex number stand side by side: of a head of four 0, 2, 1, 3."""
        turned, still = rows_N.unflatten(0, (-1, self.size)).split([self.queries + self.keys, self.keys])
        turned = turned.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
        queries, keys = turned.split([self.queries, self.keys])
        return torch.cat([scale * queries, keys, still]).flatten(0, 1)


class Norm:
    """RMS norm of the last dimension without its weights, over sqrt(C), which they are multiplied with: x / |x|, `eps`
    within the root."""

    def __init__(self, size: int, eps: float) -> None:
        self.root = math.sqrt(size)
        self.least = torch.tensor(self.root * math.sqrt(eps))

    def __call__(self, x_MC: Tensor) -> Tensor:
        return x_MC / torch.hypot(torch.linalg.vector_norm(x_MC, dim=-1, keepdim=True), self.least)


def added_masks(mask: Tensor | Mapping[str, Tensor]) -> dict[bool, Tensor | None]:
    """What is added to the scores of layers that see all (False) and of those that slide (True)."""
    if not isinstance(mask, Mapping):
        return dict.fromkeys((False, True), _added(mask))
    return {False: _added(mask[FULL]), True: _added(mask[SLIDING])}


def _added(visible: Tensor) -> Tensor | None:
    if visible.all():
        return None
    return torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf)
