"""EAGLE-3 heads: what their checkpoints say of themselves, in three layouts, and whether they fit a target.

Layout A is SafeAILab's and SpecForge's, B that of speculators, C DeepSpec's. What runs them is `eagle3_network.py`, and
everything about drafting is in `drafters/eagle3.py`. Source: EAGLE-3 (arXiv 2503.01840). Shape suffix: V draft
vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, Qwen3Config

from specdec.errors import MALFORMED, UserError
from specdec.models.checkpoints import ModelSource
from specdec.models.config_fields import whole
from specdec.models.eagle3_levels import Eagle3Levels
from specdec.models.eagle3_settings import Eagle3Settings
from specdec.models.eagle3_trees import Eagle3Trees
from specdec.models.heads import HeadSource, LoadedHead, MadeFor, require_tensors
from specdec.models.llama_like import ACTIVATIONS, LLAMA, layer_settings
from specdec.models.lm import CachedLM
from specdec.models.tensors import load_tensors

DEFAULTS_OF = {"llama": LlamaConfig, "qwen3": Qwen3Config}  # for what layer settings leave out
LEFT_ASIDE = ("verifier_norm.weight", "verifier_lm_head.weight")


@dataclass(frozen=True)
class Eagle3Head(Eagle3Settings):
    """A head as its config.json describes it: what it was made for, its tensors, its network."""

    @property
    def kv_values_per_token(self) -> int:
        return 2 * self.num_kv_heads * self.head_size

    def check(self, source: HeadSource, target: ModelSource) -> None:
        """See `Head`."""
        self.made_for.require(source, target)
        if not source.files:
            return
        size = self.layer["hidden_size"]
        own: dict[str, Sequence[int]] = {"d2t": (self.draft_vocab_size,), "t2d": (self.vocab_size,)}
        own |= {"embed_tokens.weight": (self.vocab_size, size)}
        require_tensors(source, self.wanted(), own, LEFT_ASIDE)
        if self.has_own_words and "d2t" not in source.shapes:
            raise UserError(f"{source.title} has no tensor d2t, which says what its words are")
        if "embed_tokens.weight" not in source.shapes and size != target.config["hidden_size"]:
            raise UserError(f"{source.title} has no embed_tokens.weight, and the target's is of another size")

    def wanted(self) -> dict[str, Sequence[int]]:
        """The tensors that it must have, and their sizes."""
        size, inner, fused = self.layer["hidden_size"], self.layer["intermediate_size"], self._fused
        query, key = self.layer["num_attention_heads"] * self.head_size, self.num_kv_heads * self.head_size
        found: dict[str, Sequence[int]] = {
            "fc.weight": (size, fused),
            "norm.weight": (size,),
            "lm_head.weight": (self.draft_vocab_size, size),
        }
        norms = ("hidden_norm", "input_layernorm", "post_attention_layernorm")
        found |= {f"{self.body}.{name}.weight": (size,) for name in norms}
        found |= {f"{self.body}.self_attn.{name}_proj.weight": (key, 2 * size) for name in "kv"}
        found |= {f"{self.body}.self_attn.q_proj.weight": (query, 2 * size)}
        found |= {f"{self.body}.self_attn.o_proj.weight": (size, query)}
        found |= {f"{self.body}.mlp.{name}_proj.weight": (inner, size) for name in ("gate", "up")}
        found |= {f"{self.body}.mlp.down_proj.weight": (size, inner)}
        if self.has_qk_norm:
            found |= {f"{self.body}.self_attn.{name}_norm.weight": (self.head_size,) for name in "qk"}
        if self.has_normed_input:
            found["input_norm.weight"] = (fused,)
        if self.has_normed_taps:
            found |= {f"fc_norm.{index}.weight": (self.target_hidden_size,) for index in range(len(self.taps))}
        return found

    @property
    def _fused(self) -> int:
        return len(self.taps) * self.target_hidden_size

    def load(self, source: HeadSource, target: CachedLM, backend: str) -> Eagle3Trees:
        """See `Head`."""
        names = [*self.wanted(), *(name for name in ("d2t", "t2d", "embed_tokens.weight") if name in source.shapes)]
        tensors = load_tensors(source.shapes, names)
        if self.has_own_words and not _is_map(tensors["d2t"], tensors.get("t2d"), self.vocab_size):
            raise UserError(f"{source.title}: d2t and t2d do not map its words to the target's {self.vocab_size}")
        return self.network(tensors, source, target, backend)

    def network(
        self, tensors: Mapping[str, torch.Tensor], source: HeadSource, target: CachedLM, backend: str
    ) -> Eagle3Trees:
        """The network of these tensors."""
        loaded = LoadedHead(self, tensors, target, source, backend == "graph")
        return Eagle3Levels(loaded) if loaded.is_recorded else Eagle3Trees(loaded)


def _is_map(d2t_V: torch.Tensor, t2d: torch.Tensor | None, vocab_size: int) -> bool:
    """Whether `d2t`, offsets, leads to different tokens, and to those that `t2d` marks."""
    if d2t_V.dtype.is_floating_point or d2t_V.dtype == torch.bool:
        return False
    tokens_V = torch.arange(len(d2t_V)) + d2t_V.long()
    if len(tokens_V.unique()) < len(tokens_V) or tokens_V.min() < 0 or tokens_V.max() >= vocab_size:
        return False
    return t2d is None or (int(t2d.bool().sum()) == len(tokens_V) and bool(t2d.bool()[tokens_V].all()))


def read_eagle3(source: HeadSource) -> Eagle3Head:
    """The head of a folder, by whichever layout it has. Raises UserError for one of none, or of nonsense."""
    config = source.config
    architectures = config.get("architectures")
    kinds = [str(one) for one in architectures] if isinstance(architectures, list) else []
    if config.get("speculators_model_type") == "eagle3":
        reader = _read_speculators
    elif "Qwen3Eagle3Model" in kinds:
        reader = _read_deepspec
    elif any(kind.endswith("Eagle3") or kind.endswith("Eagle3Model") for kind in kinds):
        reader = _read_safeailab
    else:
        raise UserError(
            f"{source.path / 'config.json'} is not that of an EAGLE-3 head: give {source.role.flag} a folder of "
            "SafeAILab's or SpecForge's, of speculators or of DeepSpec"
        )
    try:
        head = reader(config, source)
    except MALFORMED as error:
        raise UserError(f"{source.path / 'config.json'} does not describe an EAGLE-3 head ({error!r:.80})") from error
    if head.layer["num_hidden_layers"] != 1:
        raise UserError(f"{source.title} has {head.layer['num_hidden_layers']} layers: heads of one are run here")
    if head.has_normed_input and head.has_normed_taps:
        raise UserError(f"{source.title} has norm_before_fc and fc_norm, of which one excludes the other")
    return head


def _read_safeailab(config: Mapping[str, Any], source: HeadSource) -> Eagle3Head:
    layer = _layer_of(config, "llama", source)
    named = (config.get("eagle_config") or {}).get("eagle_aux_hidden_state_layer_ids")
    target_size = whole(config, "target_hidden_size", layer["hidden_size"])
    taps = _default_taps(source) if named is None else tuple(named)  # outputs, as SGLang reads them
    return Eagle3Head(
        MadeFor(taps, target_size, layer["vocab_size"]),
        layer,
        "midlayer",
        target_size,
        whole(config, "draft_vocab_size", layer["vocab_size"]),
        has_normed_taps=bool(config.get("fc_norm")),
        feeds_normed=bool(config.get("norm_output")),
    )


def _read_speculators(config: Mapping[str, Any], source: HeadSource) -> Eagle3Head:
    kind = str(config["transformer_layer_config"].get("model_type", "qwen3"))
    layer = _layer_of(config["transformer_layer_config"], kind, source)
    named = config.get("eagle_aux_hidden_state_layer_ids")
    target_size = whole(config, "target_hidden_size", layer["hidden_size"])
    # Indices of hidden states, of which the embeddings' is 0: what goes into a layer, not what comes out.
    taps = _default_taps(source) if named is None else tuple(one - 1 for one in named)
    verifier = ((config.get("speculators_config") or {}).get("verifier") or {}).get("name_or_path")
    return Eagle3Head(
        MadeFor(taps, target_size, layer["vocab_size"], verifier=verifier),
        layer,
        "layers.0",
        target_size,
        whole(config, "draft_vocab_size"),
        is_normed_residual=bool(config.get("norm_before_residual")),
        has_normed_input=bool(config.get("norm_before_fc")),
        has_normed_taps=bool(config.get("fc_norm")),
        feeds_normed=bool(config.get("norm_output")),
        has_qk_norm=kind == "qwen3",
    )


def _read_deepspec(config: Mapping[str, Any], source: HeadSource) -> Eagle3Head:
    layer, verifier = _layer_of(config, "qwen3", source), config.get("target_model_name_or_path")
    made_for = MadeFor(
        tuple(config["target_layer_ids"]),
        layer["hidden_size"],
        layer["vocab_size"],
        config.get("num_target_layers"),
        verifier,
    )
    return Eagle3Head(made_for, layer, "layers.0", layer["hidden_size"], layer["vocab_size"], has_qk_norm=True)


def _default_taps(source: HeadSource) -> tuple[int, ...]:
    """The inputs of layers 2, L // 2 and L - 3: what came out one layer before."""
    count = source.target.config["num_hidden_layers"]
    return 1, count // 2 - 1, count - 4


def _layer_of(config: Mapping[str, Any], kind: str, source: HeadSource) -> dict[str, Any]:
    """The settings of a layer under the names of a Llama's, with transformers' defaults for what a file leaves out.

    Raises UserError for what is not supported.
    """
    if kind not in DEFAULTS_OF:
        raise UserError(f"{source.title} has layers of {kind!r}: known are {' and '.join(DEFAULTS_OF)}")
    layer = layer_settings(config, DEFAULTS_OF[kind]())
    if config.get("head_dim") is None and kind == "llama":
        layer.pop("head_dim", None)
    misfit, refusal = LLAMA.misfit(layer), LLAMA.not_supported(layer)
    if misfit or refusal:
        raise UserError(f"{source.path / 'config.json'}: {misfit}" if misfit else f"{source.title} {refusal}")
    if layer["hidden_act"] not in ACTIVATIONS:
        raise UserError(f"{source.title} has the activation {layer['hidden_act']}: known is silu")
    return layer
