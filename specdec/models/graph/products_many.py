"""Matrix products for passes of many rows, as Triton kernels: those of `products.py` with rows cut in tiles too.

With many rows tensor cores have as much to do as the memory. So tiles are large, up to 192 lines of weights against
256 rows: what a tile reads of either side counts for all of the other. Rows come by the copy engine, which needs no
registers for addresses and reads nothing for rows that are not there; sums take nearly all registers. Used only where
a plan was measured (`plans.py`, `Plan.block_m`), from Hopper on.

Shape suffixes: C hidden size, D head size, K inner size, M tokens, N outer size, T tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from specdec.models.graph.epilogues import add_and_store, angles_of, gate_and_store, norm_head, rotate_and_store
from specdec.models.graph.network import Place, Stream
from specdec.models.graph.overlap import admit_next, wait_for_previous
from specdec.models.graph.plans import Plan
from specdec.models.graph.row_tiles import (
    add_step,
    leave_sums,
    lines_of_pairs,
    no_sums,
    pair_lines,
    piece_of,
    piece_of_all,
    place_of,
    row_scales,
    rows_of_piece,
    share_of_split,
    sides_of_pairs,
)
from specdec.models.graph.tiles import Launcher

MOST_VALUES = 128  # registers of a thread, for what the end of a tile looks at at a time beside its sums


@dataclass(frozen=True)
class ManyRows:
    """The products of one stream by plans with a `block_m`; see `network.Products`."""

    launcher: Launcher

    def queries(
        self, plan: Plan, stream: Stream, w_NC: torch.Tensor, bias_N: torch.Tensor | None, place: Place
    ) -> torch.Tensor:
        """A tile of weights is one head: norms, angles and biases of chains and trees are part of it."""
        (weighted_MC, squares_TM), (_, num_kv_heads, capacity, head_size) = stream.weighted(), place.cache_2GPD.shape
        num_heads = len(w_NC) // head_size - 2 * num_kv_heads
        q_MHD = weighted_MC.new_empty(len(weighted_MC), num_heads, head_size)
        unused = stream.norm_C  # where there is nothing to be looked at
        _heads_kernel[self._grid(plan, weighted_MC, len(w_NC))](
            *(*_by_rows(weighted_MC, plan), squares_TM, w_NC, unused if bias_N is None else bias_N, q_MHD),
            *(place.rotary_2PE, place.cache_2GPD, place.state),
            unused if place.norms_2D is None else place.norms_2D,
            place.state if place.tree is None else place.tree.depths_M,
            *self._workspace(plan, weighted_MC, len(w_NC)),
            *(*weighted_MC.shape, len(squares_TM), stream.eps, capacity, num_heads, num_kv_heads, head_size),
            *(bias_N is not None, place.norms_2D is not None, place.tree is not None),
            *(_room_for(squares_TM), plan.splits),
            **self._options(plan, weighted_MC),
        )
        return q_MHD

    def gated(self, plan: Plan, stream: Stream, w_2IC: torch.Tensor) -> torch.Tensor:
        (weighted_MC, squares_TM), (wide, narrow) = stream.weighted(), _powers(plan.block_n)
        out_MI = weighted_MC.new_empty(len(weighted_MC), len(w_2IC) // 2)
        _gated_kernel[self._grid(plan, weighted_MC, len(w_2IC))](
            *(*_by_rows(weighted_MC, plan), squares_TM, w_2IC, out_MI, *weighted_MC.shape),
            *(len(w_2IC) // 2, len(squares_TM), stream.eps, _room_for(squares_TM)),
            *(wide, narrow),
            **self._options(plan, weighted_MC),
        )
        return out_MI

    def add(
        self,
        plan: Plan,
        stream: Stream,
        y_MI: torch.Tensor,
        w_CI: torch.Tensor,
        next_norm_C: torch.Tensor,
        tap_MC: torch.Tensor | None,
    ) -> None:
        hidden_MC, (outer, inner) = stream.hidden_MC, w_CI.shape
        tap = (hidden_MC, 0) if tap_MC is None else (tap_MC, tap_MC.stride(0))  # without one nobody looks
        if stream.weighted_MC is None:
            stream.weighted_MC = torch.empty_like(hidden_MC)
        tiles = triton.cdiv(outer, plan.block_n)
        stream.squares_TM = hidden_MC.new_empty(tiles, len(hidden_MC), dtype=torch.float32)
        stream.norm_C = next_norm_C
        lines = TensorDescriptor.from_tensor(w_CI, [plan.block_n, plan.block_k]) if plan.copies_weights else w_CI
        _add_kernel[self._grid(plan, y_MI, outer)](
            *(*_by_rows(y_MI, plan), lines, next_norm_C, hidden_MC, stream.weighted_MC, stream.squares_TM),
            *(*self._workspace(plan, y_MI, outer), len(y_MI), outer, inner, *tap, tap_MC is not None),
            *(plan.copies_weights, plan.splits),
            **self._options(plan, y_MI),
        )

    def _grid(self, plan: Plan, x_MK: torch.Tensor, outer: int) -> tuple[int, int]:
        return triton.cdiv(outer, plan.block_n) * triton.cdiv(len(x_MK), plan.block_m), plan.splits

    def _workspace(self, plan: Plan, x_MK: torch.Tensor, outer: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.launcher.workspace(plan, self._grid(plan, x_MK, outer)[0], x_MK, plan.block_m)

    def _options(self, plan: Plan, x_MK: torch.Tensor) -> dict[str, object]:
        rows, rest = _powers(plan.block_m)
        return {"REST": rest, "PARTS": _parts_of(plan), **self.launcher.cut(plan, x_MK, rows)}


def _powers(size: int) -> tuple[int, int]:
    """The largest power of two up to a tile's size, and what is left: Triton's tiles are powers of two, so that one of
    192 lines is two of them in the same loop, and one of 144 rows as well."""
    most = 1 << (size.bit_length() - 1)
    return most, size - most


def _by_rows(x_MK: torch.Tensor, plan: Plan) -> tuple[TensorDescriptor, TensorDescriptor]:
    """By which the copy engine reads a tile's rows, and what is left of them; after the last row it finds zeros."""
    rows, rest = _powers(plan.block_m)
    tiles = (TensorDescriptor.from_tensor(x_MK, [size, plan.block_k]) for size in (rows, rest or rows))
    return next(tiles), next(tiles)


