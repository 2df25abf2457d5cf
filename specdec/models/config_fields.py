"""Config fields: what an entry of a config.json may hold, and which entries no network here follows.

They are the same for all architectures; what one of them reads besides, its row in `architectures.py` says.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ACTIVATIONS = (
    *("silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu"),
    *("relu", "relu2", "relu6", "tanh", "sigmoid", "mish"),
)
MAX_SIZE, MAX_NUMBER = 2**31, 1e30  # what networks are far from, and float32 still holds
LAYER_KINDS = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class Kind:
    """What a field of config.json may hold: `is_fine`, and in words. `is_nullable`: null is as good as no field;
    `is_required`: there is no default, or one that is not derived from the other fields."""

    words: str
    is_fine: Callable[[Any], bool]
    is_nullable: bool = False
    is_required: bool = False

    def admits(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether the field `name` of a config.json, or its absence, is of this kind."""
        if name not in config:
            return not self.is_required
        return (self.is_nullable and config[name] is None) or self.is_fine(config[name])


def is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < MAX_SIZE


def is_size(value: Any) -> bool:
    return is_count(value, least=1)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < MAX_NUMBER


def _is_switch(value: Any) -> bool:
    return type(value) is bool


def _is_activation(value: Any) -> bool:
    return value in ACTIVATIONS


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _are_layers(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_count, value))


def _are_kinds(value: Any) -> bool:
    return isinstance(value, list) and all(kind in LAYER_KINDS for kind in value)


SIZE = Kind("a size", is_size, is_required=True)
DERIVED_SIZE = Kind("a size", is_size, is_nullable=True)
STATED_SIZE = Kind("a size", is_size, is_nullable=True, is_required=True)  # null: derived; no field: a default
NUMBER = Kind("a number above 0", _is_number)
CAP = Kind("a number above 0", _is_number, is_nullable=True)
SHARE = Kind("a share of each head", lambda value: _is_number(value) and value <= 1)
SWITCH = Kind("true or false", _is_switch)
ACTIVATION = Kind("an activation that is known here", _is_activation)
ROPE = Kind("a JSON object", _is_object, is_nullable=True)
COUNT = Kind("a number of layers", is_count)
LAYERS = Kind("a list of layers", _are_layers, is_nullable=True)
KINDS = Kind("a list of full_attention and sliding_attention", _are_kinds, is_nullable=True)

# What every decoder reads, and hands on to transformers.
FIELDS: Mapping[str, Kind] = {
    "vocab_size": SIZE,
    "hidden_size": SIZE,
    "intermediate_size": SIZE,
    "num_hidden_layers": SIZE,
    "num_attention_heads": SIZE,
    "max_position_embeddings": SIZE,
    "num_key_value_heads": DERIVED_SIZE,
    "head_dim": DERIVED_SIZE,
    "original_max_position_embeddings": DERIVED_SIZE,
    "rms_norm_eps": NUMBER,
    "rope_theta": NUMBER,
    "rope_scaling": ROPE,
    "rope_parameters": ROPE,
    "tie_word_embeddings": SWITCH,
    "hidden_act": ACTIVATION,
}


def given(config: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """What a config.json says of a field, or `otherwise`: no field and null are alike, and 0 is neither."""
    value = config.get(name)
    return otherwise if value is None else value


def whole(config: Mapping[str, Any], name: str, otherwise: int | None = None, least: int = 1) -> int:
    """A size, or a number from `least` on, as a config.json has it. Raises ValueError for anything else."""
    value = given(config, name, otherwise)
    if not is_count(value, least):
        raise ValueError(f"no {name}" if value is None else f"{name} {value!r:.40}, not a whole number from {least} on")
    return value


@dataclass(frozen=True)
class Refused:
    """A field of config.json that changes what a network computes and that none here follows: what it says of a model.
    Under a value of `neutral`, or null, it changes nothing."""

    name: str
    says: str
    neutral: tuple[Any, ...] = (False, {}, [])

    def is_meant(self, config: Mapping[str, Any]) -> bool:
        value = config.get(self.name)
        return value is not None and value not in self.neutral


def refused(says: str, *names: str, neutral: tuple[Any, ...] = Refused.neutral) -> Iterator[Refused]:
    return (Refused(name, says, neutral) for name in names)


# transformers reads these for other architectures, and leaves them aside for the ones here without a word. A row that
# reads one of them follows it.
REFUSED: tuple[Refused, ...] = (
    *refused("has quantized weights", "quantization_config", "quantization", "compression_config", neutral=(False,)),
    *refused("is more than a model of text", "text_config", "vision_config", "audio_config"),
    *refused("has an encoder", "is_encoder_decoder", "add_cross_attention", "cross_attention_layers"),
    *refused("caps its logits", "final_logit_softcapping", "final_logit_softcap", "logits_soft_cap"),
    *refused("caps its attention", "attn_logit_softcapping", "clip_qkv", "qkv_clip"),
    *refused("scales its logits", "logit_scale", "logits_scaling", "lm_head_multiplier", neutral=(1,)),
    *refused("scales its logits", "dim_model_base", "mup_width_scale", "final_logits_scale"),
    *refused("scales its embeddings", "embedding_multiplier", "scale_emb", "emb_scale", neutral=(1,)),
    *refused("scales its layers", "residual_multiplier", "residual_scale", neutral=(1,)),
    *refused("scales its layers", "scale_depth"),
    *refused("scales its attention", "attention_multiplier", "query_pre_attn_scalar", "attn_scale"),
    *refused("rotates a part of each head", "partial_rotary_factor", "rotary_pct", "rotary_percent", neutral=(1,)),
    *refused("has layers without positions", "no_rope_layers", "no_rope_layer_interval", "nope_layer_interval"),
    *refused("places tokens by biases", "alibi", "position_embedding_type", neutral=(False, "rope", "rotary")),
    *refused("norms queries and keys", "use_qk_norm", "qk_norm", "qk_layernorm"),
    *refused("has biases in all products", "use_bias", "bias", "lm_head_bias"),
    *refused("adds attention and MLP", "use_parallel_residual", "parallel_attn", "parallel_residual"),
    *refused("sees tokens on both sides", "is_causal", neutral=(True,)),
    *refused("sees tokens on both sides", "use_bidirectional_attention"),
    *refused("has experts", "num_experts", "num_local_experts", "n_routed_experts", neutral=(0, 1)),
    *refused("compresses keys and values", "kv_lora_rank", "q_lora_rank"),
    *refused("attends to chunks", "attention_chunk_size", "attention_window_size", "local_attention"),
)


def short(value: Any) -> str:
    """A setting in a message; of quantized weights, the method."""
    if isinstance(value, dict):
        return str(value.get("quant_method", "")) or f"of {len(value)} entries"
    return str(value)[:40]
