"""Made models: real shapes with random weights made on the device, or checkpoints. It measures nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from profiling.shapes import SHAPES
from specdec.models.checkpoints import Role, find_model
from specdec.models.load import load_hf_model


def make_model(name: str, role: Role, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A model of `SHAPES` with random weights, or the checkpoint that failfast.py would find. Raises UserError."""
    if name not in SHAPES:
        return on_device(load_hf_model(find_model(role, name), dtype), device)
    fields: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    fields |= {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6}
    config = Qwen2Config(**vars(SHAPES[name]), **fields)
    torch.manual_seed(0)
    with torch.device(device), _default_dtype(dtype):
        return Qwen2ForCausalLM(config).eval()


def on_device(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """The model itself, its weights moved."""
    torch.nn.Module.to(model, device)  # transformers' own `to` has no types that can be checked
    return model


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
