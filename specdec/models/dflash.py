"""DFlash heads and their kin: what their checkpoints say of themselves, and whether they fit a target.

Four kinds: DFlash; the same with causal blocks (JetSpec); blocks that begin at the anchor, with a Markov and a
confidence head (DSpark, in DeepSpec's layout); DFlash2's convolutions and selector. What runs them is
`dflash_network.py`, and everything about drafting is in `drafters/dflash.py`. Sources: DFlash (z-lab), JetSpec (arXiv
2606.18394), DSpark (arXiv 2607.05147).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import Qwen3Config

from specdec.errors import MALFORMED, UserError
from specdec.models.checkpoints import ModelSource
from specdec.models.config_fields import MAX_SIZE, NUMBER, given, whole
from specdec.models.dflash_layers import LayerKind
from specdec.models.dflash_network import DflashSettings
from specdec.models.dflash_parts import MARKOV_KINDS, Convolution, Markov, Part, Selector
from specdec.models.dflash_trees import DflashTrees
from specdec.models.heads import HeadSource, LoadedHead, MadeFor, require_tensors
from specdec.models.llama_like import ACTIVATIONS, LLAMA, layer_settings
from specdec.models.lm import CachedLM
from specdec.models.tensors import load_tensors

PUBLISHED_BLOCK = 16  # where a config.json of DFlash names none
FOREIGN = {  # settings of relatives that are computed otherwise, and what they are
    "model_arch": ("dflare", "DFlare"),
    "projector_type": ("domino", "Domino"),
}
FULL, SLIDING = "full_attention", "sliding_attention"
WINDOWS = ("layer_types", "use_sliding_window", "sliding_window", "max_window_layers", "is_causal")
TABLES = ("embed_tokens.weight", "lm_head.weight")  # where they are absent, the target's


@dataclass(frozen=True)
class DflashHead(DflashSettings):
    """A head as its config.json describes it: what it was made for, its tensors, its network."""

    @property
    def kv_values_per_token(self) -> int:
        return 2 * len(self.layer_kinds) * self.num_kv_heads * self.head_size

    def check(self, source: HeadSource, target: ModelSource) -> None:
        """See `Head`."""
        self.made_for.require(source, target)
        layers = target.config["num_hidden_layers"]
        if layers - 1 in self.taps:  # what they were trained on passed the final norm, which a tap does not
            raise UserError(f"{source.title} reads the output of the target's last layer, {layers - 1}: not run here")
        if not 0 <= self.mask_id < self.vocab_size:
            raise UserError(f"{source.title} has the mask {self.mask_id}, and its table {self.vocab_size} rows")
        if source.files:
            tables = dict.fromkeys(TABLES, (self.vocab_size, self.layer["hidden_size"]))
            require_tensors(source, self.wanted(source.shapes), tables)

    def wanted(self, found: Mapping[str, Any]) -> dict[str, Sequence[int]]:
        """The tensors that it must have, as those of `found` are spelled, and their sizes."""
        size, inner = self.layer["hidden_size"], self.layer["intermediate_size"]
        query, key = self.layer["num_attention_heads"] * self.head_size, self.num_kv_heads * self.head_size
        wanted: dict[str, Sequence[int]] = {"fc.weight": (size, len(self.taps) * size)}
        wanted |= {"hidden_norm.weight": (size,), "norm.weight": (size,)}
        for index in range(len(self.layer_kinds)):
            layer: dict[str, Sequence[int]] = {f"{name}_layernorm": (size,) for name in ("input", "post_attention")}
            layer |= {"self_attn.q_proj": (query, size), "self_attn.o_proj": (size, query)}
            layer |= {f"self_attn.{name}_proj": (key, size) for name in "kv"}
            layer |= {f"self_attn.{name}_norm": (self.head_size,) for name in "qk"}
            layer |= {"mlp.gate_proj": (inner, size), "mlp.up_proj": (inner, size), "mlp.down_proj": (size, inner)}
            wanted |= {f"layers.{index}.{name}.weight": sizes for name, sizes in layer.items()}
        for part in self.parts:
            wanted |= part.tensors(size, self.vocab_size, len(self.layer_kinds), found)
        return wanted

    def load(self, source: HeadSource, target: CachedLM, backend: str) -> DflashTrees:
        """See `Head`."""
        own = [name for name in TABLES if name in source.shapes]
        return self.network(load_tensors(source.shapes, [*self.wanted(source.shapes), *own]), source, target, backend)

    def network(self, tensors: Mapping[str, Tensor], source: HeadSource, target: CachedLM, backend: str) -> DflashTrees:
        """The network of these tensors."""
        return DflashTrees(LoadedHead(self, tensors, target, source, backend == "graph"))


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with its `dflash_config`, whose entries go before those beside it."""
    own = config.get("dflash_config")
    return {**config, **(own if isinstance(own, dict) else {})}


