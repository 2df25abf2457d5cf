"""Tree rows: how the rows of a pass over a tree of tokens see each other, and which of them make a path. No network;
whose tokens they are, and which path is kept, others decide.

Shape suffixes: L rows of the pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np


@dataclass(frozen=True)
class TreeRows:
    """`depths`: how far after the committed tokens each row stands, from 0. `seen`: the rows that each row sees, itself
    and those that it goes on from, row j as bit j: numbers, for a tree is made anew every round."""

    depths: list[int]
    seen: list[int]

    @classmethod
    def of(cls, parents: Sequence[int]) -> Self:
        """`parents`: each row's own, a row before it, or -1 for one that follows the committed tokens.

        Example: of [-1, 0, 0] the depths are [0, 1, 1], and the last row sees the first and itself. Raises ValueError
        for a parent that does not come before its child.
        """
        # In the last place, where -1 points, what the committed tokens pass on; no branch for them in each row.
        depths, seen = [-1] * (len(parents) + 1), [0] * (len(parents) + 1)
        for row, parent in enumerate(parents):
            if not -1 <= parent < row:
                raise ValueError(f"row {row} of a tree cannot go on from row {parent}")
            depths[row] = depths[parent] + 1
            seen[row] = seen[parent] | 1 << row
        return cls(depths[:-1], seen[:-1])

    def packed(self, num_bytes: int) -> np.ndarray:
        """`seen`, 8 rows a byte, uint8 [L, num_bytes]."""
        rows = b"".join([bits.to_bytes(num_bytes, "little") for bits in self.seen])
        return np.frombuffer(rows, np.uint8).reshape(-1, num_bytes)

    @cached_property
    def sees_LL(self) -> np.ndarray:
        """`seen` as a table of bool: whether a row (the first index) sees another."""
        count = len(self.seen)
        return np.unpackbits(self.packed(-(-count // 8)), axis=1, count=count, bitorder="little").astype(bool)


def is_path(rows: Sequence[int], parents: Sequence[int] | None) -> bool:
    """Whether each of these rows goes on from the one before it, the first from the committed tokens. `parents`: None
    where every row goes on from the one before it."""
    if parents is None:
        return list(rows) == list(range(len(rows)))
    return all(
        0 <= row < len(parents) and parents[row] == before for row, before in zip(rows, [-1, *rows], strict=False)
    )
