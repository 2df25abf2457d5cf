"""Joined layers: a dense decoder's passes on a CPU in few operations. It replaces the forwards of a Hugging Face network
and of its layers; the modules, their hooks, the cache and the masks stay what they were. It knows nothing of GPUs.

A pass over a small network is mostly the calls of its operations: a layer of transformers makes about forty, this one
twenty. Products that share an input are one, residual sums are part of the products after them, queries, keys and
values turn together, and weights lie as the matrix library reads them fastest.

Shape suffixes: B rows, C hidden size, D head size, E heads of queries, keys and values, G KV heads, H query heads, I
MLP size, L new tokens, M = B * L, N = E * D, P past and new positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from specdec.models.graph.weights import LayerWeights, Weights, join_weights, unsupported
from specdec.models.layer_settings import FULL, SLIDING


class LayeredCache(Protocol):
    """Where the keys and values of a pass go."""

    def store(self, new_2BGLD: Tensor, layer_idx: int) -> Tensor:
        """Append the new keys and values of a layer; past and new ones, [2, B, G, P, D]."""


def with_joined_layers(model: PreTrainedModel) -> PreTrainedModel:
    """`model` itself, which gives what it gave but for roundings; as it is where it is not a dense decoder in float32
    on a CPU."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or unsupported(model.config) is not None:
        return model
    lay_by_columns(model)
    weights = join_weights(model, None)
    body = model.get_submodule("model")
    body.__dict__["forward"] = JoinedBody(body, weights)
    for index, layer in enumerate(body.get_submodule("layers").children()):
        layer.__dict__["forward"] = JoinedLayer(index, weights)
    return model


def lay_by_columns(model: PreTrainedModel) -> None:
    """Lay the columns of all matrices one after another in memory: the CPU's library reads them up to twice as fast."""
    for product in (module for module in model.modules() if isinstance(module, nn.Linear)):
        product.weight.data = product.weight.detach().t().contiguous().t()


@dataclass(frozen=True)
class Shared:
    """What the layers of a pass share. `shape`: B and L. `cos_MED`, `sin_MED`: what queries, already scaled, keys and
    values are multiplied with. `masks`: by whether a layer slides; None: all is seen."""

    shape: tuple[int, int]
    cos_MED: Tensor
    sin_MED: Tensor
    masks: Mapping[bool, Tensor | None]
    cache: LayeredCache


class JoinedBody:
    """The forward of a network without its head."""

    def __init__(self, body: nn.Module, weights: Weights) -> None:
        self.weights = weights
        self.embed, self.rotary = body.get_submodule("embed_tokens"), body.get_submodule("rotary_emb")
        self.layers = list(body.get_submodule("layers").children())
        self.norm = Norm(weights.norm_C, weights.norm_eps)

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
        cos_MED, sin_MED = self._angles(hidden_MC, position_ids)
        shared = Shared(tuple(input_ids.shape), cos_MED, sin_MED, added_masks(attention_mask), its_cache)
        for layer in self.layers:
            hidden_MC = layer(hidden_MC, shared)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_MC).view(*input_ids.shape, -1))

    def _angles(self, like: Tensor, positions_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Values are not turned, and queries are scaled on the way."""
        cos_MD, sin_MD = (part.flatten(0, 1) for part in self.rotary(like, positions_BL))
        first, second = sin_MD.chunk(2, dim=-1)
        sin_MD = torch.cat([-first, second], dim=-1)
        scale_E1, is_turned_E1 = self._by_head
        cos_MED = torch.where(is_turned_E1, cos_MD[:, None], 1.0) * scale_E1
        return cos_MED, sin_MD[:, None] * (scale_E1 * is_turned_E1)

    @cached_property
    def _by_head(self) -> tuple[Tensor, Tensor]:
        own = self.weights
        counts = torch.tensor([own.num_heads, own.num_kv_heads, own.num_kv_heads])
        scale_E = torch.tensor([own.head_size**-0.5, 1.0, 1.0]).repeat_interleave(counts)
        return scale_E[:, None], torch.tensor([True, True, False]).repeat_interleave(counts)[:, None]


class JoinedLayer:
    """The forward of one layer."""

    def __init__(self, index: int, weights: Weights) -> None:
        own = weights.layers[index]
        self.index, self.window = index, own.window
        self.sizes = weights.num_heads, weights.num_kv_heads, weights.head_size
        self.norms = [Norm(norm_C, weights.norm_eps) for norm_C in (own.attention_norm_C, own.mlp_norm_C)]
        self.qkv_CN, self.bias_N = own.qkv_NC.t(), own.qkv_bias_N
        self.output_NC, self.gate_up_C2I, self.down_IC = own.output_CHD.t(), own.gate_up_2IC.t(), own.down_CI.t()

    def __call__(self, hidden_MC: Tensor, shared: Shared) -> Tensor:
        seen_MN = self._attended(self.norms[0](hidden_MC), shared)
        hidden_MC = torch.addmm(hidden_MC, seen_MN, self.output_NC)
        gate_MI, up_MI = torch.mm(self.norms[1](hidden_MC), self.gate_up_C2I).chunk(2, dim=1)
        return torch.addmm(hidden_MC, silu(gate_MI).mul_(up_MI), self.down_IC)

    def _attended(self, normed_MC: Tensor, shared: Shared) -> Tensor:
        num_heads, num_kv_heads, size = self.sizes
        num_rows, num_new = shared.shape
        if self.bias_N is None:
            all_MN = torch.mm(normed_MC, self.qkv_CN)
        else:
            all_MN = torch.addmm(self.bias_N, normed_MC, self.qkv_CN)
        all_MED = all_MN.view(len(all_MN), -1, size)
        turned_MED = torch.addcmul(all_MED * shared.cos_MED, all_MED.roll(size // 2, -1), shared.sin_MED)
        turned_BLED = turned_MED.view(num_rows, num_new, -1, size)
        queries_BLHD, new_BLED = turned_BLED.split([num_heads, 2 * num_kv_heads], dim=2)
        new_2BGLD = new_BLED.unflatten(2, (2, num_kv_heads)).permute(2, 0, 3, 1, 4)
        keys_BGPD, values_BGPD = shared.cache.store(new_2BGLD, self.index)
        seen_BHLD = scaled_dot_product_attention(
            queries_BLHD.transpose(1, 2),
            keys_BGPD,
            values_BGPD,
            shared.masks[self.window is not None],
            scale=1.0,
            enable_gqa=num_heads != num_kv_heads,
        )
        return seen_BHLD.transpose(1, 2).reshape(len(normed_MC), -1)


class Norm:
    """RMS norm of the last dimension: x / |x| times sqrt(C) and the weights, `eps` within the root."""

    def __init__(self, weight_C: Tensor, eps: float) -> None:
        root = math.sqrt(len(weight_C))
        self.weight_C, self.least = root * weight_C, torch.tensor(root * math.sqrt(eps))

    def __call__(self, x_MC: Tensor) -> Tensor:
        length_M1 = torch.linalg.vector_norm(x_MC, dim=-1, keepdim=True)
        return x_MC / torch.hypot(length_M1, self.least) * self.weight_C


def added_masks(mask: Tensor | Mapping[str, Tensor]) -> dict[bool, Tensor | None]:
    """What is added to the scores of layers that see all (False) and of those that slide (True)."""
    if not isinstance(mask, Mapping):
        return dict.fromkeys((False, True), _added(mask))
    return {False: _added(mask[FULL]), True: _added(mask[SLIDING])}


def _added(visible: Tensor) -> Tensor | None:
    if visible.all():
        return None
    return torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf)
