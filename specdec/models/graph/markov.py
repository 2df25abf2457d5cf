"""The walk of a Markov head over the slots of one block, as Triton kernels: two a slot. `dflash_parts.py` has the same
in torch, about ten operations a slot, and over several blocks as well.

The first kernel adds to a slot's logits what follows from the token before, and finds the best of each chunk. It asks
for its lines of the second table before it waits for that token: a slot takes as long as reading this table at least.
The second merges the chunks, says how sure the token is, and makes what the next slot is told.

Shape suffixes: C hidden size, K chunks of the vocabulary, R rank, S slots, V vocabulary, X slots and the anchor before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from specdec.models.graph.kernels import best_of_chunks, leave_best
from specdec.models.graph.overlap import admit_next, launch_options, wait_for_previous

TILE_BYTES = 1 << 14  # of the second table, that a program holds while it waits
PART = 4  # values of a gate or a recurrent cell that a program makes: a single one would read their weights slowly
BLOCK = 256  # values that a product of these takes at once

Layer = tuple[torch.Tensor, torch.Tensor]  # weights and bias


@dataclass(frozen=True)
class MarkovTables:
    """What a walk reads. `kind`: as `Markov` has it, and `told` the layer that it has for it (None: vanilla). `sure`:
    the confidence head (None: there is none), which may read the first table's row too."""

    kind: str
    before_VR: torch.Tensor
    after_VR: torch.Tensor
    told: Layer | None
    sure: Layer | None
    reads_markov: bool