def block_size_of(config: Mapping[str, Any]) -> int:
    """The tokens of a block, the anchor included, as a config.json has them. UserError for what is not a number."""
    stated = settings_of(config).get("block_size")
    if stated is None:
        return PUBLISHED_BLOCK
    if type(stated) is not int:
        raise UserError(f"the DFlash head's config.json has block_size {stated!r}: not the size of a block")
    return stated


def num_drafts_of(config: Mapping[str, Any]) -> int:
    """The slots of a block that are drafts, as a config.json has them: all, or all but the anchor's."""
    return block_size_of(config) - (not _is_anchor_first(settings_of(config)))


def slots_are_alone(config: Mapping[str, Any]) -> bool:
    """Whether the slots of its blocks do not know of each other: without a Markov head or a selector."""
    settings = settings_of(config)
    return not settings.get("markov_rank") and "DFlash2DraftModel" not in (settings.get("architectures") or ())


def read_dflash(source: HeadSource) -> DflashHead:
    """The head of a folder, by whichever layout it has. Raises UserError for one of none, or of nonsense."""
    settings, where = settings_of(source.config), source.path / "config.json"
    for name, (value, title) in FOREIGN.items():
        if str(settings.get(name)).lower() == value:
            raise UserError(f"{source.title} is a {title} head ({name} {value!r}), which is not run here")
    reader = _reader_of(settings)
    if reader is None:
        raise UserError(
            f"{where} is not that of a DFlash head: give {source.role.flag} a folder whose architectures has one of "
            f"{', '.join(_READERS)}"
        )
    try:
        return reader(settings, source)
    except MALFORMED as error:
        raise UserError(f"{where} does not describe a DFlash head ({error!r:.80})") from error


def _read_dflash(settings: Mapping[str, Any], source: HeadSource) -> DflashHead:
    """DFlash, or JetSpec: the same with causal blocks."""
    layer = _layer_of(settings, source)
    block_size = block_size_of(settings)
    is_anchor_first = _is_anchor_first(settings)
    is_shifted = is_anchor_first or bool(settings.get("draft_shift"))
    return DflashHead(
        _made_for(settings, source, layer),
        layer,
        _layer_kinds(settings, source),
        _size(block_size, source),
        whole(settings, "mask_token_id", least=0),
        first_slot=0 if is_shifted else 1,
        num_drafts=block_size if is_anchor_first else block_size - 1,
        embedding_scale=_scale(settings, "input_embedding_scale"),
        logit_scale=_scale(settings, "output_multiplier"),
        logit_cap=_cap(settings),
        parts=_dspark_parts(settings, source),
    )


def _read_dflash2(settings: Mapping[str, Any], source: HeadSource) -> DflashHead:
    head = _read_dflash(settings, source)
    convolution = Convolution(whole(settings, "conv_kernel_size"), whole(settings, "conv_group_size"))
    if head.layer["hidden_size"] % convolution.group_size:
        raise ValueError(f"convolutions of groups of {convolution.group_size}")
    selector = Selector(whole(settings, "selector_rank"), whole(settings, "selector_top_k"))
    if selector.top_k > head.vocab_size:
        raise ValueError(f"a selector among {selector.top_k}")
    return _with(head, parts=(*head.parts, convolution, selector))


def _read_deepspec(settings: Mapping[str, Any], source: HeadSource) -> DflashHead:
    """Blocks that begin at the anchor: slot k predicts the token after its place. Its programs apply no window, and
    blocks see both sides."""
    head = _read_dflash({**settings, "block_size": whole(settings, "block_size")}, source)
    return _with(head, layer_kinds=(LayerKind(is_causal=False),) * len(head.layer_kinds))


_READERS = {  # the second version first: a checkpoint may name both
    "DFlash2DraftModel": _read_dflash2,
    "DFlashDraftModel": _read_dflash,
    "Qwen3DSparkModel": _read_deepspec,
}


def _reader_of(settings: Mapping[str, Any]) -> Callable[[Mapping[str, Any], HeadSource], DflashHead] | None:
    """What reads a config.json, by the architectures that it names."""
    stated = settings.get("architectures")
    kinds = [str(one) for one in stated] if isinstance(stated, list) else []
    return next((read for kind, read in _READERS.items() if kind in kinds), None)


def _is_anchor_first(settings: Mapping[str, Any]) -> bool:
    is_said = settings.get("sample_from_anchor") or settings.get("shift_label")
    return bool(is_said) or _reader_of(settings) is _read_deepspec


def _with(head: DflashHead, **changes: Any) -> DflashHead:
    return DflashHead(**{**vars(head), **changes})


