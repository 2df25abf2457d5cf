"""Trees over EAGLE-3 heads: every tree of every round is what a second implementation without a cache scores, the text
is the target's own, and replays equal live runs in every round of every setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from families import save_model
from heads import ToyHead, embedding_of, features_of, loaded_head, logits_of, outputs_of, save_head, states_of
from live import assert_replays, recorded, run_live
from test_eagle3 import NUM_TOKENS, VARIANTS, apt_head, made_target, questions

from specdec.config import RunConfig
from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.decoding.tree_rules import growing_tree
from specdec.decoding.trees import Candidates, Expand, scored_tree
from specdec.drafters.base import Setup, Spec
from specdec.drafters.eagle3_trees import Eagle3SureTree, Eagle3Tree, Eagle3TreeDrafter, Growth
from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.models import eagle3_network, eagle3_trees
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.graphs import Graphs
from specdec.models.lm import CachedLM
from specdec.session import Session, open_session
from specdec.traces.replay import replay
from specdec.traces.trace import Trace

pytestmark = pytest.mark.slow
SPECS = [Eagle3Tree(3, 4, 9), Eagle3Tree(5, 3, 20), Eagle3SureTree(0.05, 4, 3, 12)]


@pytest.fixture(scope="module")
def target(one_thread: None) -> torch.nn.Module:
    return made_target("llama")


def after_path(
    head: ToyHead, target: torch.nn.Module, features: torch.Tensor, prefix: Sequence[int], path: Sequence[int]
) -> torch.Tensor:
    """Log-probabilities over the draft vocabulary after a prefix and a path, the whole sequence run again."""
    table = embedding_of(head, target)
    embedded, states = table[list(prefix[1:])], states_of(head, features[: len(prefix) - 1])
    with torch.no_grad():
        for token in path:
            last = outputs_of(head, embedded, states)[-1:]
            normed = last * head.tensors["norm.weight"] / torch.sqrt((last * last).mean(-1, keepdim=True) + 1e-5)
            fed = normed if head.flags.get("norm_output") else last
            embedded, states = torch.cat([embedded, table[[token]]]), torch.cat([states, fed])
        return logits_of(head, outputs_of(head, embedded, states)[-1:])[0].log_softmax(-1)


def expanding(
    head: ToyHead, target: torch.nn.Module, features: torch.Tensor, prefix: Sequence[int], top_k: int
) -> Expand:
    """What `scored_tree` asks, answered by whole sequences."""

    def expand(paths: Sequence[tuple[int, ...]]) -> Candidates:
        rows = [after_path(head, target, features, prefix, path).topk(top_k) for path in paths]
        words = torch.stack([row.indices for row in rows])
        tokens = words + (head.tensors["d2t"][words] if "d2t" in head.tensors else 0)
        return Candidates.of(tokens.numpy(), torch.stack([row.values for row in rows]).numpy())

    return expand


@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("variant", ["A, own words", "A, the target's embedding, EAGLE-3.1", "B, of Qwen3", "C"])
def test_every_tree_of_every_round_is_the_references(
    target: torch.nn.Module, variant: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caches and room for nodes that grow, rejected branches, and what the graph backend pads are met."""
    assert variant in VARIANTS
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    monkeypatch.setattr(eagle3_network, "INITIAL_CAPACITY", 8)
    monkeypatch.setattr(eagle3_trees, "INITIAL_NODES", 4)
    head = apt_head(variant, target)
    lm = (GraphLM if backend == "graph" else CachedLM)(target)
    network, lengths, num_branched = loaded_head(head, lm, backend), set(), 0
    for index, (prompt, greedy) in enumerate(questions(target)):
        spec = SPECS[index % len(SPECS)]
        drafter = Eagle3TreeDrafter(network, spec, Setup(()))
        rounds = speculate(Target(lm), drafter, prompt, max_new_tokens=NUM_TOKENS, stop_ids=())
        assert [token for turn in rounds for token in turn.emitted_tokens] == greedy
        text = prompt + greedy
        features = features_of(target, text, head.taps)
        for turn in [turn for turn in rounds if turn.prefix_len > 1][:4]:
            prefix = text[: turn.prefix_len]
            expand = expanding(head, target, features, prefix, spec.tree_top_k)
            depth = min(spec.tree_depth, len(prompt) + NUM_TOKENS - 1 - len(prefix))
            want = growing_tree(expand, depth, spec.tree_top_k, spec.tree_nodes, sure=spec.sure) if depth else None
            if want and spec.sure == 0:
                assert (turn.draft_tokens, turn.draft_parents or want.parents) == (want.tokens, want.parents)
                assert turn.confidences == pytest.approx(want.token_probs, abs=1e-4)
        lengths |= {turn.accepted_len for turn in rounds}
        num_branched += sum(turn.is_tree for turn in rounds)
    assert len(lengths) >= 3 and num_branched > 8


