"""The parts of which heads are made that read a target's hidden states: norms, projections, rotary positions.

Names are those of the checkpoints' layouts, so that a module's state is the file. Of no family and no loss.
Shape suffixes: B documents, C hidden size, D head size, H heads, K keys, Q queries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from specdec.models.checkpoints import ModelSource
from specdec.models.load import model_config
from training.models import TRAINED, even_layers

Angles = tuple[Tensor, Tensor]  # cos and sin, each [..., D], of positions


class Norm(nn.Module):
    """RMSNorm, in float32 whatever it is given."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x.float(), x.shape[-1:], self.weight.float(), self.eps)


class Mlp(nn.Module):
    """A gated MLP, as a Llama's."""

    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(size, inner, bias=False), nn.Linear(size, inner, bias=False)
        self.down_proj = nn.Linear(inner, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))
        return found


class Projections(nn.Module):
    """The four matrices of attention; `width` values are read. `has_norms`: queries and keys are normed by head."""

    def __init__(self, layer: dict[str, Any], width: int, has_norms: bool) -> None:
        super().__init__()
        size, self.head_size = layer["hidden_size"], layer["head_dim"]
        heads, groups = layer["num_attention_heads"], layer["num_key_value_heads"]
        self.repeats = heads // groups
        self.q_proj = nn.Linear(width, heads * self.head_size, bias=False)
        self.k_proj = nn.Linear(width, groups * self.head_size, bias=False)
        self.v_proj = nn.Linear(width, groups * self.head_size, bias=False)
        self.o_proj = nn.Linear(heads * self.head_size, size, bias=False)
        self.q_norm = Norm(self.head_size, layer["rms_norm_eps"]) if has_norms else nn.Identity()
        self.k_norm = Norm(self.head_size, layer["rms_norm_eps"]) if has_norms else nn.Identity()

    def queries(self, x: Tensor, angles: Angles) -> Tensor:
        """[B, H, Q, D], turned by position."""
        return turned(self.q_norm(self._heads(self.q_proj(x))), angles)

    def keys(self, x: Tensor, angles: Angles) -> Tensor:
        """[B, H, K, D], turned by position, one for each query head."""
        return turned(self.k_norm(self._heads(self.k_proj(x))), angles).repeat_interleave(self.repeats, dim=1)

    def values(self, x: Tensor) -> Tensor:
        """[B, H, K, D]."""
        return self._heads(self.v_proj(x)).repeat_interleave(self.repeats, dim=1)

    def out(self, attended_BHQD: Tensor) -> Tensor:
        found: Tensor = self.o_proj(attended_BHQD.transpose(1, 2).flatten(2))
        return found

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_size)).transpose(1, 2)


def attended(q_BHQD: Tensor, k_BHKD: Tensor, v_BHKD: Tensor, mask: Tensor) -> Tensor:
    """Attention where `mask` (True: seen) is; [B, H, Q, D] in the values' dtype."""
    dtype = v_BHKD.dtype
    return scaled_dot_product_attention(q_BHQD.to(dtype), k_BHKD.to(dtype), v_BHKD, attn_mask=mask)


def turned(x_BHLD: Tensor, angles: Angles) -> Tensor:
    """Rotary positions: values in the first and the second half of a head make the pairs."""
    cos, sin = (part.unsqueeze(1).to(x_BHLD.dtype) for part in angles)
    first, second = x_BHLD.chunk(2, dim=-1)
    return x_BHLD * cos + torch.cat([-second, first], dim=-1) * sin


class Rotary(nn.Module):
    """The angles of positions by a head's config.json. It has nothing to learn and nothing to save."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        source = ModelSource(TRAINED, "head", Path("head"), {**config, "model_type": "llama"})
        settings: LlamaConfig = model_config(source)  # type: ignore[assignment]  # is one
        inner = LlamaRotaryEmbedding(config=settings)
        self.register_buffer("frequencies", inner.inv_freq.clone(), persistent=False)
        self.scaling = float(inner.attention_scaling)

    def forward(self, positions: Tensor) -> Angles:
        frequencies: Tensor = self.frequencies  # type: ignore[assignment]  # a buffer
        half = positions[..., None].float() * frequencies.float()
        both = torch.cat([half, half], dim=-1)
        return both.cos() * self.scaling, both.sin() * self.scaling


def as_mean(fc: nn.Linear, num_taps: int) -> None:
    """Let a projection of taps begin as their mean."""
    size = fc.out_features
    with torch.no_grad():
        fc.weight.copy_(torch.eye(size).repeat(1, num_taps) / num_taps)


def copy_weights(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Take over those weights of a target's module that have a place of the same size."""
    own = module.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            if name in own and own[name].shape == tensor.shape:
                own[name].copy_(tensor)


def layers_of(target: nn.Module, num_kept: int) -> list[nn.Module]:
    """An even choice of a target's layers."""
    layers = list(target.get_submodule("model.layers").children())
    return [layers[number] for number in even_layers(len(layers), num_kept)]
