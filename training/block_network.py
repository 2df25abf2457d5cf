"""The network of a block head as it is trained: a whole block after each anchor in one pass (DFlash, JetSpec, DSpark).

Its state is the checkpoint's tensors. `specdec/models/dflash_network.py` is what drafts with them. Sources: DFlash
(z-lab), JetSpec (arXiv 2606.18394), DSpark (arXiv 2607.05147).
Shape suffixes: A blocks of a document, B documents, C hidden size, F taps x C, L positions, N rows, S slots, V
vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from training.head_layers import (
    Angles,
    Mlp,
    Norm,
    Projections,
    Rotary,
    as_mean,
    attended,
    copy_weights,
    layers_of,
)


@dataclass(frozen=True)
class BlockShape:
    """`block_size`: slots of a pass, the anchor's included. `first_slot`: the first that predicts: 1 where a slot
    predicts the token at its own place, 0 where it predicts the one after. `markov_rank`: 0 for no such head."""

    num_taps: int
    num_layers: int
    block_size: int
    first_slot: int = 1
    is_causal: bool = False
    markov_rank: int = 0

    @property
    def num_drafts(self) -> int:
        return self.block_size - self.first_slot


class BlockLayer(nn.Module):
    """One layer: queries from the blocks, keys and values from the context and the blocks."""

    def __init__(self, layer: dict[str, Any]) -> None:
        super().__init__()
        size, eps = layer["hidden_size"], layer["rms_norm_eps"]
        self.input_layernorm, self.post_attention_layernorm = Norm(size, eps), Norm(size, eps)
        self.self_attn = Projections(layer, size, has_norms=True)
        self.mlp = Mlp(size, layer["intermediate_size"])

    def forward(self, x: Tensor, context: Tensor, angles: tuple[Angles, Angles], mask: Tensor) -> Tensor:
        own, read, attention = angles[0], self.input_layernorm(x), self.self_attn
        keys = torch.cat([attention.keys(context, angles[1]), attention.keys(read, own)], dim=2)
        values = torch.cat([attention.values(context), attention.values(read)], dim=2)
        x = x + attention.out(attended(attention.queries(read, own), keys, values, mask))
        found: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return found


class MarkovHead(nn.Module):
    """Logits by the token before, through two tables."""

    def __init__(self, vocab_size: int, rank: int) -> None:
        super().__init__()
        self.markov_w1 = nn.Embedding(vocab_size, rank)
        self.markov_w2 = nn.Linear(rank, vocab_size, bias=False)
        nn.init.normal_(self.markov_w1.weight, std=rank**-0.5)
        nn.init.zeros_(self.markov_w2.weight)


class ConfidenceHead(nn.Module):
    """How sure it is that a slot's token is right, of the slot's state and the token before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 1)


class BlockHead(nn.Module):
    """The whole head. `target`: what it begins from, whose table and head it reads and never changes."""

    def __init__(self, config: dict[str, Any], shape: BlockShape, target: nn.Module) -> None:
        super().__init__()
        size, eps = config["hidden_size"], config["rms_norm_eps"]
        self.shape = shape
        self.fc = nn.Linear(shape.num_taps * size, size, bias=False)
        self.hidden_norm, self.norm = Norm(size, eps), Norm(size, eps)
        self.layers = nn.ModuleList(BlockLayer(config) for _ in range(shape.num_layers))
        if shape.markov_rank:
            self.markov_head = MarkovHead(config["vocab_size"], shape.markov_rank)
            self.confidence_head = ConfidenceHead(size + shape.markov_rank)
        self.rotary = Rotary(config)
        as_mean(self.fc, shape.num_taps)
        copy_weights(self.norm, target.get_submodule("model.norm").state_dict())
        for own, layer in zip(self.layers, layers_of(target, shape.num_layers), strict=True):
            copy_weights(own, layer.state_dict())

    def forward(self, features_BLF: Tensor, blocks_BASC: Tensor, begins_BA: Tensor) -> Tensor:
        """Normed states of the slots that predict, [B, A, drafts, C]; `blocks_BASC`: the slots' embeddings."""
        batch, count, slots, size = blocks_BASC.shape
        context = self.hidden_norm(self.fc(features_BLF))
        offsets = torch.arange(slots, device=begins_BA.device)
        positions = (begins_BA[..., None] + offsets).flatten(1)
        before = torch.arange(features_BLF.shape[1], device=begins_BA.device)
        angles = self.rotary(positions), self.rotary(before[None])
        mask = self._mask(begins_BA, before)
        x = blocks_BASC.flatten(1, 2).float()
        for layer in self.layers:
            x = layer(x, context, angles, mask)
        found: Tensor = self.norm(x).unflatten(1, (count, slots))[:, :, self.shape.first_slot :]
        return found

    def _mask(self, begins_BA: Tensor, before_L: Tensor) -> Tensor:
        """[B, 1, A * S, L + A * S]: the context before the anchor, and the block itself."""
        slots = self.shape.block_size
        in_context = (before_L < begins_BA[..., None]).repeat_interleave(slots, dim=1)
        rows = torch.arange(begins_BA.shape[1] * slots, device=before_L.device)
        in_block = rows[:, None] // slots == rows // slots
        if self.shape.is_causal:
            in_block = in_block & (rows <= rows[:, None])
        return torch.cat([in_context, in_block.expand(len(begins_BA), -1, -1)], dim=-1)[:, None]

    def markov(self, before_N: Tensor) -> Tensor:
        """What the Markov head knows of the tokens before, [N, rank]."""
        return embedding(before_N, self.markov_head.markov_w1.weight)
