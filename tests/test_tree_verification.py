"""Trees through the loop: one pass gives what a pass over each path would, the accepted path is kept as if it had been
run alone, and with any tree the output is what the target alone writes.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from families import save_model
from test_taps import hidden_states
from toys import clear_prompt, random_ids, sharpen, toy_model

from specdec.commands import run as failfast
from specdec.decoding.loop import Drafter, speculate
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target, Verification
from specdec.decoding.trees import depths
from specdec.errors import UserError
from specdec.models.graph import graph_lm
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.plans import MAX_NODES
from specdec.models.graph.weights import unsupported
from specdec.models.lm import CachedLM
from specdec.records.record import find_records, load_record

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
BACKENDS = {"eager": CachedLM, "graph": GraphLM}


@pytest.fixture(scope="module", params=["qwen2", "llama", "mistral", "qwen3", "qwen3_moe", "phi3", "gemma3_text"])
def model(request: pytest.FixtureRequest, one_thread: None) -> torch.nn.Module:
    return toy_model(request.param, 71, scale=1.0)


@pytest.fixture(params=BACKENDS)
def lm(request: pytest.FixtureRequest, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> CachedLM:
    """Toy heads have 8 or 16 values; a short cache grows while trees stand in it."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8, 16))
    monkeypatch.setattr(graph_lm, "INITIAL_CAPACITY", 32)
    if request.param == "graph" and (reason := unsupported(model.config)):
        pytest.skip(f"the graph backend does not run {reason}")
    return BACKENDS[request.param](model)


def random_tree(rng: random.Random, num_nodes: int, depth: int = 99) -> list[int]:
    """Parents; some trees are deep, some wide."""
    parents: list[int] = []
    reach = rng.choice((1, 2, 5, 99))
    for node in range(num_nodes):
        parent = rng.randint(max(-1, node - 1 - reach), node - 1)
        levels = depths([*parents, parent])
        parents.append(parent if levels[-1] <= depth else -1)
    return parents


def path_to(node: int, parents: Sequence[int]) -> list[int]:
    """The rows from the first to a node."""
    return [] if node < 0 else [*path_to(parents[node], parents), node]


