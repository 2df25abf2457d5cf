"""Attention of passes of many rows, as Triton kernels: with so much to compute for each key, tiles are large, what no
row of a tile sees is not looked at, and positions are split among few programs, or not at all.
Passes of few rows, which only have to read the cache, are in `attention_few.py`.

Shape suffixes as in `reference.py`; a line is a query under one of the heads that share a KV head.
"""

from __future__ import annotations

from math import inf

import torch
import triton
import triton.language as tl

from specdec.models.graph.branches import WORD, Branches
from specdec.models.graph.overlap import admit_next, wait_for_previous
from specdec.models.graph.plans import SHARED_MEMORY, AttentionPlan, smaller_attention

MERGED_LINES = 16  # of one program


def shared_memory(device: torch.device) -> float:
    """Bytes of it that a program can have; elsewhere than on a GPU there is no limit."""
    if device.type != "cuda":
        return inf
    properties = torch.cuda.get_device_properties(device)
    size: int = properties.shared_memory_per_block_optin  # type: ignore[attr-defined]  # torch's stub lacks it
    return size


def attend_many(
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    window: int | None,
    tree: Branches | None,
    plan: AttentionPlan,
    overlap: dict[str, bool],
) -> torch.Tensor:
    """See reference.attend; `inputs`: q_MHD, cache_2GPD and state. Raises ValueError for a part of a tree."""
    q_MHD, cache_2GPD, state = inputs
    if tree is not None and tree.is_part:
        raise ValueError("passes of many rows take whole trees")
    if shared_memory(q_MHD.device) < SHARED_MEMORY:
        plan = smaller_attention(plan)
    num_tokens, num_heads, head_size = q_MHD.shape
    _, num_kv_heads, capacity, _ = cache_2GPD.shape
    is_split = plan.splits > 1
    out_MN = q_MHD.new_empty(num_tokens, num_heads * head_size)
    size = plan.splits * num_tokens * num_heads if is_split else 0
    sums_LD = q_MHD.new_empty(size, head_size, dtype=torch.float32)
    peaks_2L = q_MHD.new_empty(2, size, dtype=torch.float32)
    num_tiles = triton.cdiv(num_tokens * (num_heads // num_kv_heads), plan.block_rows)
    _attend_kernel[(num_tiles, num_kv_heads, plan.splits)](
        *(q_MHD, cache_2GPD, sums_LD if is_split else out_MN, peaks_2L, state),
        *((state, state) if tree is None else (tree.depths_M, tree.sees_MW)),  # without a tree nobody looks
        *(num_tokens, capacity, head_size**-0.5 * 1.4426950408889634),
        *(num_heads, num_kv_heads, head_size, plan.splits, plan.block_rows, plan.block_positions),
        *(window or 0, tree is not None, WORD),
        PRECISION="ieee" if q_MHD.dtype == torch.float32 else "tf32",
        num_warps=plan.num_warps,
        num_stages=plan.num_stages,
        **overlap,
    )
    if is_split:
        num_lines = num_tokens * num_heads
        _merge_kernel[(triton.cdiv(num_lines, MERGED_LINES),)](
            *(sums_LD, peaks_2L, out_MN, num_lines, plan.splits, head_size, MERGED_LINES), **overlap
        )
    return out_MN


@triton.jit
def _attend_kernel(
    q_ptr: tl.tensor, cache_ptr: tl.tensor, sums_ptr: tl.tensor, peaks_ptr: tl.tensor, state_ptr: tl.tensor,
    depths_ptr: tl.tensor, sees_ptr: tl.tensor, num_queries: tl.tensor, capacity: tl.tensor, scale: tl.tensor,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_P: tl.constexpr, WINDOW: tl.constexpr, IS_TREE: tl.constexpr,
    WORD: tl.constexpr, PRECISION: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    tile, group, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    R: tl.constexpr = H // G
    first, num_tokens = tl.load(state_ptr).to(tl.int32), tl.load(state_ptr + 1).to(tl.int32)
    live, block_size = first + num_tokens, tl.load(state_ptr + 2).to(tl.int32)
    # Line i is query i // R under head i % R of the group.
    lines = tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    queries = lines // R
    inside, heads = queries < num_queries, queries * H + group * R + lines % R
    last_query = tl.minimum((tile * BLOCK_ROWS + BLOCK_ROWS - 1) // R, num_queries - 1)
    # How many of the pass's own keys a line of a chain sees, and the most that any of the tile does.
    own_ends = tl.minimum(((first + queries) // block_size + 1) * block_size, live) - first
    own_end = tl.minimum(last_query + 1, num_tokens) if IS_TREE else tl.max(tl.where(inside, own_ends, 0), axis=0)
    after = tl.load(depths_ptr + queries, mask=inside, other=0).to(tl.int32) if IS_TREE else queries
    # Rows of padding see the last position at least, so that none has nothing to divide by.
    visible_begin = tl.minimum(first + after - WINDOW + 1, live - 1) if WINDOW else queries * 0
    words_ptr = sees_ptr + queries * tl.cdiv(num_queries, WORD)
    begin, num_past, end = _blocks(first, own_end, tl.min(visible_begin, axis=0), split, SPLITS, BLOCK_P)
    columns, offsets = tl.arange(0, D), tl.arange(0, BLOCK_P)
    keys_ptr = cache_ptr + group.to(tl.int64) * capacity * D
    values_ptr = keys_ptr + tl.cast(G, tl.int64) * capacity * D
    peak, total = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32), tl.zeros((BLOCK_ROWS,), tl.float32)
    sums = tl.zeros((BLOCK_ROWS, D), tl.float32)
    wait_for_previous(OVERLAPS)
    q = tl.load(q_ptr + heads[:, None] * D + columns[None, :], mask=inside[:, None], other=0.0)
    for block in range(begin, tl.minimum(end, num_past)):
        positions = block * BLOCK_P + offsets
        present = positions < first
        is_visible = present[None, :]
        if WINDOW:
            is_visible &= positions[None, :] >= visible_begin[:, None]
        peak, total, sums = _look(
            q, keys_ptr, values_ptr, positions, present, is_visible, peak, total, sums, scale, D, PRECISION
        )
    for block in range(tl.maximum(begin, num_past), end):
        own = (block - num_past) * BLOCK_P + offsets
        present = own < own_end
        if IS_TREE:
            is_visible = present[None, :] & _bits(words_ptr + (block - num_past) * BLOCK_P // WORD, own, inside, WORD)
        else:
            is_visible = own[None, :] < own_ends[:, None]
        if WINDOW:
            at = first + (tl.load(depths_ptr + own, mask=present, other=0).to(tl.int32) if IS_TREE else own)
            is_visible &= at[None, :] >= visible_begin[:, None]
        peak, total, sums = _look(
            q, keys_ptr, values_ptr, first + own, present, is_visible, peak, total, sums, scale, D, PRECISION
        )
    admit_next(OVERLAPS)
    _leave(peak, total, sums, heads, inside, sums_ptr, peaks_ptr, num_queries * H, SPLITS, D)


@triton.jit
def _blocks(
    first: tl.tensor, own_end: tl.tensor, earliest: tl.tensor, split: tl.tensor,
    SPLITS: tl.constexpr, BLOCK_P: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Where the blocks of a split begin, where those of the pass's own keys do, after the committed ones', and where
    the split's end."""
    num_past = tl.cdiv(first, BLOCK_P)
    skipped, end = tl.minimum(tl.maximum(earliest, 0) // BLOCK_P, num_past), num_past + tl.cdiv(own_end, BLOCK_P)
    share = tl.cdiv(end - skipped, SPLITS)
    begin = skipped + split * share
    return begin, num_past, tl.minimum(begin + share, end)


@triton.jit
def _bits(words_ptr: tl.tensor, own: tl.tensor, inside: tl.tensor, WORD: tl.constexpr) -> tl.tensor:
    """Which keys of a block, which lies within a word, the lines see: one word of each line, and a bit for each key."""
    word = tl.load(words_ptr, mask=inside, other=-1)
    return (word[:, None] >> (own % WORD).to(tl.int64)[None, :] & 1) != 0


@triton.jit
def _leave(
    peak: tl.tensor, total: tl.tensor, sums: tl.tensor, heads: tl.tensor, inside: tl.tensor,
    sums_ptr: tl.tensor, peaks_ptr: tl.tensor, num_lines: tl.tensor, SPLITS: tl.constexpr, D: tl.constexpr,
) -> None:  # fmt: skip
    """A tile's results where they belong, or what its split has seen of them."""
    columns = tl.arange(0, D)
    if SPLITS == 1:
        out = (sums / total[:, None]).to(sums_ptr.dtype.element_ty)
        tl.store(sums_ptr + heads[:, None] * D + columns[None, :], out, mask=inside[:, None])
    else:
        place = tl.program_id(2) * num_lines + heads
        tl.store(sums_ptr + place[:, None] * D + columns[None, :], sums, mask=inside[:, None])
        tl.store(peaks_ptr + place, peak, mask=inside)
        tl.store(peaks_ptr + SPLITS * num_lines + place, total, mask=inside)


@triton.jit
def _look(
    q: tl.tensor, keys_ptr: tl.tensor, values_ptr: tl.tensor, positions: tl.tensor, present: tl.tensor,
    is_visible: tl.tensor, peak: tl.tensor, total: tl.tensor, sums: tl.tensor, scale: tl.tensor,
    D: tl.constexpr, PRECISION: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """`with_keys`, of a block that is read here."""
    columns = tl.arange(0, D)
    k = tl.load(keys_ptr + positions[None, :] * D + columns[:, None], mask=present[None, :], other=0.0)
    v = tl.load(values_ptr + positions[:, None] * D + columns[None, :], mask=present[:, None], other=0.0)
    return with_keys(q, k, v, is_visible, peak, total, sums, scale, PRECISION)


@triton.jit
def with_keys(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, is_visible: tl.tensor, peak: tl.tensor, total: tl.tensor,
    sums: tl.tensor, scale: tl.tensor, PRECISION: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """A tile's softmax so far (`peak`, `total`, `sums`), with a block of keys more."""
    scores = tl.where(is_visible, tl.dot(q, k, input_precision=PRECISION) * scale, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(scores, axis=1))
    # A line that sees nothing yet has a peak of minus infinity, which must not be subtracted from itself.
    base = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    weights = tl.exp2(scores - base[:, None])
    shrink = tl.exp2(peak - base)
    total = total * shrink + tl.sum(weights, axis=1)
    sums = tl.dot(weights.to(v.dtype), v, sums * shrink[:, None], input_precision=PRECISION)
    return new_peak, total, sums


@triton.jit
def _merge_kernel(
    sums_ptr: tl.tensor, peaks_ptr: tl.tensor, out_ptr: tl.tensor, num_lines: tl.tensor,
    SPLITS: tl.constexpr, D: tl.constexpr, LINES: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    lines, columns = tl.program_id(0) * LINES + tl.arange(0, LINES), tl.arange(0, D)
    inside = lines < num_lines
    wait_for_previous(OVERLAPS)
    peak, total = tl.full((LINES,), float("-inf"), tl.float32), tl.zeros((LINES,), tl.float32)
    sums = tl.zeros((LINES, D), tl.float32)
    for split in tl.static_range(SPLITS):
        places = split * num_lines + lines
        its_peak = tl.load(peaks_ptr + places, mask=inside, other=0.0)
        new_peak = tl.maximum(peak, its_peak)
        # A split that has seen nothing of a line counts nothing for it.
        base = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        shrink, weight = tl.exp2(peak - base), tl.exp2(its_peak - base)
        its_total = tl.load(peaks_ptr + SPLITS * num_lines + places, mask=inside, other=1.0)
        its_sums = tl.load(sums_ptr + places[:, None] * D + columns[None, :], mask=inside[:, None], other=0.0)
        total = total * shrink + its_total * weight
        sums = sums * shrink[:, None] + its_sums * weight[:, None]
        peak = new_peak
    admit_next(OVERLAPS)
    out = (sums / total[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + lines[:, None] * D + columns[None, :], out, mask=inside[:, None])
