"""Bounds of heads: the least time of a pass of a head, by the shape of the target that it was made for, calculated.

The shapes are those that are published for 8B targets. DFlash (z-lab): five layers of the target's own sizes over five
taps, blocks of 16, the target's output head. EAGLE-3: one layer whose attention reads a token's features beside its
embedding, over three taps, an output head of 32,000 words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from specdec.drafters.dflash import NAME as DFLASH
from specdec.drafters.eagle3 import NAME as EAGLE3

if TYPE_CHECKING:
    from profiling.roofline import Machine
    from specdec.models.checkpoints import ModelSource


BLOCK, NUM_LAYERS, MAX_WORDS = 16, 5, 32_000  # of DFlash, twice; of EAGLE-3


@dataclass(frozen=True)
class HeadShape:
    """A head beside any target; `num_tokens` are those of a pass. `is_wide`: its attention reads two vectors a token.
    `most_words`: of its output head; None: all of the target's."""

    num_layers: int
    num_taps: int
    num_tokens: int
    is_wide: bool = False
    most_words: int | None = None


HEADS = {
    DFLASH: HeadShape(NUM_LAYERS, NUM_LAYERS, BLOCK),
    EAGLE3: HeadShape(1, 3, 1, is_wide=True, most_words=MAX_WORDS),
}


def head_pass_ms(machine: Machine, head: HeadShape, target: ModelSource, context: int, requests: int = 1) -> float:
    """The least ms of a pass over `num_tokens` after `context` of each request, each of which predicts a token."""
    from profiling.roofline import num_flops, values_moved

    size = target.config["hidden_size"]
    words = min(head.most_words or target.vocab_size, target.vocab_size)
    config = {"num_hidden_layers": head.num_layers, "vocab_size": words, "tie_word_embeddings": False}
    layers = replace(target, config={**target.config, **config})
    heads = target.config["num_attention_heads"] + 2 * target.config["num_key_value_heads"]
    more = head.num_taps * size * size + (size * heads * target.head_dim if head.is_wide else 0)
    values = values_moved(layers, head.num_tokens, context, requests) + more
    products = num_flops(layers, head.num_tokens, context, head.num_tokens) + 2.0 * more * head.num_tokens
    return machine.least_ms(values, requests * products)
