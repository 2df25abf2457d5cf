"""Matrix products for passes of few tokens, as Triton kernels: norm, gate and residual sum happen inside them.

With few tokens a product only has to read its weights once, at the speed of the memory; what counts
is that all multiprocessors read, and that nothing else is launched. So the weights are the left factor
(tensor cores take 64 of their rows against 16 to 64 tokens), and the norm is spread over its neighbours:
who adds to the hidden states also leaves them times the norm's weights, and their squares' sums; who
multiplies next divides the result by the root. Used by `network.py`.

Shape suffixes: C hidden size, K inner size, M tokens, N outer size, T tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from specdec.engine.network import Stream
from specdec.engine.weights import Weights

NUM_PROGRAMS = 132  # multiprocessors of an H100 or H200
MAX_TILES = 8192  # of a split product: with tiles of 16, outer sizes up to 131,072
MIN_STEPS = 3  # a split does at least so many steps, or its start would cost more than it saves
SMALLEST_STEP = 32  # inner sizes are multiples of it


@dataclass(frozen=True)
class Plan:
    """How one product is cut: tiles of `block_n` outputs, steps of `block_k` inputs, `splits` programs per tile."""

    block_n: int
    block_k: int
    splits: int = 1
    num_warps: int = 4
    num_stages: int = 4


def plan_product(num_rows: int, outer: int, inner: int, kind: str, itemsize: int = 2) -> Plan:
    """The cut for a product of `kind` "normed", "gated" or "add" with `num_rows` tokens, values of `itemsize` bytes.

    Measured on an H200 (`profiling.tune_engine`) for the shapes of Qwen2.5.
    """
    wide, step, short = (_step(inner, size // (itemsize // 2)) for size in (256, 128, 64))
    if kind == "normed":
        return Plan(64, step)
    if kind == "gated":
        is_big = num_rows > 16 and outer >= 128 * NUM_PROGRAMS
        return Plan(128, short, num_warps=8, num_stages=3) if is_big else Plan(64, short)
    if inner <= 2048:
        return Plan(16, wide)
    most = max(1, inner // (step * MIN_STEPS))
    return Plan(64, step, min(most, max(1, round(NUM_PROGRAMS * 64 / outer))), num_stages=6 if itemsize == 2 else 3)


def _step(inner: int, wanted: int) -> int:
    """The largest power of two up to `wanted` that divides `inner`."""
    while inner % wanted:
        wanted //= 2
    return wanted


def can_fuse(weights: Weights) -> bool:
    """Whether these kernels multiply a model's weights: in float16, hidden states times a norm could overflow."""
    layer = weights.layers[0]
    inner_sizes = [w.shape[1] for w in (layer.qkv_NC, layer.output_CHD, layer.down_CI)]
    return weights.dtype != torch.float16 and all(size % SMALLEST_STEP == 0 for size in inner_sizes)


