"""Branches: how the rows of a tree's pass see each other, at addresses that a recorded pass can find. What a tree is,
`tree_rows.py` says; no network here.

Shape suffixes: M rows of the pass (padded), W words of 64 bits that hold M bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from specdec.models.tree_rows import TreeRows

WORD = 64  # rows in a word


@dataclass(frozen=True)
class Branches:
    """On the device: how far after the first position each row stands, int64 [M], and which rows it sees, int64 [M, W]:
    row j is bit j % 64 of word j // 64.

    The keys of row i stand at the first position + i, whatever its depth is. A row sees none after itself.

    `is_part`: of a part of a tree, whose other rows have been run: bits are those of all rows of the tree, and
    attention is told a state that counts them all (`reference.attend`; without windows, for which it would need all
    depths)."""

    depths_M: torch.Tensor
    sees_MW: torch.Tensor
    is_part: bool = False

    def sees(self, num_rows: int) -> torch.Tensor:
        """Whether each row sees the first `num_rows`, bool [M, num_rows]."""
        bits = torch.arange(WORD, device=self.sees_MW.device)
        return (self.sees_MW[:, :, None] >> bits & 1).flatten(1)[:, :num_rows].bool()


@dataclass(frozen=True)
class Level:
    """The nodes of a level that goes on, on the device, for who grows trees level by level. `begin`: their first row in
    the tree. Token ids; rows of the level before that they go on from; log-probabilities of their paths, float32; and
    which rows of the tree they see, as in `Branches`."""

    begin: int
    ids_N: torch.Tensor
    parents_N: torch.Tensor
    scores_N: torch.Tensor
    sees_NW: torch.Tensor

    @classmethod
    def allocate(cls, begin: int, num_nodes: int, words: int, device: torch.device) -> Level:
        """Of `num_nodes` nodes in a tree of `words` words; as it is made, a root."""
        ids_N, parents_N = torch.zeros(2, num_nodes, dtype=torch.long, device=device)
        sees_NW = ids_N.new_zeros(num_nodes, words)
        return cls(begin, ids_N, parents_N, torch.zeros(num_nodes, device=device), sees_NW)

    def stand_after(self, level: Level) -> None:
        """They see themselves, and what their parents do, of the level before."""
        own_N = self.begin + torch.arange(len(self.ids_N), device=self.ids_N.device)
        is_own_NW = own_N[:, None] // WORD == torch.arange(self.sees_NW.shape[1], device=self.ids_N.device)
        self.sees_NW.copy_(level.sees_NW[self.parents_N] | (is_own_NW.long() << own_N[:, None] % WORD))


class BranchBuffers:
    """For passes of at most `max_rows` rows: what the host sends (on a GPU from pinned memory), and what arrives."""

    def __init__(self, max_rows: int, device: torch.device) -> None:
        is_gpu = device.type == "cuda"
        self._sent_depths = torch.zeros(max_rows, dtype=torch.long, pin_memory=is_gpu)
        self._sent_sees = torch.zeros(max_rows * num_words(max_rows), dtype=torch.long, pin_memory=is_gpu)
        self._depths = self._sent_depths.to(device, copy=True)
        self._sees = self._sent_sees.to(device, copy=True)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return self._sent_depths.numpy(), self._sent_sees.numpy()

    def send(self, rows: TreeRows, count: int) -> None:
        """Leave a tree where a pass of `count` rows reads it, which must have read what was there. Padding sees the
        first row, so that it has something to look at."""
        depths, flat = self._arrays
        num_rows, width = len(rows.depths), num_words(count)
        depths[:num_rows], depths[num_rows:count] = rows.depths, 0
        sees_MW = flat[: count * width].reshape(count, width)
        sees_MW.view(np.uint8)[:num_rows] = rows.packed(width * WORD // 8)
        sees_MW[num_rows:], sees_MW[num_rows:, 0] = 0, 1

    def receive(self, count: int) -> Branches:
        """The device's copy of what was sent for `count` rows, made anew: a part of the pass."""
        size = count * num_words(count)
        depths_M, sees = self._depths[:count], self._sees[:size]
        depths_M.copy_(self._sent_depths[:count], non_blocking=True)
        sees.copy_(self._sent_sees[:size], non_blocking=True)
        return Branches(depths_M, sees.view(count, -1))


def num_words(num_rows: int) -> int:
    """Words that hold a bit for each row."""
    return -(-num_rows // WORD)
