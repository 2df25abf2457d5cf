"""Trains EAGLE-3 heads: one layer over three of the target's hidden states, on several steps of its own outputs
(training-time test). Written in SafeAILab's and SpecForge's layout. Source: EAGLE-3 (arXiv 2503.01840).

The table is the target's; the head over the words that it drafts is its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specdec.errors import UserError
from training.batches import TokenDocs
from training.drafting import Lesson
from training.head_batches import all_begins
from training.heads import HeadSettings, Piece, base_config, require_taps
from training.train_block_head import decaying

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from training.graphs import Inputs

LEAST_LAYERS = 8  # of a target, for its taps to be different layers in their order
DECAY = 0.8  # what a step weighs of the one before it


@dataclass
class Eagle3Training:
    """A head over a target; see `HeadTraining`."""

    lesson: Lesson
    settings: HeadSettings

    def __post_init__(self) -> None:
        import torch

        from training.eagle3_train_network import Eagle3Head

        settings, target, device = self.settings, self.lesson.target, self.lesson.device
        vocab_size = target.config.vocab_size
        self.taps = eagle3_taps(settings, target.config.num_hidden_layers)
        words = drafted_words(self.lesson.docs, vocab_size, settings.num_words)
        self.words = torch.from_numpy(words).to(device)
        self.words_T: Tensor | None = None
        if len(words) < vocab_size:
            self.words_T = torch.full((vocab_size,), -1, device=device)
            self.words_T[self.words] = torch.arange(len(words), device=device)
        self.slot_weights = decaying(settings.num_drafts, settings.decay or DECAY)
        size = target.config.hidden_size
        self._config = {**base_config(self.lesson), "target_hidden_size": size}
        self.network = Eagle3Head(self._config, len(self.taps), target, self.words).to(device)
        self.module: torch.nn.Module = self.network
        self._table = target.get_input_embeddings().get_parameter("weight").detach()

    def begins(self, docs: TokenDocs, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Everywhere in the answers."""
        return all_begins(docs, rows)

    def pieces(self, inputs: Inputs, features_BLF: Tensor) -> Iterator[Piece]:
        """Step by step. A draft that begins after position p is its row p - 1's."""
        from torch.nn.functional import embedding

        rows_BR = (inputs["begins_BR"] - 1).clamp(min=0, max=inputs["ids_BL"].shape[1] - 1)
        embedded = embedding(inputs["ids_BL"], self._table)
        steps = self.module(features_BLF, embedded, rows_BR, self.settings.num_drafts)
        for step, hidden_BRC in enumerate(steps):
            logits = self.network.lm_head(hidden_BRC.flatten(0, 1)).float()
            yield Piece(logits.log_softmax(-1), slot=step)

    def config(self) -> dict[str, Any]:
        """config.json. The taps stand there twice: SGLang reads those of eagle_config, outputs of layers; vLLM takes
        the other list first, in which 0 is the embeddings."""
        return {
            **self._config,
            "architectures": ["LlamaForCausalLMEagle3"],
            "model_type": "llama",
            "num_hidden_layers": 1,
            "draft_vocab_size": len(self.words),
            "eagle_config": {"eagle_aux_hidden_state_layer_ids": list(self.taps)},
            "eagle_aux_hidden_state_layer_ids": [tap + 1 for tap in self.taps],
        }

    def extra_tensors(self) -> dict[str, Tensor]:
        """Which words it drafts: `d2t`, offsets, and `t2d`, marks. None where it drafts all: vLLM takes none then."""
        import torch

        words = self.words.cpu()
        if len(words) == self._config["vocab_size"]:
            return {}
        marks = torch.zeros(self._config["vocab_size"], dtype=torch.bool).index_fill(0, words, True)
        return {"d2t": words - torch.arange(len(words)), "t2d": marks}


def eagle3_taps(settings: HeadSettings, num_target_layers: int) -> tuple[int, ...]:
    """Those asked for, else the outputs of layers 1, L // 2 - 1 and L - 4. UserError where the target has none such."""
    if settings.taps is None and num_target_layers < LEAST_LAYERS:
        raise UserError(f"a target of {num_target_layers} layers has no room for EAGLE-3's three taps: give --taps")
    usual = 1, num_target_layers // 2 - 1, num_target_layers - 4
    return require_taps(settings.taps or usual, num_target_layers)


def drafted_words(docs: TokenDocs, vocab_size: int, num_words: int | None) -> np.ndarray:
    """The tokens that a head drafts, in their order: the most frequent ones of the documents, or all."""
    if num_words is None or num_words >= vocab_size:
        return np.arange(vocab_size)
    counts = np.bincount(docs.tokens, minlength=vocab_size)
    return np.sort(np.argsort(-counts, kind="stable")[:num_words])
