"""Pairs: slots that do not know of each other, tied by the text: which token follows which in what stands there.

A head that fills slots in one pass says of each slot what may stand there, and nothing of what stands beside it: the
most probable paths hold pairs that no text has. Here a candidate weighs more after a token that it has followed before,
in the question or the answer so far, and more again after two of them. How much is learnt from recorded questions
(`experiments/tie_slots.py`). No network and no torch: paths are put in another order, and the target still decides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, expm1, inf, log

import numpy as np

from specdec.decoding.trees import Candidates, Children, Search

LEAST_LOG = -700.0  # of a candidate that has a probability at all
LEAST_REST = 1e-6  # probability of all that is not among the candidates, at least
State = tuple[int, int, int]  # a slot, and the two tokens before it


@dataclass(frozen=True)
class Ties:
    """What a path's step weighs: exp(`own` x the slot's log-probability + `pair` where the text has this token after
    the one before + `triple` where also after the one before that), against the same of all others + `others`.

    The numbers are those of the bundled target's DFlash head on questions that no result is told of.
    """

    own: float = 0.8
    pair: float = 2.5
    triple: float = 1.4
    others: float = 0.5


class Followers:
    """Which tokens have followed which in a text that grows: of each pair and triple where it first ended."""

    def __init__(self) -> None:
        self._pairs: dict[int, dict[int, int]] = {}
        self._triples: dict[tuple[int, int, int], int] = {}
        self._ids: list[int] = []

    def read(self, ids: Sequence[int]) -> None:
        """Take in what a text has more than before; of another text everything."""
        num_known = min(len(ids), len(self._ids))
        if list(ids[:num_known]) != self._ids[:num_known]:
            self._pairs, self._triples, self._ids = {}, {}, []
        for place in range(len(self._ids), len(ids)):
            token = ids[place]
            if place:
                self._pairs.setdefault(ids[place - 1], {}).setdefault(token, place)
            if place > 1:
                self._triples.setdefault((ids[place - 2], ids[place - 1], token), place)
            self._ids.append(token)

    def ties(self, before: int, last: int, tokens: Collection[int], end: int, ties: Ties) -> dict[int, float]:
        """Of these tokens those that have followed `last` before place `end` of the text, each with its weight."""
        found = {}
        for token, place in self._pairs.get(last, {}).items():
            if place < end and token in tokens:
                is_triple = self._triples.get((before, last, token), end) < end
                found[token] = ties.pair + ties.triple * is_triple
        return found


class TiedSlots:
    """The steps of paths over slots after a prefix of `end` tokens, the last two of which are `before` and `last`. The
    first slot is not tied: its head knows what it follows."""

    def __init__(self, candidates: Candidates, followers: Followers, prefix_ids: Sequence[int], ties: Ties) -> None:
        self._followers, self._ties, self._end = followers, ties, len(prefix_ids)
        before = prefix_ids[-2] if len(prefix_ids) > 1 else -1
        self.start: State = 0, before, prefix_ids[-1]
        self._slots = _weighed(candidates, ties)
        self._known: dict[State, Children[State]] = {}

    def children_of(self, state: State) -> Children[State]:
        """The candidates of a slot after two tokens, most probable first."""
        if state not in self._known:
            self._known[state] = self._children(*state)
        return self._known[state]

    def _children(self, slot: int, before: int, last: int) -> Children[State]:
        if slot >= len(self._slots):
            return Children.of([])
        one, after = self._slots[slot], slot + 1
        tokens, log_probs = one.tokens, one.log_probs
        if slot and (tied := self._followers.ties(before, last, one.weights, self._end, self._ties)):
            more = sum(exp(one.weights[token]) * expm1(weight) for token, weight in tied.items())
            log_total = log(one.total + more)
            steps = sorted([(-weight - tied.get(token, 0.0), token) for token, weight in one.weights.items()])
            tokens, log_probs = [token for _, token in steps], [-minus - log_total for minus, _ in steps]
        return Children(tokens, log_probs, lambda rank: (after, last, tokens[rank]))


def tied_search(
    candidates: Candidates, followers: Followers, prefix_ids: Sequence[int], stop_ids: Collection[int] = ()
) -> Search[State]:
    """For the most probable paths over slots that follow a prefix and are tied by its text, which `followers` have
    read, or a longer one's."""
    slots = TiedSlots(candidates, followers, prefix_ids, Ties())
    return Search(slots.start, slots.children_of, stop_ids)


@dataclass(frozen=True)
class _Slot:
    """A slot's candidates with the logarithms of what they weigh alone, their log-probabilities by that, and the sum of
    all weights, others included."""

    tokens: list[int]
    own: list[float]
    log_probs: list[float]
    total: float

    @cached_property
    def weights(self) -> dict[int, float]:
        """`own` by token."""
        return dict(zip(self.tokens, self.own, strict=True))


def _weighed(candidates: Candidates, ties: Ties) -> list[_Slot]:
    log_probs_SK = candidates.log_probs_SK.astype(float)
    counts_S = (log_probs_SK > LEAST_LOG).sum(-1)  # the others have no probability, and stand last
    own_SK = np.where(log_probs_SK > LEAST_LOG, ties.own * log_probs_SK, -inf)
    rest_S = np.maximum(1 - np.exp(log_probs_SK).sum(-1), LEAST_REST)
    total_S = np.exp(own_SK).sum(-1) + np.exp(ties.own * np.log(rest_S) + ties.others)
    alone_SK = own_SK - np.log(total_S)[:, None]
    rows = zip(candidates.tokens_SK, own_SK, alone_SK, counts_S, total_S.tolist(), strict=True)
    return [
        _Slot(tokens[:count].tolist(), own[:count].tolist(), alone[:count].tolist(), total)
        for tokens, own, alone, count, total in rows
    ]
