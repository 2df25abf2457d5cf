"""Trees: drafts that branch, how they are built from what a drafter holds probable, and which path of one is accepted.

A tree is its tokens and, of each, its parent: an index into the tree, or -1 after the last known token; every parent
comes before its children. A chain has the parents -1, 0, 1, ... No network and no torch here: who has the probabilities
calls a builder, live or from a trace, and both get the same tree.

Builders work in two steps. What might be drafted is put in an order of falling path probability, so that the first n of
it are the best tree of n nodes there is (more nodes never change those before); then a rule says how many are worth
their verification (`tree_rules.py`). Sources: EAGLE-2 (arXiv 2406.16858), DDTree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush, heapreplace
from math import exp, inf, log
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

ROOT = -1  # the last known token, as a parent

State = TypeVar("State")
Expand = Callable[[Sequence[tuple[int, ...]]], "Candidates"]


@dataclass(frozen=True)
class Tree:
    """Tokens, their parents, and the logarithm of each path's probability from the root to the node."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    @classmethod
    def of_rows(cls, rows_N3: np.ndarray) -> Tree:
        """From rows of token, parent and log-probability."""
        tokens, parents = rows_N3[:, :2].T.astype(int).tolist()
        return cls(tokens, parents, rows_N3[:, 2].tolist())

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def token_probs(self) -> list[float]:
        """Of each node, its token's probability after its parent."""
        above = [*self.log_probs, 0.0]
        return [exp(own - above[parent]) for own, parent in zip(self.log_probs, self.parents, strict=True)]

    def add_all(self, tokens_N: np.ndarray, parents_N: np.ndarray, log_probs_N: np.ndarray) -> int:
        """New nodes; returns the first one's index."""
        begin = len(self)
        self.tokens.extend(tokens_N.tolist())
        self.parents.extend(parents_N.tolist())
        self.log_probs.extend(log_probs_N.tolist())
        return begin

    def taken(self, nodes: Iterable[int]) -> Tree:
        """The tree of these nodes in this order, in which every one's parent comes before it."""
        kept = list(nodes)
        places = {ROOT: ROOT, **{node: place for place, node in enumerate(kept)}}
        parents = [places[self.parents[node]] for node in kept]
        return Tree([self.tokens[node] for node in kept], parents, [self.log_probs[node] for node in kept])

    def falling(self, max_nodes: int) -> Tree:
        """The most probable nodes in the order of falling path probability; of equals in the order that was."""
        return self.taken(np.argsort(-np.array(self.log_probs), kind="stable")[:max_nodes].tolist())

    @cached_property
    def _levels(self) -> list[int]:
        """The nodes level by level, and those of one parent by their tokens."""
        children: list[list[int]] = [[] for _ in range(len(self) + 1)]  # the root's are the last
        for node, parent in enumerate(self.parents):
            children[parent].append(node)
        for siblings in children:
            if len(siblings) > 1:
                siblings.sort(key=self.tokens.__getitem__)
        level, ordered = children[ROOT], list[int]()
        while level:
            ordered += level
            level = [child for node in level for child in children[node]]
        return ordered

    def first(self, num_nodes: int) -> Tree:
        """The first nodes, level by level, and those of one parent by their tokens: which nodes there are alone decides
        on their order, so that no rounding of near equals does."""
        if num_nodes not in self._firsts:
            self._firsts[num_nodes] = self.taken([node for node in self._levels if node < num_nodes])
        return self._firsts[num_nodes]

    @cached_property
    def _firsts(self) -> dict[int, Tree]:
        """Those that were asked for: many rules cut at one place."""
        return {}