def uncached(model: torch.nn.Module, tokens: Sequence[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0, -1]


def test_every_node_sees_its_own_path_and_nothing_else(lm: CachedLM) -> None:
    """Against passes without a cache over the text and each path, in windows that paths cross."""
    for seed, (num_known, num_nodes) in enumerate([(0, 4), (1, 1), (5, 9), (11, 14), (30, 20)]):
        rng, text = random.Random(seed), random_ids(seed, num_known)
        if text:
            lm.forward(text, keep=[])
            lm.commit(len(text))
        parents, tokens = random_tree(rng, num_nodes), random_ids(100 + seed, num_nodes)
        logits = lm.forward(tokens, parents=parents)
        for node in range(num_nodes):
            path = [tokens[row] for row in path_to(node, parents)]
            torch.testing.assert_close(logits[node], uncached(lm.model, [*text, *path]), **CLOSE)
        kept = sorted(rng.sample(range(num_nodes), rng.randint(1, num_nodes)))
        torch.testing.assert_close(lm.forward(tokens, parents=parents, keep=kept), logits[kept], **CLOSE)
        lm.rollback(0)


def test_a_committed_path_is_as_if_it_had_been_run_alone(lm: CachedLM) -> None:
    """Keys, values, taps and what comes after, over rounds of trees and chains."""
    rng, plain = random.Random(5), CachedLM(lm.model)
    for round_ in range(12):
        num_nodes = rng.randint(1, 12)
        parents, tokens = random_tree(rng, num_nodes), random_ids(round_, num_nodes)
        lm.forward(tokens, parents=parents, taps=(1, 0))
        path = path_to(rng.randint(-1, num_nodes - 1), parents)
        lm.commit(path)
        text = [tokens[row] for row in path]
        if text:
            plain.forward(text, taps=(1, 0))
            plain.commit(len(text))
            torch.testing.assert_close(lm.features, plain.features, **CLOSE)
        assert lm.tokens == plain.tokens and len(lm.features) == len(path)
    for (keys, values), (same_keys, same_values) in zip(
        lm.keys_values().values(), plain.keys_values().values(), strict=True
    ):
        torch.testing.assert_close(keys, same_keys, **CLOSE)
        torch.testing.assert_close(values, same_values, **CLOSE)
    after = random_ids(99, 7)
    torch.testing.assert_close(lm.forward(after), plain.forward(after), **CLOSE)


def test_what_is_no_tree_and_what_is_no_path_is_refused(lm: CachedLM) -> None:
    for how in ({"parents": [-1]}, {"parents": [0, -1]}, {"parents": [-2, 0]}, {"parents": [-1, 0], "block_size": 32}):
        with pytest.raises(ValueError, match="tree"):
            lm.forward([1, 2], **how)
        assert lm.length == 0
        with pytest.raises(ValueError, match="cannot commit"):
            lm.commit(1)
    lm.forward([1, 2, 3], parents=[-1, -1, 1])
    for path in ([0, 1], [2], [1, 2, 3], [-1], 2, -1, 4):
        with pytest.raises(ValueError, match="cannot commit"):
            lm.commit(path)
    lm.commit([1, 2])
    assert lm.tokens == [2, 3]


class Planted(Drafter):
    """Trees of random tokens among which, now and then, the text that the target will write is planted."""

    def __init__(self, text: Sequence[int], seed: int, taps: Sequence[int] = ()) -> None:
        self.text, self.rng, self.taps = list(text), random.Random(seed), taps
        self.given: list[torch.Tensor] = []

    def reset(self, features: torch.Tensor | None = None) -> None:
        self.given = [] if features is None else [features]

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        depth = min(budget, self.rng.randint(0, 8))
        if depth < 1:
            return Draft()
        parents = random_tree(self.rng, self.rng.randint(1, 15), depth)
        tokens, right = [], {-1}
        for parent, level in zip(parents, depths(parents), strict=True):
            taken = {token for token, other in zip(tokens, parents, strict=False) if other == parent}
            wanted = (self.text[len(prefix_ids) + level - 1 :] or [0])[0]
            if parent in right and wanted not in taken and self.rng.random() < 0.7:
                right.add(len(tokens))
                tokens.append(wanted)
            else:
                tokens.append(self.rng.choice([token for token in range(64) if token not in taken]))
        return Draft(tokens, [0.5] * len(tokens), token_confidences=[0.5] * len(tokens), parents=parents)

    def observe(self, verification: Verification) -> None:
        if verification.features is not None:
            self.given.append(verification.features)


@pytest.mark.parametrize("scale", [1.0, 8.0], ids=["random", "sharpened"])
def test_with_any_tree_the_output_is_what_the_target_alone_writes(lm: CachedLM, scale: float) -> None:
    lm, accepted, num_trees = type(lm)(sharpen(copy.deepcopy(lm.model), scale)), 0, 0
    for seed, length in enumerate((1, 13, 40)):
        prompt, greedy = clear_prompt(lm.model, length, 30)
        drafter = Planted([*prompt, *greedy], seed, taps=(1,))
        stop_ids = {greedy[25]} if length == 13 else set()
        rounds = speculate(Target(lm), drafter, prompt, max_new_tokens=30, stop_ids=stop_ids)
        output = [token for turn in rounds for token in turn.emitted_tokens]
        end = next((at + 1 for at, token in enumerate(greedy) if token in stop_ids), 30)
        assert output == greedy[:end]
        accepted += sum(turn.accepted_len for turn in rounds)
        num_trees += sum(turn.is_tree for turn in rounds)
        features = torch.cat(drafter.given)
        want = hidden_states(lm.model, [*prompt, *greedy], (1,))[: len(features)]
        torch.testing.assert_close(features, want, atol=1e-4, rtol=1e-4)
    assert accepted > 8 and num_trees > 8


def test_a_tree_that_no_recorded_pass_takes_is_one_clear_line(model: torch.nn.Module, lm: CachedLM) -> None:
    """Up to the largest it runs; the eager backend takes any."""
    if type(lm) is CachedLM:
        return
    target, parents = Target(lm), list(range(-1, MAX_NODES))
    target.start([5])
    assert len(lm.predict([1] * len(parents), parents=parents)[0]) == MAX_NODES + 1
    with pytest.raises(UserError, match=f"trees of at most {MAX_NODES} tokens, not {MAX_NODES + 1}: ask for fewer"):
        target.verify(Draft([1] * (MAX_NODES + 1), parents=[-1] * (MAX_NODES + 1)))
    assert lm.length == 0 and lm.forward([3, 4]).shape[0] == 2  # and the model goes on


def test_warming_up_records_the_passes_of_trees(lm: CachedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    if type(lm) is CachedLM or lm.model.config.model_type != "qwen2":
        return
    keys: list[object] = []
    run = lm.graphs.run
    monkeypatch.setattr(lm.graphs, "run", lambda key, function: keys.append(key) or run(key, function))
    lm.warm_up(num_nodes=40)
    recorded = set(keys)
    assert {key for key in recorded if key[0] == "tree"} == {("tree", 16), ("tree", 32), ("tree", 64)}
    for num_nodes in (1, 15, 16, 31, 40):
        lm.predict([1] * (1 + num_nodes), parents=[-1] + [0] * num_nodes)
    assert set(keys) == recorded


@pytest.mark.parametrize(
    ("drafter", "more", "said"),
    [
        ("lookup_3_tree_3000", (), "lookup_3_tree_3000 verifies trees of 3000 tokens, and the models' context takes"),
        ("suffix_64_tree_264", ("--engine", "graph"), "a pass of the graph backend takes 263: ask for fewer, or add"),
    ],
)
def test_budgets_without_room_are_one_line(
    drafter: str, more: Sequence[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    save_model(tmp_path / "target", toy_model("qwen2", 1))
    line = ["--target_model_name", str(tmp_path / "target"), "--device", "cpu", "--output_dir", str(tmp_path / "out")]
    line += ["--max_new_tokens", "8", "--num_questions", "1", "--drafters", "plain", drafter, *more]
    assert failfast.main(line) == 2
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in shown and not list(tmp_path.rglob("*.pickle"))


def test_a_run_goes_on_beside_finished_trees_that_a_pass_had_room_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another drafter; a further answer of theirs is refused."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    save_model(tmp_path / "target", toy_model("qwen2", 1))
    line = ["--target_model_name", str(tmp_path / "target"), "--device", "cpu", "--output_dir", str(tmp_path / "out")]
    line += ["--engine", "graph", "--max_new_tokens", "8", "--latency_profile", "none"]
    line += ["--drafters", "plain", "suffix_8_tree_30"]
    assert failfast.main([*line, "--num_questions", "1"]) == 0
    monkeypatch.setattr("specdec.runs.jobs.MAX_NODES", 20)
    assert failfast.main([*line, "lookup_3_sf_2", "--num_questions", "1"]) == 0
    assert len(list(find_records(tmp_path / "out"))) == 3
    assert failfast.main([*line, "--num_questions", "2"]) == 2 and "backend takes 20" in capsys.readouterr().err


def test_a_run_of_trees_over_text_is_lossless_and_ranked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    save_model(tmp_path / "target", toy_model("qwen2", 1, scale=4.0))
    prompts = (" ".join(f"word{(7 * at * at + start) % 13}" for at in range(60)) for start in range(2))
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    line = ["--target_model_name", str(tmp_path / "target"), "--device", "cpu", "--output_dir", str(tmp_path / "out")]
    names = ["lookup_1_tree_12", "suffix_64_f4.0_tree_12", "lookup_1_tree_4_else_suffix_8_tree_6"]
    line += ["--dataset_name", str(tmp_path / "asked.jsonl"), "--max_new_tokens", "40", "--drafters", "plain", *names]
    assert failfast.main([*line, "--latency_target", "Qwen2.5-7B-Instruct"]) == 0
    out = capsys.readouterr().out
    records = list(map(load_record, find_records(tmp_path / "out")))
    assert len(records) == 8 and "prompt lookup 1, tree of 12" in out
    plain = {one.question_id: one.output_tokens for one in records if one.drafter_name == "plain"}
    assert all(one.output_tokens == plain[one.question_id] for one in records)
    assert any(turn.is_tree for one in records for turn in one.rounds)
