"""Trees: builders against all trees there are, the order of their nodes, and the accepted path."""

from __future__ import annotations

from functools import cache
from math import exp, log, prod

import numpy as np
import pytest

from specdec.decoding import tree_rules, trees
from specdec.decoding.tree_rules import CostAwareNodes, FixedNodes, SureNodes
from specdec.decoding.trees import ROOT, Candidates, Tree

Path = tuple[int, ...]


def random_candidates(rng: np.random.Generator, num_slots: int, top_k: int, vocab: int = 50) -> Candidates:
    """Slots with `top_k` different tokens each, whose probabilities add up to less than 1."""
    tokens = np.stack([rng.permutation(vocab)[:top_k] for _ in range(num_slots)])
    probs = rng.dirichlet([0.4] * (top_k + 1), num_slots)[:, :top_k]
    return Candidates.of(tokens, np.log(np.maximum(probs, 1e-9)))


@cache
def all_trees(num_slots: int, top_k: int, num_nodes: int) -> list[frozenset[Path]]:
    """Every set of paths (ranks, slot by slot) of this size that holds each one's beginning."""
    if num_nodes == 0:
        return [frozenset()]
    found = set()
    for smaller in all_trees(num_slots, top_k, num_nodes - 1):
        for parent in [(), *smaller]:
            if len(parent) < num_slots:
                found |= {smaller | {(*parent, rank)} for rank in range(top_k)} - {smaller}
    return list(found)


def paths_of(tree: Tree) -> list[Path]:
    found: dict[int, Path] = {ROOT: ()}
    for node, (token, parent) in enumerate(zip(tree.tokens, tree.parents, strict=True)):
        found[node] = (*found[parent], token)
    return [found[node] for node in range(len(tree))]


def test_the_heap_is_as_good_as_the_best_of_all_trees():
    rng = np.random.default_rng(0)
    for _ in range(500):
        num_slots, top_k, num_nodes = (int(rng.integers(1, most + 1)) for most in (3, 3, 5))
        candidates = random_candidates(rng, num_slots, top_k)
        probs = np.exp(candidates.log_probs_SK.astype(float)).tolist()
        tree = tree_rules.best_first(candidates, num_nodes)
        sums = [
            sum(prod(probs[slot][rank] for slot, rank in enumerate(path)) for path in one)
            for one in all_trees(num_slots, top_k, num_nodes)
        ]
        possible = sum(top_k**depth for depth in range(1, num_slots + 1))
        assert len(tree) == min(num_nodes, possible)
        if sums:
            assert sum(map(exp, tree.log_probs)) == pytest.approx(max(sums), abs=1e-9)


def test_a_tree_of_fewer_nodes_is_the_beginning_of_one_of_more():
    rng = np.random.default_rng(1)
    candidates = random_candidates(rng, 6, 8)
    whole = trees.slots_first(candidates, 64)
    assert whole.log_probs == sorted(whole.log_probs, reverse=True)
    for num_nodes in (1, 2, 7, 33, 64):
        fewer = tree_rules.best_first(candidates, num_nodes)
        assert set(paths_of(fewer)) == set(paths_of(whole)[:num_nodes])
        assert trees.is_tree(fewer.parents, fewer.tokens)
        assert trees.depths(fewer.parents) == sorted(trees.depths(fewer.parents))


def test_the_order_of_the_nodes_hangs_on_which_there_are_alone():
    rng = np.random.default_rng(2)
    candidates = random_candidates(rng, 4, 4)
    nudged = Candidates.of(candidates.tokens_SK, candidates.log_probs_SK + rng.normal(0, 1e-7, (4, 4)))
    one, other = tree_rules.best_first(candidates, 20), tree_rules.best_first(nudged, 20)
    assert (one.tokens, one.parents) == (other.tokens, other.parents)


def test_equals_are_told_apart_by_their_ids_and_what_cannot_be_is_left_out():
    candidates = Candidates.of([[9, 3, 5]], [[log(0.5), log(0.5), -np.inf]])
    assert tree_rules.best_first(candidates, 1).tokens == [3]
    assert tree_rules.best_first(candidates, 5).tokens == [3, 9]


def test_nothing_grows_after_a_stop_token():
    candidates = Candidates.of([[1, 2], [3, 4]], np.log([[0.9, 0.1], [0.9, 0.1]]))
    tree = tree_rules.best_first(candidates, 10, stop_ids=[1])
    assert sorted(paths_of(tree)) == [(1,), (2,), (2, 3), (2, 4)]


def test_the_rules_cut_where_they_say():
    falling = [log(p) for p in (0.9, 0.8, 0.3, 0.1)]
    assert FixedNodes(3).num_nodes(falling) == 3
    assert SureNodes(0.25, 64).num_nodes(falling) == 3
    assert SureNodes(0.95, 64).num_nodes(falling) == 1  # the first always
    assert SureNodes(0.0, 2).num_nodes(falling) == 2
    assert SureNodes(0.5, 64).num_nodes([]) == 0
    # 1.9 / 12, 2.7 / 14, 3.0 / 16, 3.1 / 18
    assert CostAwareNodes(10.0, [0.0, 2.0, 4.0, 6.0, 8.0], 4).num_nodes(falling) == 2
    assert CostAwareNodes(10.0, [2.0], 4).num_nodes(falling) == 4  # flat: all


