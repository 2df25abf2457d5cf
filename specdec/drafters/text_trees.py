"""Trees over the text alone, of no model and no pass: prompt lookup and suffix decoding where what followed branches.

What may follow is counted, and a count's share of its siblings' is taken for a probability: the most probable paths are
drafted. Source of the second: SuffixDecoding (arXiv 2411.04975), whose trees it is; the first is the same idea with
lookup's places.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, Self

import numpy as np

from specdec.decoding.chains import Chain, Chains
from specdec.decoding.offers import OTHER
from specdec.decoding.stopping import Draft
from specdec.decoding.trees import Children, Search, Tree, log_of
from specdec.drafters.base import Drafter, Family, Recorded, Setup, Spec
from specdec.drafters.lookup import MATCH_LEN, Index
from specdec.drafters.suffix import Suffix, SuffixReader
from specdec.drafters.suffix_tree import Place, SuffixTree
from specdec.drafters.tree_drafter import TREE_NODES

if TYPE_CHECKING:
    from torch import Tensor

TREE = "_tree_"


@dataclass(frozen=True)
class LookupTree(Spec):
    """Looks up the last `match_len` tokens or fewer, and drafts what followed at all their places, at most `tree_nodes`
    tokens of it, the most frequent paths first; of equals the newest."""

    match_len: int
    tree_nodes: int

    name_pattern = "lookup_{match_len}_tree_{tree_nodes}"
    label_pattern = "prompt lookup {match_len}, tree of {tree_nodes}"
    swept = (MATCH_LEN, TREE_NODES)
    kind = "lookup_tree"
    title = "prompt lookup, tree"
    hue = "#5E7FA8"
    marker = "4"
    not_served = "its lookup drafts in a row"
    is_default = False
    draws = False

    @property
    def most_nodes(self) -> int:
        return self.tree_nodes

    @property
    def first_asked(self) -> int:
        return self.tree_nodes

    def true_chains(self, trace: Recorded) -> Chains:
        return text_paths(trace)

    def drafter(self, setup: Setup) -> Drafter:
        return LookupTreeDrafter(self, setup.stop_ids)

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        """The live drafter: all that it reads is the text."""
        return LookupTreeDrafter(self, trace.stop_ids)


@dataclass(frozen=True)
class SuffixDecodingTree(Suffix):
    """Suffix decoding whose drafts branch: as `Suffix`, but with all frequent ways on and not the most frequent alone,
    of `tree_nodes` tokens at most."""

    tree_nodes: int = 64

    swept = (*Suffix.swept, TREE_NODES)
    kind = "suffix_tree"
    title = "suffix decoding, tree"
    hue = "#B8A400"
    marker = "|"
    not_served = "it drafts in a row"

    @property
    def name(self) -> str:
        return f"{super().name}{TREE}{self.tree_nodes}"

    @property
    def label(self) -> str:
        return f"{super().label}, tree of {self.tree_nodes}"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        first, _, nodes = name.rpartition(TREE)
        chain = Suffix.parse(first) if nodes.isdecimal() else None
        made = cls(**vars(chain), tree_nodes=int(nodes)) if chain else None
        return made if made and made.name == name else None  # one spelling each

    @property
    def chains_name(self) -> None:
        """No trace holds them: they follow from the text."""
        return

    @property
    def most_nodes(self) -> int:
        return self.tree_nodes

    def true_chains(self, trace: Recorded) -> Chains | None:
        return None if self.earlier else text_paths(trace)

    def limit(self, match_len: int) -> int:
        return min(super().limit(match_len), self.tree_nodes)

    def drafter(self, setup: Setup) -> Drafter:
        return SuffixTreeDrafter(self, setup.stop_ids, setup.earlier)

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        """The live drafter: all that it reads are texts."""
        return SuffixTreeDrafter(self, trace.stop_ids, setup.earlier)


class TextTreeDrafter(Drafter):
    """Drafts from what it has read; the next prefix says what was kept."""

    stop_ids: Collection[int]

    @abstractmethod
    def grown(self, prefix_ids: Sequence[int], depth: int) -> Tree:
        """What may follow a text in at most `depth` levels, the most probable first."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        tree = self.grown(prefix_ids, budget) if budget > 0 else Tree()
        if not len(tree):
            return Draft(asked_len=self.asked_len(0))
        tree = tree.first(len(tree))
        sure = tree.token_probs
        asked_len = self.asked_len(len(tree))
        return Draft(tree.tokens, sure, stop_reason="length", token_confidences=[*sure], asked_len=asked_len,
                     parents=tree.parents)  # fmt: skip

    def asked_len(self, num_nodes: int) -> int:
        return num_nodes


