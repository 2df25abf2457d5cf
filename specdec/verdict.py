"""Verdict: the target's answer to a draft. Not the target (`target.py`, or a trajectory read back: `recorded.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """How many tokens of a draft the target keeps, and its own next one.

    `next_token` is the correction of the first rejected token or, if all were accepted, the bonus. `probabilities`:
    what a target that samples gives each drafted token (after the first rejected one: given the rejected tokens).
    """

    accepted_len: int
    next_token: int
    probabilities: list[float] | None = None


def count_accepted(draft_tokens: Sequence[int], greedy: Sequence[int]) -> int:
    """How many tokens of a draft equal the target's own. Example: `count_accepted([5, 6, 9], [5, 6, 7]) == 2`."""
    accepted_len, limit = 0, min(len(draft_tokens), len(greedy))
    while accepted_len < limit and draft_tokens[accepted_len] == greedy[accepted_len]:
        accepted_len += 1
    return accepted_len
