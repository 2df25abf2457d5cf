"""Matrix products for passes of few tokens, as Triton kernels: norm, gate and residual sum happen inside them.

With few tokens a product only has to read its weights once, at the speed of the memory; what counts
is that all multiprocessors read, and that nothing else is launched. So the weights are the left factor
(tensor cores take 64 of their rows, or 16, against 16 to 64 tokens), and the norm is spread over its neighbours:
who adds to the hidden states also leaves them times the norm's weights, and their squares' sums; who
multiplies next divides the result by the root. Both such products make pairs of values: gate and up of
an MLP, and what a rotation turns into each other. Used by `network.py`.

Shape suffixes: C hidden size, K inner size, M tokens, N outer size, T tiles.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from specdec.models.graph.attention import shared_memory
from specdec.models.graph.epilogues import add_and_store, angles_of, gate_and_store, norm_head, rotate_and_store
from specdec.models.graph.kernels import GpuOperations
from specdec.models.graph.network import LibraryProducts, Place, Stream
from specdec.models.graph.overlap import admit_next, wait_for_previous
from specdec.models.graph.plans import ONE_TILE, SHARED_MEMORY, Plan, tile_rows
from specdec.models.graph.products_many import ManyRows
from specdec.models.graph.tiles import merge_splits, multiply
from specdec.models.graph.weights import LayerWeights
from specdec.models.int8 import Int8Matrix, Matrix

SMALLEST_STEP = 32  # inner sizes are multiples of it


def can_fuse(layer: LayerWeights) -> bool:
    """Whether these kernels multiply a layer's weights where they are.

    In float16, hidden states times a norm could overflow. GPUs below an A100 have too little shared memory.
    """
    device, dtype = layer.attention_norm_C.device, layer.attention_norm_C.dtype
    if shared_memory(device) < SHARED_MEMORY:
        return False
    inner_sizes = [w.shape[1] for w in (layer.qkv_NC, layer.output_CHD, layer.gate_up_2IC, layer.down_CI)]
    return dtype != torch.float16 and all(size % SMALLEST_STEP == 0 for size in inner_sizes)


class FusedProducts:
    """`network.Products` by one kernel each, of many rows where a plan is known; else by the library. One instance
    serves one stream."""

    def __init__(self, overlaps: bool) -> None:
        """`plans`: those of its launcher."""
        operations = GpuOperations(overlaps)
        self._library, self._launcher = LibraryProducts(operations), operations.launcher
        self._many = ManyRows(self._launcher)
        self.plans = self._launcher.plans

    def begin(self, stream: Stream) -> None:
        stream.squares_TM = None
        if len(stream.hidden_MC) <= ONE_TILE:  # with many it is done where a fused product asks for it
            self._begin(stream)

    def _begin(self, stream: Stream) -> None:
        hidden_MC = stream.hidden_MC
        stream.weighted_MC = torch.empty_like(hidden_MC)
        stream.squares_TM = hidden_MC.new_empty(1, len(hidden_MC), dtype=torch.float32)
        size = hidden_MC.shape[1]
        _begin_kernel[(len(hidden_MC),)](
            hidden_MC, stream.norm_C, stream.weighted_MC, stream.squares_TM, size, triton.next_power_of_2(size)
        )

    def queries(self, stream: Stream, w_NC: Matrix, bias_N: torch.Tensor | None, place: Place) -> torch.Tensor:
        _, num_kv_heads, capacity, head_size = place.cache_2GPD.shape
        # A head's norm needs its whole row, and a tree's rows turn by their depths: in tiles of one head each, where
        # a plan says so.
        is_few = len(stream.hidden_MC) <= ONE_TILE
        kind = "rotated" if is_few and place.norms_2D is None and place.tree is None else "heads"
        plan = self._plan(kind, stream.hidden_MC, w_NC)
        if plan is None or (kind == "heads" and plan.block_n != head_size):
            return self._library.queries(stream, w_NC, bias_N, place)
        if plan.block_m and isinstance(w_NC, torch.Tensor):
            return self._many.queries(plan, self._begun(stream), w_NC, bias_N, place)
        num_heads = len(w_NC) // head_size - 2 * num_kv_heads
        q_MHD = stream.hidden_MC.new_empty(len(stream.hidden_MC), num_heads, head_size)
        bias = stream.norm_C if bias_N is None else bias_N  # without one nobody looks at it
        where = (place.rotary_2PE, place.cache_2GPD, place.state)
        norms_2D = stream.norm_C if place.norms_2D is None else place.norms_2D
        depths_M = place.state if place.tree is None else place.tree.depths_M
        sizes = (capacity, num_heads, num_kv_heads, head_size, place.norms_2D is not None, place.tree is not None)
        rotation = (bias, *where, norms_2D, depths_M, *sizes)
        self._multiply_pairs(kind, plan, stream, w_NC, q_MHD, rotation, bias_N is not None)
        return q_MHD

    def _plan(self, kind: str, x_MK: torch.Tensor, w_NK: Matrix) -> Plan | None:
        """How a product is cut; None: the library multiplies."""
        is_scaled = isinstance(w_NK, Int8Matrix)
        if len(x_MK) > ONE_TILE or kind == "heads":
            return self._launcher.known(kind, x_MK, len(w_NK), is_scaled)
        return self._launcher.plan(kind, x_MK, len(w_NK), is_scaled)

    def _begun(self, stream: Stream) -> Stream:
        """The stream, ready for a fused product also where the library has added to it."""
        if stream.squares_TM is None:
            self._begin(stream)
        return stream

    def gated(self, stream: Stream, w_2IC: Matrix) -> torch.Tensor:
        plan = self._plan("gated", stream.hidden_MC, w_2IC)
        if plan is None:
            return self._library.gated(stream, w_2IC)
        if plan.block_m and isinstance(w_2IC, torch.Tensor):
            return self._many.gated(plan, self._begun(stream), w_2IC)
        out_MI = stream.hidden_MC.new_empty(len(stream.hidden_MC), len(w_2IC) // 2)
        # Pointers that nobody follows, and heads of a single pair, so that the kernel's constants stay valid.
        no_rotation = (*[stream.norm_C] * 6, 0, 0, 0, 2, False, False)
        self._multiply_pairs("gated", plan, stream, w_2IC, out_MI, no_rotation, False)
        return out_MI

    def _multiply_pairs(
        self, kind: str, plan: Plan, stream: Stream, w_NC: Matrix, out: torch.Tensor, rotation: tuple, is_biased: bool
    ) -> None:
        weighted_MC, squares_TM = stream.weighted()
        (num_rows, inner), (values_NC, scale_N, is_scaled) = weighted_MC.shape, _parts(w_NC)
        tiles, rows = triton.cdiv(len(w_NC), plan.block_n), tile_rows(num_rows)
        _pairs_kernel[(tiles, plan.splits)](
            *(weighted_MC, squares_TM, values_NC, scale_N, out),
            *self._launcher.workspace(plan, tiles, weighted_MC, rows),
            *(num_rows, len(w_NC) // 2, inner, len(squares_TM), stream.eps),
            *(*rotation, is_scaled, is_biased, kind == "gated", triton.next_power_of_2(len(squares_TM)), plan.splits),
            **self._launcher.options(plan, weighted_MC, rows),
        )

    def add(
        self,
        stream: Stream,
        y_MI: torch.Tensor,
        w_CI: Matrix,
        next_norm_C: torch.Tensor,
        tap_MC: torch.Tensor | None = None,
    ) -> None:
        plan = self._plan("add", y_MI, w_CI)
        if plan is None:
            self._library.add(stream, y_MI, w_CI, next_norm_C, tap_MC)
            stream.squares_TM = None  # of what the hidden states were
            return
        if plan.block_m and isinstance(w_CI, torch.Tensor):
            self._many.add(plan, stream, y_MI, w_CI, next_norm_C, tap_MC)
            return
        hidden_MC, (values_CI, scale_C, is_scaled) = stream.hidden_MC, _parts(w_CI)
        tap = (hidden_MC, 0) if tap_MC is None else (tap_MC, tap_MC.stride(0))  # without one nobody looks
        num_rows, outer, inner = len(y_MI), len(w_CI), y_MI.shape[1]
        tiles, rows = triton.cdiv(outer, plan.block_n), tile_rows(num_rows)
        stream.squares_TM = hidden_MC.new_empty(tiles, num_rows, dtype=torch.float32)
        stream.norm_C = next_norm_C
        _add_kernel[(tiles, plan.splits)](
            *(y_MI, values_CI, scale_C, next_norm_C, hidden_MC, stream.weighted_MC, stream.squares_TM),
            *(*self._launcher.workspace(plan, tiles, y_MI, rows), num_rows, outer, inner),
            *(*tap, tap_MC is not None, is_scaled, plan.splits),
            **self._launcher.options(plan, y_MI, rows),
        )


def _parts(w_NK: Matrix) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """What is multiplied, the scales of its rows, and whether there are any: if not, nobody looks at them."""
    return (w_NK.values_NK, w_NK.scale_N, True) if isinstance(w_NK, Int8Matrix) else (w_NK, w_NK, False)


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
def _pairs_kernel(
    x_ptr: tl.tensor, squares_ptr: tl.tensor, w_ptr: tl.tensor, scale_ptr: tl.tensor, out_ptr: tl.tensor,
    parts_ptr: tl.tensor, arrived_ptr: tl.tensor,
    num_rows: tl.tensor, num_pairs: tl.tensor, inner: tl.tensor, num_squares: tl.tensor, eps: tl.tensor,
    bias_ptr: tl.tensor, rotary_ptr: tl.tensor, cache_ptr: tl.tensor, state_ptr: tl.tensor,
    norms_ptr: tl.tensor, depths_ptr: tl.tensor, capacity: tl.tensor, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr,
    NORMED: tl.constexpr, IS_TREE: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr, GATED: tl.constexpr,
    SQUARES: tl.constexpr, SPLITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    IS_PADDED: tl.constexpr, PRECISION: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    tile = tl.program_id(0)
    half: tl.constexpr = D // 2
    IS_LATE: tl.constexpr = NORMED or IS_TREE  # tiles of whole heads leave no registers for what is looked at last
    columns = _columns_of_pairs(tile, num_pairs, GATED, D, BLOCK_N)
    rows, pairs = tl.arange(0, BLOCK_M), tile * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
    w_lines = w_ptr + columns.to(tl.int64) * inner
    # Asked for before the loop, looked at after it: nobody waits.
    scale = tl.load(scale_ptr + columns)[:, None] if SCALED else 1.0
    if BIASED:
        bias = tl.load(bias_ptr + columns).to(tl.float32)
    if not GATED:
        first, num_tokens = tl.load(state_ptr).to(tl.int32), tl.load(state_ptr + 1).to(tl.int32)
        after = tl.load(depths_ptr + rows, mask=rows < num_rows, other=0).to(tl.int32) if IS_TREE else rows
        if not IS_LATE:
            cos, sin = angles_of(rotary_ptr, pairs % half, first + after, capacity, half)
    tiles, is_row = tl.arange(0, SQUARES)[:, None], rows < num_rows
    squares_ptrs, is_square = squares_ptr + tiles * num_rows + rows[None, :], (tiles < num_squares) & is_row[None, :]
    wait_for_previous(OVERLAPS)
    if not IS_LATE:
        squares = tl.load(squares_ptrs, mask=is_square, other=0.0)
    sums = multiply(w_lines, x_ptr, is_row, inner, SPLITS, BLOCK_M, BLOCK_N, BLOCK_K, IS_PADDED, PRECISION)
    admit_next(OVERLAPS)
    sums, is_last = merge_splits(sums, parts_ptr, arrived_ptr, SPLITS)
    if is_last:
        if IS_LATE:
            squares = tl.load(squares_ptrs, mask=is_square, other=0.0)
            cos, sin = angles_of(rotary_ptr, pairs % half, first + after, capacity, half)
        sums *= scale * tl.rsqrt(tl.sum(squares, axis=0) / inner + eps)[None, :]
        if BIASED:
            sums += bias[:, None]
        left, right = tl.split(tl.permute(tl.reshape(sums, (BLOCK_N // 2, 2, BLOCK_M)), (0, 2, 1)))
        if GATED:
            gate_and_store(left, right, out_ptr, pairs, num_pairs, rows, is_row)
        else:
            if NORMED:
                left, right = norm_head(left, right, norms_ptr, tile, eps, H, G, D)
            rotate_and_store(
                left, right, cos, sin, pairs, rows, num_rows, first, num_tokens, out_ptr, cache_ptr, capacity, H, G, D
            )


@triton.jit
def _columns_of_pairs(
    tile: tl.tensor, num_pairs: tl.tensor, GATED: tl.constexpr, D: tl.constexpr, BLOCK_N: tl.constexpr
) -> tl.tensor:
    """Of a tile's lines, 2 p and 2 p + 1 the values of its pair p: gate and up, or left and right of a head."""
    half: tl.constexpr = D // 2
    lines = tl.arange(0, BLOCK_N)
    pair = tl.minimum(tile * (BLOCK_N // 2) + lines // 2, num_pairs - 1)
    side = lines % 2
    return pair + side * num_pairs if GATED else pair // half * D + side * half + pair % half


@triton.jit
def _add_kernel(
    x_ptr: tl.tensor, w_ptr: tl.tensor, scale_ptr: tl.tensor, norm_ptr: tl.tensor,
    hidden_ptr: tl.tensor, weighted_ptr: tl.tensor, squares_ptr: tl.tensor,
    parts_ptr: tl.tensor, arrived_ptr: tl.tensor,
    num_rows: tl.tensor, outer: tl.tensor, inner: tl.tensor,
    tap_ptr: tl.tensor, tap_stride: tl.tensor,
    IS_TAPPED: tl.constexpr, SCALED: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, IS_PADDED: tl.constexpr,
    PRECISION: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    tile = tl.program_id(0)
    rows, columns = tl.arange(0, BLOCK_M), tile * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row, is_column = rows < num_rows, columns < outer
    lines = tl.minimum(columns, outer - 1)
    w_lines = w_ptr + lines.to(tl.int64) * inner
    scale = tl.load(scale_ptr + lines)[:, None] if SCALED else 1.0
    place, is_out = rows[None, :] * outer + columns[:, None], is_row[None, :] & is_column[:, None]
    norm = tl.load(norm_ptr + columns, mask=is_column, other=0.0).to(tl.float32)[:, None]
    wait_for_previous(OVERLAPS)
    before = tl.load(hidden_ptr + place, mask=is_out, other=0.0)
    sums = multiply(w_lines, x_ptr, is_row, inner, SPLITS, BLOCK_M, BLOCK_N, BLOCK_K, IS_PADDED, PRECISION)
    admit_next(OVERLAPS)
    sums, is_last = merge_splits(sums, parts_ptr, arrived_ptr, SPLITS)
    if is_last:
        add_and_store(
            sums * scale, before, norm, hidden_ptr, weighted_ptr, squares_ptr + tile * num_rows + rows,
            tap_ptr + rows[None, :] * tap_stride + columns[:, None], place, is_out, is_row, IS_TAPPED,
        )  # fmt: skip
