"""Tiles: what products of few rows share: how a tile of weights meets the rows, how its splits are merged, and how a
kernel of them is launched. Which products there are, and what is fused to them, `products.py` and `scaled.py` say.

Shape suffixes: K inner size, M tokens.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from specdec.models.graph.plans import Plan, measured_plan, plan_int8, plan_product

MAX_TILES = 8192  # of a split product: with tiles of 16, outer sizes up to 131,072


class Launcher:
    """Launches of one stream's products: it counts their splits.

    Attributes:
        plans: overrides the usual plans for some (kind, rows, outer, inner).
    """

    def __init__(self, overlap: dict[str, bool]) -> None:
        """`overlap`: `launch_options`."""
        self._overlap = overlap
        self._arrived: torch.Tensor | None = None
        self.plans: dict[tuple[str, int, int, int], Plan] = {}

    def plan(self, kind: str, x_MK: torch.Tensor, outer: int, is_scaled: bool) -> Plan:
        """How a product is cut; `is_scaled`: of weights in 8 bits."""
        (num_rows, inner), size = x_MK.shape, x_MK.element_size()
        if own := self.known(kind, x_MK, outer, is_scaled):
            return own
        return plan_int8(kind, num_rows, outer, inner, size) if is_scaled else plan_product(outer, inner, kind, size)

    def known(self, kind: str, x_MK: torch.Tensor, outer: int, is_scaled: bool) -> Plan | None:
        """The plan that overrides the usual one, or was measured; None: there is none."""
        num_rows, inner = x_MK.shape
        if own := self.plans.get((kind, num_rows, outer, inner)):
            return own
        measured = None if is_scaled else measured_plan(kind, num_rows, outer, inner, x_MK.element_size())
        return None if measured is not None and measured.block_m and not has_copy_engine(x_MK.device) else measured

    def options(self, plan: Plan, x_MK: torch.Tensor, rows: int) -> dict[str, object]:
        """What every such kernel takes by name; `rows`: of a tile."""
        return {"IS_PADDED": len(x_MK) % rows > 0, **self.cut(plan, x_MK, rows)}

    def cut(self, plan: Plan, x_MK: torch.Tensor, rows: int) -> dict[str, object]:
        """The same of kernels that need not know which rows are padding."""
        return {
            "BLOCK_M": rows,
            "BLOCK_N": plan.block_n,
            "BLOCK_K": plan.block_k,
            "PRECISION": "ieee" if x_MK.dtype == torch.float32 else "tf32",
            "num_warps": plan.num_warps,
            "num_stages": plan.num_stages,
            **self._overlap,
        }

    def workspace(self, plan: Plan, tiles: int, x_MK: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where splits leave their parts, and per tile of `rows` rows, how many have: zero between launches.

        Recorded graphs hold the counters' address.
        """
        if self._arrived is None:
            self._arrived = torch.zeros(MAX_TILES, dtype=torch.int32, device=x_MK.device)
        size = plan.splits * tiles * plan.block_n * rows if plan.splits > 1 else 0
        return x_MK.new_empty(size, dtype=torch.float32), self._arrived


def has_copy_engine(device: torch.device) -> bool:
    """Whether the kernels of `products_many.py` run there: on Hopper, and in Triton's interpreter."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] == 9


@triton.jit
def multiply(
    w_lines: tl.tensor, x_ptr: tl.tensor, is_row: tl.tensor, inner: tl.tensor, SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, IS_PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """This split's part of a tile [BLOCK_N, BLOCK_M]: lines of weights, by their addresses, times the rows of x. Scales
    of weights in 8 bits are for the caller."""
    share = tl.cdiv(tl.cdiv(inner, SPLITS), BLOCK_K) * BLOCK_K
    begin = tl.program_id(1) * share
    end = tl.minimum(begin + share, inner)
    if w_lines.dtype.element_ty == tl.int8:
        sums = _rows_by_int8(w_lines, x_ptr, is_row, inner, begin, end, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION)
    else:
        sums = _by_rows(w_lines, x_ptr, is_row, inner, begin, end, BLOCK_M, BLOCK_N, BLOCK_K, IS_PADDED, PRECISION)
    return sums


@triton.jit
def _by_rows(
    w_lines: tl.tensor, x_ptr: tl.tensor, is_row: tl.tensor, inner: tl.tensor, begin: tl.tensor, end: tl.tensor,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, IS_PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    x_lines = x_ptr + tl.arange(0, BLOCK_M)[None, :] * inner
    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for at in range(begin, end, BLOCK_K):
        ks = at + tl.arange(0, BLOCK_K)
        if IS_PADDED:
            # Not read: a real row in its place would be asked for by all programs at once, many times over.
            x = tl.load(x_lines + ks[:, None], mask=is_row[None, :], other=0.0)
        else:
            x = tl.load(x_lines + ks[:, None])
        sums = tl.dot(tl.load(w_lines[:, None] + ks[None, :]), x, sums, input_precision=PRECISION)
    return sums


@triton.jit
def _rows_by_int8(
    w_lines: tl.tensor, x_ptr: tl.tensor, is_row: tl.tensor, inner: tl.tensor, begin: tl.tensor, end: tl.tensor,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The same by whole numbers of 8 bits, which become what x has. They are the right factor: as the left one Triton
    (3.6) fetches them 4 bytes at a time, and takes them from shared memory 2 at a time."""
    x_lines = x_ptr + tl.arange(0, BLOCK_M)[:, None] * inner
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for at in range(begin, end, BLOCK_K):
        ks = at + tl.arange(0, BLOCK_K)
        x = tl.load(x_lines + ks[None, :], mask=is_row[:, None], other=0.0)
        w = tl.load(w_lines[None, :] + ks[:, None]).to(x.dtype)
        sums = tl.dot(x, w, sums, input_precision=PRECISION)
    return tl.trans(sums)


@triton.jit
def merge_splits(
    sums: tl.tensor, parts_ptr: tl.tensor, arrived_ptr: tl.tensor, SPLITS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """The tile's sums over all splits, and whether this is its last program: to the others they mean nothing."""
    is_last = True
    if SPLITS > 1:
        N: tl.constexpr = sums.shape[0]
        M: tl.constexpr = sums.shape[1]
        tile = tl.program_id(0)
        parts = parts_ptr + ((tile * N + tl.arange(0, N))[:, None] * M + tl.arange(0, M)[None, :])
        stride, arrived = tl.num_programs(0) * N * M, arrived_ptr + tile
        tl.store(parts + tl.program_id(1) * stride, sums)
        is_last = arrive(arrived, SPLITS)
        if is_last:
            sums = sum_of_parts(parts, stride, SPLITS)
    return sums, is_last


@triton.jit
def arrive(arrived: tl.tensor, SPLITS: tl.constexpr) -> tl.tensor:
    """After a program has left its part: whether it is the tile's last, which finds those of all."""
    tl.debug_barrier()
    is_last = tl.atomic_add(arrived, 1, sem="acq_rel") == SPLITS - 1
    if is_last:
        tl.debug_barrier()
        tl.store(arrived, 0)
    return is_last


@triton.jit
def sum_of_parts(parts: tl.tensor, stride: tl.tensor, SPLITS: tl.constexpr) -> tl.tensor:
    """All added up in the same order, whoever is last."""
    sums = tl.zeros(parts.shape, tl.float32)
    for split in tl.static_range(SPLITS):
        sums += tl.load(parts + split * stride, cache_modifier=".cg")
    return sums
