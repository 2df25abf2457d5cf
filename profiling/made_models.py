"""Made models: real shapes with random weights made on the device, or checkpoints. It measures nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from profiling.shapes import SHAPES
from specdec.checkpoints import Role, find_model
from specdec.models import load_hf_model


def make_model(name: str, role: Role, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A model of `SHAPES` with random weights, or the checkpoint that failfast.py would find. Raises UserError."""
    if name not in SHAPES:
        return load_hf_model(find_model(role, name), dtype).to(device)
    config = Qwen2Config(
        **vars(SHAPES[name]),
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device(device), _default_dtype(dtype):
        return Qwen2ForCausalLM(config).eval()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
