"""The forward pass of a Qwen2 or Llama model over fixed buffers, as operations that a CUDA graph can hold.

It reads its inputs from buffers and leaves its results in buffers; who fills them, and what is
committed, is `graph_lm.py`'s business. Shape suffixes as in `plain.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import linear

from specdec.engine.weights import LayerWeights, Weights


class Operations(Protocol):
    """What `plain.py` and `kernels.py` offer."""

    def norm(self, x_MC: torch.Tensor, weight_C: torch.Tensor, eps: float) -> torch.Tensor: ...
    def silu_product(self, gate_up_M2I: torch.Tensor) -> torch.Tensor: ...
    def rotate_and_store(
        self, qkv_MN: torch.Tensor, rotary_2PE: torch.Tensor, cache_2GPD: torch.Tensor, state: torch.Tensor
    ) -> torch.Tensor: ...
    def attend(self, q_MHD: torch.Tensor, cache_2GPD: torch.Tensor, state: torch.Tensor) -> torch.Tensor: ...
    def most_probable(self, logits_KV: torch.Tensor, state: torch.Tensor) -> torch.Tensor: ...


class Products(Protocol):
    """The matrix products of a layer, each with what can be fused to it."""

    def normed(
        self, x_MC: torch.Tensor, norm: tuple[torch.Tensor, float], w_NC: torch.Tensor, bias_N: torch.Tensor | None
    ) -> torch.Tensor:
        """norm(x) w^T + bias, [M, N]; `norm` is a weight and its epsilon."""

    def gated(self, x_MC: torch.Tensor, norm: tuple[torch.Tensor, float], w_2IC: torch.Tensor) -> torch.Tensor:
        """silu(gate) * up of norm(x), [M, I]."""

    def add(self, x_MC: torch.Tensor, y_MI: torch.Tensor, w_CI: torch.Tensor) -> None:
        """x += y w^T, in place."""


class LibraryProducts:
    """Products by torch's matrix library; what is fused elsewhere are operations of their own here."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    def normed(
        self, x_MC: torch.Tensor, norm: tuple[torch.Tensor, float], w_NC: torch.Tensor, bias_N: torch.Tensor | None
    ) -> torch.Tensor:
        return linear(self.operations.norm(x_MC, *norm), w_NC, bias_N)

    def gated(self, x_MC: torch.Tensor, norm: tuple[torch.Tensor, float], w_2IC: torch.Tensor) -> torch.Tensor:
        return self.operations.silu_product(linear(self.operations.norm(x_MC, *norm), w_2IC))

    def add(self, x_MC: torch.Tensor, y_MI: torch.Tensor, w_CI: torch.Tensor) -> None:
        x_MC.addmm_(y_MI, w_CI.t())


@dataclass
class Buffers:
    """What stays at one address, so that a graph can find it: inputs, hidden states, cache, rotary table.

    `inputs` is one int64 tensor, filled by one copy: M token ids, M kept rows, and `state`.
    """

    inputs: torch.Tensor
    hidden_MC: torch.Tensor
    cache_L2GPD: torch.Tensor
    rotary_2PE: torch.Tensor

    @classmethod
    def allocate(
        cls, weights: Weights, max_tokens: int, cache_L2GPD: torch.Tensor, rotary_2PE: torch.Tensor
    ) -> Buffers:
        return cls(
            inputs=torch.zeros(2 * max_tokens + 4, dtype=torch.long, device=weights.device),
            hidden_MC=torch.zeros(max_tokens, weights.hidden_size, dtype=weights.dtype, device=weights.device),
            cache_L2GPD=cache_L2GPD,
            rotary_2PE=rotary_2PE,
        )

    @property
    def ids_M(self) -> torch.Tensor:
        return self.inputs[: len(self.hidden_MC)]

    @property
    def kept_M(self) -> torch.Tensor:
        return self.inputs[len(self.hidden_MC) : -4]

    @property
    def state(self) -> torch.Tensor:
        return self.inputs[-4:]


class Network:
    """`body` runs the layers over the first so many input tokens, `head` predicts at the first so many kept rows."""

    def __init__(self, weights: Weights, buffers: Buffers, operations: Operations) -> None:
        self.weights, self.buffers, self.operations = weights, buffers, operations

    def body(self, count: int, products: Products) -> None:
        """Embedding and layers, for `count` tokens; their last hidden states replace what the buffer held."""
        buffers = self.buffers
        hidden_MC = buffers.hidden_MC[:count]
        torch.index_select(self.weights.embedding_VC, 0, buffers.ids_M[:count], out=hidden_MC)
        for layer, cache_2GPD in zip(self.weights.layers, buffers.cache_L2GPD, strict=True):
            self._run_layer(layer, cache_2GPD, hidden_MC, products)

    def _run_layer(
        self, layer: LayerWeights, cache_2GPD: torch.Tensor, hidden_MC: torch.Tensor, products: Products
    ) -> None:
        """One decoder layer, in place: attention and MLP each add to the hidden states."""
        operations, buffers, eps = self.operations, self.buffers, self.weights.norm_eps
        qkv_MN = products.normed(hidden_MC, (layer.attention_norm_C, eps), layer.qkv_NC, layer.qkv_bias_N)
        q_MHD = operations.rotate_and_store(qkv_MN, buffers.rotary_2PE, cache_2GPD, buffers.state)
        products.add(hidden_MC, operations.attend(q_MHD, cache_2GPD, buffers.state), layer.output_CHD)
        gated_MI = products.gated(hidden_MC, (layer.mlp_norm_C, eps), layer.gate_up_2IC)
        products.add(hidden_MC, gated_MI, layer.down_CI)

    def head(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """logits_KV behind `count` kept rows, and what `most_probable` says of them."""
        weights, buffers = self.weights, self.buffers
        kept_KC = buffers.hidden_MC.index_select(0, buffers.kept_M[:count])
        logits_KV = linear(self.operations.norm(kept_KC, weights.norm_C, weights.norm_eps), weights.head_VC)
        return logits_KV, self.operations.most_probable(logits_KV, buffers.state)
