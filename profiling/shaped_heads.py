"""Heads by a target's shape: what the config.json of a DFlash, JetSpec, DSpark or EAGLE-3 head made for it says, and
such a head with random weights. It measures nothing; `roofline.py` has the shapes of targets.

As published for Qwen3-8B: 5 layers of the target's own sizes and blocks of 16 (z-lab; JetSpec's are causal), or of 7
with a vanilla Markov head and confidences (DSpark), or one layer and 32,000 words of its own (EAGLE-3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from profiling.head_bounds import BLOCK, MAX_WORDS, NUM_LAYERS
from specdec.drafters.dflash import DFLASH_HEAD
from specdec.drafters.eagle3 import EAGLE3_HEAD
from specdec.models.checkpoints import ModelSource
from specdec.models.heads import HeadRole, HeadSource
from specdec.models.lm import CachedLM

Config = dict[str, Any]
SPARK_BLOCK, SPARK_RANK = 7, 256
SPREAD = 0.02  # of random weights, as models of this size begin
LAYER = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size")


def dflash_config(target: Mapping[str, Any]) -> Config:
    own = {"mask_token_id": target["vocab_size"] - 1, "block_size": BLOCK}
    return {
        **{"architectures": ["DFlashDraftModel"], "model_type": "qwen3", "num_hidden_layers": NUM_LAYERS},
        **{"num_target_layers": target["num_hidden_layers"], "dflash_config": own, **_layer(target)},
    }


def jetspec_config(target: Mapping[str, Any]) -> Config:
    config = dflash_config(target)
    return {**config, "dflash_config": {**config["dflash_config"], "causal_head": True}}


def dspark_config(target: Mapping[str, Any]) -> Config:
    config = dflash_config(target)
    own = {**config.pop("dflash_config"), "block_size": SPARK_BLOCK, "markov_rank": SPARK_RANK}
    confidences = {"enable_confidence_head": True, "confidence_head_with_markov": True}
    return {**config, **own, **confidences, "architectures": ["Qwen3DSparkModel"]}


def eagle3_config(target: Mapping[str, Any]) -> Config:
    return {
        **{"architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "num_hidden_layers": 1},
        **{"draft_vocab_size": min(MAX_WORDS, target["vocab_size"]), **_layer(target)},
    }


def _layer(target: Mapping[str, Any]) -> Config:
    sizes = {name: target[name] for name in LAYER}
    head_dim = target.get("head_dim") or target["hidden_size"] // target["num_attention_heads"]
    return {**sizes, "head_dim": head_dim, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6}


@dataclass(frozen=True)
class HeadShape:
    """A kind of head: whose role it is, and its config.json over a target's."""

    role: HeadRole
    config: Callable[[Mapping[str, Any]], Config]


HEAD_SHAPES = {
    "dflash": HeadShape(DFLASH_HEAD, dflash_config),
    "jetspec": HeadShape(DFLASH_HEAD, jetspec_config),
    "dspark": HeadShape(DFLASH_HEAD, dspark_config),
    "eagle3": HeadShape(EAGLE3_HEAD, eagle3_config),
}


def wanted_tensors(head: Any, role: HeadRole) -> dict[str, Sequence[int]]:
    """The tensors that a head of a shape must have, and their sizes."""
    wanted: dict[str, Sequence[int]] = head.wanted({}) if role is DFLASH_HEAD else head.wanted()
    return wanted


def make_head(kind: str, target: ModelSource, lm: CachedLM, backend: str) -> Any:
    """The network of a head with random weights, made where the target is. `backend`: eager or graph."""
    shape = HEAD_SHAPES[kind]
    source = HeadSource(shape.role, kind, Path(kind), shape.config(target.config), target, [])
    head: Any = source.head
    how: dict[str, Any] = {"device": lm.device, "dtype": lm.model.dtype}
    torch.manual_seed(1)
    tensors = {
        name: torch.ones(*size, **how) if len(size) == 1 else torch.randn(*size, **how).mul_(SPREAD)
        for name, size in wanted_tensors(head, shape.role).items()
    }
    if shape.role is EAGLE3_HEAD:  # its words are the target's first ones
        tensors["d2t"] = torch.zeros(source.config["draft_vocab_size"], dtype=torch.long, device=lm.device)
    return head.network(tensors, source, lm, backend)
