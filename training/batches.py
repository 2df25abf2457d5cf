"""Token documents and how they are put into batches: similar lengths together, a pure function of (seed, step).

Works in numpy on the CPU, so that a training step needs no synchronisation with the GPU. It knows nothing of models.
Sizes are rounded up to few different ones, so that a step's CUDA graph can be used again (training.graphs).
Shape suffixes: B documents, L positions, N predicted tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from specdec.errors import UserError

SMALLEST_STEP = 32


@dataclass(frozen=True)
class TokenDocs:
    """Documents as one flat array; document d is tokens[starts[d] : starts[d] + lengths[d]], its prompt first."""

    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    prompt_lens: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens_a_step(self, num_docs: int) -> float:
        """On average, in steps of `num_docs` documents."""
        return float(self.lengths.mean()) * min(num_docs, len(self))

    def fingerprint(self) -> str:
        """A hash of the content, to tell one training run from another."""
        digest = hashlib.sha256(self.tokens.tobytes())
        digest.update(self.lengths.tobytes())
        digest.update(self.prompt_lens.tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Batch:
    """One training batch. `source_N` counts in the flattened (B, L) input; `token_N` in TokenDocs.tokens."""

    ids_BL: np.ndarray
    source_N: np.ndarray
    token_N: np.ndarray
    weight_N: np.ndarray
    num_tokens: int
    positions_BL: np.ndarray | None = None
    blocks_BL: np.ndarray | None = None
    kinds_L: np.ndarray | None = None
    total_weight: float | None = None  # of the whole step, when this is one process's share of it

    def arrays(self) -> dict[str, np.ndarray]:
        """What a step computes with, by field name; N is rounded up with tokens of weight zero."""
        total = self.weight_N.sum(dtype=np.float64) if self.total_weight is None else self.total_weight
        spare = (0, rounded(len(self.weight_N)) - len(self.weight_N))
        found = {"ids_BL": self.ids_BL, "total_weight": np.array(total, dtype=np.float32)}
        found |= {name: np.pad(getattr(self, name), spare) for name in ("source_N", "token_N", "weight_N")}
        if self.blocks_BL is not None:
            found |= {name: getattr(self, name) for name in ("positions_BL", "blocks_BL", "kinds_L")}
        return found

    def share(self, rank: int, size: int) -> Batch:
        """Every size-th document, from number `rank` on; num_tokens and total_weight stay those of the whole step.

        The shares' losses add up to the loss of the whole. Raises UserError when there are fewer documents than shares.
        """
        if size == 1:
            return self
        num_docs, width = self.ids_BL.shape
        if num_docs < size:
            raise UserError(f"{num_docs} documents a step are too few for {size} processes: give a larger --num_docs")
        row_N, column_N = np.divmod(self.source_N, width)
        is_mine_N = row_N % size == rank
        return replace(
            self,
            ids_BL=self.ids_BL[rank::size],
            source_N=(row_N // size * width + column_N)[is_mine_N],
            token_N=self.token_N[is_mine_N],
            weight_N=self.weight_N[is_mine_N],
            positions_BL=None if self.positions_BL is None else self.positions_BL[rank::size],
            blocks_BL=None if self.blocks_BL is None else self.blocks_BL[rank::size],
            total_weight=float(self.weight_N.sum(dtype=np.float64)),
        )


def rounded(size: int) -> int:
    """The next of a few sizes: steps of a quarter of the power of two below, at least 32.

    >>> rounded(33), rounded(300), rounded(12_000)
    (64, 320, 12288)
    """
    step = max(SMALLEST_STEP, 1 << max(0, size.bit_length() - 3))
    return -(-size // step) * step


def pack_documents(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], max_len: int) -> TokenDocs:
    """Prompt + answer token lists as TokenDocs; pairs longer than `max_len` or with an empty side are left out."""
    kept = [(p, a) for p, a in zip(prompts, answers, strict=True) if p and a and len(p) + len(a) <= max_len]
    if not kept:
        raise UserError(f"no training document of at most {max_len} tokens is left: check the prompts and answers")
    lengths = np.array([len(p) + len(a) for p, a in kept], dtype=np.int64)
    return TokenDocs(
        tokens=np.concatenate([np.array([*p, *a], dtype=np.int32) for p, a in kept]),
        starts=np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
        lengths=lengths,
        prompt_lens=np.array([len(p) for p, _ in kept], dtype=np.int64),
    )


@dataclass
class Schedule:
    """Which documents a step sees: every epoch a new shuffle, sorted by `sort_keys` and cut into batches.

    `rows(step)` depends on (seed, step) only, so a resumed run sees what an uninterrupted one sees. A remainder
    that fills no batch is left out of that epoch.
    """

    sort_keys: np.ndarray
    num_docs: int
    seed: int
    _epoch: int = field(default=-1, init=False)
    _batches: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64), init=False)

    def rows(self, step: int) -> np.ndarray:
        """Document numbers of batch `step` (counted from 0), at most num_docs of them."""
        size = min(self.num_docs, len(self.sort_keys))
        per_epoch = len(self.sort_keys) // size
        epoch, place = divmod(step, per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            chosen = rng.permutation(len(self.sort_keys))[: per_epoch * size]
            by_key = chosen[np.argsort(self.sort_keys[chosen], kind="stable")].reshape(per_epoch, size)
            self._batches, self._epoch = by_key[rng.permutation(per_epoch)], epoch
        return self._batches[place]


def causal_batch(docs: TokenDocs, rows: np.ndarray, pad_id: int, prompt_weight: float) -> Batch:
    """Right-padded documents; every token but the first is predicted from the position before it.

    Answer tokens weigh 1, prompt tokens `prompt_weight` (0 leaves them out).
    """
    starts, lengths, prompt_lens = docs.starts[rows], docs.lengths[rows], docs.prompt_lens[rows]
    width = rounded(int(lengths.max()))
    place_BL = np.broadcast_to(np.arange(width), (len(rows), width))
    inside_BL = place_BL < lengths[:, None]
    flat_BL = np.where(inside_BL, starts[:, None] + place_BL, 0)
    weight_BL = np.where(place_BL >= prompt_lens[:, None], 1.0, prompt_weight) * (inside_BL & (place_BL > 0))
    row_N, column_N = np.nonzero(weight_BL)
    return Batch(
        ids_BL=np.where(inside_BL, docs.tokens[flat_BL], pad_id).astype(np.int64),
        source_N=row_N * width + column_N - 1,
        token_N=flat_BL[row_N, column_N],
        weight_N=weight_BL[row_N, column_N].astype(np.float32),
        num_tokens=int(lengths.sum()),
    )