def _scale(settings: Mapping[str, Any], name: str) -> float:
    scale = given(settings, name, 1.0)
    if not NUMBER.is_fine(scale):
        raise ValueError(f"{name} {scale!r:.40}")
    return float(scale)


def _cap(settings: Mapping[str, Any]) -> float:
    """0: logits are not capped."""
    cap = settings.get("final_logit_softcapping") or 0.0
    if not NUMBER.is_fine(cap) and not (type(cap) in (int, float) and cap <= 0):
        raise ValueError(f"final_logit_softcapping {cap!r:.40}")
    return max(float(cap), 0.0)


def _size(block_size: int, source: HeadSource) -> int:
    if block_size >= MAX_SIZE:
        raise ValueError(f"block_size {block_size!r:.40}")
    if block_size < 2:
        raise UserError(f"{source.title} has blocks of {block_size}: with the anchor they have 2 slots at least")
    return block_size


def _dspark_parts(settings: Mapping[str, Any], source: HeadSource) -> tuple[Part, ...]:
    """The Markov head, with its confidence head or without."""
    rank, has_confidences = whole(settings, "markov_rank", 0, least=0), bool(settings.get("enable_confidence_head"))
    if not rank and not has_confidences:
        return ()
    kind = str(settings.get("markov_head_type", "vanilla")).lower()
    if rank and kind not in MARKOV_KINDS:
        raise UserError(f"{source.title} has a Markov head of the kind {kind!r}: known are {', '.join(MARKOV_KINDS)}")
    reads_markov = bool(settings.get("confidence_head_with_markov")) if has_confidences else False
    if reads_markov and not rank:
        raise UserError(f"{source.title} has a confidence head over a Markov head, and no Markov head")
    return (Markov(rank, has_confidences, reads_markov, kind if rank else "vanilla"),)


def _made_for(settings: Mapping[str, Any], source: HeadSource, layer: Mapping[str, Any]) -> MadeFor:
    """`target_layer_ids` are outputs of layers, as taps are, in all layouts that are read here."""
    num_layers = settings.get("num_target_layers")
    stated = settings.get("target_layer_ids")
    if stated is None:
        stated = default_taps(num_layers or source.target.config["num_hidden_layers"], layer["num_hidden_layers"])
    verifier = settings.get("target_model_name_or_path")
    return MadeFor(tuple(stated), layer["hidden_size"], layer["vocab_size"], num_layers, verifier)


def default_taps(num_target_layers: int, num_layers: int) -> list[int]:
    """Evenly from layer 1 to the last but two; a single one in the middle.

    Example: `default_taps(36, 5) == [1, 9, 17, 25, 33]`.
    """
    if num_layers == 1:
        return [num_target_layers // 2]
    return [round(1 + index * (num_target_layers - 4) / (num_layers - 1)) for index in range(num_layers)]


def _layer_kinds(settings: Mapping[str, Any], source: HeadSource) -> tuple[LayerKind, ...]:
    """A sliding layer's block is causal unless config.json says for all layers whether they are."""
    count, has_window = whole(settings, "num_hidden_layers"), bool(settings.get("use_sliding_window"))
    first = whole(settings, "max_window_layers", 28, least=0) if has_window else count  # as Qwen3 has it
    kinds = settings.get("layer_types") or [FULL if index < first else SLIDING for index in range(count)]
    window = whole(settings, "sliding_window", 4096) if has_window else None
    if len(kinds) != count or not {FULL, SLIDING}.issuperset(kinds):
        raise ValueError(f"layer_types {kinds} of {count} layers, window {window}")
    said = [settings[name] for name in ("is_causal", "causal_head", "causal") if settings.get(name) is not None]
    if len(set(map(bool, said))) > 1:
        raise UserError(f"{source.title} says both that its blocks are causal and that they are not")
    return tuple(
        LayerKind(bool(said[0]) if said else kind == SLIDING, window if kind == SLIDING else None) for kind in kinds
    )


def _layer_of(settings: Mapping[str, Any], source: HeadSource) -> dict[str, Any]:
    """The settings of its layers under the names of a Llama's, with Qwen3's defaults for what a file leaves out.

    Raises UserError for what is not supported.
    """
    aside = (*WINDOWS, "final_logit_softcapping", "dflash_config")
    stated = {name: value for name, value in settings.items() if name not in aside}
    layer = layer_settings(stated, Qwen3Config())
    refusal = LLAMA.misfit(layer) or LLAMA.not_supported(layer)
    if layer.get("attention_bias") or layer.get("mlp_bias"):
        refusal = refusal or "has biases"
    if layer["hidden_act"] not in ACTIVATIONS:
        refusal = refusal or f"has the activation {layer['hidden_act']}"
    if refusal:
        raise UserError(f"{source.title}: {refusal}, which is not run here")
    return layer
