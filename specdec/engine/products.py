"""Matrix products for passes of few tokens, as Triton kernels: norm, gate and residual sum happen inside them.

With few tokens a product only has to read its weights once, at the speed of the memory; what counts
is that all multiprocessors read, and that nothing else is launched. Used by `network.py`.

Shape suffixes: C, K inner size, M tokens, N outer size, S splits of the inner size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from specdec.engine.kernels import begin_early

NUM_PROGRAMS = 264  # two for each multiprocessor of an H100 or H200
LINE_BYTES = 128
STEPS_AHEAD = 4  # of its weights, what a program fetches into the cache before the kernel before it has finished
MAX_TILES = 8192  # of a split product: with tiles of 32, outer sizes up to 262,144
MIN_STEPS = 3  # a split does at least so many steps, or its start would cost more than it saves


@dataclass(frozen=True)
class Plan:
    """How one product is cut: tiles of `block_n` outputs, steps of `block_k` inputs, `splits` programs per tile."""

    block_n: int
    block_k: int
    splits: int = 1
    num_warps: int = 4
    num_stages: int = 3


def plan_product(num_rows: int, outer: int, inner: int, kind: str, itemsize: int = 2) -> Plan:
    """The cut for a product of `kind` "normed", "gated" or "add" with `num_rows` tokens, values of `itemsize` bytes.

    Only "add" may be split: the others need the whole inner size for the norm.
    """
    few = num_rows <= 16
    wide, step = (_step(inner, size // (itemsize // 2)) for size in (256, 128))
    if kind == "normed":
        block_n = 16 if outer <= 16 * 2 * NUM_PROGRAMS else 32
        return Plan(block_n, wide if few else step, num_stages=4)
    if kind == "gated":
        return Plan(32, step)
    block_n = 32 if few else 64
    most = max(1, inner // (step * MIN_STEPS))
    return Plan(block_n, step, min(most, max(1, NUM_PROGRAMS // triton.cdiv(outer, block_n))), num_stages=4)


def _step(inner: int, wanted: int) -> int:
    """The largest power of two up to `wanted` that divides `inner`; 32 and a masked rest if there is no good one."""
    while wanted > 32 and inner % wanted:
        wanted //= 2
    return wanted


class FusedProducts:
    """`network.Products` by one kernel each. One instance serves one stream: it counts its splits."""

    def __init__(self, early_launch: bool = False, plans: dict[tuple[str, int, int, int], Plan] | None = None) -> None:
        """`early_launch`: see GpuOperations. `plans` overrides `plan_product` for some (kind, rows, outer, inner)."""
        self.early_launch, self.plans = early_launch, plans or {}
        self._arrived: torch.Tensor | None = None

    def normed(
        self, x_MC: torch.Tensor, norm: tuple[torch.Tensor, float], w_NC: torch.Tensor, bias_N: torch.Tensor | None
    ) -> torch.Tensor:
        out_MN = x_MC.new_empty(len(x_MC), len(w_NC))
        self._launch("normed", x_MC, norm, w_NC, out_MN, bias_N)
        return out_MN

    def gated(self, x_MC: torch.Tensor, norm: tuple[torch.Tensor, float], w_2IC: torch.Tensor) -> torch.Tensor:
        out_MI = x_MC.new_empty(len(x_MC), len(w_2IC) // 2)
        self._launch("gated", x_MC, norm, w_2IC, out_MI, None)
        return out_MI

    def add(self, x_MC: torch.Tensor, y_MI: torch.Tensor, w_CI: torch.Tensor) -> None:
        self._launch("add", y_MI, (w_CI, 0.0), w_CI, x_MC, None)

    def _launch(
        self,
        kind: str,
        x_MK: torch.Tensor,
        norm: tuple[torch.Tensor, float],
        w_NK: torch.Tensor,
        out_MN: torch.Tensor,
        bias_N: torch.Tensor | None,
    ) -> None:
        num_rows, inner, outer = len(x_MK), x_MK.shape[1], out_MN.shape[1]
        plan = self.plans.get((kind, num_rows, outer, inner)) or plan_product(
            num_rows, outer, inner, kind, x_MK.element_size()
        )
        block_m = 16 if num_rows <= 16 else triton.next_power_of_2(num_rows)
        tiles = triton.cdiv(outer, plan.block_n)
        num_parts = plan.splits if plan.splits > 1 else 0
        parts = torch.empty(num_parts * num_rows * outer, dtype=torch.float32, device=x_MK.device)
        _product_kernel[(tiles, plan.splits)](
            *(x_MK, norm[0], w_NK, w_NK if bias_N is None else bias_N, out_MN, parts, self._counters(x_MK.device)),
            *(num_rows, outer, inner, norm[1]),
            *(kind == "normed" or kind == "gated", kind == "gated", kind == "add", bias_N is not None),
            *(inner % plan.block_k == 0, outer % plan.block_n == 0, plan.splits),
            *(block_m, plan.block_n, plan.block_k),
            PRECISION="ieee" if x_MK.dtype == torch.float32 else "tf32",
            EARLY=self.early_launch,
            launch_pdl=self.early_launch,
            AHEAD=STEPS_AHEAD,
            LINE=LINE_BYTES // x_MK.element_size(),
            num_warps=plan.num_warps,
            num_stages=plan.num_stages,
        )

    def _counters(self, device: torch.device) -> torch.Tensor:
        """Per tile, how many programs have left their part; zero between launches. Recorded graphs hold its address."""
        if self._arrived is None:
            self._arrived = torch.zeros(MAX_TILES, dtype=torch.int32, device=device)
        return self._arrived


@triton.jit
def _product_kernel(
    x_ptr: tl.tensor, norm_ptr: tl.tensor, w_ptr: tl.tensor, bias_ptr: tl.tensor, out_ptr: tl.tensor,
    parts_ptr: tl.tensor, arrived_ptr: tl.tensor,
    num_rows: tl.tensor, outer: tl.tensor, inner: tl.tensor, eps: tl.tensor,
    NORMED: tl.constexpr, GATED: tl.constexpr, ADDS: tl.constexpr, BIASED: tl.constexpr,
    EVEN_K: tl.constexpr, EVEN_N: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
    EARLY: tl.constexpr, AHEAD: tl.constexpr, LINE: tl.constexpr,
) -> None:  # fmt: skip
    tile, split = tl.program_id(0), tl.program_id(1)
    rows, columns = tl.arange(0, BLOCK_M), tile * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row, is_column = rows < num_rows, (columns < outer) | EVEN_N
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    ups = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    squares = tl.zeros((BLOCK_M,), tl.float32)
    x_rows = x_ptr + rows[:, None] * inner
    w_columns = w_ptr + columns.to(tl.int64)[None, :] * inner
    up_columns = w_columns + tl.cast(outer, tl.int64) * inner
    share = tl.cdiv(tl.cdiv(inner, SPLITS), BLOCK_K) * BLOCK_K
    if EARLY and EVEN_N and EVEN_K and BLOCK_K >= LINE:
        # The weights depend on nothing: they set out for the cache while the kernel before this one still runs.
        _prefetch(w_columns, split * share, inner, AHEAD, BLOCK_K, LINE)
        if GATED:
            _prefetch(up_columns, split * share, inner, AHEAD, BLOCK_K, LINE)
    begin_early(EARLY)
    for begin in range(split * share, tl.minimum((split + 1) * share, inner), BLOCK_K):
        ks = begin + tl.arange(0, BLOCK_K)
        is_k = (ks < inner) | EVEN_K
        x = tl.load(x_rows + ks[None, :], mask=is_row[:, None] & is_k[None, :], other=0.0)
        w = tl.load(w_columns + ks[:, None], mask=is_column[None, :] & is_k[:, None], other=0.0)
        if NORMED:
            wide = x.to(tl.float32)
            squares += tl.sum(wide * wide, axis=1)
            norm = tl.load(norm_ptr + ks, mask=is_k, other=0.0).to(tl.float32)
            x = (wide * norm[None, :]).to(w.dtype)
        sums = tl.dot(x, w, sums, input_precision=PRECISION)
        if GATED:
            up = tl.load(up_columns + ks[:, None], mask=is_column[None, :] & is_k[:, None], other=0.0)
            ups = tl.dot(x, up, ups, input_precision=PRECISION)
    place, is_out = rows[:, None] * outer + columns[None, :], is_row[:, None] & is_column[None, :]
    is_last = True
    if SPLITS > 1:
        sums, is_last = _merge_splits(sums, parts_ptr + place, is_out, num_rows * outer, arrived_ptr + tile, SPLITS)
    if is_last:
        if NORMED:
            scale = tl.rsqrt(squares / inner + eps)[:, None]
            sums, ups = sums * scale, ups * scale
        if BIASED:
            sums += tl.load(bias_ptr + columns, mask=is_column, other=0.0).to(tl.float32)[None, :]
        if GATED:
            sums = sums * tl.sigmoid(sums) * ups
        if ADDS:
            sums += tl.load(out_ptr + place, mask=is_out, other=0.0).to(tl.float32)
        tl.store(out_ptr + place, sums.to(out_ptr.dtype.element_ty), mask=is_out)


@triton.jit
def _prefetch(
    w_columns: tl.tensor, begin: tl.tensor, inner: tl.tensor,
    STEPS: tl.constexpr, BLOCK_K: tl.constexpr, LINE: tl.constexpr,
) -> None:  # fmt: skip
    """Have the weights of the first steps from `begin` on brought into L2, by lines of LINE values."""
    ahead = begin + tl.arange(0, BLOCK_K // LINE) * LINE
    for step in tl.static_range(STEPS):
        addresses = w_columns + tl.minimum(ahead + step * BLOCK_K, inner - LINE)[:, None]
        tl.inline_asm_elementwise(
            "{ prefetch.global.L2 [$1]; mov.u32 $0, 0; }",
            "=r,l",
            [addresses.to(tl.uint64, bitcast=True)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def _merge_splits(
    sums: tl.tensor, parts: tl.tensor, is_out: tl.tensor, stride: tl.tensor, arrived: tl.tensor, SPLITS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """The tile's sums over all splits, and whether this is its last program: to the others they mean nothing."""
    tl.store(parts + tl.program_id(1) * stride, sums, mask=is_out)
    tl.debug_barrier()
    # The last program adds up all parts in the same order, whoever is last.
    is_last = tl.atomic_add(arrived, 1, sem="acq_rel") == SPLITS - 1
    if is_last:
        tl.debug_barrier()
        sums = tl.zeros_like(sums)
        for split in tl.static_range(SPLITS):
            sums += tl.load(parts + split * stride, mask=is_out, other=0.0, cache_modifier=".cg")
        tl.store(arrived, 0)
    return sums, is_last
