"""Products with weights in 8 bits, as one Triton kernel: for passes of many rows and wherever nothing is fused to a
product, in place of the matrix library, which would want the weights in full. Those of few rows are in `products.py`.

Shape suffixes: K inner size, M tokens, N outer size.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from specdec.models.graph.overlap import admit_next, wait_for_previous
from specdec.models.graph.plans import tile_rows
from specdec.models.graph.tiles import Launcher, merge_splits, multiply
from specdec.models.int8 import Int8Matrix

MOST_ROWS = {2: 128, 4: 32}  # of a tile, by bytes of a value: sums of larger ones in float32 find no registers


def scaled_product(
    launcher: Launcher, x_MK: torch.Tensor, w: Int8Matrix, bias_N: torch.Tensor | None = None
) -> torch.Tensor:
    """See `Int8Matrix.product`: one program per tile of outputs, and for few rows per split of its inputs."""
    (num_rows, inner), outer = x_MK.shape, len(w)
    plan, rows = launcher.plan("scaled", x_MK, outer, True), min(MOST_ROWS[x_MK.element_size()], tile_rows(num_rows))
    row_tiles = triton.cdiv(num_rows, rows)
    tiles = triton.cdiv(outer, plan.block_n) * row_tiles
    out_MN = x_MK.new_empty(num_rows, outer)
    _scaled_kernel[(tiles, plan.splits)](
        *(x_MK, w.values_NK, w.scale_N, w.scale_N if bias_N is None else bias_N, out_MN),
        *(
            *launcher.workspace(plan, tiles, x_MK, rows),
            num_rows,
            outer,
            inner,
            row_tiles,
            bias_N is not None,
            plan.splits,
        ),
        **launcher.options(plan, x_MK, rows),
    )
    return out_MN


@triton.jit
def _scaled_kernel(
    x_ptr: tl.tensor, w_ptr: tl.tensor, scale_ptr: tl.tensor, bias_ptr: tl.tensor, out_ptr: tl.tensor,
    parts_ptr: tl.tensor, arrived_ptr: tl.tensor,
    num_rows: tl.tensor, outer: tl.tensor, inner: tl.tensor, row_tiles: tl.tensor,
    BIASED: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, IS_PADDED: tl.constexpr,
    PRECISION: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    # Programs side by side share a tile of weights, which is then read once.
    tile, first = tl.program_id(0) // row_tiles, tl.program_id(0) % row_tiles * BLOCK_M
    rows, columns = first + tl.arange(0, BLOCK_M), tile * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row, is_column = rows < num_rows, columns < outer
    lines = tl.minimum(columns, outer - 1)
    scale = tl.load(scale_ptr + lines)
    if BIASED:
        bias = tl.load(bias_ptr + lines).to(tl.float32)
    w_lines = w_ptr + lines.to(tl.int64) * inner
    wait_for_previous(OVERLAPS)
    sums = multiply(
        w_lines, x_ptr + first * inner, is_row, inner, SPLITS, BLOCK_M, BLOCK_N, BLOCK_K, IS_PADDED, PRECISION
    )
    admit_next(OVERLAPS)
    sums, is_last = merge_splits(sums, parts_ptr, arrived_ptr, SPLITS)
    if is_last:
        sums *= scale[:, None]
        if BIASED:
            sums += bias[:, None]
        out = out_ptr + rows.to(tl.int64)[None, :] * outer + columns[:, None]
        tl.store(out, sums.to(out_ptr.dtype.element_ty), mask=is_row[None, :] & is_column[:, None])