def test_room_for_nodes_is_made_before_the_clock_runs_or_within_a_tree(
    target: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More room forgets what was recorded, so that drafters ask for all of it beforehand; who did not, as recording
    does, gets the same tree."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    monkeypatch.setattr(eagle3_trees, "INITIAL_NODES", 2)
    head, lm = apt_head("A, own words", target), GraphLM(target)
    prompt, _ = questions(target)[-1]
    spec, features = Eagle3Tree(5, 4, 64), features_of(target, prompt, head.taps)[: len(prompt) - 1]
    drafter = Eagle3TreeDrafter(loaded_head(head, lm, "graph"), spec, Setup(()))
    drafter.reset(features)
    unprepared = loaded_head(head, lm, "graph")
    growth = Growth(unprepared, unprepared.take_root(features, prompt[1:], spec.tree_top_k), spec.tree_top_k)
    grown = scored_tree(growth.expand, spec.tree_depth, spec.tree_top_k).falling(spec.tree_nodes).first(spec.tree_nodes)
    monkeypatch.setattr(Graphs, "clear", lambda graphs: pytest.fail("what was recorded is forgotten"))
    draft = drafter.propose(prompt, budget=16)
    assert (draft.tokens, draft.parents) == (grown.tokens, grown.parents) and len(grown) == 64


# ---- traces -----------------------------------------------------------------------------------------------------

BUDGET, TOP_K = 24, 4
SETTINGS: list[Spec] = [
    *(Eagle3Tree(depth, TOP_K, nodes) for depth, nodes in product((1, 2, 4), (1, 3, 6, 12, 40))),
    *(Eagle3SureTree(floor, depth, TOP_K, 16) for floor, depth in product((0.0, 0.01, 0.1, 0.3, 0.8), (2, 3, 4))),
]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, target: torch.nn.Module) -> Session:
    folder = tmp_path_factory.mktemp("family")
    save_model(folder / "target", target)
    save_head(folder / "head", apt_head("B, own words", target))
    return open_session(
        RunConfig.of(
            target_model_name=str(folder / "target"),
            eagle3_dir=str(folder / "head"),
            drafters=("plain", "eagle3_tree", "eagle3_tree_df"),
            device="cpu",
            max_new_tokens=BUDGET,
            tree_depth=(4,),
            tree_top_k=(TOP_K,),
            record=True,
            record_batch=7,
        )
    )


@pytest.fixture(scope="module")
def traces(session: Session, tmp_path_factory: pytest.TempPathFactory) -> list[Trace]:
    """Prompts of known and unknown texts, one of a single token; each through its file."""
    prompts = [prompt for prompt, _ in questions(session.target().lm.model)]
    return recorded(session, prompts, tmp_path_factory.mktemp("traces"))


def test_replay_equals_live_in_every_round_of_every_setting(session: Session, traces: list[Trace]) -> None:
    reasons, accepted, shapes = set(), set(), set()
    assert len(SETTINGS) == 30
    for index, spec in enumerate(SETTINGS):
        trace = traces[index % len(traces)]
        live, replayed = run_live(session, trace, spec), replay(trace, spec, session.options)
        assert_replays(replayed, live, 1e-3)
        for turn in live.rounds:
            reasons.add(turn.stop_reason)
            accepted.add(turn.accepted_len)
            shapes.add(turn.is_tree)
    assert reasons >= {"length", "low_confidence", "none"} and len(accepted) >= 3 and shapes == {False, True}


def test_deeper_and_other_trees_than_were_recorded_are_named(traces: list[Trace], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs 5 levels, and the trace of question 1 holds 4: record more"):
        replay(traces[3], Eagle3Tree(5, TOP_K, 8))
    with pytest.raises(UserError, match="has no offers for eagle3_tree_4_5_8"):
        replay(traces[3], Eagle3Tree(4, 5, 8))


def test_names_are_read_back() -> None:
    assert all(parse_name(spec.name) == spec for spec in (*SPECS, *SETTINGS))
    names = "eagle3_tree_8_10_60", "eagle3_tree_df_0.02_8_10_60"
    assert (Eagle3Tree(8, 10, 60).name, Eagle3SureTree(0.02, 8, 10, 60).name) == names


def test_a_tree_that_the_heads_cache_has_no_room_for_is_refused() -> None:
    with pytest.raises(UserError, match="of which 2048 nodes go on, and the models' context takes 2047"):
        Eagle3Tree(3, 1024, 16).check_context({}, 2048)
    Eagle3Tree(3, 1023, 16).check_context({}, 2048)
