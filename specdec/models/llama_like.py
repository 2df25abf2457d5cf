"""Llama-like: what heads have in common whose layers are those of a Llama but for their inputs. Of no family; how heads
are found and checked is said in `heads.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from specdec.models.architectures import ARCHITECTURES
from specdec.models.checkpoints import ModelSource
from specdec.models.heads import HeadSource, MadeFor
from specdec.models.load import model_config

LLAMA = {one.name: one for one in ARCHITECTURES}["llama"]
ACTIVATIONS = ("silu", "swish")  # two names of one function


class LlamaLike:
    """`layer`: the settings of a head's layers, under the names of a Llama's."""

    made_for: MadeFor
    layer: dict[str, Any]

    @property
    def taps(self) -> tuple[int, ...]:
        return self.made_for.taps

    @property
    def vocab_size(self) -> int:
        return self.made_for.vocab_size

    @property
    def head_size(self) -> int:
        return int(self.layer.get("head_dim") or self.layer["hidden_size"] // self.layer["num_attention_heads"])

    @property
    def num_kv_heads(self) -> int:
        return int(self.layer.get("num_key_value_heads") or self.layer["num_attention_heads"])

    def rotary(self, source: HeadSource) -> torch.nn.Module:
        """The module that makes the angles of positions."""
        as_llama = ModelSource(source.role, source.name, source.path, {**self.layer, "model_type": "llama"})
        return LlamaRotaryEmbedding(config=model_config(as_llama))  # type: ignore[arg-type]  # is one


def layer_settings(stated: Mapping[str, Any], defaults: PretrainedConfig) -> dict[str, Any]:
    """What a file states of a layer, and for what it leaves out of a Llama's settings the defaults of a class."""
    usual = defaults.to_dict()
    known = {name: usual[name] for name in LLAMA.fields if name in usual and not name.startswith("rope")}
    return {**known, "rope_theta": 10000.0, **stated}
