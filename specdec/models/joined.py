"""Joined layers: a dense decoder's passes on a CPU in few operations. It replaces the forward of a Hugging Face network
and takes its layers' weights over; embedding, head, hooks, cache and masks stay what they were. It knows nothing of
GPUs.

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
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from specdec.models.graph.weights import LayerWeights, Weights, join_weights, unsupported
from specdec.models.layer_settings import FULL, SLIDING

INITIAL_POSITIONS = 512


class LayeredCache(Protocol):
    """Where the keys and values of a pass go."""

    def store(self, new_BFLD: Tensor, layer_idx: int) -> Tensor:
        """Append the new keys and values of a layer, F = 2 G; past and new ones, [B, F, P, D]."""


def with_joined_layers(model: PreTrainedModel) -> PreTrainedModel:
    """`model` itself, which gives what it gave but for roundings; as it is where it is not a dense decoder in float32
    on a CPU. Its layers' own parameters are gone."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or unsupported(model.config) is not None:
        return model
    weights, body = join_weights(model, None), model.get_submodule("model")
    head = model.get_submodule("lm_head")
    head.weight.data = by_columns(head.weight.detach())
    layers = list(body.get_submodule("layers").children())
    for index, layer in enumerate(layers):
        layer.__dict__["forward"] = JoinedLayer(index, weights)
        layer.__dict__["_modules"].clear()
        weights.layers[index] = None
    body.__dict__["forward"] = JoinedBody(body, weights)
    return model


def by_columns(weight_NC: Tensor) -> Tensor:
    """The same matrix, whose columns lie one after another: the CPU's library reads it up to twice as fast."""
    return weight_NC.t().contiguous().t()


@dataclass(frozen=True)
class Shared:
    """What the layers of a pass share. `turns_BLED`: what queries, keys and values are multiplied with, complex.
    `masks`: by whether a layer slides; None: all is seen."""

    turns_BLED: Tensor
    masks: Mapping[bool, Tensor | None]
    cache: LayeredCache


class JoinedBody:
    """The forward of a network without its head."""

    def __init__(self, body: nn.Module, weights: Weights) -> None:
        self.embed, self.rotary = body.get_submodule("embed_tokens"), body.get_submodule("rotary_emb")
        self.layers = list(body.get_submodule("layers").children())
        self.norm = Norm(weights.hidden_size, weights.norm_eps)
        self.norm_C = self.norm.root * weights.norm_C
        self.num_heads, self.num_kv_heads = weights.num_heads, weights.num_kv_heads

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | Mapping[str, Tensor],
        position_ids: Tensor,
        use_cache: bool = True,
        **cache: LayeredCache,
    ) -> BaseModelOutputWithPast:
        hidden_MC = self.embed(input_ids.flatten())
        [its_cache] = cache.values()  # its name depends on the version of transformers
        shared = Shared(self._turns(hidden_MC, position_ids), added_masks(attention_mask), its_cache)
        for layer in self.layers:
            hidden_MC = layer(hidden_MC, shared)
        normed_MC = self.norm(hidden_MC) * self.norm_C
        return BaseModelOutputWithPast(last_hidden_state=normed_MC.view(*input_ids.shape, -1))

    def _turns(self, like: Tensor, positions_BL: Tensor) -> Tensor:
        """Values are not turned."""
        cos_BLD, sin_BLD = self.rotary(like, positions_BL)
        half = cos_BLD.shape[-1] // 2
        turns_BLE = torch.complex(cos_BLD[..., None, :half], sin_BLD[..., None, :half])
        num_rows, num_new = positions_BL.shape
        turned_BLED = turns_BLE.expand(-1, -1, self.num_heads + self.num_kv_heads, -1)
        return torch.cat([turned_BLED, turns_BLE.new_ones(num_rows, num_new, self.num_kv_heads, half)], dim=2)


class JoinedLayer:
    """The forward of one layer."""

    def __init__(self, index: int, weights: Weights) -> None:
        own = weights.layers[index]
        self.index, self.slides = index, own.window is not None
        self.split = [weights.num_heads, 2 * weights.num_kv_heads]
        self.num_kv_heads, self.shares_keys = weights.num_kv_heads, weights.num_heads != weights.num_kv_heads
        self.norm = Norm(weights.hidden_size, weights.norm_eps)
        size, num_turned = weights.head_size, weights.num_heads + weights.num_kv_heads

        def paired(x: Tensor) -> Tensor:
            """Rows of queries and keys, scaled, with each pair that turns together side by side."""
            turned, values = x.unflatten(0, (-1, size)).split([num_turned, weights.num_kv_heads])
            turned = turned.unflatten(1, (2, size // 2)).transpose(1, 2).flatten(1, 2).clone()
            turned[: weights.num_heads] *= size**-0.5
            return torch.cat([turned, values]).flatten(0, 1)

        root = self.norm.root
        self.qkv_CN = (paired(own.qkv_NC) * (root * own.attention_norm_C)).t().contiguous()
        self.bias_N = None if own.qkv_bias_N is None else paired(own.qkv_bias_N)
        self.output_NC = own.output_CHD.t().contiguous()
        self.gate_up_C2I = (own.gate_up_2IC * (root * own.mlp_norm_C)).t().contiguous()
        self.down_IC = own.down_CI.t().contiguous()

    def __call__(self, hidden_MC: Tensor, shared: Shared) -> Tensor:
        seen_MN = self._attended(self.norm(hidden_MC), shared)
        hidden_MC = torch.addmm(hidden_MC, seen_MN, self.output_NC)
        gate_MI, up_MI = torch.mm(self.norm(hidden_MC), self.gate_up_C2I).chunk(2, dim=1)
        return torch.addmm(hidden_MC, silu(gate_MI).mul_(up_MI), self.down_IC)

    def _attended(self, normed_MC: Tensor, shared: Shared) -> Tensor:
        if self.bias_N is None:
            all_MN = torch.mm(normed_MC, self.qkv_CN)
        else:
            all_MN = torch.addmm(self.bias_N, normed_MC, self.qkv_CN)
        turns = shared.turns_BLED
        all_MN.view(torch.complex64).view(turns.shape).mul_(turns)
        all_BELD = all_MN.view(*turns.shape[:3], -1).transpose(1, 2)
        queries_BHLD, new_BFLD = all_BELD.split_with_sizes(self.split, 1)
        keys_BGPD, values_BGPD = shared.cache.store(new_BFLD, self.index).chunk(2, dim=1)
        seen_BHLD = scaled_dot_product_attention(
            queries_BHLD,
            keys_BGPD,
            values_BGPD,
            shared.masks[self.slides],
            scale=1.0,
            enable_gqa=self.shares_keys,
        )
        return seen_BHLD.transpose(1, 2).reshape(normed_MC.shape[0], -1)


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
