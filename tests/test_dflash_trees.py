"""Trees over DFlash heads: the text stays the target's own, every tree is what the head holds probable, and replays
equal live runs in every round of every setting.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Hashable
from itertools import product
from pathlib import Path

import pytest
import torch
from dflash_heads import ToyDflash, features_of, loaded_dflash, logits_of, save_dflash, states_of
from families import save_model
from live import assert_replays, recorded, run_live
from test_dflash import _run, apt_head, folders, questions, target, targets
from toys import run_twice

from specdec.commands import rank, report
from specdec.commands import replay as replay_command
from specdec.config import RunConfig
from specdec.decoding import tree_rules, trees
from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.drafters.base import Setup, Spec
from specdec.drafters.dflash import DflashDynamic, DflashStatic
from specdec.drafters.dflash_trees import DflashPairsTree, DflashSureTree, DflashTree, DflashTreeDrafter
from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.models.dflash import block_size_of
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.graphs import Graphs
from specdec.records.identity import LIVE
from specdec.records.record import find_records, load_record
from specdec.session import Session, open_session
from specdec.traces.replay import replay
from specdec.traces.trace import Trace

pytestmark = pytest.mark.slow
TOP_K, BUDGET = 6, 30
SETTINGS: list[Spec] = [
    *map(DflashTree, (1, 2, 3, 5, 8, 12, 16, 24, 32, 64)),
    *(DflashSureTree(floor, most) for floor, most in product((0.0, 0.01, 0.05, 0.2, 0.6), (4, 12, 32, 64))),
    *(DflashPairsTree(floor, most) for floor, most in product((0.0, 0.05), (5, 24))),
]
__all__ = ["folders", "target", "targets"]  # fixtures


@pytest.fixture(scope="module", params=["DFlash", "anchor first"])
def toy(request: pytest.FixtureRequest, target: torch.nn.Module) -> ToyDflash:
    return apt_head(request.param, target)


@pytest.fixture(scope="module")
def session(toy: ToyDflash, tmp_path_factory: pytest.TempPathFactory, target: torch.nn.Module) -> Session:
    folder = tmp_path_factory.mktemp("family")
    save_model(folder / "target", target)
    save_dflash(folder / "head", toy)
    return open_session(
        RunConfig.of(
            target_model_name=str(folder / "target"),
            dflash_dir=str(folder / "head"),
            drafters=("plain", "dflash_tree", "dflash_tree_df"),
            device="cpu",
            max_new_tokens=BUDGET,
            slot_top_k=TOP_K,
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
    assert len(SETTINGS) == 34
    for index, spec in enumerate(SETTINGS):
        trace = traces[index % len(traces)]
        live, replayed = run_live(session, trace, spec), replay(trace, spec, session.options)
        assert_replays(replayed, live, 1e-4)
        for turn in live.rounds:
            reasons.add(turn.stop_reason)
            accepted.add(turn.accepted_len)
            shapes.add(turn.is_tree)
    assert reasons >= {"length", "low_confidence", "max_len", "none"} and len(accepted) >= 3 and shapes == {False, True}


def test_a_tree_is_what_the_head_holds_probable(session: Session, traces: list[Trace], toy: ToyDflash) -> None:
    """By a second implementation without a cache."""
    model, num_slots = session.target().lm.model, len(toy.slots)
    record = replay(traces[2], DflashTree(24), session.options)
    text = [*record.prompt_ids, *record.output_tokens]
    features = features_of(model, text, toy.taps)
    for turn in record.rounds[:4]:
        prefix = text[: turn.prefix_len]
        with torch.no_grad():
            states = states_of(toy, model, prefix[-1], features[: len(prefix) - 1])
            logits_SV = logits_of(toy, model, states)[:, : session.target().lm.vocab_size]
        best = logits_SV.log_softmax(-1).topk(TOP_K)
        depth = min(num_slots, len(record.prompt_ids) + BUDGET - 1 - len(prefix))
        want = tree_rules.best_first(trees.Candidates.of(best.indices, best.values).first(depth), 24)
        assert turn.draft_tokens == want.tokens and turn.draft_parents == want.parents


def test_no_pass_of_a_head_is_recorded_while_trees_are_drafted(
    toy: ToyDflash, target: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the graph backend a first pass of its kind takes seconds: all are there before the clock runs."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    seen: list[tuple[Graphs, Hashable]] = []

    def run(graphs: Graphs, key: Hashable, function: Callable[[], object]) -> object:
        seen.append((graphs, key))
        return run_twice(graphs, key, function)

    monkeypatch.setattr(Graphs, "run", run)
    lm = GraphLM(target)
    network = loaded_dflash(tmp_path, toy, lm, "graph")
    network.warm_up()
    drafters = [DflashTreeDrafter(network, DflashTree(8), Setup((), {"slot_top_k": top_k})) for top_k in (4, 6)]
    recorded_keys = {key for graphs, key in seen if graphs is not lm.graphs}
    before = len(seen)
    for drafter, (prompt, greedy) in zip(drafters, questions(target)[-2:], strict=True):
        rounds = speculate(Target(lm), drafter, prompt, max_new_tokens=24, stop_ids=())
        assert [token for turn in rounds for token in turn.emitted_tokens] == greedy
    asked = {key for graphs, key in seen[before:] if graphs is not lm.graphs}
    assert asked <= recorded_keys and {key[:2] for key in asked} >= {("candidates", 4), ("candidates", 6)}


def test_live_recorded_and_replayed_by_commands(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--drafters", "plain", "dflash_tree", "dflash_tree_df", "dflash_sf", "--spec_len", "5"]
    chosen += ["--tree_nodes", "4", "16", "--tree_floor", "0.05", "--slot_top_k", "8"]
    assert _run(folders, folders / "JetSpec", tmp_path / "live", *chosen) == 0
    assert _run(folders, folders / "JetSpec", tmp_path / "traced", *chosen, "--record") == 0
    again = ["--output_dir", str(tmp_path / "replayed"), "--workers", "1", "--latency_profile", "none"]
    assert replay_command.main([str(tmp_path / "traced"), *chosen, *again]) == 0
    live, replayed = (
        {one.drafter_name: [(turn.draft_tokens, turn.draft_parents) for turn in one.rounds] for one in records}
        for records in (map(load_record, find_records(tmp_path / name)) for name in ("live", "replayed"))
    )
    names = {"dflash_tree_4", "dflash_tree_16", "dflash_tree_df_0.05_4", "dflash_tree_df_0.05_16"}
    assert set(live) == {"plain", "dflash_sf_5", *names} and live == replayed
    assert replay_command.main([str(tmp_path / "traced"), *chosen[:-1], "9", "--latency_profile", "none"]) == 2
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert "needs 9 candidates of a slot, and the trace of question" in shown and "holds 8: record more" in shown


def test_trees_by_cost_are_replayed_as_they_ran_and_are_smaller_where_verification_is_dear(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []
    for name, last_ms in (("cheap", 11.0), ("dear", 300.0)):
        profile = {"name": name, "draft_pass_ms": 5.0, "target_ms_per_token": {"T": 10.0}, "provenance": {}}
        profile |= {"verify_ms": {"T": {"1": 10.0, "33": last_ms}}, "family_pass_ms": {"dflash": 2.0}}
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(profile))
        chosen = ["--drafters", "plain", "dflash_tree_ca", "--tree_nodes", "32", "--slot_top_k", "8"]
        chosen += ["--latency_profile", str(file), "--latency_target", "T"]
        assert _run(folders, folders / "JetSpec", tmp_path / f"{name}_live", *chosen) == 0
        assert _run(folders, folders / "JetSpec", tmp_path / f"{name}_traced", *chosen, "--record") == 0
        again = ["--output_dir", str(tmp_path / f"{name}_replayed"), "--workers", "1"]
        assert replay_command.main([str(tmp_path / f"{name}_traced"), *chosen, *again]) == 0
        live, replayed = (
            {one.drafter_name: one for one in map(load_record, find_records(tmp_path / f"{name}_{how}"))}
            for how in ("live", "replayed")
        )
        ours, theirs = replayed[f"dflash_tree_ca_32_T@{name}"], live[f"dflash_tree_ca_32_T@{name}"]
        assert dataclasses.replace(ours.identity, origin=LIVE) == theirs.identity
        assert [turn.draft_tokens for turn in ours.rounds] == [turn.draft_tokens for turn in theirs.rounds]
        sizes.append(sum(turn.draft_len for turn in theirs.rounds) / theirs.num_rounds)
        priced = [
            "--latency_profile",
            str(file),
            "--latency_target",
            "T",
            "--trace_dir",
            str(tmp_path / f"{name}_traced"),
        ]
        ranking = json.loads(rank.run([str(tmp_path / f"{name}_live"), *priced, "--json"]))
        rows = [row for one in ranking["engines"] if one["engine"] != "measured" for row in one["rows"]]
        shares = {row["drafter_name"]: row["ceiling_share"] for row in rows}
        assert set(shares) == {ours.drafter_name} and max(shares.values()) <= 1
        page = tmp_path / f"{name}.html"
        assert report.main([str(tmp_path / f"{name}_live"), *priced, "--out", str(page)]) == 0
        assert ours.drafter_name in page.read_text()
    assert sizes[0] > 2 * sizes[1]
    assert _run(folders, folders / "JetSpec", tmp_path / "none", "--drafters", "dflash_tree_ca") == 2
    assert "the cost-aware policy needs a --latency_profile" in capsys.readouterr().err
    bare = {"name": "bare", "draft_pass_ms": 5.0, "target_ms_per_token": {"T": 10.0}, "provenance": {}}
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    unknown = ["--drafters", "dflash_tree_ca", "--latency_profile", str(tmp_path / "bare.json")]
    unknown += ["--latency_target", "T"]
    assert _run(folders, folders / "JetSpec", tmp_path / "none", *unknown) == 2
    assert "does not say what a pass of dflash costs" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("variant", ["DSpark", "DFlash2"])
def test_a_head_whose_slots_know_of_each_other_is_refused_in_one_line(
    folders: Path, variant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--drafters", "dflash_tree"]
    assert _run(folders, folders / variant, tmp_path / "out", *chosen) == 2
    assert "slots that do not know of each other" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.rglob("*.pickle"))


def test_names_are_read_back() -> None:
    assert all(parse_name(spec.name) == spec for spec in SETTINGS)
    assert (DflashTree(64).name, DflashSureTree(0.02, 64).name) == ("dflash_tree_64", "dflash_tree_df_0.02_64")


def test_more_candidates_than_the_vocabulary_has_are_refused() -> None:
    options = {"dflash_vocab_size": 4096, "slot_top_k": 4097}
    with pytest.raises(UserError, match="--slot_top_k 4097: the head's vocabulary has 4096 tokens"):
        DflashTree(16).check_context(options, 2048)
    DflashTree(16).check_context(options | {"slot_top_k": 4096}, 2048)


@pytest.mark.parametrize("spec", [DflashTree(16), DflashStatic(3), DflashDynamic(0.45, 60, 10)])
def test_blocks_longer_than_the_context_are_refused(spec: Spec) -> None:
    with pytest.raises(UserError, match="blocks of 2049: the models hold 2048 positions"):
        spec.check_context({"dflash_block": 2049}, 2048)
    spec.check_context({"dflash_block": 2048}, 2048)


@pytest.mark.parametrize("stated", ["16", 16.0, True])
def test_a_block_size_that_is_not_a_number_is_refused(stated: object) -> None:
    with pytest.raises(UserError, match="not the size of a block"):
        block_size_of({"block_size": stated})
    assert (block_size_of({"block_size": 0}), block_size_of({})) == (0, 16)  # 0 is refused where the head is read
