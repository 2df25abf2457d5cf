"""What decides how an EAGLE-3 head computes. `eagle3.py` reads it from a checkpoint, `eagle3_network.py` computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specdec.models.heads import MadeFor
from specdec.models.llama_like import LlamaLike


@dataclass(frozen=True)
class Eagle3Settings(LlamaLike):
    """What decides how a head computes. `layer`: the settings of its one layer, under the names of a Llama's.
    `body`: how its layer's tensors begin. `is_normed_residual`: the residual is the normed state; `has_normed_input`,
    `has_normed_taps`: a norm of all taps together, or of each, before `fc`; `feeds_normed`: the next step is given the
    normed output; `has_qk_norm`: norms of query and key heads."""

    made_for: MadeFor
    layer: dict[str, Any]
    body: str
    target_hidden_size: int
    draft_vocab_size: int
    is_normed_residual: bool = False
    has_normed_input: bool = False
    has_normed_taps: bool = False
    feeds_normed: bool = False
    has_qk_norm: bool = False

    @property
    def has_own_words(self) -> bool:
        """Whether it drafts from a vocabulary of its own, which `d2t` maps to the target's."""
        return self.draft_vocab_size != self.vocab_size