class LookupTreeDrafter(TextTreeDrafter):
    def __init__(self, spec: LookupTree, stop_ids: Collection[int]) -> None:
        self.spec, self.stop_ids = spec, stop_ids
        self._places = Places(spec.match_len)

    def reset(self, features: Tensor | None = None) -> None:
        self._places = Places(self.spec.match_len)

    def asked_len(self, num_nodes: int) -> int:
        return self.spec.tree_nodes

    def grown(self, prefix_ids: Sequence[int], depth: int) -> Tree:
        ids = list(prefix_ids)

        def children_of(state: tuple[list[int], int]) -> Children[tuple[list[int], int]]:
            """Of places that a run ended at: the tokens there, the most frequent first, of equals the newest."""
            ends, level = state
            following: dict[int, list[int]] = {}
            for end in ends:
                if end < len(ids) and level < depth:
                    following.setdefault(ids[end], []).append(end + 1)
            ranked = sorted(following.items(), key=lambda one: -len(one[1]))
            return Children.of([(token, log(len(after) / len(ends)), (after, level + 1)) for token, after in ranked])

        start = (self._places.of_longest_run(ids), 0)
        return Search(start, children_of, self.stop_ids).first(self.spec.tree_nodes)


class Places(Index):
    """Where every run of 1 .. `match_len` tokens of a text ended, before the text's end."""

    def __init__(self, match_len: int) -> None:
        super().__init__(match_len)
        self._all: dict[tuple[int, ...], list[int]] = {}

    def of_longest_run(self, prefix_ids: Sequence[int]) -> list[int]:
        """All places of the longest known run that the text ends with, the newest first; [] if none is known.

        Example: `Places(2).of_longest_run([1, 2, 9, 1, 2, 7, 1, 2]) == [5, 2]`.
        """
        self._read(prefix_ids)
        for size in range(min(self.match_len, len(prefix_ids) - 1), 0, -1):
            if (ends := self._all.get(tuple(prefix_ids[-size:]))) is not None:
                return ends[::-1]
        return []

    def _note(self, run: tuple[int, ...], end: int) -> None:
        self._all.setdefault(run, []).append(end)

    def _forget(self) -> None:
        self._all = {}


class SuffixTreeDrafter(SuffixReader, TextTreeDrafter):
    spec: SuffixDecodingTree

    def grown(self, prefix_ids: Sequence[int], depth: int) -> Tree:
        ids = list(prefix_ids)
        found = max((self._best(texts, ids, depth) for texts in self.texts(ids)), key=expected_tokens)
        return found if expected_tokens(found) >= self.spec.min_score else Tree()

    def _best(self, texts: SuffixTree, ids: Sequence[int], depth: int) -> Tree:
        """From which match between the end of `ids` and the texts most is to be expected; of equals the longest."""
        matches, best = texts.matches(ids[-self.spec.max_depth :]), Tree()
        for match_len in range(len(matches), 0, -1):
            limit = self.spec.limit(match_len)
            if limit > expected_tokens(best):  # for no token counts more than one
                best = max(best, self._from(texts, matches[match_len - 1], limit, depth), key=expected_tokens)
        return best

    def _from(self, texts: SuffixTree, at: Place, limit: int, depth: int) -> Tree:
        """The most probable ways on from a place, of `limit` tokens at most, none less probable than the floor."""

        def children_of(state: tuple[Place, int]) -> Children[tuple[Place, int]]:
            place, level = state
            ways = texts.ways_on(place) if level < depth else []
            return Children.of([(token, log(share), (after, level + 1)) for token, share, after in ways])

        found, least = Search((at, 0), children_of, self.stop_ids).first(limit), log_of(self.spec.floor)
        return found.taken(node for node, log_prob in enumerate(found.log_probs) if log_prob >= least)


def text_paths(trace: Recorded) -> Chains:
    """After every prefix of a trace the longest way on that is the text's and followed the prefix's last token before:
    no lookup tree and no suffix tree over the text holds more of it. Where that is none, any other token."""
    ids = np.array([*trace.prompt_ids, *trace.output_tokens])
    first, found = len(trace.prompt_ids) - 1, []
    common_L = np.zeros(len(ids) + 1, np.int64)  # of every place: how far the text goes on as it does after `at`
    for at in range(len(ids) - 1, first - 1, -1):
        common_L[:at] = np.where(ids[:at] == ids[at], 1 + common_L[1 : at + 1], 0)
        known_L = np.minimum(common_L[:at] - 1, at - np.arange(at))  # what followed, as far as it is known then
        found.append(int(known_L.max(initial=0)))
    lengths = found[::-1][: trace.num_prefixes]
    texts = [trace.output_tokens[at : at + length] or [OTHER] for at, length in enumerate(lengths)]
    chains = [Chain(tokens, [1.0] * len(tokens), [0] * len(tokens), [], [], []) for tokens in texts]
    return Chains.pack("text_trees", {}, max(lengths, default=0), chains)


def expected_tokens(tree: Tree) -> float:
    """How many of a tree's tokens are to be expected, by its own probabilities; rounded, so that what is level of two
    trees is level however it was summed up."""
    return round(sum(map(exp, tree.log_probs)), 6)


FAMILY = Family((LookupTree, SuffixDecodingTree), (MATCH_LEN, *SuffixDecodingTree.swept))