class FusedProducts:
    """`network.Products` by one kernel each. One instance serves one stream: it counts its splits."""

    def __init__(self) -> None:
        """`plans` overrides `plan_product` for some (kind, rows, outer, inner)."""
        self.plans: dict[tuple[str, int, int, int], Plan] = {}
        self._arrived: torch.Tensor | None = None

    def begin(self, stream: Stream) -> None:
        hidden_MC = stream.hidden_MC
        stream.weighted_MC = torch.empty_like(hidden_MC)
        stream.squares_TM = hidden_MC.new_empty(1, len(hidden_MC), dtype=torch.float32)
        size = hidden_MC.shape[1]
        _begin_kernel[(len(hidden_MC),)](
            hidden_MC, stream.norm_C, stream.weighted_MC, stream.squares_TM, size, triton.next_power_of_2(size)
        )

    def normed(self, stream: Stream, w_NC: torch.Tensor, bias_N: torch.Tensor | None) -> torch.Tensor:
        return self._after_norm("normed", stream, w_NC, bias_N, len(w_NC))

    def gated(self, stream: Stream, w_2IC: torch.Tensor) -> torch.Tensor:
        return self._after_norm("gated", stream, w_2IC, None, len(w_2IC) // 2)

    def _after_norm(
        self, kind: str, stream: Stream, w_NC: torch.Tensor, bias_N: torch.Tensor | None, outer: int
    ) -> torch.Tensor:
        weighted_MC, squares_TM = stream.weighted_MC, stream.squares_TM
        (num_rows, inner), plan = weighted_MC.shape, self._plan(kind, weighted_MC, outer)
        out_MN = weighted_MC.new_empty(num_rows, outer)
        _normed_kernel[(triton.cdiv(outer, plan.block_n),)](
            *(weighted_MC, squares_TM, w_NC, w_NC if bias_N is None else bias_N, out_MN),
            *(num_rows, outer, inner, len(squares_TM), stream.eps),
            *(kind == "gated", bias_N is not None, triton.next_power_of_2(len(squares_TM))),
            **self._launch(plan, weighted_MC),
        )
        return out_MN

    def add(self, stream: Stream, y_MI: torch.Tensor, w_CI: torch.Tensor, next_norm_C: torch.Tensor) -> None:
        hidden_MC = stream.hidden_MC
        num_rows, outer, inner = len(y_MI), len(w_CI), y_MI.shape[1]
        plan = self._plan("add", y_MI, outer)
        tiles = triton.cdiv(outer, plan.block_n)
        parts = hidden_MC.new_empty(plan.splits * num_rows * outer if plan.splits > 1 else 0, dtype=torch.float32)
        stream.squares_TM = hidden_MC.new_empty(tiles, num_rows, dtype=torch.float32)
        stream.norm_C = next_norm_C
        _add_kernel[(tiles, plan.splits)](
            *(y_MI, w_CI, next_norm_C, hidden_MC, stream.weighted_MC, stream.squares_TM),
            *(parts, self._counters(hidden_MC.device), num_rows, outer, inner, plan.splits),
            **self._launch(plan, y_MI),
        )

    def _plan(self, kind: str, x_MK: torch.Tensor, outer: int) -> Plan:
        num_rows, inner = x_MK.shape
        own = self.plans.get((kind, num_rows, outer, inner))
        return own or plan_product(num_rows, outer, inner, kind, x_MK.element_size())

    def _launch(self, plan: Plan, x_MK: torch.Tensor) -> dict[str, object]:
        return {
            "BLOCK_M": max(16, triton.next_power_of_2(len(x_MK))),
            "BLOCK_N": plan.block_n,
            "BLOCK_K": plan.block_k,
            "PRECISION": "ieee" if x_MK.dtype == torch.float32 else "tf32",
            "num_warps": plan.num_warps,
            "num_stages": plan.num_stages,
        }

    def _counters(self, device: torch.device) -> torch.Tensor:
        """Per tile, how many programs have left their part; zero between launches. Recorded graphs hold its address."""
        if self._arrived is None:
            self._arrived = torch.zeros(MAX_TILES, dtype=torch.int32, device=device)
        return self._arrived


@triton.jit
def _begin_kernel(
    hidden_ptr: tl.tensor, norm_ptr: tl.tensor, weighted_ptr: tl.tensor, squares_ptr: tl.tensor, size: tl.tensor,
    BLOCK_C: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK_C)
    inside = columns < size
    hidden = tl.load(hidden_ptr + row * size + columns, mask=inside, other=0.0).to(tl.float32)
    norm = tl.load(norm_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(weighted_ptr + row * size + columns, (hidden * norm).to(weighted_ptr.dtype.element_ty), mask=inside)
    tl.store(squares_ptr + row, tl.sum(hidden * hidden, axis=0))


@triton.jit
def _normed_kernel(
    x_ptr: tl.tensor, squares_ptr: tl.tensor, w_ptr: tl.tensor, bias_ptr: tl.tensor, out_ptr: tl.tensor,
    num_rows: tl.tensor, outer: tl.tensor, inner: tl.tensor, num_squares: tl.tensor, eps: tl.tensor,
    GATED: tl.constexpr, BIASED: tl.constexpr, SQUARES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    rows, columns = tl.arange(0, BLOCK_M), tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row, is_column = rows < num_rows, columns < outer
    # What lies outside multiplies a line that is there; its results are not stored.
    w_lines = w_ptr + tl.minimum(columns, outer - 1).to(tl.int64)[:, None] * inner
    up_lines = w_lines + tl.cast(outer, tl.int64) * inner
    x_lines = x_ptr + tl.minimum(rows, num_rows - 1)[None, :] * inner
    # Asked for before the loop, looked at behind it: nobody waits.
    tiles = tl.arange(0, SQUARES)
    squares = tl.load(
        squares_ptr + tiles[:, None] * num_rows + rows[None, :],
        mask=(tiles < num_squares)[:, None] & is_row[None, :],
        other=0.0,
    )
    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    ups = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for begin in range(0, inner, BLOCK_K):
        ks = begin + tl.arange(0, BLOCK_K)
        x = tl.load(x_lines + ks[:, None])
        sums = tl.dot(tl.load(w_lines + ks[None, :]), x, sums, input_precision=PRECISION)
        if GATED:
            ups = tl.dot(tl.load(up_lines + ks[None, :]), x, ups, input_precision=PRECISION)
    scale = tl.rsqrt(tl.sum(squares, axis=0) / inner + eps)[None, :]
    out = sums * scale
    if BIASED:
        out += tl.load(bias_ptr + columns, mask=is_column, other=0.0).to(tl.float32)[:, None]
    if GATED:
        out = out * tl.sigmoid(out) * (ups * scale)
    place, is_out = rows[None, :] * outer + columns[:, None], is_row[None, :] & is_column[:, None]
    tl.store(out_ptr + place, out.to(out_ptr.dtype.element_ty), mask=is_out)


@triton.jit
def _add_kernel(
    x_ptr: tl.tensor, w_ptr: tl.tensor, norm_ptr: tl.tensor,
    hidden_ptr: tl.tensor, weighted_ptr: tl.tensor, squares_ptr: tl.tensor,
    parts_ptr: tl.tensor, arrived_ptr: tl.tensor,
    num_rows: tl.tensor, outer: tl.tensor, inner: tl.tensor, SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
) -> None:  # fmt: skip
    tile, split = tl.program_id(0), tl.program_id(1)
    rows, columns = tl.arange(0, BLOCK_M), tile * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row, is_column = rows < num_rows, columns < outer
    w_lines = w_ptr + tl.minimum(columns, outer - 1).to(tl.int64)[:, None] * inner
    x_lines = x_ptr + tl.minimum(rows, num_rows - 1)[None, :] * inner
    share = tl.cdiv(tl.cdiv(inner, SPLITS), BLOCK_K) * BLOCK_K
    place, is_out = rows[None, :] * outer + columns[:, None], is_row[None, :] & is_column[:, None]
    before = tl.load(hidden_ptr + place, mask=is_out, other=0.0)
    norm = tl.load(norm_ptr + columns, mask=is_column, other=0.0).to(tl.float32)[:, None]
    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for begin in range(split * share, tl.minimum((split + 1) * share, inner), BLOCK_K):
        ks = begin + tl.arange(0, BLOCK_K)
        sums = tl.dot(tl.load(w_lines + ks[None, :]), tl.load(x_lines + ks[:, None]), sums, input_precision=PRECISION)
    is_last = True
    if SPLITS > 1:
        sums, is_last = _merge_splits(sums, parts_ptr + place, is_out, num_rows * outer, arrived_ptr + tile, SPLITS)
    if is_last:
        after = (before.to(tl.float32) + sums).to(before.dtype)
        tl.store(hidden_ptr + place, after, mask=is_out)
        wide = tl.where(is_out, after.to(tl.float32), 0.0)
        tl.store(weighted_ptr + place, (wide * norm).to(before.dtype), mask=is_out)
        tl.store(squares_ptr + tile * num_rows + rows, tl.sum(wide * wide, axis=0), mask=is_row)


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
