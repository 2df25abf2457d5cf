"""Shapes: the sizes of real models by name. What a pass costs depends on them, not on what the weights say.

Models of these shapes are made by `bench.py`; nothing here needs torch.
"""

from dataclasses import dataclass
from pathlib import Path

BLOCK, SUB_BLOCK = 32, 8  # of the block-diffusion drafters that are measured


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
    "SmolLM2-135M": Shape(576, 1536, 30, 9, 3, 49152, True),
    "tiny": Shape(64, 128, 2, 4, 2, 512, True),
}


def entry_name(target: str) -> str:
    """What a record calls a target of that shape: "Qwen2.5-7B" is "Qwen2.5-7B-Instruct"."""
    return f"{target}-Instruct" if target in SHAPES else Path(target).name
