"""The weights of a Qwen2 or Llama model as the graph engine wants them: products that share an input are one matrix.

It moves no weight twice: the Hugging Face module keeps working, on views of the joined matrices.

Shape suffixes: C hidden size, D head size, H query heads, G KV heads, I MLP size, N = (H + 2G) * D.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PretrainedConfig, PreTrainedModel

ARCHITECTURES = ("qwen2", "llama")
HEAD_SIZES = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer. `qkv_NC` stacks the query, key and value rows, `gate_up_2IC` gate and up."""

    attention_norm_C: torch.Tensor
    qkv_NC: torch.Tensor
    qkv_bias_N: torch.Tensor | None
    output_CHD: torch.Tensor
    mlp_norm_C: torch.Tensor
    gate_up_2IC: torch.Tensor
    down_CI: torch.Tensor


@dataclass(frozen=True)
class Weights:
    """A whole model; `head_VC` is the embedding itself where the two are tied."""

    embedding_VC: torch.Tensor
    layers: list[LayerWeights]
    norm_C: torch.Tensor
    head_VC: torch.Tensor
    norm_eps: float
    num_heads: int
    num_kv_heads: int
    head_size: int

    @property
    def device(self) -> torch.device:
        return self.embedding_VC.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding_VC.dtype

    @property
    def hidden_size(self) -> int:
        return self.embedding_VC.shape[1]

    @property
    def num_bytes(self) -> int:
        """What one pass has to read: every matrix once; of the embedding only rows, unless it is the head."""
        read = [tensor for layer in self.layers for tensor in vars(layer).values() if tensor is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in (*read, self.norm_C, self.head_VC))


def unsupported(config: PretrainedConfig) -> str | None:
    """Why the graph engine cannot run models of this configuration, in a few words; None if it can."""
    if config.model_type not in ARCHITECTURES:
        return f"the architecture {config.model_type}"
    if config.hidden_act != "silu":
        return f"the activation {config.hidden_act}"
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        return "biases outside the query, key and value products"
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if head_size not in HEAD_SIZES:
        return f"heads of {head_size} values"
    return None


def join_weights(hf_model: PreTrainedModel, vocab_size: int | None) -> Weights:
    """The weights of a supported model; the head is cut to `vocab_size` rows (None: all).

    Its separate projections become views of the joined matrices, so memory grows by one layer at most.
    """
    config, body = hf_model.config, hf_model.model
    return Weights(
        embedding_VC=body.embed_tokens.weight.detach(),
        layers=[_join_layer(layer) for layer in body.layers],
        norm_C=body.norm.weight.detach(),
        head_VC=hf_model.lm_head.weight.detach()[:vocab_size],
        norm_eps=config.rms_norm_eps,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_size=body.layers[0].self_attn.head_dim,
    )


def _join_layer(layer: torch.nn.Module) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    query_key_value = [attention.q_proj, attention.k_proj, attention.v_proj]
    has_bias = attention.q_proj.bias is not None
    return LayerWeights(
        attention_norm_C=layer.input_layernorm.weight.detach(),
        qkv_NC=_joined(query_key_value, "weight"),
        qkv_bias_N=_joined(query_key_value, "bias") if has_bias else None,
        output_CHD=attention.o_proj.weight.detach(),
        mlp_norm_C=layer.post_attention_layernorm.weight.detach(),
        gate_up_2IC=_joined([mlp.gate_proj, mlp.up_proj], "weight"),
        down_CI=mlp.down_proj.weight.detach(),
    )


def _joined(products: list[torch.nn.Linear], name: str) -> torch.Tensor:
    """The parameters one below the other; each module's own becomes a view of its rows."""
    parts = [getattr(product, name).detach() for product in products]
    joined = torch.cat(parts)
    for product, rows in zip(products, joined.split([len(part) for part in parts]), strict=True):
        getattr(product, name).data = rows
    return joined
