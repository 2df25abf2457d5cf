"""Sizes: how many numbers a network has, by its config.json alone. It reads no weights."""

from collections.abc import Mapping
from typing import Any

from specdec.models.architectures import Architecture


def kv_heads(config: Mapping[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def num_parameters(architecture: Architecture, config: Mapping[str, Any]) -> int:
    """Weights, norms and biases included; of experts, all."""
    hidden, layers = config["hidden_size"], range(config["num_hidden_layers"])
    tables = 1 if config.get("tie_word_embeddings") else 2
    same = _attention(architecture, config) + architecture.num_norms * hidden
    own = sum(_experts(config) if _has_experts(config, layer) else _mlp(config) for layer in layers)
    return tables * config["vocab_size"] * hidden + len(layers) * same + own + hidden


def num_in_layers(config: Mapping[str, Any]) -> int:
    """Numbers in the matrices of all layers, of a network without experts."""
    hidden, size = config["hidden_size"], head_size(config)
    heads = 2 * (config["num_attention_heads"] + kv_heads(config))
    return int(config["num_hidden_layers"] * hidden * (heads * size + 3 * config["intermediate_size"]))


def _attention(architecture: Architecture, config: Mapping[str, Any]) -> int:
    hidden, size = config["hidden_size"], head_size(config)
    query, key = config["num_attention_heads"] * size, kv_heads(config) * size
    is_biased = "attention_bias" in architecture.fields and config.get("attention_bias", False)
    biases = (query + 2 * key) * (architecture.has_qkv_bias or is_biased) + hidden * is_biased
    return 2 * hidden * (query + key) + biases + (2 * size if architecture.has_qk_norm else 0)


def _mlp(config: Mapping[str, Any]) -> int:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return int(3 * hidden * inner + (2 * inner + hidden if config.get("mlp_bias") else 0))


def _has_experts(config: Mapping[str, Any], layer: int) -> bool:
    is_dense = "moe_intermediate_size" not in config or layer in (config.get("mlp_only_layers") or ())
    return not is_dense and (layer + 1) % (config.get("decoder_sparse_step") or 1) == 0


def _experts(config: Mapping[str, Any]) -> int:
    """The experts of a layer, and what chooses among them."""
    return int(config["num_experts"] * config["hidden_size"] * (3 * config["moe_intermediate_size"] + 1))