def test_the_cost_aware_tree_has_the_best_rate_of_all_budgets():
    rng = np.random.default_rng(3)
    for _ in range(50):
        candidates, step = random_candidates(rng, 5, 6), float(rng.uniform(0.01, 1))
        tree = tree_rules.cost_aware_tree(candidates, lambda n, step=step: 10 + step * n, 3.0, 40)
        rates = [
            (1 + sum(map(exp, tree_rules.best_first(candidates, n).log_probs))) / (13 + step * n) for n in range(1, 41)
        ]
        assert len(tree) == 1 + int(np.argmax(rates))


def test_a_sure_tree_holds_the_paths_that_are_sure():
    candidates = random_candidates(np.random.default_rng(4), 5, 6)
    tree, whole = tree_rules.sure_tree(candidates, 0.05, 64), trees.slots_first(candidates, 64)
    sure = {path for path, p in zip(paths_of(whole), whole.log_probs, strict=True) if exp(p) >= 0.05}
    assert set(paths_of(tree)) == sure


class Bigrams:
    """Log-probabilities of a token after a token, as a network might give them; it counts its passes."""

    def __init__(self, rng: np.random.Generator, vocab: int, top_k: int) -> None:
        self.log_probs, self.top_k = np.log(rng.dirichlet([0.3] * vocab, vocab)), top_k
        self.num_passes = 0

    def expand(self, paths):
        self.num_passes += 1
        rows = np.stack([self.log_probs[path[-1] if path else 0] for path in paths])
        tokens = np.argsort(-rows, axis=1, kind="stable")[:, : self.top_k]
        return Candidates.of(tokens, np.take_along_axis(rows, tokens, 1))


def levels_by_definition(network: Bigrams, depth: int, top_k: int, num_nodes: int) -> set[Path]:
    """EAGLE-2's tree as the paper defines it: expand a level's best, keep all that was scored, rank it in the end."""
    scored: dict[Path, float] = {}
    level: list[Path] = [()]
    for _ in range(depth):
        children = {}
        for path in level:
            row = network.log_probs[path[-1] if path else 0].astype(np.float32)
            best = sorted(range(len(row)), key=lambda token: (-row[token], token))[:top_k]
            children |= {(*path, token): scored.get(path, 0.0) + float(row[token]) for token in best}
        scored |= children
        level = sorted(children, key=lambda path: -children[path])[:top_k]
    return set(sorted(scored, key=lambda path: (-scored[path], len(path)))[:num_nodes])


@pytest.mark.parametrize("seed", range(8))
def test_the_growing_tree_is_as_the_paper_defines_it(seed):
    rng = np.random.default_rng(seed)
    depth, top_k, num_nodes = int(rng.integers(1, 6)), int(rng.integers(1, 6)), int(rng.integers(1, 40))
    network = Bigrams(rng, 12, top_k)
    tree = tree_rules.growing_tree(network.expand, depth, top_k, num_nodes)
    assert network.num_passes == depth
    assert set(paths_of(tree)) == levels_by_definition(network, depth, top_k, num_nodes)
    assert trees.is_tree(tree.parents, tree.tokens)


def test_fewer_levels_are_the_beginning_of_more():
    network = Bigrams(np.random.default_rng(5), 12, 4)
    deep, shallow = (trees.scored_tree(network.expand, depth, 4) for depth in (5, 3))
    assert deep.tokens[: len(shallow)] == shallow.tokens
    assert deep.parents[: len(shallow)] == shallow.parents
    assert max(trees.depths(shallow.parents)) == 3


def test_a_growing_tree_fails_fast_where_no_leaf_is_sure():
    network = Bigrams(np.random.default_rng(6), 12, 3)
    whole = trees.scored_tree(network.expand, 6, 3)
    levels = trees.depths(whole.parents)
    best = [max(p for p, level in zip(whole.log_probs, levels, strict=True) if level == d) for d in range(1, 7)]
    network.num_passes = 0
    tree = trees.scored_tree(network.expand, 6, 3, sure=exp(best[2]) * 1.0001)
    assert max(trees.depths(tree.parents)) == network.num_passes == 3
    stopped = trees.scored_tree(network.expand, 6, 3, stop_ids=range(12))
    assert len(stopped) == 3  # nothing grows after stop tokens


def test_the_accepted_path():
    tokens, parents = [5, 6, 7, 7, 8], [-1, -1, 1, 0, 2]
    assert trees.walk_text(tokens, parents, [6, 7, 9]) == [1, 2]
    assert trees.walk_text(tokens, parents, [6, 7, 8, 1]) == [1, 2, 4]
    assert trees.walk_text(tokens, parents, [5, 8]) == [0]
    assert trees.walk_text(tokens, parents, [4]) == []
    assert trees.walk_text(tokens, parents, []) == []
    asked: list[int] = []
    by_row = {ROOT: 6, 1: 7, 2: 1}
    assert trees.walk(tokens, parents, lambda node: asked.append(node) or by_row[node]) == [1, 2]
    assert asked == [ROOT, 1, 2]


def test_what_is_a_tree_and_what_a_chain():
    assert trees.is_chain([]) and trees.is_chain([-1, 0, 1]) and not trees.is_chain([-1, -1])
    assert trees.is_tree([-1, 0, 0], [4, 4, 5])
    for parents, tokens in [([0], [1]), ([-2], [1]), ([-1, -1], [1, 1]), ([-1], [1, 2]), ([-1, 2, 1], [1, 2, 3])]:
        assert not trees.is_tree(parents, tokens)


def test_token_probabilities_are_those_after_the_parent():
    tree = tree_rules.best_first(Candidates.of([[1, 2], [3, 4]], np.log([[0.5, 0.25], [0.5, 0.125]])), 4)
    assert tree.token_probs == pytest.approx([0.5, 0.25, 0.5, 0.5])
