"""Choosing, as Triton kernels: the few most probable tokens after each row, and which of them a tree goes on from, so
that the next level of a tree needs no word from the host.

Shape suffixes as in `reference.py`; B nodes of a level, N those of the next one, W words of 64 bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from specdec.models.graph.branches import WORD, Level

CHUNK_V = 2048  # logits that one program looks at


def few_most_probable(
    logits_BV: torch.Tensor, tokens_V: torch.Tensor, found_BK2: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.few_most_probable: over chunks of rows, then over what they found; found_BK2 may be pinned
    memory."""
    (num_rows, vocab_size), count = logits_BV.shape, found_BK2.shape[1]
    num_chunks, kept = triton.cdiv(vocab_size, CHUNK_V), triton.next_power_of_2(count)
    best_BSK = logits_BV.new_empty(num_rows, num_chunks, kept, dtype=torch.float32)
    words_BSK = torch.empty_like(best_BSK, dtype=torch.int32)
    sums_2BS = best_BSK.new_empty(2, num_rows, num_chunks)
    _few_kernel[(num_rows, num_chunks)](logits_BV, best_BSK, words_BSK, sums_2BS, vocab_size, count, kept, CHUNK_V)
    tokens_BK, log_probs_BK = tokens_V.new_empty(num_rows, count), best_BSK.new_empty(num_rows, count)
    size = triton.next_power_of_2(num_chunks * kept)
    _few_of_few_kernel[(num_rows,)](
        *(best_BSK, words_BSK, sums_2BS, tokens_V, tokens_BK, log_probs_BK, found_BK2, num_chunks),
        *(num_chunks * kept, count, kept, triton.next_power_of_2(num_chunks), size),
        num_warps=_warps(size),
    )
    return tokens_BK, log_probs_BK


def go_on(
    found: tuple[torch.Tensor, torch.Tensor], stops: torch.Tensor, level: Level, after: Level, told_N2: torch.Tensor
) -> None:
    """See reference.go_on: one program; told_N2 may be pinned memory."""
    tokens_BK, log_probs_BK = found
    (num_nodes, num_words), size = after.sees_NW.shape, triton.next_power_of_2(tokens_BK.numel())
    _go_on_kernel[(1,)](
        *(tokens_BK, log_probs_BK, stops, level.scores_N, level.sees_NW),
        *(after.ids_N, after.parents_N, after.scores_N, after.sees_NW, told_N2),
        *(tokens_BK.numel(), num_words, after.begin, tokens_BK.shape[1], len(stops), num_nodes),
        *(size, triton.next_power_of_2(num_nodes), triton.next_power_of_2(num_words), WORD),
        num_warps=_warps(size),
    )


def _warps(size: int) -> int:
    """Of a program that looks for the greatest of few numbers again and again: within one warp that takes least."""
    return 1 if size <= 256 else 4


@triton.jit
def _few_kernel(
    logits_ptr: tl.tensor, best_ptr: tl.tensor, words_ptr: tl.tensor, sums_ptr: tl.tensor, vocab_size: tl.tensor,
    COUNT: tl.constexpr, KEPT: tl.constexpr, CHUNK: tl.constexpr,
) -> None:  # fmt: skip
    row, chunk = tl.program_id(0), tl.program_id(1)
    words, kept = chunk * CHUNK + tl.arange(0, CHUNK), tl.arange(0, KEPT)
    logits = tl.load(
        logits_ptr + row.to(tl.int64) * vocab_size + words, mask=words < vocab_size, other=float("-inf")
    ).to(tl.float32)
    peak = tl.max(logits, axis=0)
    base = tl.where(peak == float("-inf"), 0.0, peak)
    place, num_places = row * tl.num_programs(1) + chunk, tl.num_programs(0) * tl.num_programs(1)
    tl.store(sums_ptr + place, peak)
    tl.store(sums_ptr + num_places + place, tl.sum(tl.exp(logits - base), axis=0))
    best, best_words = tl.full((KEPT,), float("-inf"), tl.float32), tl.zeros((KEPT,), tl.int32)
    for rank in range(COUNT):
        highest = tl.max(logits, axis=0)
        # Where nothing is a number, any word: no logit of it is one.
        word = tl.minimum(tl.min(tl.where(logits == highest, words, vocab_size), axis=0), vocab_size - 1)
        best = tl.where(kept == rank, highest, best)
        best_words = tl.where(kept == rank, word, best_words)
        logits = tl.where(words == word, float("-inf"), logits)
    tl.store(best_ptr + place * KEPT + kept, best)
    tl.store(words_ptr + place * KEPT + kept, best_words)


