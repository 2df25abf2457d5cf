"""The operations of `plain.py` as Triton kernels, for CUDA. Needs the triton package, which comes with CUDA's torch.

Lengths are read from `state` on the device, so that a recorded launch serves every length.
Shape suffixes as in `plain.py`; R is the number of query heads per KV head, S a split of the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

NUM_PROGRAMS = 128  # about the multiprocessors of a big GPU: more splits than that only add to the merging
MAX_SPLITS = 32
CHUNK_V = 4096  # logits that one program looks at


class GpuOperations:
    """The operations, each one or two launches. `early_launch`: a kernel's programs start while the one before
    it still runs, and wait for its results themselves (Hopper and later): that hides the launches.
    """

    def __init__(self, early_launch: bool = False) -> None:
        self.early_launch = early_launch
        self._launch = {"EARLY": early_launch, "launch_pdl": early_launch}

    def norm(self, x_MC: torch.Tensor, weight_C: torch.Tensor, eps: float) -> torch.Tensor:
        """See plain.norm: one program per row."""
        out_MC = torch.empty_like(x_MC)
        size = x_MC.shape[1]
        _norm_kernel[(len(x_MC),)](x_MC, weight_C, out_MC, size, eps, triton.next_power_of_2(size), **self._launch)
        return out_MC

    def silu_product(self, gate_up_M2I: torch.Tensor) -> torch.Tensor:
        """See plain.silu_product."""
        num_rows, size = len(gate_up_M2I), gate_up_M2I.shape[1] // 2
        out_MI = gate_up_M2I.new_empty(num_rows, size)
        _silu_kernel[(num_rows, triton.cdiv(size, 1024))](gate_up_M2I, out_MI, size, 1024, **self._launch)
        return out_MI

    def attend(
        self, qkv_MN: torch.Tensor, rotary_2PE: torch.Tensor, cache_2GPD: torch.Tensor, state: torch.Tensor
    ) -> torch.Tensor:
        """See plain.attend: the rows of all query heads that share a KV head are one tile over its keys.

        Each tile's live positions are split among programs, whose results a second kernel merges.
        """
        _, num_kv_heads, capacity, head_size = cache_2GPD.shape
        num_tokens, num_heads = len(qkv_MN), qkv_MN.shape[1] // head_size - 2 * num_kv_heads
        num_rows = num_tokens * (num_heads // num_kv_heads)
        most = 64 if qkv_MN.element_size() == 2 else 16  # float32 tiles of 64 rows would not fit the registers
        block_rows = min(most, max(16, triton.next_power_of_2(num_rows)))
        block_positions = 32 if block_rows < 64 else 64
        num_tiles = triton.cdiv(num_rows, block_rows)
        num_splits = min(MAX_SPLITS, triton.next_power_of_2(triton.cdiv(NUM_PROGRAMS, num_tiles * num_kv_heads)))
        sums_SMHD = qkv_MN.new_empty(num_splits, num_tokens, num_heads, head_size, dtype=torch.float32)
        peaks_2SMH = qkv_MN.new_empty(2, num_splits, num_tokens, num_heads, dtype=torch.float32)
        _attend_kernel[(num_tiles, num_kv_heads, num_splits)](
            *(qkv_MN, rotary_2PE, cache_2GPD, sums_SMHD, peaks_2SMH, state),
            *(num_tokens, capacity, head_size**-0.5 * 1.4426950408889634),
            *(num_heads, num_kv_heads, head_size, num_splits, block_rows, block_positions),
            PRECISION="ieee" if qkv_MN.dtype == torch.float32 else "tf32",
            num_stages=2,
            **self._launch,
        )
        out_MN = qkv_MN.new_empty(num_tokens, num_heads * head_size)
        _merge_kernel[(num_tokens * num_heads,)](
            sums_SMHD, peaks_2SMH, out_MN, state, num_splits, head_size, block_positions, num_warps=2, **self._launch
        )
        return out_MN

    def most_probable(self, logits_KV: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """See plain.most_probable: programs look at chunks of a row, a second kernel at their findings."""
        num_rows, vocab_size = logits_KV.shape
        num_chunks = triton.cdiv(vocab_size, CHUNK_V)
        found_3KS = logits_KV.new_empty(3, num_rows, num_chunks, dtype=torch.float32)
        packed_K2 = logits_KV.new_empty(num_rows, 2, dtype=torch.float64)
        _best_kernel[(num_rows, num_chunks)](logits_KV, found_3KS, state, vocab_size, CHUNK_V, **self._launch)
        padded = triton.next_power_of_2(num_chunks)
        _best_of_best_kernel[(num_rows,)](found_3KS, packed_K2, num_chunks, padded, num_warps=1, **self._launch)
        return packed_K2


@triton.jit
def begin_early(EARLY: tl.constexpr) -> None:
    """Let the next kernel's programs start, then wait for the results of the kernel before."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def _norm_kernel(
    x_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    out_ptr: tl.tensor,
    size: tl.tensor,
    eps: tl.tensor,
    BLOCK_C: tl.constexpr,
    EARLY: tl.constexpr,
) -> None:
    begin_early(EARLY)
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK_C)
    inside = columns < size
    x = tl.load(x_ptr + row * size + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / size + eps)
    # Rounded before the weight is applied, as the model's own module does.
    normed = (x * scale).to(out_ptr.dtype.element_ty).to(tl.float32) * weight
    tl.store(out_ptr + row * size + columns, normed.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _silu_kernel(
    gate_up_ptr: tl.tensor, out_ptr: tl.tensor, size: tl.tensor, BLOCK_I: tl.constexpr, EARLY: tl.constexpr
) -> None:
    begin_early(EARLY)
    row = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
    inside = columns < size
    gate = tl.load(gate_up_ptr + row * 2 * size + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * size + size + columns, mask=inside, other=0.0).to(tl.float32)
    activated = (gate * tl.sigmoid(gate)).to(out_ptr.dtype.element_ty).to(tl.float32) * up
    tl.store(out_ptr + row * size + columns, activated.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _attend_kernel(
    qkv_ptr: tl.tensor, rotary_ptr: tl.tensor, cache_ptr: tl.tensor,
    sums_ptr: tl.tensor, peaks_ptr: tl.tensor, state_ptr: tl.tensor,
    num_queries: tl.tensor, capacity: tl.tensor, scale: tl.tensor,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_P: tl.constexpr, PRECISION: tl.constexpr, EARLY: tl.constexpr,
) -> None:  # fmt: skip
    tile, group, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    R: tl.constexpr = H // G
    LINE: tl.constexpr = (H + 2 * G) * D
    first, num_tokens = tl.load(state_ptr).to(tl.int32), tl.load(state_ptr + 1).to(tl.int32)
    block_size = tl.load(state_ptr + 2).to(tl.int32)
    live = first + num_tokens
    share = tl.cdiv(tl.cdiv(live, SPLITS), BLOCK_P) * BLOCK_P
    begin, end = split * share, tl.minimum((split + 1) * share, live)
    begin_early(EARLY)
    if begin >= live:  # a short cache needs fewer splits
        return
    # Row i is query i // R under head i % R of the group.
    rows = tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    queries = rows // R
    inside = queries < num_queries
    columns = tl.arange(0, D)
    visible_end = tl.minimum(((first + queries) // block_size + 1) * block_size, live)
    q_heads = qkv_ptr + (queries * LINE + (group * R + rows % R) * D)[:, None]
    q = _rotated(
        q_heads, rotary_ptr, tl.minimum(first + queries, capacity - 1)[:, None], capacity, columns[None, :],
        inside[:, None], D,
    )  # fmt: skip

    peak = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    sums = tl.zeros((BLOCK_ROWS, D), tl.float32)
    keys_ptr = cache_ptr + group.to(tl.int64) * capacity * D
    values_ptr = keys_ptr + tl.cast(G, tl.int64) * capacity * D
    for start in range(begin, tl.minimum(end, first), BLOCK_P):
        positions = start + tl.arange(0, BLOCK_P)
        present = positions < tl.minimum(end, first)
        k = tl.load(keys_ptr + positions[None, :] * D + columns[:, None], mask=present[None, :], other=0.0)
        v = tl.load(values_ptr + positions[:, None] * D + columns[None, :], mask=present[:, None], other=0.0)
        visible = present[None, :] & (positions[None, :] < visible_end[:, None])
        peak, total, sums = _attend_block(q, k, v, visible, scale, peak, total, sums, PRECISION)
    # The new tokens' own keys and values are not in the cache yet; one tile of each group puts them there.
    for start in range(tl.maximum(begin, first), end, BLOCK_P):
        positions = start + tl.arange(0, BLOCK_P)
        present = positions < end
        lines = qkv_ptr + (positions - first) * LINE + (H + group) * D
        k = _rotated(lines[None, :], rotary_ptr, positions[None, :], capacity, columns[:, None], present[None, :], D)
        v = tl.load(lines[:, None] + G * D + columns[None, :], mask=present[:, None], other=0.0)
        if tile == 0:
            tl.store(keys_ptr + positions[None, :] * D + columns[:, None], k, mask=present[None, :])
            tl.store(values_ptr + positions[:, None] * D + columns[None, :], v, mask=present[:, None])
        visible = present[None, :] & (positions[None, :] < visible_end[:, None])
        peak, total, sums = _attend_block(q, k, v, visible, scale, peak, total, sums, PRECISION)
    place = split * num_queries * H + queries * H + group * R + rows % R
    tl.store(sums_ptr + place[:, None] * D + columns[None, :], sums, mask=inside[:, None])
    tl.store(peaks_ptr + place, peak, mask=inside)
    tl.store(peaks_ptr + SPLITS * num_queries * H + place, total, mask=inside)


@triton.jit
def _rotated(
    heads: tl.tensor, rotary_ptr: tl.tensor, positions: tl.tensor, capacity: tl.tensor, columns: tl.tensor,
    mask: tl.tensor, D: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The heads that begin at the pointers `heads`, each rotated to its position; `columns` run along the other axis."""
    half: tl.constexpr = D // 2
    own = tl.load(heads + columns, mask=mask, other=0.0)
    other = tl.load(heads + (columns + half) % D, mask=mask, other=0.0).to(tl.float32)
    angles = rotary_ptr + positions * half + columns % half
    cos = tl.load(angles, mask=mask, other=0.0)
    sin = tl.load(angles + capacity * half, mask=mask, other=0.0)
    return (own.to(tl.float32) * cos + tl.where(columns < half, -other, other) * sin).to(own.dtype)


@triton.jit
def _attend_block(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, visible: tl.tensor, scale: tl.tensor,
    peak: tl.tensor, total: tl.tensor, sums: tl.tensor, PRECISION: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """One step of the running softmax: the rows' peaks, totals and weighted sums after another block of keys."""
    scores = tl.where(visible, tl.dot(q, k, input_precision=PRECISION) * scale, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(scores, axis=1))
    # A row that sees nothing yet has a peak of minus infinity, which must not be subtracted from itself.
    base = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    weights = tl.exp2(scores - base[:, None])
    shrink = tl.exp2(peak - base)
    total = total * shrink + tl.sum(weights, axis=1)
    sums = tl.dot(weights.to(v.dtype), v, sums * shrink[:, None], input_precision=PRECISION)
    return new_peak, total, sums


@triton.jit
def _merge_kernel(
    sums_ptr: tl.tensor,
    peaks_ptr: tl.tensor,
    out_ptr: tl.tensor,
    state_ptr: tl.tensor,
    SPLITS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_P: tl.constexpr,
    EARLY: tl.constexpr,
) -> None:
    begin_early(EARLY)
    head, num_heads = tl.program_id(0), tl.num_programs(0)
    live = (tl.load(state_ptr) + tl.load(state_ptr + 1)).to(tl.int32)
    share = tl.cdiv(tl.cdiv(live, SPLITS), BLOCK_P) * BLOCK_P
    splits, columns = tl.arange(0, SPLITS), tl.arange(0, D)
    used = splits * share < live
    places = splits * num_heads + head
    peaks = tl.load(peaks_ptr + places, mask=used, other=float("-inf"))
    weights = tl.exp2(peaks - tl.max(peaks, axis=0))
    totals = tl.load(peaks_ptr + SPLITS * num_heads + places, mask=used, other=0.0)
    sums = tl.load(sums_ptr + places[:, None] * D + columns[None, :], mask=used[:, None], other=0.0)
    merged = tl.sum(sums * weights[:, None], axis=0) / tl.sum(weights * totals, axis=0)
    tl.store(out_ptr + head * D + columns, merged.to(out_ptr.dtype.element_ty))


@triton.jit
def _best_kernel(
    logits_ptr: tl.tensor,
    found_ptr: tl.tensor,
    state_ptr: tl.tensor,
    vocab_size: tl.tensor,
    CHUNK: tl.constexpr,
    EARLY: tl.constexpr,
) -> None:
    begin_early(EARLY)
    row, chunk = tl.program_id(0), tl.program_id(1)
    never = tl.load(state_ptr + 3).to(tl.int32)
    tokens = chunk * CHUNK + tl.arange(0, CHUNK)
    allowed = (tokens < vocab_size) & (tokens != never)
    logits = tl.load(logits_ptr + row.to(tl.int64) * vocab_size + tokens, mask=allowed, other=float("-inf"))
    logits = logits.to(tl.float32)
    best = tl.max(logits, axis=0)
    token = tl.min(tl.where(logits == best, tokens, vocab_size), axis=0)
    base = tl.where(best == float("-inf"), 0.0, best)
    place = row * tl.num_programs(1) + chunk
    num_places = tl.num_programs(0) * tl.num_programs(1)
    tl.store(found_ptr + place, best)
    tl.store(found_ptr + num_places + place, tl.sum(tl.exp(logits - base), axis=0))
    tl.store(found_ptr + 2 * num_places + place, token.to(tl.float32))  # exact: vocabularies are below 2**24


@triton.jit
def _best_of_best_kernel(
    found_ptr: tl.tensor, packed_ptr: tl.tensor, num_chunks: tl.tensor, CHUNKS: tl.constexpr, EARLY: tl.constexpr
) -> None:
    begin_early(EARLY)
    row = tl.program_id(0)
    chunks = tl.arange(0, CHUNKS)
    inside = chunks < num_chunks
    num_places = tl.num_programs(0) * num_chunks
    place = found_ptr + row * num_chunks + chunks
    best = tl.load(place, mask=inside, other=float("-inf"))
    totals = tl.load(place + num_places, mask=inside, other=0.0)
    tokens = tl.load(place + 2 * num_places, mask=inside, other=float("inf"))
    top = tl.max(best, axis=0)
    token = tl.min(tl.where(best == top, tokens, float("inf")), axis=0)
    total = tl.sum(totals * tl.exp(best - top), axis=0)
    tl.store(packed_ptr + row * 2, token.to(tl.float64))
    tl.store(packed_ptr + row * 2 + 1, 1.0 / total.to(tl.float64))
