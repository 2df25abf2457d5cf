"""Layer settings: what each layer attends to, and how positions become angles, read from a config.json.

transformers' versions 4 and 5 spell both differently, and their classes have defaults of their own. It knows no
architecture: which way of reading fits one, its row in `architectures.py` says.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from specdec.models.config_fields import is_size

FULL, SLIDING = "full_attention", "sliding_attention"
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")
OLD_NAMES = {"su": "longrope"}  # of rotary scalings
ROPE_NUMBERS = ("rope_theta", "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
Windows = list[int | None]  # by layer: a query sees the last so many positions, itself among them; None: all


def no_windows(config: Mapping[str, Any]) -> Windows:
    """Llama's layers: all see all."""
    return [None] * config["num_hidden_layers"]


def switched_windows(config: Mapping[str, Any]) -> Windows:
    """Qwen's layers: `use_sliding_window` lets those from `max_window_layers` on slide, or those of `layer_types`."""
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window") else None
    first, layers = config.get("max_window_layers", 28), range(config["num_hidden_layers"])
    kinds = config.get("layer_types") or [SLIDING if window and layer >= first else FULL for layer in layers]
    return _by_kind(config, kinds, window)


def switched_windows_everywhere(config: Mapping[str, Any]) -> Windows:
    """Qwen's layers with experts: `use_sliding_window` lets all of them slide."""
    window = config.get("sliding_window", 4096) if config.get("use_sliding_window") else None
    return _by_kind(config, [SLIDING if window else FULL] * config["num_hidden_layers"], window)


def mistral_windows(config: Mapping[str, Any]) -> Windows:
    """Mistral's layers: all slide, unless the window is null."""
    return windows_everywhere({"sliding_window": 4096, **config})


def windows_everywhere(config: Mapping[str, Any]) -> Windows:
    """Phi-3's layers: all slide where there is a window."""
    window = config.get("sliding_window")
    return _by_kind(config, [SLIDING if window else FULL] * config["num_hidden_layers"], window)


def patterned_windows(config: Mapping[str, Any]) -> Windows:
    """Gemma's layers: those of `layer_types`, or all but every sixth slide (`sliding_window_pattern`)."""
    pattern, layers = config.get("sliding_window_pattern") or 6, range(config["num_hidden_layers"])
    kinds = config.get("layer_types") or [SLIDING if (layer + 1) % pattern else FULL for layer in layers]
    return _by_kind(config, kinds, config.get("sliding_window", 4096))


def _by_kind(config: Mapping[str, Any], kinds: Sequence[str], window: int | None) -> Windows:
    """The windows of layers of these kinds; one as long as the longest text is none."""
    is_felt = window is not None and window < config["max_position_embeddings"]
    return [window if kind == SLIDING and is_felt else None for kind in kinds]


def misfit_of_layers(config: Mapping[str, Any], has_switch: bool) -> str | None:
    """What is wrong with the kinds of layers that a config.json lists; None if nothing is.

    `has_switch`: windows are off unless `use_sliding_window` says that they are on.
    """
    kinds, layers = config.get("layer_types"), config["num_hidden_layers"]
    if kinds is None:
        return None
    if len(kinds) != layers:
        return f"'layer_types' has {len(kinds)} entries for {layers} layers"
    is_named = is_size(config.get("sliding_window", 4096)) and config.get("use_sliding_window", not has_switch)
    return "'layer_types' has sliding layers, and there is no window" if SLIDING in kinds and not is_named else None


def says_windows(config: Mapping[str, Any]) -> bool:
    """Whether a config.json names windows, or mixed kinds of layers, to an architecture that has none."""
    kinds, window = config.get("layer_types"), config.get("sliding_window")
    if isinstance(kinds, list) and any(kind != FULL for kind in kinds):
        return True
    is_off = kinds or not config.get("use_sliding_window", True)
    return not is_off and window is not None and not (is_size(window) and window >= config["max_position_embeddings"])


def rope_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """How positions become angles, from either spelling: `rope_scaling` goes before `rope_parameters`, and what they
    hold before what stands beside them, as in transformers. The type stands under "rope_type".

    Where each kind of layer has settings of its own, they are those of the layers that see all; the base of the
    sliding ones stands under "rope_local_base_freq".
    """
    found = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    if isinstance(config.get("rope_parameters"), dict) and is_by_kind(config["rope_parameters"]):
        by_kind = {kind: own for kind, own in config["rope_parameters"].items() if isinstance(own, dict)}
        found = {**(by_kind.get(FULL) or {}), **(config.get("rope_scaling") or {})}
        local = (by_kind.get(SLIDING) or {}).get("rope_theta")
        found |= {} if local is None else {"rope_local_base_freq": local}
    found["rope_type"] = found.pop("type", None) if found.get("rope_type") is None else found["rope_type"]
    found["rope_type"] = OLD_NAMES.get(str(found["rope_type"]), found["rope_type"] or "default")
    for name in ("rope_theta", "rope_local_base_freq"):
        if name not in found and config.get(name) is not None:
            found[name] = config[name]
    return found


def is_by_kind(rope: Mapping[str, Any]) -> bool:
    """Whether rotary settings are those of kinds of layers, each with its own."""
    return any(name in rope for name in (FULL, SLIDING))


def kept_len(config: Mapping[str, Any]) -> int | None:
    """The positions up to which angles do not change with the length of a text, so that keys can be kept; None: all.

    "dynamic" changes them after the longest text that the model was made for, "longrope" (Phi-3's long texts) after
    `original_max_position_embeddings`, where its other factors begin.
    """
    rope = rope_settings(config)
    if rope["rope_type"] == "dynamic":
        return int(config["max_position_embeddings"])
    if rope["rope_type"] == "longrope":
        first = config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
        return min(int(first), config["max_position_embeddings"]) if first else None
    return None
