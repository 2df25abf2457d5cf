"""The experiments about trees, on made-up traces: what they print follows from what they were given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_up_trace, with_slots

from experiments import compare_tree_rules, tie_slots
from specdec.drafters.ar import ArStatic as Ar
from specdec.drafters.dflash_trees import DflashTree
from specdec.latency.pricing import price
from specdec.latency.profile import load_profile
from specdec.traces.replay import replay
from specdec.traces.trace import save_trace, trace_path


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    profile = {"name": "p", "draft_pass_ms": 4.0, "target_ms_per_token": {"T": 10.0}, "provenance": {}}
    profile |= {"verify_ms": {"T": {"1": 10.0, "16": 12.0, "64": 30.0}}, "family_pass_ms": {"dflash": 2.0}}
    made = {name: tmp_path / name for name in ("tuning", "told", "p.json")}
    made["p.json"].write_text(json.dumps(profile))
    for seed in range(8):
        trace = with_slots(made_up_trace(seed, num_tokens=30, vocab_size=8), "dflash_slots", num_slots=5, top_k=6)
        save_trace(trace, trace_path(made["tuning" if seed < 3 else "told"], trace.identity))
    return made


def run(capsys: pytest.CaptureFixture[str], command: Any, *arguments: object) -> dict[str, Any]:
    assert command.main(list(map(str, arguments))) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return found


def run_fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert compare_tree_rules.main(list(map(str, arguments))) == 2
    return capsys.readouterr().err


def test_rules_are_tuned_on_some_questions_and_told_of_others(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, few in (("BUDGETS", (1, 4, 9)), ("MOST", (9,)), ("FLOORS", (0.0, 0.1))):
        monkeypatch.setattr(compare_tree_rules, name, few)
    told = [compare_tree_rules.load_trace(path) for path in compare_tree_rules.find_traces(str(folders["told"]))]
    flags = "--latency_profile", folders["p.json"], "--latency_target", "T"
    beside = "--beside", folders["told"], "--beside_drafters", "ar_None_sf_2", "ar_None_sf_1"
    found = run(capsys, compare_tree_rules, folders["tuning"], "--reported", folders["told"], *beside, *flags)
    assert (found["tuned_on"], found["reported_on"]) == (3, 5) and len(found["rules"]) == 5
    fixed = found["rules"]["fixed number of nodes"]
    profile, budget = load_profile(folders["p.json"]), DflashTree(int(fixed["drafter"].rpartition("_")[2]))
    prices = [price(replay(trace, budget, {"slot_top_k": 6}), profile, "T") for trace in told]
    total_ms = sum(one.total_ms for one in prices)
    assert fixed["speedup_ratio"] == pytest.approx(sum(one.baseline_ms for one in prices) / total_ms)
    assert fixed["over_fixed"] == 1 and all(0 < row["share_of_ceiling"] <= 1 for row in found["rules"].values())
    chains = [[price(replay(one, Ar(n)), profile, "T").total_ms for one in told] for n in (1, 2)]
    best = min(chains, key=sum)
    assert found["beside"]["drafter"] == f"ar_None_sf_{1 + chains.index(best)}"
    assert found["beside"]["rules_over_it"]["fixed number of nodes"][0] == pytest.approx(sum(best) / total_ms)
    elsewhere = run_fails(
        capsys, folders["tuning"], "--reported", folders["told"], "--beside", folders["tuning"], *flags
    )
    assert "no trace of question" in elsewhere
    assert compare_tree_rules.main([str(folders["p.json"].parent / "none"), *map(str, flags)]) == 2


def test_what_ties_slots_is_found_again(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, tie_slots, folders["tuning"], "--told", folders["told"], "--slot_top_k", 6)
    assert found["tuning"]["tied"] <= found["tuning"]["alone"] and found["told"]["steps"] > 100
    rng, weights = np.random.default_rng(1), [0.7, 2.0, 1.0, 0.3]
    has = rng.normal(0, 1, (20000, 5, 4)).astype(np.float32)
    scores = has @ np.array(weights) + rng.gumbel(size=(20000, 5))
    learnt = tie_slots.learn((torch.from_numpy(has), torch.from_numpy(scores.argmax(1))))
    assert learnt.tolist() == pytest.approx(weights, abs=0.1)
    assert tie_slots.main([str(folders["tuning"]), "--slot_top_k", "7"]) == 2
    assert "7 candidates of a slot" in capsys.readouterr().err
