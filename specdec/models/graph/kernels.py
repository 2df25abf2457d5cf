"""The operations of `reference.py` as Triton kernels, for CUDA. Needs the triton package, a part of CUDA's torch.

Lengths are read from `state` on the device, so that a recorded launch serves every length.
Attention is in files of its own. Shape suffixes as in `reference.py`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from specdec.models.graph.attention import attend_many
from specdec.models.graph.attention_few import attend_few
from specdec.models.graph.branches import Branches, Level
from specdec.models.graph.choosing import few_most_probable, go_on
from specdec.models.graph.overlap import admit_next, launch_options, wait_for_previous
from specdec.models.graph.plans import FEW_ROWS, AttentionPlan, plan_attention
from specdec.models.graph.scaled import scaled_product
from specdec.models.graph.tiles import Launcher
from specdec.models.int8 import Int8Matrix

CHUNK_V = 4096  # logits that one program looks at
TURNED = 1024  # pairs of values that one program rotates: with four warps, 16 bytes of half precision a thread


class GpuOperations:
    """The operations, each one or two launches.

    Attributes:
        attention_plans: by rows of a pass, overrides the usual ones; up to FEW_ROWS there are none.
    """

    def __init__(self, overlaps: bool) -> None:
        self._overlap, self._no_overlap = launch_options(overlaps), launch_options(False)
        self.launcher = Launcher(self._overlap)
        self.attention_plans: dict[int, AttentionPlan] = {}

    def receive(
        self, sent: torch.Tensor, inputs: torch.Tensor, embedding_VC: torch.Tensor, hidden_MC: torch.Tensor
    ) -> None:
        """See plain.receive: one program per token, and one that copies. `sent` is pinned memory of the host."""
        num_rows, size = hidden_MC.shape
        blocks = triton.next_power_of_2(size), triton.next_power_of_2(len(sent))
        _receive_kernel[(num_rows + 1,)](sent, inputs, embedding_VC, hidden_MC, size, len(sent), *blocks)

    def norm(
        self, x_MC: torch.Tensor, weight_C: torch.Tensor, eps: float, rows_K: torch.Tensor | None = None,
        is_after_kernel: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """See plain.norm: one program per row."""
        rows = x_MC if rows_K is None else rows_K  # without a choice nobody looks at them
        num_rows, size = len(rows), x_MC.shape[1]
        out_KC = x_MC.new_empty(num_rows, size)
        # Before a rotation or a gate there is always a product's kernel; before a norm there may be a copy, and in the
        # head's recording there is nothing. So it begins early only where it is told that a kernel comes before it.
        _norm_kernel[(num_rows,)](
            *(x_MC, rows, weight_C, out_KC, size, eps, rows_K is not None, triton.next_power_of_2(size)),
            **(self._overlap if is_after_kernel else self._no_overlap),
        )
        return out_KC

    def silu_product(self, gate_up_M2I: torch.Tensor) -> torch.Tensor:
        num_rows, size = len(gate_up_M2I), gate_up_M2I.shape[1] // 2
        out_MI = gate_up_M2I.new_empty(num_rows, size)
        _silu_kernel[(num_rows, triton.cdiv(size, 1024))](gate_up_M2I, out_MI, size, 1024, **self._overlap)
        return out_MI

    def rotate_and_store(
        self,
        qkv_MN: torch.Tensor,
        rotary_2PE: torch.Tensor,
        cache_2GPD: torch.Tensor,
        state: torch.Tensor,
        norms_2D: torch.Tensor | None = None,
        eps: float = 0.0,
        depths_M: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See plain.rotate_and_store: a program for some heads of a token."""
        _, num_kv_heads, capacity, head_size = cache_2GPD.shape
        num_rows, num_all_heads = len(qkv_MN), qkv_MN.shape[1] // head_size
        num_heads = num_all_heads - 2 * num_kv_heads
        q_MHD = qkv_MN.new_empty(num_rows, num_heads, head_size)
        half = head_size // 2
        heads = min(triton.next_power_of_2(num_all_heads), TURNED // half)
        _rotate_kernel[(num_rows, triton.cdiv(num_all_heads, heads))](
            *(qkv_MN, rotary_2PE, cache_2GPD, q_MHD, state),
            *(qkv_MN if norms_2D is None else norms_2D, eps, capacity),  # without norms nobody looks at the first
            state if depths_M is None else depths_M,
            *(num_heads, num_kv_heads, head_size, heads, norms_2D is not None, depths_M is not None),
            num_warps=max(1, 4 * heads * half // TURNED),
            **self._overlap,
        )
        return q_MHD

    def attend(
        self, q_MHD: torch.Tensor, cache_2GPD: torch.Tensor, state: torch.Tensor, window: int | None = None,
        tree: Branches | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """See plain.attend; `attention.py` and `attention_few.py`."""
        num_tokens, num_heads, head_size = q_MHD.shape
        inputs, plan = (q_MHD, cache_2GPD, state), self.attention_plans.get(num_tokens)
        if plan is None and num_tokens > FEW_ROWS:
            plan = plan_attention(num_tokens * num_heads, head_size, q_MHD.element_size())
        # Parts of trees are taken by the kernels of few rows alone.
        if plan is None or (tree is not None and tree.is_part):
            return attend_few(inputs, window, tree, self._overlap)
        return attend_many(inputs, window, tree, plan, self._overlap)

    def scaled_product(self, x_MK: torch.Tensor, w: Int8Matrix, bias_N: torch.Tensor | None = None) -> torch.Tensor:
        """See plain.scaled_product, and `scaled.py`."""
        return scaled_product(self.launcher, x_MK, w, bias_N)

    def most_probable(self, logits_KV: torch.Tensor, state: torch.Tensor, found_K2: torch.Tensor) -> None:
        """See plain.most_probable: over chunks of rows, then over what they found; found_K2 may be pinned memory."""
        num_rows, vocab_size = logits_KV.shape
        num_chunks = triton.cdiv(vocab_size, CHUNK_V)
        found_3KS = logits_KV.new_empty(3, num_rows, num_chunks, dtype=torch.float32)
        _best_kernel[(num_rows, num_chunks)](logits_KV, found_3KS, state, vocab_size, CHUNK_V)
        padded = triton.next_power_of_2(num_chunks)
        _best_of_best_kernel[(num_rows,)](found_3KS, found_K2, num_chunks, padded, num_warps=1)

    def few_most_probable(
        self, logits_BV: torch.Tensor, tokens_V: torch.Tensor, found_BK2: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See plain.few_most_probable, and `choosing.py`."""
        return few_most_probable(logits_BV, tokens_V, found_BK2)

    def go_on(
        self, found: tuple[torch.Tensor, torch.Tensor], stops: torch.Tensor, level: Level, after: Level,
        told_N2: torch.Tensor,
    ) -> None:  # fmt: skip
        """See plain.go_on, and `choosing.py`."""
        go_on(found, stops, level, after, told_N2)


@triton.jit
def _receive_kernel(
    sent_ptr: tl.tensor, inputs_ptr: tl.tensor, embedding_ptr: tl.tensor, hidden_ptr: tl.tensor,
    size: tl.tensor, num_inputs: tl.tensor, BLOCK_C: tl.constexpr, BLOCK_I: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    if row < tl.num_programs(0) - 1:
        columns = tl.arange(0, BLOCK_C)
        is_column = columns < size
        line = tl.load(embedding_ptr + tl.load(sent_ptr + row) * size + columns, mask=is_column)
        tl.store(hidden_ptr + row * size + columns, line, mask=is_column)
    else:
        places = tl.arange(0, BLOCK_I)
        is_place = places < num_inputs
        tl.store(inputs_ptr + places, tl.load(sent_ptr + places, mask=is_place), mask=is_place)


@triton.jit
def _norm_kernel(
    x_ptr: tl.tensor, rows_ptr: tl.tensor, weight_ptr: tl.tensor, out_ptr: tl.tensor, size: tl.tensor, eps: tl.tensor,
    IS_CHOICE: tl.constexpr, BLOCK_C: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK_C)
    inside = columns < size
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    wait_for_previous(OVERLAPS)
    source = tl.load(rows_ptr + row) if IS_CHOICE else row
    x = tl.load(x_ptr + source * size + columns, mask=inside, other=0.0).to(tl.float32)
    admit_next(OVERLAPS)
    scale = tl.rsqrt(tl.sum(x * x, axis=0) / size + eps)
    # Rounded before the weight is applied, as the model's own module does.
    normed = (x * scale).to(out_ptr.dtype.element_ty).to(tl.float32) * weight
    tl.store(out_ptr + row * size + columns, normed.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _silu_kernel(
    gate_up_ptr: tl.tensor, out_ptr: tl.tensor, size: tl.tensor, BLOCK_I: tl.constexpr, OVERLAPS: tl.constexpr
) -> None:
    row = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
    inside = columns < size
    wait_for_previous(OVERLAPS)
    gate = tl.load(gate_up_ptr + row * 2 * size + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * size + size + columns, mask=inside, other=0.0).to(tl.float32)
    admit_next(OVERLAPS)
    activated = (gate * tl.sigmoid(gate)).to(out_ptr.dtype.element_ty).to(tl.float32) * up
    tl.store(out_ptr + row * size + columns, activated.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _rotate_kernel(
    qkv_ptr: tl.tensor, rotary_ptr: tl.tensor, cache_ptr: tl.tensor, q_ptr: tl.tensor, state_ptr: tl.tensor,
    norms_ptr: tl.tensor, eps: tl.tensor, capacity: tl.tensor, depths_ptr: tl.tensor,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr,
    IS_NORMED: tl.constexpr, IS_TREE: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    half: tl.constexpr = D // 2
    first, num_tokens = tl.load(state_ptr).to(tl.int32), tl.load(state_ptr + 1).to(tl.int32)
    # After the query heads come the key heads, then the value heads, which are only stored.
    heads, columns = tl.program_id(1) * HEADS + tl.arange(0, HEADS), tl.arange(0, half)
    inside, is_query, is_turned = heads < H + 2 * G, heads < H, (heads < H + G)[:, None]
    position = first + (tl.load(depths_ptr + row).to(tl.int32) if IS_TREE else row)
    rotary = rotary_ptr + tl.minimum(position, capacity - 1) * half + columns
    cos, sin = tl.load(rotary)[None, :], tl.load(rotary + capacity * half)[None, :]
    if IS_NORMED:
        norm = norms_ptr + tl.where(is_query, 0, D)[:, None] + columns[None, :]
        norm_left, norm_right = tl.load(norm).to(tl.float32), tl.load(norm + half).to(tl.float32)
    source = qkv_ptr + (row * (H + 2 * G) + heads[:, None]) * D + columns[None, :]
    wait_for_previous(OVERLAPS)
    left = tl.load(source, mask=inside[:, None], other=0.0)
    right = tl.load(source + half, mask=inside[:, None], other=0.0)
    admit_next(OVERLAPS)
    wide_left, wide_right = left.to(tl.float32), right.to(tl.float32)
    if IS_NORMED:
        squares = tl.sum(wide_left * wide_left, axis=1) + tl.sum(wide_right * wide_right, axis=1)
        scale = tl.rsqrt(squares / D + eps)[:, None]
        # Rounded before the weight is applied, and after, as the model's own module does.
        wide_left = ((wide_left * scale).to(left.dtype).to(tl.float32) * norm_left).to(left.dtype).to(tl.float32)
        wide_right = ((wide_right * scale).to(left.dtype).to(tl.float32) * norm_right).to(left.dtype).to(tl.float32)
    left = tl.where(is_turned, (wide_left * cos - wide_right * sin).to(left.dtype), left)
    right = tl.where(is_turned, (wide_right * cos + wide_left * sin).to(left.dtype), right)
    query = q_ptr + (row * H + heads[:, None]) * D + columns[None, :]
    tl.store(query, left, mask=is_query[:, None])
    tl.store(query + half, right, mask=is_query[:, None])
    lines = (heads - H).to(tl.int64) * capacity + first + row
    kept = cache_ptr + lines[:, None] * D + columns[None, :]
    is_kept = (inside & (heads >= H) & (row < num_tokens))[:, None]
    tl.store(kept, left, mask=is_kept)
    tl.store(kept + half, right, mask=is_kept)


@triton.jit
def _best_kernel(
    logits_ptr: tl.tensor, found_ptr: tl.tensor, state_ptr: tl.tensor, vocab_size: tl.tensor, CHUNK: tl.constexpr
) -> None:
    row, chunk = tl.program_id(0), tl.program_id(1)
    never = tl.load(state_ptr + 3).to(tl.int32)
    tokens = chunk * CHUNK + tl.arange(0, CHUNK)
    allowed = (tokens < vocab_size) & (tokens != never)
    logits = tl.load(logits_ptr + row.to(tl.int64) * vocab_size + tokens, mask=allowed, other=float("-inf"))
    num_places = tl.num_programs(0) * tl.num_programs(1)
    leave_best(logits.to(tl.float32), tokens, vocab_size, found_ptr + row * tl.num_programs(1) + chunk, num_places)


@triton.jit
def _best_of_best_kernel(
    found_ptr: tl.tensor, best_ptr: tl.tensor, num_chunks: tl.tensor, CHUNKS: tl.constexpr
) -> None:
    row = tl.program_id(0)
    chunks = tl.arange(0, CHUNKS)
    num_places = tl.num_programs(0) * num_chunks
    token, sure = best_of_chunks(found_ptr + row * num_chunks + chunks, num_places, chunks < num_chunks)
    tl.store(best_ptr + row * 2, token.to(tl.float64))
    tl.store(best_ptr + row * 2 + 1, sure)


@triton.jit
def leave_best(
    logits: tl.tensor, tokens: tl.tensor, vocab_size: tl.tensor, place: tl.tensor, num_places: tl.tensor
) -> None:
    """A chunk's greatest logit, what the others weigh beside it, and its token, which is `vocab_size` where nothing is
    a number: each `num_places` after the one before."""
    best = tl.max(logits, axis=0)
    token = tl.min(tl.where(logits == best, tokens, vocab_size), axis=0)
    base = tl.where(best == float("-inf"), 0.0, best)
    tl.store(place, best)
    # The best itself counts 1, and is added last: values near 1 stay apart.
    tl.store(place + num_places, tl.sum(tl.where(tokens == token, 0.0, tl.exp(logits - base)), axis=0))
    tl.store(place + 2 * num_places, token.to(tl.float32))  # exact: vocabularies are below 2**24


@triton.jit
def best_of_chunks(places: tl.tensor, num_places: tl.tensor, inside: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The most probable token of what chunks have left, in float32, and its probability, in float64."""
    best = tl.load(places, mask=inside, other=float("-inf"))
    totals = tl.load(places + num_places, mask=inside, other=0.0)
    tokens = tl.load(places + 2 * num_places, mask=inside, other=float("inf"))
    top = tl.max(best, axis=0)
    token = tl.min(tl.where(best == top, tokens, float("inf")), axis=0)
    totals += tl.where(tokens == token, 0.0, 1.0)  # the best of the other chunks
    others = tl.sum(totals * tl.exp(best - top), axis=0)
    return token, 1.0 / (1.0 + others.to(tl.float64))
