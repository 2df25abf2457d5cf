"""Tree rows: how the rows of a pass over a tree of tokens see each other, and which of them make a path. No network;
whose tokens they are, and which path is kept, others decide.

Shape suffixes: L rows of the pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class TreeRows:
    """`depths_L`: how far after the committed tokens each row stands, from 0. `sees_LL`: whether a row (the first
    index) sees another: itself and those that it goes on from."""

    depths_L: np.ndarray
    sees_LL: np.ndarray

    @classmethod
    def of(cls, parents: Sequence[int]) -> Self:
        """`parents`: each row's own, a row before it, or -1 for one that follows the committed tokens.

        Example: of [-1, 0, 0] the depths are [0, 1, 1], and the last row sees the first and itself. Raises ValueError
        for a parent that does not come before its child.
        """
        depths: list[int] = []
        for row, parent in enumerate(parents):
            if not -1 <= parent < row:
                raise ValueError(f"row {row} of a tree cannot go on from row {parent}")
            depths.append(depths[parent] + 1 if parent >= 0 else 0)
        depths_L, parents_L = np.array(depths), np.array(parents)
        sees_LL = np.eye(len(depths), dtype=bool)
        for depth in range(1, max(depths, default=0) + 1):
            rows = np.flatnonzero(depths_L == depth)
            sees_LL[rows] |= sees_LL[parents_L[rows]]
        return cls(depths_L, sees_LL)


def is_path(rows: Sequence[int], parents: Sequence[int] | None) -> bool:
    """Whether each of these rows goes on from the one before it, the first from the committed tokens. `parents`: None
    where every row goes on from the one before it."""
    if parents is None:
        return list(rows) == list(range(len(rows)))
    return all(
        0 <= row < len(parents) and parents[row] == before for row, before in zip(rows, [-1, *rows], strict=False)
    )
