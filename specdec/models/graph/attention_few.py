"""Attention of passes of few rows, as Triton kernels: what counts is that all multiprocessors read the cache, whose
positions are therefore split among programs. Passes of many rows are in `attention.py`.

Shape suffixes as in `reference.py`; R is the number of query heads per KV head, S a split of the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from specdec.models.graph.attention import with_keys
from specdec.models.graph.branches import WORD, Branches
from specdec.models.graph.overlap import admit_next, wait_for_previous

ENOUGH_PROGRAMS = 128  # about the multiprocessors of a big GPU: more splits than that only add to the merging
MAX_SPLITS = 32


def attend_few(
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    window: int | None,
    tree: Branches | None,
    overlap: dict[str, bool],
) -> torch.Tensor:
    """See reference.attend; `inputs`: q_MHD, cache_2GPD and state. The rows of all query heads that share a KV head are
    one tile over its keys.

    Each tile's live positions are split among programs, whose results a second kernel merges.
    """
    q_MHD, cache_2GPD, state = inputs
    num_tokens, num_heads, head_size = q_MHD.shape
    _, num_kv_heads, capacity, _ = cache_2GPD.shape
    num_rows = num_tokens * (num_heads // num_kv_heads)
    most = 64 if q_MHD.element_size() == 2 else 16  # float32 tiles of 64 rows would not fit the registers
    block_rows = min(most, max(16, triton.next_power_of_2(num_rows)))
    # Larger ones of 256 values would not fit the shared memory of GPUs below an A100.
    block_positions = 32 if block_rows < 64 or head_size > 128 else 64
    num_tiles = triton.cdiv(num_rows, block_rows)
    num_splits = min(MAX_SPLITS, triton.next_power_of_2(triton.cdiv(ENOUGH_PROGRAMS, num_tiles * num_kv_heads)))
    sums_SMHD = q_MHD.new_empty(num_splits, num_tokens, num_heads, head_size, dtype=torch.float32)
    peaks_2SMH = q_MHD.new_empty(2, num_splits, num_tokens, num_heads, dtype=torch.float32)
    _attend_kernel[(num_tiles, num_kv_heads, num_splits)](
        *(q_MHD, cache_2GPD, sums_SMHD, peaks_2SMH, state),
        *((state, state) if tree is None else (tree.depths_M, tree.sees_MW)),  # without a tree nobody looks
        *(num_tokens, 0 if tree is None else tree.sees_MW.shape[1], capacity, head_size**-0.5 * 1.4426950408889634),
        *(num_heads, num_kv_heads, head_size, num_splits, block_rows),
        *(block_positions, window or 0, tree is not None, WORD),
        PRECISION="ieee" if q_MHD.dtype == torch.float32 else "tf32",
        num_stages=2,
        **overlap,
    )
    out_MN = q_MHD.new_empty(num_tokens, num_heads * head_size)
    _merge_kernel[(num_tokens * num_heads,)](
        *(sums_SMHD, peaks_2SMH, out_MN, state, num_splits, head_size, block_positions),
        num_warps=2,
        **overlap,
    )
    return out_MN


@triton.jit
def _attend_kernel(
    q_ptr: tl.tensor, cache_ptr: tl.tensor, sums_ptr: tl.tensor, peaks_ptr: tl.tensor, state_ptr: tl.tensor,
    depths_ptr: tl.tensor, sees_ptr: tl.tensor, num_queries: tl.tensor, num_words: tl.tensor, capacity: tl.tensor,
    scale: tl.tensor, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_P: tl.constexpr, WINDOW: tl.constexpr, IS_TREE: tl.constexpr,
    WORD: tl.constexpr, PRECISION: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    group, split = tl.program_id(1), tl.program_id(2)
    R: tl.constexpr = H // G
    first, num_tokens = tl.load(state_ptr).to(tl.int32), tl.load(state_ptr + 1).to(tl.int32)
    live, block_size = first + num_tokens, tl.load(state_ptr + 2).to(tl.int32)
    # Row i is query i // R under head i % R of the group.
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    queries = rows // R
    inside, words_ptr = queries < num_queries, sees_ptr + queries * num_words
    heads = queries * H + group * R + rows % R
    visible_end = tl.minimum(((first + queries) // block_size + 1) * block_size, live)
    after = tl.load(depths_ptr + queries, mask=inside, other=0).to(tl.int32) if IS_TREE else queries
    # Rows of padding see the last position at least, so that none has nothing to divide by.
    visible_begin = tl.minimum(first + after - WINDOW + 1, live - 1) if WINDOW else queries * 0
    columns, share = tl.arange(0, D), tl.cdiv(tl.cdiv(live, SPLITS), BLOCK_P) * BLOCK_P
    if split * share >= live:  # a short cache needs fewer splits
        return
    wait_for_previous(OVERLAPS)
    q = tl.load(q_ptr + heads[:, None] * D + columns[None, :], mask=inside[:, None], other=0.0)
    keys_ptr = cache_ptr + group.to(tl.int64) * capacity * D
    values_ptr = keys_ptr + tl.cast(G, tl.int64) * capacity * D
    peak, total = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32), tl.zeros((BLOCK_ROWS,), tl.float32)
    sums = tl.zeros((BLOCK_ROWS, D), tl.float32)
    earliest = tl.maximum(tl.min(visible_begin, axis=0), 0) // BLOCK_P * BLOCK_P
    for begin in range(tl.maximum(split * share, earliest), tl.minimum((split + 1) * share, live), BLOCK_P):
        positions = begin + tl.arange(0, BLOCK_P)
        present = positions < live
        k = tl.load(keys_ptr + positions[None, :] * D + columns[:, None], mask=present[None, :], other=0.0)
        v = tl.load(values_ptr + positions[:, None] * D + columns[None, :], mask=present[:, None], other=0.0)
        is_visible, at = positions[None, :] < visible_end[:, None], positions
        if IS_TREE:
            is_visible = present[None, :] & _bits(words_ptr, begin - first, inside, num_words, BLOCK_P, WORD)
            at = _places(depths_ptr, positions, present, first) if WINDOW else positions
        if WINDOW:
            is_visible &= at[None, :] >= visible_begin[:, None]
        peak, total, sums = with_keys(q, k, v, is_visible, peak, total, sums, scale, PRECISION)
    admit_next(OVERLAPS)
    place = split * num_queries * H + heads
    tl.store(sums_ptr + place[:, None] * D + columns[None, :], sums, mask=inside[:, None])
    tl.store(peaks_ptr + place, peak, mask=inside)
    tl.store(peaks_ptr + SPLITS * num_queries * H + place, total, mask=inside)


@triton.jit
def _bits(
    words_ptr: tl.tensor, begin: tl.tensor, inside: tl.tensor, num_words: tl.tensor,
    BLOCK_P: tl.constexpr, WORD: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Which of the tree's keys from `begin` on the rows see, and all before the tree, where `begin` is negative: a
    block lies within two words of each row."""
    index = begin // WORD - (begin % WORD < 0).to(tl.int32)  # rounded down, also below zero
    shift = (begin - index * WORD).to(tl.uint64)
    low = tl.load(words_ptr + index, mask=inside & (index >= 0) & (index < num_words), other=-1)
    high = tl.load(words_ptr + index + 1, mask=inside & (index >= -1) & (index + 1 < num_words), other=-1)
    # Shifted in two steps, for a shift by a whole word is none.
    both = low.to(tl.uint64, bitcast=True) >> shift | high.to(tl.uint64, bitcast=True) << 1 << (WORD - 1 - shift)
    return (both[:, None] >> tl.arange(0, BLOCK_P).to(tl.uint64)[None, :] & 1) != 0