@triton.jit
def _few_of_few_kernel(
    best_ptr: tl.tensor, words_ptr: tl.tensor, sums_ptr: tl.tensor, map_ptr: tl.tensor, tokens_ptr: tl.tensor,
    log_probs_ptr: tl.tensor, found_ptr: tl.tensor, num_chunks: tl.tensor, num_kept: tl.tensor,
    COUNT: tl.constexpr, KEPT: tl.constexpr, CHUNKS: tl.constexpr, SIZE: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    chunks, places, kept = tl.arange(0, CHUNKS), tl.arange(0, SIZE), tl.arange(0, KEPT)
    sums = sums_ptr + row * num_chunks + chunks
    peaks = tl.load(sums, mask=chunks < num_chunks, other=float("-inf"))
    totals = tl.load(sums + tl.num_programs(0) * num_chunks, mask=chunks < num_chunks, other=0.0)
    peak = tl.max(peaks, axis=0)
    log_total = tl.log(tl.sum(totals * tl.exp(peaks - peak), axis=0))
    inside = places < num_kept
    best = tl.load(best_ptr + row * num_kept + places, mask=inside, other=float("-inf"))
    tokens = tl.load(map_ptr + tl.load(words_ptr + row * num_kept + places, mask=inside, other=0))
    first_tokens, first_best = tl.zeros((KEPT,), tl.int64), tl.full((KEPT,), float("-inf"), tl.float32)
    for rank in range(COUNT):
        highest = tl.max(best, axis=0)
        # Of equals the first token; where nothing is a number, any.
        is_highest = best == highest
        token = tl.min(tl.where(is_highest, tokens, 1 << 40), axis=0)
        token = tl.where(token == 1 << 40, 0, token)
        first_tokens = tl.where(kept == rank, token, first_tokens)
        first_best = tl.where(kept == rank, highest, first_best)
        best = tl.where(is_highest & (tokens == token), float("-inf"), best)
    log_probs, out = (first_best - peak) - log_total, row * COUNT + kept
    tl.store(tokens_ptr + out, first_tokens, mask=kept < COUNT)
    tl.store(log_probs_ptr + out, log_probs, mask=kept < COUNT)
    tl.store(found_ptr + 2 * out, first_tokens.to(tl.float64), mask=kept < COUNT)
    tl.store(found_ptr + 2 * out + 1, log_probs.to(tl.float64), mask=kept < COUNT)


@triton.jit
def _go_on_kernel(
    tokens_ptr: tl.tensor, log_probs_ptr: tl.tensor, stops_ptr: tl.tensor, scores_ptr: tl.tensor, sees_ptr: tl.tensor,
    ids_ptr: tl.tensor, parents_ptr: tl.tensor, new_scores_ptr: tl.tensor, new_sees_ptr: tl.tensor,
    told_ptr: tl.tensor, num_found: tl.tensor, num_words: tl.tensor, begin: tl.tensor,
    K: tl.constexpr, STOPS: tl.constexpr, COUNT: tl.constexpr, SIZE: tl.constexpr, NODES: tl.constexpr,
    WORDS: tl.constexpr, WORD: tl.constexpr,
) -> None:  # fmt: skip
    places, nodes, words = tl.arange(0, SIZE), tl.arange(0, NODES), tl.arange(0, WORDS)[None, :]
    inside, is_node = places < num_found, nodes < COUNT
    tokens = tl.load(tokens_ptr + places, mask=inside, other=-1)
    scores = tl.load(scores_ptr + places // K, mask=inside, other=float("-inf"))
    scores += tl.load(log_probs_ptr + places, mask=inside, other=float("-inf"))
    for index in range(STOPS):
        scores = tl.where(tokens == tl.load(stops_ptr + index), float("-inf"), scores)
    chosen, new_scores = tl.zeros((NODES,), tl.int32), tl.full((NODES,), float("-inf"), tl.float32)
    for node in range(COUNT):
        score = tl.max(scores, axis=0)
        # What has no probability may come twice: nobody asks for it. Where nothing is a number, any.
        place = tl.minimum(tl.min(tl.where(scores == score, places, SIZE), axis=0), num_found - 1)
        chosen, new_scores = tl.where(nodes == node, place, chosen), tl.where(nodes == node, score, new_scores)
        scores = tl.where(places == place, float("-inf"), scores)
    ids, parents = tl.load(tokens_ptr + chosen, mask=is_node, other=0), (chosen // K).to(tl.int64)
    tl.store(ids_ptr + nodes, ids, mask=is_node)
    tl.store(parents_ptr + nodes, parents, mask=is_node)
    tl.store(new_scores_ptr + nodes, new_scores, mask=is_node)
    tl.store(told_ptr + 2 * nodes, ids, mask=is_node)
    tl.store(told_ptr + 2 * nodes + 1, parents, mask=is_node)
    is_word = is_node[:, None] & (words < num_words)
    own = (begin + nodes)[:, None]
    seen = tl.load(sees_ptr + parents[:, None] * num_words + words, mask=is_word, other=0)
    seen |= tl.where(words == own // WORD, tl.full((NODES, WORDS), 1, tl.int64) << (own % WORD).to(tl.int64), 0)
    tl.store(new_sees_ptr + nodes[:, None] * num_words + words, seen, mask=is_word)
