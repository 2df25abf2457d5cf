"""Trees of EAGLE-3 heads whose levels are run and chosen without the host: they are those of the eager network, which
has the host choose every level, in all layouts; and the host is asked only where it would choose otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from heads import features_of, loaded_head, toy_head
from test_eagle3 import VARIANTS, made_target
from toys import random_ids, run_twice

from profiling.given_acceptance import Sure
from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.decoding.trees import Tree, scored_tree
from specdec.drafters.base import Setup
from specdec.drafters.eagle3_trees import Eagle3SureTree, Eagle3Tree, Eagle3TreeDrafter, Growth
from specdec.models import eagle3_network
from specdec.models.eagle3_levels import Eagle3Levels, LevelBuffers
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.graphs import Graphs
from specdec.models.lm import CachedLM

pytestmark = pytest.mark.slow
SHAPES = [(2, 1), (2, 6), (3, 4), (8, 10), (4, 40)]  # levels, and nodes of each that go on
STOPS = [(), (3, 9, 11, 20), tuple(range(0, 64, 2))]


@pytest.fixture(scope="module")
def target(one_thread: None) -> torch.nn.Module:
    return made_target("llama")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The levels that were run."""
    levels: list[int] = []
    launch = Eagle3Levels._launch

    def noted(network: Any, own: LevelBuffers, level: int) -> None:
        levels.append(level)
        launch(network, own, level)

    monkeypatch.setattr(Eagle3Levels, "_launch", noted)
    yield levels


def tree_of(
    network: Any,
    prompt: Sequence[int],
    depth: int,
    top_k: int,
    *,
    stop_ids: Sequence[int] = (),
    sure: float = 0.0,
    known: int = 0,
) -> Tree:
    """What a network scores after a prompt with made-up features, of which it knows the first `known` rows."""
    wide = len(network.taps) * network.head.target_hidden_size
    rows = [torch.randn(wide, generator=torch.Generator().manual_seed(row)) for row in range(known, len(prompt) - 1)]
    features = torch.stack(rows).to(network.device, network.target.model.dtype)
    num_ahead = 0 if sure else depth - 1
    root = network.take_root(features, list(prompt[known + 1 :]), top_k, num_ahead)
    growth = Growth(network, root, top_k)
    tree = scored_tree(growth.expand, depth, top_k, stop_ids=stop_ids, sure=sure)
    assert sure or growth.num_passes <= depth
    return tree


