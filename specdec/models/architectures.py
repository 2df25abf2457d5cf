"""Architectures: the kinds of network that run here, one row each, and what each reads of a config.json.

A decoder that transformers has is supported by its row alone. It is not a checkpoint (`checkpoints.py` finds those)
and holds no class: `load.py` looks names up, so that nothing here imports a library of models.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from specdec.models.config_fields import (
    ACTIVATION,
    CAP,
    COUNT,
    DERIVED_SIZE,
    FIELDS,
    KINDS,
    LAYERS,
    NUMBER,
    REFUSED,
    SHARE,
    SIZE,
    STATED_SIZE,
    SWITCH,
    Kind,
    Refused,
    short,
)
from specdec.models.layer_settings import (
    ROPE_NUMBERS,
    ROPE_TYPES,
    SLIDING,
    Windows,
    is_by_kind,
    misfit_of_layers,
    mistral_windows,
    no_windows,
    patterned_windows,
    rope_settings,
    says_windows,
    switched_windows,
    switched_windows_everywhere,
    windows_everywhere,
)

MAX_LAYERS = 1000  # of a network that anybody has made; making one of millions would take hours
QWEN_WINDOWS: Mapping[str, Kind] = {"use_sliding_window": SWITCH, "sliding_window": DERIVED_SIZE}
QWEN_LAYERS: Mapping[str, Kind] = {**QWEN_WINDOWS, "max_window_layers": COUNT, "layer_types": KINDS}
EXPERTS: Mapping[str, Kind] = {
    **{"moe_intermediate_size": SIZE, "num_experts": SIZE, "num_experts_per_tok": SIZE, "norm_topk_prob": SWITCH},
    **{"decoder_sparse_step": DERIVED_SIZE, "mlp_only_layers": LAYERS},
}
BIASED_MLP = (Refused("mlp_bias", "has biases in its MLP"),)
BIASED_ATTENTION = (Refused("attention_bias", "has biases in its attention"),)


@dataclass(frozen=True)
class Architecture:
    """One kind of decoder.

    `name` is its `model_type` in a config.json, lower case; classes are named as transformers names them.
    `masked_types`: how the model types begin (lower case) whose weights are of this kind and which fill masked blocks.
    `own_fields`: what it reads of config.json beside `FIELDS`; all others are left aside. `refused`: settings that are
    not supported beside `REFUSED`. `windows`: what each layer sees, of a config.json. `rope_types`: the kinds of
    rotary scaling; `rope_apart`: what of it transformers wants beside it; `has_local_rope`: sliding layers have a base
    of their own. `aliases`: other names of fields. `has_qkv_bias`, `has_qk_norm`: biases of the query, key and value
    products; norms of query and key heads. `num_norms`: of a layer, beside those.
    `ties_tables`: what no `tie_word_embeddings` means. `runs_as_graphs`: whether `graph/network.py` computes it.
    """

    name: str
    config_class: str
    model_class: str
    masked_types: tuple[str, ...] = ()
    own_fields: Mapping[str, Kind] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    windows: Callable[[Mapping[str, Any]], Windows] = no_windows
    aliases: Mapping[str, str] = field(default_factory=dict)
    rope_types: tuple[str, ...] = ROPE_TYPES
    rope_apart: tuple[str, ...] = ()
    has_local_rope: bool = False
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    num_norms: int = 2
    ties_tables: bool = False
    runs_as_graphs: bool = False

    @property
    def has_experts(self) -> bool:
        """Whether its layers may be mixtures."""
        return "num_experts" in self.fields

    @property
    def fields(self) -> Mapping[str, Kind]:
        """All that it reads of a config.json."""
        return {**FIELDS, **self.own_fields}

    def settled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A config.json under the names of its fields, with the default of tied tables written out."""
        tied = {"tie_word_embeddings": True} if self.ties_tables else {}
        return {**tied, **config, **{new: config[old] for old, new in self.aliases.items() if old in config}}

    def misfit(self, config: Mapping[str, Any]) -> str | None:
        """What a config.json has that cannot be: "'hidden_size' is 'x', not a size"; None where all is fine."""
        for name, kind in self.fields.items():
            if not kind.admits(name, config):
                return f"{name!r} is {config.get(name)!r}, not {kind.words}"
        heads = config["num_attention_heads"]
        key_heads = config.get("num_key_value_heads") or heads
        size = config.get("head_dim") or config["hidden_size"] // heads
        if heads % key_heads or size % 2 or not size:
            return f"{heads} heads over {key_heads} key-value heads of {size} values: do they fit?"
        if config["num_hidden_layers"] > MAX_LAYERS:
            return f"'num_hidden_layers' is {config['num_hidden_layers']!r}, more than {MAX_LAYERS}"
        if self.has_experts and config["num_experts_per_tok"] > config["num_experts"]:
            return f"{config['num_experts_per_tok']} of {config['num_experts']} experts for a token: do they fit?"
        if (reason := misfit_of_rope(config)) is not None or "layer_types" not in self.fields:
            return reason
        return misfit_of_layers(config, has_switch="use_sliding_window" in self.fields)

    def not_supported(self, config: Mapping[str, Any]) -> str | None:
        """What a config.json says of a model that is not computed here: "has experts (num_experts 8)"; or None."""
        if ("sliding_window" not in self.fields and says_windows(config)) or self._mixes_layers(config):
            return "uses sliding-window attention"
        rope = rope_settings(config)
        is_nested = is_by_kind(config.get("rope_parameters") or {}) and not self.has_local_rope
        if is_nested or any(isinstance(value, dict) for value in rope.values()):
            return "has rotary settings for each kind of layer"
        if self.has_local_rope and (reason := _local_rope(config)) is not None:
            return reason
        if rope["rope_type"] not in self.rope_types:
            return f"has rotary scaling {str(rope['rope_type'])!r}, under which keys could not be kept"
        said = {**rope, **{name: value for name, value in config.items() if value is not None}}
        read = {*self.fields, *self.aliases}
        meant = (one for one in (*self.refused, *REFUSED) if one.name not in read and one.is_meant(said))
        found = next(meant, None)
        return None if found is None else f"{found.says} ({found.name} {short(said[found.name])})"

    def _mixes_layers(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json lists kinds of layers to an architecture that has one kind."""
        kinds = config.get("layer_types")
        return "layer_types" not in self.fields and isinstance(kinds, list) and len(set(map(str, kinds))) > 1


ARCHITECTURES = (
    Architecture(
        "qwen2",
        config_class="Qwen2Config",
        model_class="Qwen2ForCausalLM",
        masked_types=("fast_dllm",),
        own_fields=QWEN_LAYERS,
        refused=BIASED_MLP,
        windows=switched_windows,
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
    Architecture(
        "qwen3",
        config_class="Qwen3Config",
        model_class="Qwen3ForCausalLM",
        own_fields={**QWEN_LAYERS, "attention_bias": SWITCH, "head_dim": SIZE, "num_key_value_heads": STATED_SIZE},
        refused=BIASED_MLP,
        windows=switched_windows,
        has_qk_norm=True,
        runs_as_graphs=True,
    ),
    Architecture(
        "qwen3_moe",
        config_class="Qwen3MoeConfig",
        model_class="Qwen3MoeForCausalLM",
        own_fields={**QWEN_WINDOWS, **EXPERTS, "attention_bias": SWITCH, "num_key_value_heads": STATED_SIZE},
        refused=BIASED_MLP,
        windows=switched_windows_everywhere,
        aliases={"num_local_experts": "num_experts"},
        has_qk_norm=True,
    ),
    Architecture(
        "mistral",
        config_class="MistralConfig",
        model_class="MistralForCausalLM",
        own_fields={"sliding_window": DERIVED_SIZE, "num_key_value_heads": STATED_SIZE},
        refused=BIASED_ATTENTION + BIASED_MLP,
        windows=mistral_windows,
        runs_as_graphs=True,
    ),
    Architecture(
        "phi3",
        config_class="Phi3Config",
        model_class="Phi3ForCausalLM",
        own_fields={"sliding_window": DERIVED_SIZE, "partial_rotary_factor": SHARE},
        refused=BIASED_ATTENTION + BIASED_MLP,
        windows=windows_everywhere,
        rope_types=("default", "longrope"),
        rope_apart=("partial_rotary_factor", "original_max_position_embeddings"),
    ),
    Architecture(
        "gemma3_text",
        config_class="Gemma3TextConfig",
        model_class="Gemma3ForCausalLM",
        own_fields={
            **{"hidden_activation": ACTIVATION, "head_dim": SIZE, "num_key_value_heads": STATED_SIZE},
            **{"query_pre_attn_scalar": NUMBER, "final_logit_softcapping": CAP, "attention_bias": SWITCH},
            **{"sliding_window": DERIVED_SIZE, "sliding_window_pattern": DERIVED_SIZE, "layer_types": KINDS},
            "rope_local_base_freq": NUMBER,
        },
        refused=BIASED_MLP,
        windows=patterned_windows,
        rope_types=("default", "linear", "yarn", "llama3"),
        has_local_rope=True,
        has_qk_norm=True,
        num_norms=4,
        ties_tables=True,
    ),
)


def misfit_of_rope(config: Mapping[str, Any]) -> str | None:
    """What is wrong with the numbers of rotary settings; None if nothing is."""
    by_kind = config.get("rope_parameters") or {}
    if is_by_kind(by_kind):
        for kind, own in by_kind.items():
            base = own.get("rope_theta", 1.0) if isinstance(own, dict) else None
            if own is not None and not NUMBER.is_fine(base):
                return f"'rope_parameters' of {kind!r} is {short(own)}, without a 'rope_theta' above 0"
    rope = rope_settings(config)
    wrong = next((name for name in ROPE_NUMBERS if name in rope and not NUMBER.is_fine(rope[name])), None)
    if wrong is not None:
        return f"{wrong!r} is {rope[wrong]!r}, not {NUMBER.words}"
    first = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    is_long = rope["rope_type"] == "longrope"
    if "partial_rotary_factor" in rope and not SHARE.is_fine(rope["partial_rotary_factor"]):
        return f"'partial_rotary_factor' is {rope['partial_rotary_factor']!r}, not {SHARE.words}"
    return "longrope without 'original_max_position_embeddings'" if is_long and not first else None


def _local_rope(config: Mapping[str, Any]) -> str | None:
    """Rotary settings of kinds of layers that transformers 4 could not say."""
    by_kind = config.get("rope_parameters") or {}
    if by_kind and not is_by_kind(by_kind):
        return "has the same rotary settings for all kinds of layers"
    local = rope_settings({"rope_scaling": by_kind.get(SLIDING)})
    return None if local["rope_type"] == "default" else f"has rotary scaling {local['rope_type']!r} in sliding layers"


def find_architecture(model_type: str) -> Architecture | None:
    """The row of a model type as config.json has it, in any case; None for one that is not supported.

    >>> find_architecture("Fast_dLLM_Qwen").name
    'qwen2'
    """
    wanted = model_type.lower()
    return next((one for one in ARCHITECTURES if wanted == one.name or wanted.startswith(one.masked_types)), None)


def fills_masked_blocks(model_type: str) -> bool:
    """Whether a model type, in any case, is that of a block-diffusion model."""
    return any(model_type.lower().startswith(one.masked_types) for one in ARCHITECTURES if one.masked_types)


def supported_types() -> str:
    names = [name for one in ARCHITECTURES for name in (one.name, *(f"{kind}*" for kind in one.masked_types))]
    return f"{', '.join(names[:-1])} or {names[-1]}"