def _parts_of(plan: Plan) -> int:
    """In how many parts the end of a tile is made, a power of two: a sum and what it is added to, or those of all
    splits, take a register each. Fewer wait less."""
    values = plan.block_n * _powers(plan.block_m)[0] * max(2, plan.splits) // (32 * plan.num_warps)
    return min(plan.block_m // 16, triton.next_power_of_2(triton.cdiv(values, MOST_VALUES)))


def _room_for(squares_TM: torch.Tensor) -> int:
    """Of tiles: the same for whoever added before, so that one kernel serves all layers."""
    return max(64, triton.next_power_of_2(len(squares_TM)))


@triton.jit(do_not_specialize=["num_squares"])
def _heads_kernel(
    x_desc: tl.tensor, rest_desc: tl.tensor, squares_ptr: tl.tensor, w_ptr: tl.tensor, bias_ptr: tl.tensor,
    q_ptr: tl.tensor, rotary_ptr: tl.tensor, cache_ptr: tl.tensor, state_ptr: tl.tensor, norms_ptr: tl.tensor,
    depths_ptr: tl.tensor, parts_ptr: tl.tensor, arrived_ptr: tl.tensor,
    num_rows: tl.tensor, inner: tl.tensor, num_squares: tl.tensor, eps: tl.tensor, capacity: tl.tensor,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr,
    BIASED: tl.constexpr, NORMED: tl.constexpr, IS_TREE: tl.constexpr, SQUARES: tl.constexpr, SPLITS: tl.constexpr,
    REST: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    head, row_begin = place_of(num_rows, BLOCK_M + REST)
    half: tl.constexpr = D // 2
    pair, side = lines_of_pairs(D)
    columns = head * D + side * half + pair
    w_lines = w_ptr + columns.to(tl.int64) * inner
    PIECES: tl.constexpr = PARTS + (1 if REST else 0)
    begin, end = share_of_split(inner, SPLITS, BLOCK_K)
    sums = no_sums(D, BLOCK_M, REST)
    wait_for_previous(OVERLAPS)
    for at in range(begin, end, BLOCK_K):
        w = tl.load(w_lines[:, None] + (at + tl.arange(0, BLOCK_K))[None, :])
        x = x_desc.load([row_begin, at]).T
        sums = add_step(sums, w, x, rest_desc, row_begin + BLOCK_M, at, REST, PRECISION)
    admit_next(OVERLAPS)
    is_last = True
    if SPLITS > 1:
        is_last = leave_sums(sums, parts_ptr, arrived_ptr, SPLITS, PIECES, PARTS, D, BLOCK_M, REST)
    if is_last:
        scales = row_scales(squares_ptr, row_begin, num_rows, num_squares, inner, eps, SQUARES, BLOCK_M, REST)
        for piece in tl.static_range(PIECES):
            rows = row_begin + rows_of_piece(piece, PARTS, BLOCK_M, REST)
            values = piece_of_all(sums, parts_ptr, piece, SPLITS, PARTS, D, BLOCK_M, REST)
            values *= piece_of(scales, piece, PARTS, 1, BLOCK_M)
            if BIASED:
                values += tl.load(bias_ptr + columns).to(tl.float32)[:, None]
            left, right = sides_of_pairs(values, D, rows.shape[0])
            if NORMED:
                left, right = norm_head(left, right, norms_ptr, head, eps, H, G, D)
            first, num_tokens = tl.load(state_ptr).to(tl.int32), tl.load(state_ptr + 1).to(tl.int32)
            after = tl.load(depths_ptr + rows, mask=rows < num_rows, other=0).to(tl.int32) if IS_TREE else rows
            pairs = head * half + tl.arange(0, half)
            cos, sin = angles_of(rotary_ptr, tl.arange(0, half), first + after, capacity, half)
            rotate_and_store(
                left, right, cos, sin, pairs, rows, num_rows, first, num_tokens, q_ptr, cache_ptr, capacity, H, G, D
            )


@triton.jit(do_not_specialize=["num_squares"])
def _gated_kernel(
    x_desc: tl.tensor, rest_desc: tl.tensor, squares_ptr: tl.tensor, w_ptr: tl.tensor, out_ptr: tl.tensor,
    num_rows: tl.tensor, inner: tl.tensor, num_pairs: tl.tensor, num_squares: tl.tensor, eps: tl.tensor,
    SQUARES: tl.constexpr, WIDE: tl.constexpr, NARROW: tl.constexpr,
    REST: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    """Of a tile's lines WIDE and NARROW, of its rows BLOCK_M and REST (`_powers`): up to four tiles in one loop."""
    tile, row_begin = place_of(num_rows, BLOCK_M + REST)
    first_pair, later_pair = tile * (BLOCK_N // 2), tile * (BLOCK_N // 2) + WIDE // 2
    lines, wide = pair_lines(first_pair, num_pairs, inner, WIDE), no_sums(WIDE, BLOCK_M, REST)
    if NARROW:
        narrow_lines, narrow = pair_lines(later_pair, num_pairs, inner, NARROW), no_sums(NARROW, BLOCK_M, REST)
    wait_for_previous(OVERLAPS)
    for at in range(0, inner, BLOCK_K):
        ks = tl.arange(0, BLOCK_K)[None, :]
        x, w = x_desc.load([row_begin, at]).T, tl.load(w_ptr + at + (lines[:, None] + ks))
        wide = add_step(wide, w, x, rest_desc, row_begin + BLOCK_M, at, REST, PRECISION)
        if NARROW:
            w = tl.load(w_ptr + at + (narrow_lines[:, None] + ks))
            narrow = add_step(narrow, w, x, rest_desc, row_begin + BLOCK_M, at, REST, PRECISION)
    admit_next(OVERLAPS)
    scales = row_scales(squares_ptr, row_begin, num_rows, num_squares, inner, eps, SQUARES, BLOCK_M, REST)
    PIECES: tl.constexpr = PARTS + (1 if REST else 0)
    for piece in tl.static_range(PIECES):
        rows = row_begin + rows_of_piece(piece, PARTS, BLOCK_M, REST)
        scale = piece_of(scales, piece, PARTS, 1, BLOCK_M)
        values = piece_of(wide, piece, PARTS, WIDE, BLOCK_M) * scale
        _gate(values, first_pair, out_ptr, num_pairs, rows, num_rows, WIDE)
        if NARROW:
            values = piece_of(narrow, piece, PARTS, NARROW, BLOCK_M) * scale
            _gate(values, later_pair, out_ptr, num_pairs, rows, num_rows, NARROW)


@triton.jit
def _gate(
    sums: tl.tensor, first_pair: tl.tensor, out_ptr: tl.tensor, num_pairs: tl.tensor, rows: tl.tensor,
    num_rows: tl.tensor, N: tl.constexpr,
) -> None:  # fmt: skip
    gate, up = sides_of_pairs(sums, N, rows.shape[0])
    gate_and_store(gate, up, out_ptr, first_pair + tl.arange(0, N // 2), num_pairs, rows, rows < num_rows)


@triton.jit
def _add_kernel(
    x_desc: tl.tensor, rest_desc: tl.tensor, w: tl.tensor, norm_ptr: tl.tensor, hidden_ptr: tl.tensor,
    weighted_ptr: tl.tensor, squares_ptr: tl.tensor, parts_ptr: tl.tensor, arrived_ptr: tl.tensor,
    num_rows: tl.tensor, outer: tl.tensor, inner: tl.tensor, tap_ptr: tl.tensor, tap_stride: tl.tensor,
    IS_TAPPED: tl.constexpr, COPIES: tl.constexpr, SPLITS: tl.constexpr,
    REST: tl.constexpr, PARTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    tile, row_begin = place_of(num_rows, BLOCK_M + REST)
    columns = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    if not COPIES:
        w_lines = w + tl.minimum(columns, outer - 1).to(tl.int64) * inner
    PIECES: tl.constexpr = PARTS + (1 if REST else 0)
    begin, end = share_of_split(inner, SPLITS, BLOCK_K)
    sums = no_sums(BLOCK_N, BLOCK_M, REST)
    wait_for_previous(OVERLAPS)
    for at in range(begin, end, BLOCK_K):
        if COPIES:
            lines = w.load([tile * BLOCK_N, at])
        else:
            lines = tl.load(w_lines[:, None] + (at + tl.arange(0, BLOCK_K))[None, :])
        x = x_desc.load([row_begin, at]).T
        sums = add_step(sums, lines, x, rest_desc, row_begin + BLOCK_M, at, REST, PRECISION)
    admit_next(OVERLAPS)
    is_last = True
    if SPLITS > 1:
        is_last = leave_sums(sums, parts_ptr, arrived_ptr, SPLITS, PIECES, PARTS, BLOCK_N, BLOCK_M, REST)
    if is_last:
        is_column = columns < outer
        norm = tl.load(norm_ptr + columns, mask=is_column, other=0.0).to(tl.float32)[:, None]
        for piece in tl.static_range(PIECES):
            rows = row_begin + rows_of_piece(piece, PARTS, BLOCK_M, REST)
            is_row, place = rows < num_rows, rows[None, :] * outer + columns[:, None]
            is_out = is_row[None, :] & is_column[:, None]
            before = tl.load(hidden_ptr + place, mask=is_out, other=0.0)
            add_and_store(
                piece_of_all(sums, parts_ptr, piece, SPLITS, PARTS, BLOCK_N, BLOCK_M, REST), before, norm,
                hidden_ptr, weighted_ptr, squares_ptr + tile * num_rows + rows,
                tap_ptr + rows[None, :] * tap_stride + columns[:, None], place, is_out, is_row, IS_TAPPED,
            )  # fmt: skip
