"""Architectures: the kinds of network that run here, one row each, and what each reads of a config.json.

A dense decoder that transformers has is supported by its row alone. It is not a checkpoint (`checkpoints.py` finds
those) and holds no class: `load.py` looks names up, so that nothing here imports a library of models.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # whose angles do not change with the length, so keys can be kept
ROPE_NUMBERS = ("rope_theta", "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
MAX_LAYERS = 1000  # of a network that anybody has made; making one of millions would take hours
ACTIVATIONS = (
    *("silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu"),
    *("relu", "relu2", "relu6", "tanh", "sigmoid", "mish"),
)


@dataclass(frozen=True)
class Kind:
    """What a field of config.json may hold: `is_fine`, and in words. `is_nullable`: null is as good as no field."""

    words: str
    is_fine: Callable[[Any], bool]
    is_nullable: bool = False


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def _is_switch(value: Any) -> bool:
    return type(value) is bool


def _is_activation(value: Any) -> bool:
    return value in ACTIVATIONS


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


SIZE = Kind("a size", _is_size)
DERIVED_SIZE = Kind("a size", _is_size, is_nullable=True)
NUMBER = Kind("a number above 0", _is_number)
SWITCH = Kind("true or false", _is_switch)
ACTIVATION = Kind("an activation that is known here", _is_activation)
ROPE = Kind("a JSON object", _is_object, is_nullable=True)

# What every dense decoder reads, and hands on to transformers.
FIELDS: Mapping[str, Kind] = {
    "vocab_size": SIZE,
    "hidden_size": SIZE,
    "intermediate_size": SIZE,
    "num_hidden_layers": SIZE,
    "num_attention_heads": SIZE,
    "max_position_embeddings": SIZE,
    "num_key_value_heads": DERIVED_SIZE,
    "head_dim": DERIVED_SIZE,
    "rms_norm_eps": NUMBER,
    "rope_theta": NUMBER,
    "rope_scaling": ROPE,
    "rope_parameters": ROPE,
    "tie_word_embeddings": SWITCH,
    "hidden_act": ACTIVATION,
}


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


def _refused(says: str, *names: str, neutral: tuple[Any, ...] = Refused.neutral) -> Iterator[Refused]:
    return (Refused(name, says, neutral) for name in names)


# transformers reads these for other architectures, and leaves them aside for the ones here without a word.
REFUSED: tuple[Refused, ...] = (
    *_refused("has quantized weights", "quantization_config", "quantization", "compression_config"),
    *_refused("is more than a model of text", "text_config", "vision_config", "audio_config"),
    *_refused("has an encoder", "is_encoder_decoder", "add_cross_attention", "cross_attention_layers"),
    *_refused("caps its logits", "final_logit_softcapping", "final_logit_softcap", "logits_soft_cap"),
    *_refused("caps its attention", "attn_logit_softcapping", "clip_qkv", "qkv_clip"),
    *_refused("scales its logits", "logit_scale", "logits_scaling", "lm_head_multiplier", neutral=(1,)),
    *_refused("scales its logits", "dim_model_base", "mup_width_scale", "final_logits_scale"),
    *_refused("scales its embeddings", "embedding_multiplier", "scale_emb", "emb_scale", neutral=(1,)),
    *_refused("scales its layers", "residual_multiplier", "residual_scale", neutral=(1,)),
    *_refused("scales its layers", "scale_depth"),
    *_refused("scales its attention", "attention_multiplier", "query_pre_attn_scalar", "attn_scale"),
    *_refused("rotates a part of each head", "partial_rotary_factor", "rotary_pct", "rotary_percent", neutral=(1,)),
    *_refused("has layers without positions", "no_rope_layers", "no_rope_layer_interval", "nope_layer_interval"),
    *_refused("places tokens by biases", "alibi", "position_embedding_type", neutral=(False, "rope", "rotary")),
    *_refused("norms queries and keys", "use_qk_norm", "qk_norm", "qk_layernorm"),
    *_refused("has biases in all products", "use_bias", "bias", "lm_head_bias"),
    *_refused("adds attention and MLP", "use_parallel_residual", "parallel_attn", "parallel_residual"),
    *_refused("sees tokens on both sides", "is_causal", neutral=(True,)),
    *_refused("has experts", "num_experts", "num_local_experts", "n_routed_experts", neutral=(0, 1)),
    *_refused("compresses keys and values", "kv_lora_rank", "q_lora_rank"),
    *_refused("attends to chunks", "attention_chunk_size", "attention_window_size", "local_attention"),
)


@dataclass(frozen=True)
class Architecture:
    """One kind of decoder.

    `name` is its `model_type` in a config.json, lower case; classes are named as transformers names them.
    `masked_types`: how the model types begin (lower case) whose weights are of this kind and which fill masked blocks.
    `own_fields`: what it reads of config.json beside `FIELDS`; all others are left aside. `refused`: settings that are
    not supported beside `REFUSED`, and what they say of a model. `has_qkv_bias`, `has_qk_norm`: biases of the query,
    key and value products; norms of query and key heads. `runs_as_graphs`: whether `graph/network.py` computes it.
    """

    name: str
    config_class: str
    model_class: str
    masked_types: tuple[str, ...] = ()
    own_fields: Mapping[str, Kind] = field(default_factory=dict)
    refused: tuple[tuple[str, str], ...] = ()
    rope_types: tuple[str, ...] = ROPE_TYPES
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    runs_as_graphs: bool = False

    @property
    def fields(self) -> Mapping[str, Kind]:
        """All that it reads of a config.json."""
        return {**FIELDS, **self.own_fields}

    def misfit(self, config: Mapping[str, Any]) -> str | None:
        """What a config.json has that cannot be: "'hidden_size' is 'x', not a size"; None where all is fine."""
        for name, kind in self.fields.items():
            is_asked = kind is SIZE or (name in config and not (kind.is_nullable and config[name] is None))
            if is_asked and not kind.is_fine(config.get(name)):
                return f"{name!r} is {config.get(name)!r}, not {kind.words}"
        heads = config["num_attention_heads"]
        key_heads, rope = config.get("num_key_value_heads") or heads, rope_settings(config)
        size = config.get("head_dim") or config["hidden_size"] // heads
        if heads % key_heads or size % 2 or not size:
            return f"{heads} heads over {key_heads} key-value heads of {size} values: do they fit?"
        if config["num_hidden_layers"] > MAX_LAYERS:
            return f"'num_hidden_layers' is {config['num_hidden_layers']!r}, more than {MAX_LAYERS}"
        wrong = next((name for name in ROPE_NUMBERS if name in rope and not NUMBER.is_fine(rope[name])), None)
        return None if wrong is None else f"{wrong!r} is {rope[wrong]!r}, not {NUMBER.words}"

    def not_supported(self, config: Mapping[str, Any]) -> str | None:
        """What a config.json says of a model that is not computed here: "has experts (num_experts 8)"; or None."""
        if slides(config):
            return "uses sliding-window attention"
        rope = rope_settings(config)
        if any(isinstance(value, dict) for value in rope.values()):
            return "has rotary settings for each kind of layer"
        if rope["rope_type"] not in self.rope_types:
            return f"has rotary scaling {str(rope['rope_type'])!r}, under which keys could not be kept"
        said = {**rope, **{name: value for name, value in config.items() if value is not None}}
        own = (Refused(name, says) for name, says in self.refused)
        found = next((one for one in (*own, *REFUSED) if one.is_meant(said)), None)
        return None if found is None else f"{found.says} ({found.name} {_short(said[found.name])})"


ARCHITECTURES = (
    Architecture(
        "qwen2",
        config_class="Qwen2Config",
        model_class="Qwen2ForCausalLM",
        masked_types=("fast_dllm",),
        refused=(("mlp_bias", "has biases in its MLP"),),
        has_qkv_bias=True,
        runs_as_graphs=True,
    ),
    Architecture(
        "llama",
        config_class="LlamaConfig",
        model_class="LlamaForCausalLM",
        own_fields={"attention_bias": SWITCH, "mlp_bias": SWITCH},
        runs_as_graphs=True,
    ),
)


def slides(config: Mapping[str, Any]) -> bool:
    """Whether a layer attends to a window that is shorter than the longest text.

    `use_sliding_window` false says that none does, whatever the window; a model type that has no such switch
    (Mistral's) says it by a `sliding_window` of null.
    """
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return any(kind != "full_attention" for kind in kinds)
    window, layers = config.get("sliding_window", 4096), config["num_hidden_layers"]
    is_long = window is None or (_is_size(window) and window >= config["max_position_embeddings"])
    if "use_sliding_window" not in config:
        return config.get("sliding_window") is not None and not is_long
    first = config.get("max_window_layers", 28)
    return bool(config["use_sliding_window"]) and not is_long and not (_is_size(first) and first >= layers)


def rope_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """How positions become angles, from either spelling: `rope_scaling` goes before `rope_parameters`, and what they
    hold before a `rope_theta` beside them, as in transformers. The type stands under "rope_type"."""
    found = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    found["rope_type"] = found.pop("type", None) if found.get("rope_type") is None else found["rope_type"]
    found["rope_type"] = found["rope_type"] or "default"
    theta = found.get("rope_theta", config.get("rope_theta"))
    return found if theta is None else {**found, "rope_theta": theta}


def _short(value: Any) -> str:
    """A setting in a message; of quantized weights, the method."""
    if isinstance(value, dict):
        return str(value.get("quant_method", "")) or f"of {len(value)} entries"
    return str(value)[:40]


def find_architecture(model_type: str) -> Architecture | None:
    """The row of a model type as config.json has it, in any case; None for one that is not supported.

    >>> find_architecture("Fast_dLLM_Qwen").name
    'qwen2'
    """
    wanted = model_type.lower()
    return next((one for one in ARCHITECTURES if wanted == one.name or wanted.startswith(one.masked_types)), None)


def fills_masked_blocks(model_type: str) -> bool:
    """Whether a model type, in any case, is that of a block-diffusion model."""
    return any(model_type.lower().startswith(one.masked_types) for one in ARCHITECTURES)


def supported_types() -> str:
    names = [name for one in ARCHITECTURES for name in (one.name, *(f"{kind}*" for kind in one.masked_types))]
    return f"{', '.join(names[:-1])} or {names[-1]}"
