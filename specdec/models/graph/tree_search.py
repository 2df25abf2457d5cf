"""The search of `decoding/trees.py` over slots, as a Triton kernel, for candidates that are on the device: the host
need not look at each. Node for node, and of equals in the same order, what `Search` finds.

Shape suffixes: K candidates, N nodes, S slots.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

RANKS, SLOTS = 12, 8  # bits of a rank, and of a slot: what is left of 32 is a node's number


def search_slots(
    tokens_SK: torch.Tensor, log_probs_SK: torch.Tensor, is_last_SK: torch.Tensor, depth_1: torch.Tensor, num_nodes: int
) -> torch.Tensor:
    """The `num_nodes` most probable paths of at most `depth_1` slots, which is S at most, in falling order, [N, 3]
    float64: token, parent and the logarithm of the path's probability; where there are fewer, it is minus infinity.

    Candidates as in `Candidates`, int64, float32 and int32: after those that `is_last_SK` says nothing grows."""
    found_N3 = torch.empty(num_nodes, 3, dtype=torch.float64, device=tokens_SK.device)
    block, candidates = triton.next_power_of_2(num_nodes + 1), tokens_SK.shape[1]
    _search_kernel[(1,)](
        *(tokens_SK, log_probs_SK, is_last_SK, depth_1, found_N3),
        *(candidates, num_nodes, block, RANKS, SLOTS),
        num_warps=min(max(block // 128, 1), 8),
    )
    return found_N3


@triton.jit
def _search_kernel(
    tokens_ptr: tl.tensor, log_probs_ptr: tl.tensor, is_last_ptr: tl.tensor, depth_ptr: tl.tensor, found_ptr: tl.tensor,
    candidates: tl.tensor, NODES: tl.constexpr, BLOCK: tl.constexpr,
    RANKS: tl.constexpr, SLOTS: tl.constexpr,
) -> None:  # fmt: skip
    """What waits to be found: of each its minus log-probability, a number by which equals are told apart, the same of
    the parent's path, and in one word its parent + 1, slot and rank. A found one's place is taken by its next sibling;
    its first child gets a new one."""
    places, depth = tl.arange(0, BLOCK), tl.load(depth_ptr)
    minus = tl.where(places == 0, -tl.load(log_probs_ptr).to(tl.float64), float("inf"))
    numbers = tl.where(places == 0, 0, 1 << 30)
    above = tl.zeros([BLOCK], tl.float64)
    words = tl.zeros([BLOCK], tl.int32)
    for node in range(NODES):
        best = tl.min(minus, 0)
        number = tl.min(tl.where(minus == best, numbers, 1 << 30), 0)
        is_found = (minus == best) & (numbers == number)
        is_node = best < float("inf")
        word = tl.sum(tl.where(is_found, words, 0), 0)
        parents_minus = tl.sum(tl.where(is_found, above, 0.0), 0)
        slot, rank = (word >> RANKS) & ((1 << SLOTS) - 1), word & ((1 << RANKS) - 1)
        at = slot * candidates + rank
        tl.store(found_ptr + 3 * node, tl.load(tokens_ptr + at, mask=is_node, other=0).to(tl.float64))
        tl.store(found_ptr + 3 * node + 1, ((word >> (RANKS + SLOTS)) - 1).to(tl.float64))
        tl.store(found_ptr + 3 * node + 2, -best)
        own = tl.load(log_probs_ptr + at + 1, mask=is_node & (rank + 1 < candidates), other=float("-inf"))
        grows = is_node & (slot + 1 < depth) & (tl.load(is_last_ptr + at, mask=is_node, other=1) == 0)
        below = tl.load(log_probs_ptr + (slot + 1) * candidates, mask=grows, other=float("-inf"))
        minus = tl.where(is_found, parents_minus - own.to(tl.float64), minus)
        numbers = tl.where(is_found, 2 * node + 1, numbers)
        words = tl.where(is_found, word + 1, words)
        is_child = places == node + 1
        minus = tl.where(is_child, best - below.to(tl.float64), minus)
        numbers = tl.where(is_child, 2 * node + 2, numbers)
        above = tl.where(is_child, best, above)
        words = tl.where(is_child, ((node + 1) << (RANKS + SLOTS)) | ((slot + 1) << RANKS), words)