@dataclass(frozen=True)
class Candidates:
    """The most probable tokens of every slot, or after every path: S rows of K ids, and their log-probabilities.

    Slot 0 is the first token after the last known one. A row is in order of falling probability, equals by their ids;
    what has no probability is left out.
    """

    tokens_SK: np.ndarray
    log_probs_SK: np.ndarray

    @classmethod
    def of(cls, tokens_SK: ArrayLike, log_probs_SK: ArrayLike) -> Candidates:
        """From rows in any order. Log-probabilities are kept as float32, as networks give them."""
        tokens, log_probs = np.asarray(tokens_SK, np.int32), np.asarray(log_probs_SK, np.float32)
        if (log_probs[..., 1:] < log_probs[..., :-1]).all():  # most often they are in that order
            return cls(tokens, log_probs)
        order_SK = np.lexsort((tokens, -log_probs), axis=-1)
        return cls(np.take_along_axis(tokens, order_SK, -1), np.take_along_axis(log_probs, order_SK, -1))

    @classmethod
    def of_pairs(cls, found_SK2: np.ndarray) -> Candidates:
        """From rows of (id, log-probability), as the heads' networks give them."""
        return cls.of(found_SK2[..., 0], found_SK2[..., 1])

    def first(self, num_slots: int) -> Candidates:
        """Of the first slots."""
        return Candidates(self.tokens_SK[:num_slots], self.log_probs_SK[:num_slots])


class Children(NamedTuple, Generic[State]):
    """What may follow a node, most probable first: tokens, the logarithms of their probabilities after it, and where
    the one of a rank leads. Whole lists, which many nodes may share: few of them are ever looked at."""

    tokens: Sequence[int]
    log_probs: Sequence[float]
    leads: Callable[[int], State]

    @classmethod
    def of(cls, children: Sequence[tuple[int, float, State]]) -> Children[State]:
        """From a token, its log-probability and where it leads, each."""
        tokens, log_probs, states = (list(part) for part in zip(*children, strict=True)) if children else ([], [], [])
        return cls(tokens, log_probs, states.__getitem__)


class Search(Generic[State]):
    """The most probable nodes of all that grow from a start, one after the other, as many as are asked for: more of
    them never change those before.

    A heap holds, of every parent so far, its next child: best first is DDTree's search, and over counts of a text a
    suffix tree's.
    """

    def __init__(
        self, start: State, children_of: Callable[[State], Children[State]], stop_ids: Collection[int] = ()
    ) -> None:
        """After a stop token nothing grows."""
        self._children_of, self._stop_ids = children_of, stop_ids
        self._found = Tree()
        # Minus the path's log-probability, a number by which equals are told apart, parent, the log-probability of the
        # parent's path, the parent's children, and which of them it is.
        self._heap: list[tuple[float, int, int, float, Children[State], int]] = []
        first = children_of(start)
        if first.tokens and first.log_probs[0] > -inf:
            self._heap.append((-first.log_probs[0], 0, ROOT, 0.0, first, 0))
        self._num_seen = 1

    def first(self, num_nodes: int) -> Tree:
        """At least `num_nodes` nodes, or all that there are, in the order of falling path probability."""
        if len(self._found) < num_nodes and self._heap:
            # Another tree over the same lists: what one knows of itself is of the nodes that it was made with.
            self._found = Tree(self._found.tokens, self._found.parents, self._found.log_probs)
            self._extend(num_nodes)
        return self._found

    def _extend(self, num_nodes: int) -> None:
        heap, seen, children_of, stop_ids = self._heap, self._num_seen, self._children_of, self._stop_ids
        tokens, parents, log_probs = self._found.tokens, self._found.parents, self._found.log_probs
        while heap and len(tokens) < num_nodes:
            minus, _, parent, above, siblings, rank = heap[0]
            own_tokens, own_log_probs, leads = siblings
            token, after = own_tokens[rank], rank + 1
            if after < len(own_tokens) and own_log_probs[after] > -inf:
                heapreplace(heap, (-above - own_log_probs[after], seen, parent, above, siblings, after))
            else:
                heappop(heap)
            if token not in stop_ids:
                children = children_of(leads(rank))
                if children.tokens and children.log_probs[0] > -inf:
                    heappush(heap, (minus - children.log_probs[0], seen + 1, len(tokens), -minus, children, 0))
            seen += 2
            tokens.append(token)
            parents.append(parent)
            log_probs.append(-minus)
        self._num_seen = seen


def slots_search(candidates: Candidates, stop_ids: Collection[int] = ()) -> Search[int]:
    """For the most probable paths over slots that do not know of each other."""
    lists = zip(candidates.tokens_SK.tolist(), candidates.log_probs_SK.tolist(), strict=True)
    slots = [Children(*row, _all_lead_to(slot)) for slot, row in enumerate(lists, start=1)]
    return Search(0, [*slots, Children[int].of([])].__getitem__, stop_ids)


