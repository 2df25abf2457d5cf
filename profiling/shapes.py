"""Models to measure: real shapes by name, with random weights made on the device, or checkpoints.

What a pass costs depends on shapes, not on what the weights say. It measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from specdec.checkpoints import Role, find_model
from specdec.models import load_hf_model


@dataclass(frozen=True)
class Shape:
    """The numbers of a Qwen2 model's config.json that decide what a pass costs."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool = False


SHAPES = {
    "Qwen2.5-0.5B": Shape(896, 4864, 24, 14, 2, 151936, True),
    "Qwen2.5-1.5B": Shape(1536, 8960, 28, 12, 2, 151936, True),
    "Qwen2.5-7B": Shape(3584, 18944, 28, 28, 4, 152064),
    "Qwen2.5-14B": Shape(5120, 13824, 48, 40, 8, 152064),
    "Qwen2.5-32B": Shape(5120, 27648, 64, 40, 8, 152064),
    "tiny": Shape(64, 128, 2, 4, 2, 512, True),
}


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