@triton.jit
def _places(depths_ptr: tl.tensor, positions: tl.tensor, present: tl.tensor, first: tl.tensor) -> tl.tensor:
    """Where in the text keys stand: those of the tree by their depths."""
    own = positions - first
    depths = tl.load(depths_ptr + own, mask=present & (own >= 0), other=0).to(tl.int32)
    return first + tl.where(own < 0, own, depths)


@triton.jit
def _merge_kernel(
    sums_ptr: tl.tensor, peaks_ptr: tl.tensor, out_ptr: tl.tensor, state_ptr: tl.tensor,
    SPLITS: tl.constexpr, D: tl.constexpr, BLOCK_P: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    head, num_heads = tl.program_id(0), tl.num_programs(0)
    live = (tl.load(state_ptr) + tl.load(state_ptr + 1)).to(tl.int32)
    share = tl.cdiv(tl.cdiv(live, SPLITS), BLOCK_P) * BLOCK_P
    splits, columns = tl.arange(0, SPLITS), tl.arange(0, D)
    used = splits * share < live
    places = splits * num_heads + head
    wait_for_previous(OVERLAPS)
    peaks = tl.load(peaks_ptr + places, mask=used, other=float("-inf"))
    weights = tl.exp2(peaks - tl.max(peaks, axis=0))
    totals = tl.load(peaks_ptr + SPLITS * num_heads + places, mask=used, other=0.0)
    sums = tl.load(sums_ptr + places[:, None] * D + columns[None, :], mask=used[:, None], other=0.0)
    admit_next(OVERLAPS)
    merged = tl.sum(sums * weights[:, None], axis=0) / tl.sum(weights * totals, axis=0)
    tl.store(out_ptr + head * D + columns, merged.to(out_ptr.dtype.element_ty))