def walk(
    tables: MarkovTables, hidden_SC: torch.Tensor, logits_SV: torch.Tensor, anchor_1: torch.Tensor
) -> torch.Tensor:
    """[S, 2] float64: each slot's token, and how sure it is. Where the rows of logits_SV are cut, the second table is
    too; those of hidden_SC are not."""
    (num_slots, size), vocab_size, rank = hidden_SC.shape, logits_SV.shape[1], tables.before_VR.shape[1]
    block_r = triton.next_power_of_2(rank)
    lines = max(1, TILE_BYTES // (block_r * hidden_SC.element_size()))
    num_chunks = triton.cdiv(vocab_size, lines)
    best_3K = hidden_SC.new_empty(3, num_chunks, dtype=torch.float32)
    found_X2 = hidden_SC.new_empty(num_slots + 1, 2, dtype=torch.float64)
    told_R = hidden_SC.new_empty(rank)
    memory_XR = hidden_SC.new_zeros(num_slots + 2, rank if tables.kind == "rnn" else 0)  # and after the last
    unread = tables.before_VR, tables.before_VR  # nobody looks at them
    made, sure = (tables.before_VR, told_R, *(tables.told or unread)), tables.sure or unread
    part = block_r if tables.told is None else PART
    how = {"KIND": tables.kind, "C": size, "R": rank, "BLOCK": BLOCK, "PART": part}
    parts, chunks, overlap = (triton.cdiv(rank, part),), triton.next_power_of_2(num_chunks), launch_options(True)
    # Without overlap: what comes before may be a copy, and kernels that overlap wait for kernels.
    _begin_kernel[parts](anchor_1, found_X2, hidden_SC, memory_XR, *made, **how)
    for slot in range(num_slots):
        scored = logits_SV[slot], tables.after_VR, told_R, best_3K, vocab_size
        _score_kernel[(num_chunks,)](*scored, rank, block_r, lines, **overlap)
        _choose_kernel[parts](
            *(best_3K, found_X2[slot], hidden_SC[slot], hidden_SC[min(slot + 1, num_slots - 1)], memory_XR[slot + 1]),
            *(*made, *sure, num_chunks, vocab_size, chunks, tables.sure is not None, tables.reads_markov),
            **{**how, "num_warps": min(max(chunks // 128, 4), 8), **overlap},
        )
    return found_X2[1:]


@triton.jit
def _score_kernel(
    logits_ptr: tl.tensor, after_ptr: tl.tensor, told_ptr: tl.tensor, best_ptr: tl.tensor, vocab_size: tl.tensor,
    R: tl.constexpr, BLOCK_R: tl.constexpr, LINES: tl.constexpr, OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    tokens, columns = tl.program_id(0) * LINES + tl.arange(0, LINES), tl.arange(0, BLOCK_R)
    is_token, is_column = tokens < vocab_size, columns < R
    lines = after_ptr + tokens.to(tl.int64)[:, None] * R + columns[None, :]
    after = tl.load(lines, mask=is_token[:, None] & is_column[None, :], other=0.0)
    wait_for_previous(OVERLAPS)
    told = tl.load(told_ptr + columns, mask=is_column, other=0.0).to(tl.float32)
    logits = tl.load(logits_ptr + tokens, mask=is_token, other=float("-inf"))
    admit_next(OVERLAPS)
    added = tl.sum(after.to(tl.float32) * told[None, :], axis=1)
    # Rounded as a product of its own, and again as a sum; only the order of the product's sum is not torch's.
    logits = (logits.to(tl.float32) + _rounded(added, logits_ptr)).to(logits_ptr.dtype.element_ty)
    leave_best(logits.to(tl.float32), tokens, vocab_size, best_ptr + tl.program_id(0), tl.num_programs(0))


@triton.jit
def _begin_kernel(
    anchor_ptr: tl.tensor, found_ptr: tl.tensor, state_ptr: tl.tensor, memory_ptr: tl.tensor,
    before_ptr: tl.tensor, told_ptr: tl.tensor, made_ptr: tl.tensor, bias_ptr: tl.tensor,
    KIND: tl.constexpr, C: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr,
) -> None:  # fmt: skip
    token = tl.load(anchor_ptr)
    if tl.program_id(0) == 0:
        tl.store(found_ptr, token.to(tl.float64))
    _tell(before_ptr + token * R, state_ptr, memory_ptr, told_ptr, made_ptr, bias_ptr, KIND, C, R, BLOCK, PART)


@triton.jit
def _choose_kernel(
    best_ptr: tl.tensor, found_ptr: tl.tensor, state_ptr: tl.tensor, next_state_ptr: tl.tensor, memory_ptr: tl.tensor,
    before_ptr: tl.tensor, told_ptr: tl.tensor, made_ptr: tl.tensor, bias_ptr: tl.tensor,
    sure_ptr: tl.tensor, sure_bias_ptr: tl.tensor, num_chunks: tl.tensor, vocab_size: tl.tensor,
    CHUNKS: tl.constexpr, HAS_SURE: tl.constexpr, READS_MARKOV: tl.constexpr,
    KIND: tl.constexpr, C: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr,
    OVERLAPS: tl.constexpr,
) -> None:  # fmt: skip
    """All programs choose, so that each can go on with the token; the first one writes it down after the one before."""
    chunks = tl.arange(0, CHUNKS)
    wait_for_previous(OVERLAPS)
    admit_next(OVERLAPS)  # the next asks for as much of a table as finds room, and waits
    best, sure = best_of_chunks(best_ptr + chunks, num_chunks, chunks < num_chunks)
    token = tl.minimum(best, vocab_size - 1).to(tl.int64)  # where nothing is a number, any
    _tell(before_ptr + token * R, next_state_ptr, memory_ptr, told_ptr, made_ptr, bias_ptr, KIND, C, R, BLOCK, PART)
    if tl.program_id(0) == 0:
        if HAS_SURE:
            row, is_row = tl.arange(0, 1), tl.full((1,), True, tl.int1)
            stride: tl.constexpr = C + R if READS_MARKOV else C
            score = _times(sure_ptr, row, is_row, stride, state_ptr, C, BLOCK)
            if READS_MARKOV:
                row_ptr = before_ptr + tl.load(found_ptr).to(tl.int64) * R
                score += _times(sure_ptr + C, row, is_row, stride, row_ptr, R, BLOCK)
            score = _rounded(tl.sum(score, axis=0) + tl.load(sure_bias_ptr).to(tl.float32), sure_ptr)
            # Where logits are not numbers, the score may still be one: then the product is not.
            sure = 1.0 / (1.0 + tl.exp(-score.to(tl.float64))) + 0.0 * sure
        tl.store(found_ptr + 2, token.to(tl.float64))
        tl.store(found_ptr + 3, sure)


@triton.jit
def _tell(
    row_ptr: tl.tensor, state_ptr: tl.tensor, memory_ptr: tl.tensor, told_ptr: tl.tensor, made_ptr: tl.tensor,
    bias_ptr: tl.tensor, KIND: tl.constexpr, C: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr,
) -> None:  # fmt: skip
    """This program's part of what a slot is told, after a token whose row of the first table `row_ptr` is; what a
    recurrent head remembers goes after what it remembered. Rounded wherever torch's operations round."""
    rows = tl.program_id(0) * PART + tl.arange(0, PART)
    is_row = rows < R
    told = tl.load(row_ptr + rows, mask=is_row, other=0.0).to(tl.float32)
    if KIND == "gated":
        gate = _times(made_ptr, rows, is_row, C + R, state_ptr, C, BLOCK)
        gate += _times(made_ptr + C, rows, is_row, C + R, row_ptr, R, BLOCK)
        gate += tl.load(bias_ptr + rows, mask=is_row, other=0.0).to(tl.float32)
        told *= _rounded(tl.sigmoid(_rounded(gate, told_ptr)), told_ptr)
    if KIND == "rnn":
        kept = _joint(rows, is_row, made_ptr, bias_ptr, memory_ptr, row_ptr, state_ptr, C, R, BLOCK)
        new = _joint(rows + R, is_row, made_ptr, bias_ptr, memory_ptr, row_ptr, state_ptr, C, R, BLOCK)
        told = _tanh(_joint(rows + 2 * R, is_row, made_ptr, bias_ptr, memory_ptr, row_ptr, state_ptr, C, R, BLOCK))
        kept, new = _rounded(tl.sigmoid(kept), told_ptr), _rounded(_tanh(new), told_ptr)
        memory = tl.load(memory_ptr + rows, mask=is_row, other=0.0).to(tl.float32)
        memory = _rounded(kept * memory, told_ptr) + _rounded(_rounded(1.0 - kept, told_ptr) * new, told_ptr)
        tl.store(memory_ptr + R + rows, memory.to(told_ptr.dtype.element_ty), mask=is_row)
    tl.store(told_ptr + rows, told.to(told_ptr.dtype.element_ty), mask=is_row)


@triton.jit
def _joint(
    rows: tl.tensor, is_row: tl.tensor, w_ptr: tl.tensor, bias_ptr: tl.tensor, memory_ptr: tl.tensor,
    row_ptr: tl.tensor, state_ptr: tl.tensor, C: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Rows of a recurrent head's layer over what it remembers, the first table's row and the slot's state."""
    made = _times(w_ptr, rows, is_row, 2 * R + C, memory_ptr, R, BLOCK)
    made += _times(w_ptr + R, rows, is_row, 2 * R + C, row_ptr, R, BLOCK)
    made += _times(w_ptr + 2 * R, rows, is_row, 2 * R + C, state_ptr, C, BLOCK)
    return _rounded(made + tl.load(bias_ptr + rows, mask=is_row, other=0.0).to(tl.float32), w_ptr)


@triton.jit
def _times(
    w_ptr: tl.tensor, rows: tl.tensor, is_row: tl.tensor, stride: tl.constexpr, x_ptr: tl.tensor, SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Rows of a matrix times a vector of `SIZE` values, in float32."""
    sums = tl.zeros((rows.shape[0], BLOCK), tl.float32)
    for begin in range(0, SIZE, BLOCK):
        columns = begin + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + columns, mask=columns < SIZE, other=0.0).to(tl.float32)
        inside = is_row[:, None] & (columns < SIZE)[None, :]
        sums += tl.load(w_ptr + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0) * x[None, :]
    return tl.sum(sums, axis=1)


@triton.jit
def _rounded(x: tl.tensor, like_ptr: tl.tensor) -> tl.tensor:
    """float32 of what a tensor of the other's kind holds."""
    return x.to(like_ptr.dtype.element_ty).to(tl.float32)


@triton.jit
def _tanh(x: tl.tensor) -> tl.tensor:
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0
