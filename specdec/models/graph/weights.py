"""The weights of a decoder as the graph backend wants them: products that share an input are one matrix.

It moves no weight twice: the Hugging Face module keeps working, on views of the joined matrices.

Shape suffixes: C hidden size, D head size, H query heads, G KV heads, I MLP size, N = (H + 2G) * D.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from specdec.models.architectures import find_architecture
from specdec.models.int8 import Int8Matrix, Matrix
from specdec.models.lm import windows_of

HEAD_SIZES = (16, 32, 64, 128, 256)
HEAD_ROWS = 64  # the head has a multiple of them, where the table has: products are slow where rows lie askew


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer. `qkv_NC` stacks the query, key and value rows, `gate_up_2IC` gate and up. `head_norms_2D`:
    norms of query and key heads; None: there are none. `window`: see `layer_settings.Windows`."""

    attention_norm_C: torch.Tensor
    qkv_NC: Matrix
    qkv_bias_N: torch.Tensor | None
    output_CHD: Matrix
    mlp_norm_C: torch.Tensor
    gate_up_2IC: Matrix
    down_CI: Matrix
    head_norms_2D: torch.Tensor | None = None
    window: int | None = None


@dataclass(frozen=True)
class Weights:
    """A whole model; `head_VC` is the embedding itself where the two are tied. `never_U`: rows of the head that are
    never predicted; None: there is none."""

    embedding_VC: torch.Tensor
    layers: list[LayerWeights]
    norm_C: torch.Tensor
    head_VC: torch.Tensor
    never_U: torch.Tensor | None
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
    def is_int8(self) -> bool:
        """Whether the matrices of its layers are kept in 8 bits."""
        return isinstance(self.layers[0].qkv_NC, Int8Matrix)

    @property
    def hidden_size(self) -> int:
        return self.embedding_VC.shape[1]


def unsupported(config: PretrainedConfig) -> str | None:
    """Why the graph backend cannot run models of this configuration, in a few words; None if it can."""
    if (reason := not_joinable(config)) is not None:
        return reason
    head_size = _head_size(config)
    return None if head_size in HEAD_SIZES else f"heads of {head_size} values"


def not_joinable(config: PretrainedConfig) -> str | None:
    """Why layers of this configuration are not those of `LayerWeights`, in a few words; None if they are."""
    architecture = find_architecture(config.model_type)
    if architecture is None or not architecture.runs_as_graphs:
        return f"the architecture {config.model_type}"
    if config.hidden_act != "silu":
        return f"the activation {config.hidden_act}"
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        return "biases outside the query, key and value products"
    return None


def _head_size(config: PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def join_weights(hf_model: PreTrainedModel, vocab_size: int | None, gaps: Sequence[int] = ()) -> Weights:
    """The weights of a supported model; what is not one of the first `vocab_size` rows (None: all), or is one of the
    `gaps`, is never predicted, and the head is cut near there.

    Its separate projections become views of the joined matrices, so memory grows by one layer at most.
    """
    config = hf_model.config
    head_VC = _weights(hf_model, "lm_head.weight")
    num_predicted = len(head_VC) if vocab_size is None else min(vocab_size, len(head_VC))
    head_VC = head_VC[: -(-num_predicted // HEAD_ROWS) * HEAD_ROWS]
    layers = hf_model.get_submodule("model.layers").children()
    never = [*gaps, *range(num_predicted, len(head_VC))]
    return Weights(
        embedding_VC=_weights(hf_model, "model.embed_tokens.weight"),
        layers=[_join_layer(layer, window) for layer, window in zip(layers, windows_of(config), strict=True)],
        norm_C=_weights(hf_model, "model.norm.weight"),
        head_VC=head_VC,
        never_U=torch.tensor(never, device=head_VC.device) if never else None,
        norm_eps=config.rms_norm_eps,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_size=_head_size(config),
    )


def _join_layer(layer: nn.Module, window: int | None) -> LayerWeights:
    query_key_value = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    names = dict(layer.named_parameters())
    has_bias, has_norms = "self_attn.q_proj.bias" in names, "self_attn.q_norm.weight" in names
    norms = [_weights(layer, f"self_attn.{one}_norm.weight") for one in "qk"] if has_norms else []
    return LayerWeights(
        attention_norm_C=_weights(layer, "input_layernorm.weight"),
        qkv_NC=_matrix(layer, query_key_value),
        qkv_bias_N=_joined(layer, query_key_value, "bias") if has_bias else None,
        output_CHD=_matrix(layer, ("self_attn.o_proj",)),
        mlp_norm_C=_weights(layer, "post_attention_layernorm.weight"),
        gate_up_2IC=_matrix(layer, ("mlp.gate_proj", "mlp.up_proj")),
        down_CI=_matrix(layer, ("mlp.down_proj",)),
        head_norms_2D=torch.stack(norms) if norms else None,
        window=window,
    )


def _matrix(layer: nn.Module, products: tuple[str, ...]) -> Matrix:
    """Of products that share an input, in 8 bits where they are."""
    weight_NK = _joined(layer, products, "weight")
    return weight_NK if weight_NK.is_floating_point() else Int8Matrix(weight_NK, _joined(layer, products, "scale"))


def join_head_layer(tensors: dict[str, torch.Tensor], body: str, norm: str) -> LayerWeights:
    """The layer of a head whose tensors begin with `body`; `norm`: the one before its attention. Joined products take
    the places of those in `tensors`, which become views of them."""
    attention, mlp = f"{body}.self_attn", f"{body}.mlp"
    norms = [f"{attention}.{one}_norm.weight" for one in "qk"]
    has_norms = all(name in tensors for name in norms)
    return LayerWeights(
        attention_norm_C=tensors[f"{body}.{norm}.weight"],
        qkv_NC=_joined_tensors(tensors, [f"{attention}.{one}_proj.weight" for one in "qkv"]),
        qkv_bias_N=None,
        output_CHD=tensors[f"{attention}.o_proj.weight"],
        mlp_norm_C=tensors[f"{body}.post_attention_layernorm.weight"],
        gate_up_2IC=_joined_tensors(tensors, [f"{mlp}.{one}_proj.weight" for one in ("gate", "up")]),
        down_CI=tensors[f"{mlp}.down_proj.weight"],
        head_norms_2D=torch.stack([tensors[name] for name in norms]) if has_norms else None,
    )


def _joined_tensors(tensors: dict[str, torch.Tensor], names: Sequence[str]) -> torch.Tensor:
    joined = torch.cat([tensors[name] for name in names])
    sizes = [len(tensors[name]) for name in names]
    tensors.update(zip(names, joined.split(sizes), strict=True))
    return joined


def _weights(module: nn.Module, name: str) -> torch.Tensor:
    return module.get_parameter(name).detach()


def _joined(layer: nn.Module, products: tuple[str, ...], kind: str) -> torch.Tensor:
    """The parameters one below the other; each product's own becomes a view of its rows."""
    parts = [layer.get_parameter(f"{product}.{kind}") for product in products]
    if len(parts) == 1:
        return parts[0].detach()
    joined = torch.cat([part.detach() for part in parts])
    for part, rows in zip(parts, joined.split([len(part) for part in parts]), strict=True):
        part.data = rows
    return joined
