"""Branches: how the rows of a tree's pass see each other, at addresses that a recorded pass can find. What a tree is,
`tree_rows.py` says; no network here.

Shape suffixes: M rows of the pass (padded).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from specdec.models.tree_rows import TreeRows


@dataclass(frozen=True)
class Branches:
    """On the device: how far after the first position each row stands, int64 [M], and which rows it sees, uint8 [M, M].

    The keys of row i stand at the first position + i, whatever its depth is."""

    depths_M: torch.Tensor
    sees_MM: torch.Tensor


class BranchBuffers:
    """For passes of at most `max_rows` rows: what the host sends (on a GPU from pinned memory), and what arrives."""

    def __init__(self, max_rows: int, device: torch.device) -> None:
        is_gpu = device.type == "cuda"
        self._sent_depths = torch.zeros(max_rows, dtype=torch.long, pin_memory=is_gpu)
        self._sent_sees = torch.zeros(max_rows * max_rows, dtype=torch.uint8, pin_memory=is_gpu)
        self._depths = self._sent_depths.to(device, copy=True)
        self._sees = self._sent_sees.to(device, copy=True)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return self._sent_depths.numpy(), self._sent_sees.numpy()

    def send(self, rows: TreeRows, count: int) -> None:
        """Leave a tree where a pass of `count` rows reads it, which must have read what was there. Padding sees the
        first row, so that it has something to look at."""
        depths, flat = self._arrays
        num_rows, sees_MM = len(rows.depths_L), flat[: count * count].reshape(count, count)
        depths[:num_rows], depths[num_rows:count] = rows.depths_L, 0
        sees_MM[:], sees_MM[num_rows:, 0] = 0, 1
        sees_MM[:num_rows, :num_rows] = rows.sees_LL

    def receive(self, count: int) -> Branches:
        """The device's copy of what was sent for `count` rows, made anew: a part of the pass."""
        depths_M, sees = self._depths[:count], self._sees[: count * count]
        depths_M.copy_(self._sent_depths[:count], non_blocking=True)
        sees.copy_(self._sent_sees[: count * count], non_blocking=True)
        return Branches(depths_M, sees.view(count, count))
