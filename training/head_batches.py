"""What a step of a head's training computes with: documents, and where in them drafts begin.

A pure function of (seed, step), in numpy; everything large (features, labels, masks) is made of it on the device.
Shape suffixes: A anchors, B documents, L positions, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from specdec.errors import UserError
from training.batches import TokenDocs, rounded


@dataclass(frozen=True)
class HeadBatch:
    """Documents, right-padded. `flat_BL` counts in TokenDocs.tokens; `begins_BR`: positions where a draft begins (its
    first token is the next one), sorted by nothing; `total_weight`: of the whole step."""

    ids_BL: np.ndarray
    flat_BL: np.ndarray
    lengths_B: np.ndarray
    begins_BR: np.ndarray
    num_tokens: int
    total_weight: float

    def arrays(self) -> dict[str, np.ndarray]:
        """What a step computes with, by name."""
        names = ("ids_BL", "flat_BL", "lengths_B", "begins_BR")
        return {name: getattr(self, name) for name in names} | {
            "total_weight": np.array(self.total_weight, dtype=np.float32)
        }

    def share(self, rank: int, size: int) -> HeadBatch:
        """Every size-th document from number `rank` on; the weight stays that of the whole step.

        Raises UserError when there are fewer documents than shares.
        """
        if size == 1:
            return self
        if len(self.ids_BL) < size:
            count = len(self.ids_BL)
            raise UserError(f"{count} documents a step are too few for {size} processes: give a larger --num_docs")
        names = ("ids_BL", "flat_BL", "lengths_B", "begins_BR")
        return replace(self, **{name: getattr(self, name)[rank::size] for name in names})


def head_batch(docs: TokenDocs, rows: np.ndarray, begins_BR: np.ndarray, slot_weights: np.ndarray) -> HeadBatch:
    """A batch of documents and of where drafts begin. `slot_weights`: of the tokens of a draft, which weigh nothing
    after a document's end."""
    starts, lengths = docs.starts[rows], docs.lengths[rows]
    place_BL = np.broadcast_to(np.arange(rounded(int(lengths.max()))), (len(rows), rounded(int(lengths.max()))))
    flat_BL = starts[:, None] + np.minimum(place_BL, lengths[:, None] - 1)
    left_BR = np.clip(lengths[:, None] - 1 - begins_BR, 0, len(slot_weights))
    summed = np.concatenate([[0.0], np.cumsum(slot_weights)])
    return HeadBatch(
        ids_BL=docs.tokens[flat_BL].astype(np.int64),
        flat_BL=flat_BL.astype(np.int64),
        lengths_B=lengths.astype(np.int64),
        begins_BR=begins_BR.astype(np.int64),
        num_tokens=int(lengths.sum()),
        total_weight=float(summed[left_BR].sum()),
    )


def random_begins(docs: TokenDocs, rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """[B, count]: positions from the prompt's last token to the answer's last but one."""
    first, last = docs.prompt_lens[rows] - 1, docs.lengths[rows] - 2
    drawn = rng.random((len(rows), count))
    return first[:, None] + (drawn * (last - first + 1)[:, None]).astype(np.int64)


def all_begins(docs: TokenDocs, rows: np.ndarray) -> np.ndarray:
    """[B, R]: every such position; what is after a document's end begins nothing."""
    first, count = docs.prompt_lens[rows] - 1, docs.lengths[rows] - docs.prompt_lens[rows]
    return first[:, None] + np.arange(rounded(int(count.max())))[None]
