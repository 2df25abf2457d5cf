"""What fused products end with: a tile of sums becomes values of the gate, of queries and the cache, or of the hidden
states. Used by the kernels of few rows (`products.py`) and of many (`products_many.py`).

Tiles are [columns, rows]: pairs of columns, or columns, of the rows of a pass.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gate_and_store(
    gate: tl.tensor, up: tl.tensor, out_ptr: tl.tensor, pairs: tl.tensor, num_pairs: tl.tensor,
    rows: tl.tensor, is_row: tl.tensor,
) -> None:  # fmt: skip
    out = gate * tl.sigmoid(gate) * up
    is_out = (pairs < num_pairs)[:, None] & is_row[None, :]
    tl.store(out_ptr + rows[None, :] * num_pairs + pairs[:, None], out.to(out_ptr.dtype.element_ty), mask=is_out)


@triton.jit
def norm_head(
    left: tl.tensor, right: tl.tensor, norms_ptr: tl.tensor, head: tl.tensor, eps: tl.tensor,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """A whole head, normed if it is one of the queries or keys."""
    half: tl.constexpr = D // 2
    norm_ptrs = norms_ptr + tl.where(head < H, 0, D) + tl.arange(0, half)
    norm_left, norm_right = tl.load(norm_ptrs).to(tl.float32), tl.load(norm_ptrs + half).to(tl.float32)
    scale = tl.rsqrt((tl.sum(left * left, axis=0) + tl.sum(right * right, axis=0)) / D + eps)[None, :]
    is_normed = head < H + G
    new_left = tl.where(is_normed, left * scale * norm_left[:, None], left)
    return new_left, tl.where(is_normed, right * scale * norm_right[:, None], right)


@triton.jit
def angles_of(
    rotary_ptr: tl.tensor, columns: tl.tensor, positions: tl.tensor, capacity: tl.tensor, HALF: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """cos and sin for columns of a head's first half, [columns, positions]."""
    places = tl.minimum(positions, capacity - 1)[None, :] * HALF + columns[:, None]
    return tl.load(rotary_ptr + places), tl.load(rotary_ptr + capacity * HALF + places)


@triton.jit
def rotate_and_store(
    left: tl.tensor, right: tl.tensor, cos: tl.tensor, sin: tl.tensor, pairs: tl.tensor, rows: tl.tensor,
    num_rows: tl.tensor, first: tl.tensor, num_tokens: tl.tensor,
    q_ptr: tl.tensor, cache_ptr: tl.tensor, capacity: tl.tensor,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr,
) -> None:  # fmt: skip
    """As kernels.py's kernel does, for pairs (i, i + D / 2) of all heads at once."""
    half: tl.constexpr = D // 2
    heads, columns = pairs // half, pairs % half
    is_turned = (heads < H + G)[:, None]
    dtype = q_ptr.dtype.element_ty
    new_left = tl.where(is_turned, left * cos - right * sin, left).to(dtype)
    new_right = tl.where(is_turned, right * cos + left * sin, right).to(dtype)
    is_query = (heads < H)[:, None] & (rows < num_rows)[None, :]
    query = q_ptr + (rows * H * D)[None, :] + (heads * D + columns)[:, None]
    tl.store(query, new_left, mask=is_query)
    tl.store(query + half, new_right, mask=is_query)
    # After the query heads come the key heads, then the value heads, as in the cache.
    is_stored = ((heads >= H) & (heads < H + 2 * G))[:, None] & (rows < num_tokens)[None, :]
    line = (heads - H).to(tl.int64)[:, None] * capacity + (first + rows)[None, :]
    stored = cache_ptr + line * D + columns[:, None]
    tl.store(stored, new_left, mask=is_stored)
    tl.store(stored + half, new_right, mask=is_stored)


@triton.jit
def add_and_store(
    sums: tl.tensor, before: tl.tensor, norm: tl.tensor, hidden_ptr: tl.tensor, weighted_ptr: tl.tensor,
    squares: tl.tensor, tap: tl.tensor, place: tl.tensor, is_out: tl.tensor, is_row: tl.tensor, IS_TAPPED: tl.constexpr,
) -> None:  # fmt: skip
    """Hidden states, those times the next norm's weights, and the rows' sums of squares over the tile's columns."""
    after = (before.to(tl.float32) + sums).to(before.dtype)
    tl.store(hidden_ptr + place, after, mask=is_out)
    if IS_TAPPED:
        tl.store(tap, after, mask=is_out)
    wide = tl.where(is_out, after.to(tl.float32), 0.0)
    tl.store(weighted_ptr + place, (wide * norm).to(before.dtype), mask=is_out)
    tl.store(squares, tl.sum(wide * wide, axis=0), mask=is_row)