def assert_same(got: Tree, want: Tree) -> None:
    assert (got.tokens, got.parents) == (want.tokens, want.parents)
    assert got.log_probs == pytest.approx(want.log_probs, abs=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_trees_are_the_eager_networks(
    target: torch.nn.Module, variant: str, monkeypatch: pytest.MonkeyPatch, launched: list[int]
) -> None:
    """Of every width, over a text that grows by what is accepted, caches that grow, and stop tokens; every pass runs
    twice, as one does that is recorded."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    monkeypatch.setattr(Graphs, "run", run_twice)
    monkeypatch.setattr(eagle3_network, "INITIAL_CAPACITY", 8)
    layout, how = VARIANTS[variant]
    head, text = toy_head(layout, target, 5, **how), random_ids(8, 60)
    eager = loaded_head(head, CachedLM(target, 60, (3, 7)))
    graph: Any = loaded_head(head, GraphLM(target, 60, gaps=(3, 7)), "graph")
    for index, (depth, top_k) in enumerate(SHAPES):
        for stop_ids in STOPS:
            graph.prepare(top_k, depth, stop_ids)
            eager.clear()
            known = 0
            for length in (2, 9, 10, 30 + index):
                launched.clear()
                asked: dict[str, Any] = {"stop_ids": stop_ids, "known": known}
                trees = [tree_of(one, text[:length], depth, top_k, **asked) for one in (graph, eager)]
                assert_same(*trees)
                assert launched == list(range(depth))  # each level once, the host's choice is the device's
                known = length - 1
    assert isinstance(graph, Eagle3Levels) and len(trees[0]) > 300


def test_who_asks_whether_leaves_are_sure_runs_no_level_too_many(
    target: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, launched: list[int]
) -> None:
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    head, text, depths = toy_head("safeailab", target, 5), random_ids(8, 60), set()
    eager, graph = loaded_head(head, CachedLM(target)), loaded_head(head, GraphLM(target), "graph")
    graph.prepare(4, 8, ())
    for sure in (0.5, 0.1, 0.02, 0.003, 0.0005):
        launched.clear()
        graph.clear()
        eager.clear()
        got, want = (tree_of(one, text[:20], 8, 4, sure=sure) for one in (graph, eager))
        assert_same(got, want)
        assert launched == list(range(len(launched)))
        depths.add(len(launched))
    assert len(depths) >= 3


@pytest.mark.parametrize("misled", [(1,), (2,), (4, 5), (1, 2, 3, 4, 5)])
def test_what_the_host_chooses_otherwise_is_sent(
    target: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, launched: list[int], misled: Sequence[int]
) -> None:
    """As if there were equals between which the device had chosen others: the tree is the host's, and after what was
    sent the device chooses rightly again."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    head, text = toy_head("deepspec", target, 5, taps=(0, 1, 1)), random_ids(8, 30)
    eager, graph = loaded_head(head, CachedLM(target)), loaded_head(head, GraphLM(target), "graph")
    graph.prepare(5, 6, ())
    few, is_begun = graph.few, set[int]()

    def misleading(logits_BV: torch.Tensor, found_BK2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, log_probs = few(logits_BV, found_BK2)
        # What the host is given is as it was; the device holds the last the most probable, the first time.
        level = launched[-1]
        is_misled = level + 1 in misled and level not in is_begun
        is_begun.add(level)
        return tokens, -log_probs if is_misled else log_probs

    monkeypatch.setattr(graph, "few", misleading)
    launched.clear()
    got, want = (tree_of(one, text, 6, 5) for one in (graph, eager))
    assert_same(got, want)
    # All five of the first level are chosen in either order; their probabilities tell in the second.
    assert launched == [0, 1, 2, 3, 4, 5, *range(max(2, misled[0]), 6)]


def test_made_up_probabilities_choose_where_the_levels_run(
    target: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, launched: list[int]
) -> None:
    """Those of given_acceptance.py, between which there are many equals."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    head, text = toy_head("safeailab", target, 5), random_ids(8, 30)
    eager, graph = Sure(loaded_head(head, CachedLM(target))), Sure(loaded_head(head, GraphLM(target), "graph"))
    graph.prepare(6, 7, ())
    launched.clear()
    assert_same(*(tree_of(one, text, 7, 6) for one in (graph, eager)))
    assert launched == list(range(7))


def test_trees_that_were_not_prepared_are_those_of_any_passes(
    target: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, launched: list[int]
) -> None:
    """Of another width, too wide for the kernels, or in the midst of a text, as when it is recorded; by turns with
    those that were."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    monkeypatch.setattr("specdec.models.eagle3_levels.MOST_NODES", 6)
    head, text = toy_head("speculators", target, 5, draft_vocab_size=40), random_ids(8, 30)
    eager: Any = loaded_head(head, CachedLM(target))
    graph: Any = loaded_head(head, GraphLM(target), "graph")
    for top_k, prepared in ((5, 6), (6, 6), (7, 7), (6, 6)):
        graph.prepare(prepared, 4, ())
        launched.clear()
        eager.clear()
        assert_same(*(tree_of(one, text, 4, top_k) for one in (graph, eager)))
        assert bool(launched) == (top_k == 6)
        features = features_of(target, text, head.taps)[:-1]
        trees = []
        for one in (graph, eager):
            one.read_text(features, text[1:])
            growth = Growth(one, one.root_at(11, top_k), top_k)
            trees.append(scored_tree(growth.expand, 4, top_k))
        assert_same(*trees)


def test_levels_beyond_those_that_were_prepared_are_refused(
    target: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    graph: Any = loaded_head(toy_head("safeailab", target, 5), GraphLM(target), "graph")
    graph.prepare(3, 2, ())
    with pytest.raises(ValueError, match="level 2 of trees that were prepared for 2"):
        tree_of(graph, random_ids(3, 9), 3, 3, sure=1e-9)


def test_drafters_that_share_a_head_take_turns(target: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever was made last, each grows its own trees."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    specs = Eagle3Tree(5, 4, 12), Eagle3SureTree(0.0001, 4, 4, 12), Eagle3Tree(2, 4, 12)
    head, prompt, drafted = toy_head("safeailab", target, 5), random_ids(4, 9), []
    for backend, lm in (("graph", GraphLM(target)), ("eager", CachedLM(target))):
        network = loaded_head(head, lm, backend)
        drafters = [Eagle3TreeDrafter(network, spec, Setup((3,))) for spec in specs]
        asked: dict[str, Any] = {"max_new_tokens": 9, "stop_ids": (3,)}
        answers = [speculate(Target(lm), drafter, prompt, **asked) for drafter in (*drafters, drafters[0])]
        drafted.append([[(turn.draft_tokens, turn.draft_parents) for turn in rounds] for rounds in answers])
    assert drafted[0] == drafted[1] and drafted[0][0] == drafted[0][3] != drafted[0][2]