def _all_lead_to(state: State) -> Callable[[int], State]:
    return lambda rank: state


def slots_first(candidates: Candidates, max_nodes: int, stop_ids: Collection[int] = ()) -> Tree:
    """These paths, in the order of falling probability."""
    return slots_search(candidates, stop_ids).first(max_nodes)


def scored_tree(expand: Expand, depth: int, top_k: int, *, sure: float = 0.0, stop_ids: Collection[int] = ()) -> Tree:
    """All nodes that EAGLE-2 scores, level by level: the `top_k` most probable of a level are expanded, to `depth`
    levels at most (the authors' `depth` counts the levels after the first).

    `expand(paths)`: after each path of tokens (the first is empty) its `top_k` most probable tokens: one pass a level,
    each path's head among those of the call before. `sure`: FailFast's idea on its levels: no other pass once no leaf
    has this path probability. After a stop token nothing grows. Paths' log-probabilities are sums in float32, as in the
    authors' program. A smaller `depth` gives the same nodes up to it; a smaller `top_k` may give others.
    """
    tree, nodes_P, paths, above_P = Tree(), np.array([ROOT]), [tuple[int, ...]()], np.zeros(1, np.float32)
    stops, floor = list(stop_ids), log_of(sure)
    for _ in range(depth):
        found = expand(paths)
        log_probs_PK = above_P[:, None] + found.log_probs_SK[:, :top_k]
        rows_N, columns_N = np.nonzero(log_probs_PK > -inf)
        tokens_N, log_probs_N = found.tokens_SK[rows_N, columns_N], log_probs_PK[rows_N, columns_N]
        begin = tree.add_all(tokens_N, nodes_P[rows_N], log_probs_N)
        leaves_N = np.flatnonzero(~np.isin(tokens_N, stops)) if stops else np.arange(len(tokens_N))
        best_P = leaves_N[np.argsort(-log_probs_N[leaves_N], kind="stable")[:top_k]]
        if not len(best_P) or float(log_probs_N[best_P[0]]) < floor:  # not rounded first, as traces do not
            break
        nodes_P, above_P = begin + best_P, log_probs_N[best_P]
        paths = [(*paths[row], token) for row, token in zip(rows_N[best_P], tokens_N[best_P].tolist(), strict=True)]
    return tree


def log_of(probability: float) -> float:
    """Its logarithm, also of 0."""
    return log(probability) if probability > 0 else -inf


def walk(tokens: Sequence[int], parents: Sequence[int], token_after: Callable[[int], int | None]) -> list[int]:
    """The accepted path of a tree: from the root to the child that is the target's token, as long as there is one.

    `token_after(node)`: the target's token after a node, or after ROOT; asked once of every node on the path, in its
    order; None: there is none. Returns the nodes. Example: of tokens [5, 6, 7], parents [-1, -1, 1] and a target that
    says 6, 7, 9 the nodes 1, 2.
    """
    path: list[int] = []
    at, wanted = ROOT, token_after(ROOT)
    for node, token in enumerate(tokens):
        if token == wanted and parents[node] == at:
            path.append(node)
            at, wanted = node, token_after(node)
    return path


def walk_text(tokens: Sequence[int], parents: Sequence[int], continuation: Iterable[int]) -> list[int]:
    """The accepted path where the target's text goes on as `continuation`."""
    following = iter(continuation)
    return walk(tokens, parents, lambda node: next(following, None))


def depths(parents: Sequence[int]) -> list[int]:
    """How many steps each node is from the root. Example: `depths([-1, -1, 1]) == [1, 1, 2]`."""
    found: list[int] = []
    for parent in parents:
        found.append(1 if parent == ROOT else found[parent] + 1)
    return found


def is_chain(parents: Sequence[int]) -> bool:
    """Whether every node but the last has one child."""
    return list(parents) == list(range(-1, len(parents) - 1))


def is_tree(parents: Sequence[int], tokens: Sequence[int]) -> bool:
    """Whether every parent comes before its child, and no parent has a token twice."""
    fits = len(parents) == len(tokens) and all(ROOT <= parent < node for node, parent in enumerate(parents))
    return fits and len(set(zip(parents, tokens, strict=True))) == len(tokens)
