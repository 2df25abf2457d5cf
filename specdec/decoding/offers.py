"""Offers: what one drafter held probable after every prefix of a text, of which any tree is made, as compact arrays.

What chains (`chains.py`) are for drafts in a row, offers are for trees: they do not depend on how many nodes are
verified, so that every budget and every rule follows from them. Drafter families make them, `traces/trace.py` stores
them. No torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar, Self

import numpy as np

from specdec.decoding.chains import Chain, Chains
from specdec.decoding.pairs import Followers, tied_search
from specdec.decoding.trees import Candidates, Tree, log_of, slots_search, walk_text
from specdec.errors import UserError

OTHER = -1  # a token that no text has
LEAST_NODES = 32  # a search for these costs little more than one for few, and the next setting asks for more


@dataclass(frozen=True)
class Offers(ABC):
    """One drafter's offers from `num_prefixes` prefixes in a row.

    `identity`: what decides them beside the text. `size`: what was asked for, of which a smaller one is a part.
    """

    name: str
    identity: dict[str, Any]
    size: int
    arrays: dict[str, np.ndarray]
    _known: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # what has been found of it

    kind: ClassVar[str]  # its word in a trace
    dtypes: ClassVar[Mapping[str, type]]
    size_title: ClassVar[str]

    @property
    @abstractmethod
    def num_prefixes(self) -> int: ...

    @property
    @abstractmethod
    def depth(self) -> int:
        """The most tokens of a path."""

    def of_size(self, size: int) -> Offers:
        """The part of this size, which must not be greater than the own one."""
        return self

    @abstractmethod
    def passes_for(self, depth: int) -> int:
        """Passes of the drafter that paths of up to `depth` tokens take."""

    @abstractmethod
    def num_passes(self, at: int, depth: int, sure: float, stop_ids: Collection[int]) -> int:
        """The passes after prefix `at` of a tree of up to this depth that grows on while a leaf is sure."""

    def levels_of(self, num_passes: int, depth: int) -> int:
        """How many levels, of `depth` at most, that many passes give."""
        return depth

    @abstractmethod
    def falling(self, at: int, depth: int, max_nodes: int, stop_ids: Collection[int]) -> Tree:
        """The nodes after prefix `at` of at most this depth, the most probable first: at least `max_nodes` where there
        are that many."""

    @abstractmethod
    def match(self, at: int, text: Sequence[int]) -> int:
        """How many tokens of a text, one after the other, stand on one path after prefix `at`."""

    def true_chain(self, at: int, text: Sequence[int]) -> Chain:
        """The path of a text after prefix `at`: whoever knows the text drafts no other node. Where it is not on offer,
        any other token stands there, for what is wrong may be worth its verification where plain decoding is dear."""
        tokens = list(text[: self.match(at, text)]) or [OTHER] * (self.num_passes(at, 1, 0.0, ()) > 0)
        passes = [self.passes_for(depth) for depth in range(1, len(tokens) + 1)]
        num_passes = max(passes, default=0)
        return Chain(tokens, [1.0] * len(tokens), passes, [0] * num_passes, [0] * num_passes, [])

    def true_chains(self, text: Sequence[int]) -> Chains:
        """Such a path after every prefix of a text."""
        made = [self.true_chain(at, text[at:]) for at in range(self.num_prefixes)]
        return Chains.pack(self.name, self.identity, self.depth, made)

    def require(self, size: int, drafter_name: str, question_id: int) -> None:
        """UserError for a drafter that needs a greater size."""
        if size > self.size:
            raise UserError(
                f"{drafter_name} needs {size} {self.size_title}, and the trace of question {question_id} holds "
                f"{self.size}: record more with failfast.py --record and this drafter"
            )

    def check(self) -> None:
        """UserError unless the arrays are of their types and fit each other."""
        for key, kind in self.dtypes.items():
            if self.arrays[key].dtype != kind:
                raise UserError(f"{self.name}: {key} has another type")
        if not np.all(self.arrays["log_probs"] <= 0):  # nor what is not a number
            raise UserError(f"{self.name}: log_probs are not those of probabilities")
        if np.any(self.arrays["tokens"] < 0):
            raise UserError(f"{self.name}: tokens has numbers below 0")


class Slots(Offers):
    """Of a drafter that fills slots in one pass, none of which knows of the others: the candidates of each slot.

    `size`: candidates of a slot. Arrays: tokens [P, S, K] and log_probs [P, S, K] of P prefixes, S slots.
    """

    kind = "slots"
    dtypes: ClassVar = {"tokens": np.int32, "log_probs": np.float32}
    size_title = "candidates of a slot"

    @classmethod
    def pack(cls, name: str, identity: dict[str, Any], offers: Sequence[Candidates]) -> Self:
        """The arrays of `offers`, all of one shape, in the order of their prefixes (one at least)."""
        tokens = np.stack([one.tokens_SK for one in offers]).astype(np.int32)
        log_probs = np.stack([one.log_probs_SK for one in offers]).astype(np.float32)
        return cls(name, identity, tokens.shape[2], {"tokens": tokens, "log_probs": log_probs})

    @property
    def num_prefixes(self) -> int:
        return len(self.arrays["tokens"])

    @property
    def depth(self) -> int:
        return int(self.arrays["tokens"].shape[1])

    def of_size(self, size: int) -> Offers:
        if size == self.size:
            return self
        if size not in self._known:
            arrays = {key: array[:, :, :size] for key, array in self.arrays.items()}
            self._known[size] = Slots(self.name, self.identity, size, arrays)
        part: Slots = self._known[size]
        return part

    def passes_for(self, depth: int) -> int:
        return min(depth, 1)

    def num_passes(self, at: int, depth: int, sure: float, stop_ids: Collection[int]) -> int:
        return 1

    def candidates(self, at: int, depth: int) -> Candidates:
        """Of the first slots after prefix `at`."""
        return Candidates(self.arrays["tokens"][at, :depth], self.arrays["log_probs"][at, :depth])

    def falling(self, at: int, depth: int, max_nodes: int, stop_ids: Collection[int]) -> Tree:
        key = at, min(depth, self.depth), frozenset(stop_ids)
        if key not in self._known:
            self._known[key] = slots_search(self.candidates(at, depth), stop_ids)
        found: Tree = self._known[key].first(rounded(max_nodes))
        return found

    def falling_tied(
        self, at: int, depth: int, max_nodes: int, stop_ids: Collection[int], prefix_ids: Sequence[int]
    ) -> Tree:
        """The same in the order that the text before them gives paths (`pairs.py`)."""
        key = "tied", at, min(depth, self.depth), frozenset(stop_ids)
        if key not in self._known:
            followers = self._known.setdefault("followers", Followers())
            followers.read(prefix_ids)
            self._known[key] = tied_search(self.candidates(at, depth), followers, prefix_ids, stop_ids)
        found: Tree = self._known[key].first(rounded(max_nodes))
        return found

    def match(self, at: int, text: Sequence[int]) -> int:
        tokens_SK = self.arrays["tokens"][at][: len(text)]
        wanted_S = np.asarray(text[: len(tokens_SK)], np.int32)
        may_be_SK = (tokens_SK == wanted_S[:, None]) & (self.arrays["log_probs"][at][: len(text)] > -np.inf)
        misses = np.flatnonzero(~may_be_SK.any(1))
        return int(misses[0]) if len(misses) else len(tokens_SK)

    def check(self) -> None:
        super().check()
        tokens, log_probs = self.arrays["tokens"], self.arrays["log_probs"]
        if tokens.ndim != 3 or tokens.shape != log_probs.shape or tokens.shape[2] != self.size:
            raise UserError(f"{self.name}: not {self.size} candidates of every slot")
        if np.any(log_probs[:, :, 1:] > log_probs[:, :, :-1]):
            raise UserError(f"{self.name}: candidates are not the most probable first")


class Levels(Offers):
    """Of a drafter that grows a tree level by level, a pass each: every node that it scored (`trees.scored_tree`).

    `size`: levels. Arrays: num_nodes [P] of P prefixes, and of all nodes one after the other tokens, parents (within
    their prefix) and log_probs of their paths.
    """

    kind = "levels"
    dtypes: ClassVar = {"num_nodes": np.int32, "tokens": np.int32, "parents": np.int16, "log_probs": np.float32}
    size_title = "levels"

    @classmethod
    def pack(cls, name: str, identity: dict[str, Any], size: int, offers: Sequence[Tree]) -> Self:
        """The arrays of `offers`, in the order of their prefixes."""
        parts: dict[str, list[Any]] = {
            key: [item for tree in offers for item in getattr(tree, key)] for key in ("tokens", "parents", "log_probs")
        }
        parts["num_nodes"] = [len(tree) for tree in offers]
        return cls(name, identity, size, {key: np.array(parts[key], kind) for key, kind in cls.dtypes.items()})

    @property
    def num_prefixes(self) -> int:
        return len(self.arrays["num_nodes"])

    @property
    def depth(self) -> int:
        return self.size

    def passes_for(self, depth: int) -> int:
        return depth

    @cached_property
    def _ends(self) -> list[int]:
        return [0, *accumulate(self.arrays["num_nodes"].tolist())]

    def scored(self, at: int) -> Tree:
        """All nodes after a prefix, level by level."""
        begin, end = self._ends[at : at + 2]
        return Tree(*(self.arrays[key][begin:end].tolist() for key in ("tokens", "parents", "log_probs")))

    @cached_property
    def _depths(self) -> np.ndarray:
        """Of every node of every prefix."""
        own, counts = self.arrays["parents"].astype(np.int64), self.arrays["num_nodes"]
        parents = np.where(own < 0, -1, own + np.repeat(np.cumsum(counts) - counts, counts))
        found, above = np.zeros(len(parents), np.int32), np.arange(len(parents))
        while (has_above := above >= 0).any():
            found += has_above
            above = np.where(has_above, parents[above], -1)
        return found

    def _best_leaves(self, stop_ids: Collection[int]) -> np.ndarray:
        """Per prefix and level the log-probability of the most probable node that may be expanded, [P, levels]."""
        key = frozenset(stop_ids)
        if key not in self._known:
            best = np.full((self.num_prefixes, self.size), -np.inf)
            is_open = ~np.isin(self.arrays["tokens"], list(key))
            places = np.repeat(np.arange(self.num_prefixes), self.arrays["num_nodes"]), self._depths - 1
            np.maximum.at(best, tuple(place[is_open] for place in places), self.arrays["log_probs"][is_open])
            self._known[key] = best
        found: np.ndarray = self._known[key]
        return found

    def num_passes(self, at: int, depth: int, sure: float, stop_ids: Collection[int]) -> int:
        begin, end = self._ends[at : at + 2]
        if begin == end:
            return 0
        unsure = np.flatnonzero(self._best_leaves(stop_ids)[at, : depth - 1] < log_of(sure))
        return min([depth, int(self._depths[end - 1]), *(unsure[:1] + 1).tolist()])

    def levels_of(self, num_passes: int, depth: int) -> int:
        return num_passes

    def falling(self, at: int, depth: int, max_nodes: int, stop_ids: Collection[int]) -> Tree:
        asked, found = self._known.get((at, depth), (0, Tree()))
        if asked < max_nodes:
            begin, end = self._ends[at : at + 2]
            end, asked = begin + bisect_right(self._depths[begin:end], depth), rounded(max_nodes)
            best = np.argsort(-self.arrays["log_probs"][begin:end], kind="stable")[:asked]
            found = self.scored(at).taken(best.tolist())
            self._known[at, depth] = asked, found
        return found

    def match(self, at: int, text: Sequence[int]) -> int:
        scored = self.scored(at)
        return len(walk_text(scored.tokens, scored.parents, text))

    def check(self) -> None:
        super().check()
        counts, total = self.arrays["num_nodes"], len(self.arrays["tokens"])
        if any(self.arrays[key].shape != (total,) for key in ("parents", "log_probs")) or counts.ndim != 1:
            raise UserError(f"{self.name}: parents and log_probs are not one per token")
        if np.any(counts < 0) or int(counts.sum()) != total:
            raise UserError(f"{self.name}: num_nodes do not fit the tokens")
        begins = np.repeat(np.cumsum(counts) - counts, counts)
        parents, has_parent = self.arrays["parents"].astype(np.int64), self.arrays["parents"] >= 0
        if np.any(parents < -1) or np.any(parents >= np.arange(total) - begins):
            raise UserError(f"{self.name}: a parent does not come before its child")
        above = (begins + parents)[has_parent]
        if np.any(self.arrays["log_probs"][has_parent] > self.arrays["log_probs"][above]):
            raise UserError(f"{self.name}: a path is more probable than its beginning")
        is_first = np.arange(total) == begins
        if np.any((np.diff(self._depths, prepend=0) < 0) & ~is_first) or np.any(self._depths > self.size):
            raise UserError(f"{self.name}: nodes do not stand level by level, in {self.size} levels")


def rounded(max_nodes: int) -> int:
    """How many nodes are searched for where that many are asked for. Example: `rounded(3), rounded(40) == 32, 64`."""
    return max(LEAST_NODES, 1 << (max_nodes - 1).bit_length())


KINDS: dict[str, type[Offers]] = {"slots": Slots, "levels": Levels}


def packed(
    name: str, identity: dict[str, Any], size: int, recorded: Sequence[Chain | Candidates | Tree]
) -> Chains | Offers:
    """What a drafter gave after each prefix, as arrays: chains of `size` tokens, slots, or trees of `size` levels."""
    chains = [one for one in recorded if isinstance(one, Chain)]
    slots = [one for one in recorded if isinstance(one, Candidates)]
    if slots:
        return Slots.pack(name, identity, slots)
    if chains or not recorded:
        return Chains.pack(name, identity, size, chains)
    return Levels.pack(name, identity, size, [one for one in recorded if isinstance(one, Tree)])
