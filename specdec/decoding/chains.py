"""Chains: what one drafter would write after every prefix of a text, pass by pass, as compact arrays.

A chain does not depend on when its drafter is told to stop, so every stop rule can be replayed from it. Drafter
families make chains, `traces/trace.py` stores them. No torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Self

import numpy as np

from specdec.errors import UserError

ARRAYS = {
    "num_tokens": np.int32,
    "num_passes": np.int32,
    "tokens": np.int32,
    "confidences": np.float64,
    "unmasked_by": np.uint16,
    "is_commit": np.uint8,
    "num_recorded": np.uint8,
    "recorded": np.float64,
}


@dataclass(frozen=True)
class Text:
    """A text along which chains are recorded: after its first `prompt_len`, `prompt_len` + 1, ... tokens."""

    ids: list[int]
    prompt_len: int
    num_prefixes: int

    @property
    def prefix_lens(self) -> range:
        return range(self.prompt_len, self.prompt_len + self.num_prefixes)


@dataclass(frozen=True)
class Chain:
    """One chain, from one prefix. Passes count from 1; 0 is before the first.

    Example: tokens [7, 8, 9] unmasked by passes [0, 2, 1] are known in a row as `known == [1, 1, 3]`.
    """

    tokens: list[int]
    confidences: list[float]  # of each token at the moment it was unmasked
    unmasked_by: list[int]  # the pass that did it; 0: known before any (the first token of a block)
    is_commit: list[int]  # per pass: 1 commit, 0 denoising
    num_recorded: list[int]  # per pass: how many confidences the published rule records of it
    recorded: list[float]  # those confidences, pass after pass

    @property
    def num_passes(self) -> int:
        return len(self.is_commit)

    @cached_property
    def known(self) -> list[int]:
        """After each number of passes, from 0: how many tokens are known in a row."""
        counts, needed = [0] * (self.num_passes + 1), list(accumulate(self.unmasked_by, max))
        for last_pass in needed:
            counts[last_pass] += 1
        return list(accumulate(counts))

    @cached_property
    def recorded_ends(self) -> list[int]:
        """After each number of passes, from 0: how many of `recorded` there are."""
        return list(accumulate(self.num_recorded, initial=0))

    @cached_property
    def passes_for(self) -> list[int]:
        """Passes until 0, 1, 2, ... tokens are known in a row."""
        return [0, *accumulate(self.unmasked_by, max)]


@dataclass(frozen=True)
class Chains:
    """One drafter's chains from `num_prefixes` prefixes in a row, one after the other.

    `name`: "ar", or "dllm_THRESHOLD". `identity`: what decides the chains beside the text (model, mask, blocks).
    `chain_len`: every chain has at least this number of tokens, or ends with the pass that gave a stop token.
    """

    name: str
    identity: dict[str, Any]
    chain_len: int
    arrays: dict[str, np.ndarray]

    @classmethod
    def pack(cls, name: str, identity: dict[str, Any], chain_len: int, chains: Sequence[Chain]) -> Self:
        """The arrays of `chains`, in the order of their prefixes."""
        parts = {key: [item for chain in chains for item in getattr(chain, key)] for key in list(ARRAYS)[2:]}
        parts |= {"num_tokens": [len(c.tokens) for c in chains], "num_passes": [c.num_passes for c in chains]}
        return cls(name, identity, chain_len, {key: np.array(parts[key], kind) for key, kind in ARRAYS.items()})

    @property
    def has_blocks(self) -> bool:
        """Whether its drafter fills blocks, whose cache decides on prefill passes."""
        return "block_size" in self.identity

    @property
    def num_prefixes(self) -> int:
        return len(self.arrays["num_tokens"])

    @cached_property
    def chains(self) -> list[Chain]:
        """One chain per prefix, as plain lists."""
        lists = {key: array.tolist() for key, array in self.arrays.items()}
        tokens = list(accumulate(lists["num_tokens"], initial=0))
        passes = list(accumulate(lists["num_passes"], initial=0))
        recorded = list(accumulate(lists["num_recorded"], initial=0))
        made = []
        for i in range(self.num_prefixes):
            token_span, pass_span = slice(*tokens[i : i + 2]), slice(*passes[i : i + 2])
            recorded_span = slice(recorded[pass_span.start], recorded[pass_span.stop])
            parts = {key: lists[key][token_span] for key in ("tokens", "confidences", "unmasked_by")}
            parts |= {key: lists[key][pass_span] for key in ("is_commit", "num_recorded")}
            made.append(Chain(recorded=lists["recorded"][recorded_span], **parts))
        return made

    def too_short(self, question_id: int, drafter_name: str) -> UserError:
        """The error of a drafter that needs longer drafts."""
        return UserError(
            f"{drafter_name} needs longer drafts than were recorded: the chains {self.name} of question "
            f"{question_id} are {self.chain_len} tokens long; record more with failfast.py --record --chain_len N"
        )

    def check(self) -> None:
        """UserError unless the arrays are of their types and fit each other."""
        for key, kind in ARRAYS.items():
            if self.arrays[key].dtype != kind or self.arrays[key].ndim != 1:
                raise UserError(f"{self.name}: {key} has another type")
        sizes = {key: len(array) for key, array in self.arrays.items()}
        sums = {key: int(self.arrays[key].sum()) for key in ("num_tokens", "num_passes", "num_recorded")}
        expected = {
            "num_passes": sizes["num_tokens"],
            **dict.fromkeys(("tokens", "confidences", "unmasked_by"), sums["num_tokens"]),
            **dict.fromkeys(("is_commit", "num_recorded"), sums["num_passes"]),
            "recorded": sums["num_recorded"],
        }
        for key, size in expected.items():
            if sizes[key] != size:
                raise UserError(f"{self.name}: {key} has {sizes[key]} entries, not {size}")
        for key in ("num_tokens", "num_passes", "tokens"):
            if np.any(self.arrays[key] < 0):
                raise UserError(f"{self.name}: {key} has numbers below 0")
        for key in ("confidences", "recorded"):
            if not np.all((self.arrays[key] >= 0) & (self.arrays[key] < 1.001)):  # nor what is not a number
                raise UserError(f"{self.name}: {key} are not probabilities")
        passes_of_token = np.repeat(self.arrays["num_passes"], self.arrays["num_tokens"])
        if np.any(self.arrays["unmasked_by"] > passes_of_token):
            raise UserError(f"{self.name}: a token was unmasked by a pass that is not there")
