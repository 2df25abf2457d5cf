"""Suffix tree: every run of tokens in some texts, up to a depth, how often it stands there and what follows it most.

It grows token by token, at a cost that the depth bounds and the length of the texts does not. A run that stands there
once is no node, but the place in the text where it goes on: most of a text costs a number per run, and nothing later.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Union

import numpy as np

END = -1  # after each text but the last

Place = Union["Node", int]  # where a run leads: a node, or for one that stands there once the index of what follows it


@dataclass
class Guess:
    """What may follow a text. `shares`: of each token, how often it followed what stands before it. `score`: the sum
    of their products, which is how many tokens are to be expected."""

    tokens: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    score: np.float32 = np.float32(0)


class Node:
    """A run that stands in the texts `count` times, twice or more often (the root: the empty run).

    `ranks`: the tokens that follow it by their counts, those of a count in their order; None for a single one.
    """

    __slots__ = ("children", "count", "most", "ranks")

    def __init__(self, count: int) -> None:
        self.count = count
        self.children: dict[int, Place] = {}
        self.ranks: dict[int, OrderedDict[int, None]] | None = None
        self.most = 0  # the largest count in `ranks`

    @property
    def favourite(self) -> int:
        """The token that follows most often; among equals the first by `count_up`'s order."""
        return next(iter(self.children if self.ranks is None else self.ranks[self.most]))

    def add(self, token: int, place: int) -> None:
        """A token that follows for the first time: the last in the order."""
        if self.children:
            if self.ranks is None:
                ((only, child),) = self.children.items()
                self.most = count_of(child)
                self.ranks = {self.most: OrderedDict({only: None})}
            self.ranks.setdefault(1, OrderedDict())[token] = None
        self.children[token] = place

    def count_up(self, token: int, count: int) -> None:
        """A token has followed once more than `count` times.

        Among those that it now equals it is the first if it was the first of those that it leaves, else the last: the
        order of the published program, whose drafts hang on it.
        """
        if self.ranks is None:
            return
        equals, more = self.ranks[count], self.ranks.setdefault(count + 1, OrderedDict())
        was_first = next(iter(equals)) == token
        del equals[token]
        if not equals:
            del self.ranks[count]
        more[token] = None
        if was_first:
            more.move_to_end(token, last=False)
        self.most = max(self.most, count + 1)


def count_of(place: Place) -> int:
    """How often the run stands there that leads to it."""
    return 1 if isinstance(place, int) else place.count


class SuffixTree:
    """Runs of up to `max_depth` tokens of one text or of several."""

    def __init__(self, max_depth: int) -> None:
        self.max_depth = max_depth
        self.tokens: list[int] = []
        self.root = Node(0)
        # The nodes of the runs of 0, 1, 2, ... tokens that the text ends with, as long as these stood there before.
        self._ending = [self.root]

    def begin(self) -> None:
        """What is added from now on is another text."""
        if self.tokens:
            self.tokens.append(END)
        self._ending = [self.root]

    def extend(self, tokens: Iterable[int]) -> None:
        """Add to the end of the last text."""
        for token in tokens:
            self._append(token)

    def _append(self, token: int) -> None:
        self.tokens.append(token)
        reached = [self.root]
        for depth, node in enumerate(self._ending, 1):
            child = node.children.get(token)
            if child is None:
                node.add(token, len(self.tokens))
                continue
            node.count_up(token, count_of(child))
            if isinstance(child, int):
                child = node.children[token] = self._opened(child, depth)
            else:
                child.count += 1
            reached.append(child)
        self._ending = reached[: self.max_depth]

    def _opened(self, place: int, depth: int) -> Node:
        """The node of a run of `depth` tokens that stood there once, went on at `place`, and stands there again."""
        node, follows = Node(2), self.tokens[place]
        if depth < self.max_depth and follows != END:
            node.children[follows] = place + 1
        return node

    def matches(self, run: Sequence[int]) -> list[Place]:
        """Where the last 1, 2, 3, ... tokens of a run lead, for as long as something follows them there; not all of it,
        nor as many as the tree is deep.

        Example: in the text [1, 2, 9, 1, 2] the run [1, 2] has one match of 1 token, [5, 1, 2] another of 2.
        """
        found: list[Place] = []
        for size in range(1, min(len(run), self.max_depth)):
            at = self._find(run[len(run) - size :])
            if at is None or not (self._token_at(at) != END if isinstance(at, int) else at.children):
                break
            found.append(at)
        return found

    def _find(self, run: Sequence[int]) -> Place | None:
        """Where a run leads; None if it does not stand there."""
        at: Place | None = self.root
        for token in run:
            if isinstance(at, int):
                at = at + 1 if self._token_at(at) == token else None
            elif at is not None:
                at = at.children.get(token)
        return at

    def follow(self, at: Place, limit: int, floor: np.float32) -> Guess:
        """The most frequent way on, for at most `limit` tokens, while the product of the shares is not under `floor`.

        In float32, as the published program reckons, so that what is level there is level here.
        """
        guess, chance = Guess(), np.float32(1)
        after: Place
        while len(guess.tokens) < limit:
            if isinstance(at, int):
                token, after, share = self._token_at(at), at + 1, np.float32(1)
            elif at.children:
                token = at.favourite
                after = at.children[token]
                share = np.float32(count_of(after)) / np.float32(at.count)
            else:
                break
            chance *= share
            if token == END or chance < floor:
                break
            guess.tokens.append(token)
            guess.shares.append(float(share))
            guess.score += chance
            at = after
        return guess

    def ways_on(self, at: Place) -> list[tuple[int, float, Place]]:
        """What follows at a place, the most frequent first, of equals the first that followed: each token, how often it
        is the one that does, and where it leads. Where a text ends nothing follows."""
        if isinstance(at, int):
            token = self._token_at(at)
            return [] if token == END else [(token, 1.0, at + 1)]
        ranked = sorted(at.children.items(), key=lambda child: -count_of(child[1]))
        return [(token, count_of(place) / at.count, place) for token, place in ranked if token != END]

    def _token_at(self, place: int) -> int:
        return self.tokens[place] if place < len(self.tokens) else END
