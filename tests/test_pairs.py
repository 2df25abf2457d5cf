"""Slots that are tied by the text: by a second implementation that counts the text anew for every path."""

from __future__ import annotations

from itertools import product
from math import exp, log

import numpy as np
import pytest

from specdec.decoding.pairs import Followers, Ties, tied_search
from specdec.decoding.trees import Candidates, is_tree

WORDS, STOP = 6, 5


def slots_of(rng: np.random.Generator, num_slots: int, top_k: int) -> Candidates:
    tokens = np.stack([rng.permutation(WORDS)[:top_k] for _ in range(num_slots)])
    return Candidates.of(tokens, np.log(rng.dirichlet([0.5] * (top_k + 1), num_slots)[:, :top_k] + 1e-9))


def step(slots: Candidates, text: list[int], path: tuple[int, ...], ties: Ties) -> dict[int, float]:
    """Of every candidate after a path its probability, straight from what `Ties` says."""
    slot, seen = len(path), [*text, *path][-2:]
    tokens, log_probs = slots.tokens_SK[slot].tolist(), slots.log_probs_SK[slot].tolist()
    pairs, triples = set(zip(text, text[1:], strict=False)), set(zip(text, text[1:], text[2:], strict=False))
    weights = {}
    for token, log_prob in zip(tokens, log_probs, strict=True):
        is_pair = slot > 0 and (seen[-1], token) in pairs
        is_triple = slot > 0 and len(seen) == 2 and (*seen, token) in triples
        weights[token] = exp(ties.own * log_prob + ties.pair * is_pair + ties.triple * is_triple)
    others = exp(ties.own * log(max(1 - sum(map(exp, log_probs)), 1e-6)) + ties.others)
    return {token: weight / (sum(weights.values()) + others) for token, weight in weights.items()}


@pytest.mark.parametrize("seed", range(20))
def test_the_order_is_that_of_all_paths_by_their_probability(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slots, text = slots_of(rng, 3, 4), rng.integers(0, WORDS, 1 + 3 * (seed % 5)).tolist()
    wanted = {}
    for depth in (1, 2, 3):
        for path in product(range(WORDS), repeat=depth):
            steps = [step(slots, text, path[:at], Ties()).get(token, 0.0) for at, token in enumerate(path)]
            if STOP not in path[:-1] and min(steps) > 0:
                wanted[path] = float(np.prod(steps))
    followers = Followers()
    followers.read(text)
    tree = tied_search(slots, followers, text, [STOP]).first(1000)
    paths: list[tuple[int, ...]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), token))
    assert is_tree(tree.parents, tree.tokens) and sorted(paths) == sorted(wanted)
    assert [exp(one) for one in tree.log_probs] == pytest.approx([wanted[path] for path in paths])
    assert tree.log_probs == sorted(tree.log_probs, reverse=True)


def test_a_text_is_read_on_and_what_comes_later_is_not_seen() -> None:
    """Replays ask of all prefixes in any order, live drafters of ever longer ones, and of other texts afterwards."""
    rng = np.random.default_rng(7)
    text, other = (rng.integers(0, WORDS, 40).tolist() for _ in range(2))
    known = Followers()
    for ids in (text[:9], text, text[:20], text[:3], other[:12], other, text[:15]):
        known.read(ids)
        fresh = Followers()
        fresh.read(ids)
        slots = slots_of(rng, 4, 5)
        here, anew = (tied_search(slots, one, ids).first(50) for one in (known, fresh))
        assert (here.tokens, here.parents, here.log_probs) == (anew.tokens, anew.parents, anew.log_probs)


def test_a_pair_of_the_text_goes_before_a_more_probable_one() -> None:
    slots = Candidates.of([[1, 2], [3, 4]], np.log([[0.9, 0.1], [0.6, 0.4]]))
    followers = Followers()
    for text, first in (([0], 3), ([1, 4, 0], 4)):
        followers.read(text)
        tree = tied_search(slots, followers, text).first(2)
        assert tree.tokens[:2] == [1, first]
