"""Trains heads that draft a whole block in one pass: DFlash, JetSpec (causal blocks) and DSpark (blocks that begin at
the anchor, with a Markov and a confidence head). Written in z-lab's layout, DSpark in DeepSpec's.

The table and the head are the target's and stay so. Sources: DFlash (z-lab), JetSpec (arXiv 2606.18394), DSpark (arXiv
2607.05147).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specdec.errors import UserError
from training.batches import TokenDocs
from training.drafting import Lesson
from training.head_batches import random_begins
from training.heads import HeadSettings, Piece, base_config, require_taps

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from training.graphs import Inputs

FAMILIES = ("dflash", "jetspec", "dspark")


@dataclass
class BlockTraining:
    """One of the three over a target; see `HeadTraining`."""

    family: str
    lesson: Lesson
    settings: HeadSettings
    mask_id: int

    def __post_init__(self) -> None:
        from training.block_network import BlockHead, BlockShape

        settings, target = self.settings, self.lesson.target
        require_blocks(self.lesson.docs, settings.block_size)
        self.taps = block_taps(settings, target.config.num_hidden_layers)
        self.words_T: Tensor | None = None
        is_dspark = self.family == "dspark"
        self.shape = BlockShape(
            len(self.taps),
            settings.num_layers,
            settings.block_size,
            first_slot=0 if is_dspark else 1,
            is_causal=self.family == "jetspec",
            markov_rank=settings.markov_rank if is_dspark else 0,
        )
        self.slot_weights = decaying(self.shape.num_drafts, settings.decay or usual_decay(settings.block_size))
        self._config = base_config(self.lesson)
        self.network = BlockHead(self._config, self.shape, target).to(self.lesson.device)
        self.module: torch.nn.Module = self.network
        self._table = target.get_input_embeddings().get_parameter("weight").detach()
        self._head = target.get_submodule("lm_head").get_parameter("weight").detach()

    def begins(self, docs: TokenDocs, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Anchors at random."""
        return random_begins(docs, rows, self.settings.num_begins, rng)

    def pieces(self, inputs: Inputs, features_BLF: Tensor) -> Iterator[Piece]:
        """All slots of all blocks at once."""
        from torch.nn.functional import embedding, linear

        begins = inputs["begins_BR"]
        anchors = inputs["ids_BL"].gather(1, begins)
        blocks = self._table[self.mask_id].expand(*begins.shape, self.shape.block_size, -1).clone()
        blocks[:, :, 0] = embedding(anchors, self._table)
        hidden = self.module(features_BLF, blocks, begins).flatten(0, 2)
        logits = linear(hidden, self._head).float()
        if not self.shape.markov_rank:
            yield Piece(logits.log_softmax(-1))
            return
        yield self._with_markov(inputs, hidden, logits)

    def _with_markov(self, inputs: Inputs, hidden_NC: Tensor, logits_NV: Tensor) -> Piece:
        """Logits that know the token before, which in training is the text's; and the confidence head's loss: whether
        the most probable token is the text's. What it reads learns nothing from it."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        network, ids_BL = self.network, inputs["ids_BL"]
        slots = torch.arange(self.shape.num_drafts, device=ids_BL.device)
        places = (inputs["begins_BR"][..., None] + slots).flatten(1)
        last = ids_BL.shape[1] - 1
        before_N, right_N = (ids_BL.gather(1, (places + more).clamp(max=last)).flatten() for more in (0, 1))
        known = network.markov(before_N)
        logits_NV = logits_NV + network.markov_head.markov_w2(known).float()
        read = torch.cat([hidden_NC.float(), known.float()], dim=-1).detach()
        score_N = network.confidence_head.proj(read)[:, 0].float()
        is_right_N = (logits_NV.argmax(-1) == right_N).float()
        return Piece(
            logits_NV.log_softmax(-1), also=binary_cross_entropy_with_logits(score_N, is_right_N, reduction="none")
        )

    def config(self) -> dict[str, Any]:
        """config.json."""
        settings, shape = self.settings, self.shape
        own = {
            **self._config,
            "model_type": "qwen3",
            "block_size": shape.block_size,
            "num_target_layers": self.lesson.target.config.num_hidden_layers,
            "num_hidden_layers": shape.num_layers,
            "layer_types": ["full_attention"] * shape.num_layers,
        }
        if self.family != "dspark":
            causal = {"causal_head": True, "causal": True} if shape.is_causal else {}
            chosen = {"mask_token_id": self.mask_id, "target_layer_ids": list(self.taps)}
            return {**own, "architectures": ["DFlashDraftModel"], "dflash_config": {**chosen, **causal}}
        return {
            **own,
            "architectures": ["Qwen3DSparkModel"],
            "mask_token_id": self.mask_id,
            "target_layer_ids": list(self.taps),
            "num_anchors": settings.num_begins,
            "markov_rank": shape.markov_rank,
            "markov_head_type": "vanilla",
            "enable_confidence_head": True,
            "confidence_head_with_markov": True,
        }

    def extra_tensors(self) -> dict[str, Tensor]:
        """The target's table and head, for DSpark: DeepSpec's reader fills at random what a file lacks. z-lab's takes
        the target's own."""
        import torch

        tables = {"embed_tokens.weight": self._table, "lm_head.weight": self._head} if self.family == "dspark" else {}
        return {name: table.to("cpu", torch.bfloat16) for name, table in tables.items()}


def block_taps(settings: HeadSettings, num_target_layers: int) -> tuple[int, ...]:
    """Those asked for, else evenly from layer 1 to the last but two, one for each layer of the head. UserError where
    the target has no such layers."""
    from specdec.models.dflash import default_taps

    asked, count = settings.taps, settings.num_layers
    if asked is None and num_target_layers < count + 3:
        raise UserError(f"a target of {num_target_layers} layers has no {count} even taps: give --taps")
    return require_taps(asked or tuple(default_taps(num_target_layers, count)), num_target_layers)


def require_blocks(docs: TokenDocs, block_size: int) -> None:
    """UserError where no answer is as long as a block."""
    longest = int((docs.lengths - docs.prompt_lens).max())
    if block_size > longest:
        raise UserError(f"--block_size {block_size}: the longest answer has {longest} tokens: give at most that")


def usual_decay(block_size: int) -> float:
    """What a slot weighs of the one before: exp(-1 / 7) for blocks of 16, exp(-1 / 4) for shorter ones."""
    return float(np.exp(-1 / (7 if block_size > 8 else 4)))


def decaying(count: int, decay: float) -> np.ndarray:
    """Weights of a draft's tokens; the first weighs 1."""
    return decay ** np.arange(count, dtype=np.float64)
