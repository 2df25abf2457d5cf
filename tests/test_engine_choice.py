"""Which engine a run gets, where weights go, and that the graph engine gives the same records on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import edit_config, flags, save_family, save_model
from toys import random_ids, toy_model

from specdec import session
from specdec.commands import run as failfast
from specdec.config import RunConfig
from specdec.drafters.ar import AR_DRAFTER
from specdec.models import load as models
from specdec.models.checkpoints import TARGET, find_model
from specdec.models.graph import weights
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.lm import CachedLM
from specdec.models.load import load_lm, must_spread, resolve_dtype
from specdec.records.record import find_records, load_record

pytestmark = pytest.mark.slow
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def toy_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "HEAD_SIZES", (8,))


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs with room for 1,000 bytes each."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 1000))


def choose(family: dict[str, Path], device: torch.device = CPU, **settings: object) -> str:
    config, sources = RunConfig.of(**settings), {TARGET: find_model(TARGET, str(family["target"]))}
    return session.backend_of(config, device, resolve_dtype(config.models.dtype, device), sources)


def test_graphs_are_the_default_on_a_gpu_alone(family, monkeypatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda _: object())
    assert choose(family, CPU) == "eager" and choose(family, CUDA) == "graph"
    for device in (CPU, CUDA):
        assert choose(family, device, engine="eager") == "eager"
        assert choose(family, device, engine="graph") == "graph"


def test_where_the_graph_engine_cannot_run_one_line_says_why(family, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(models, "find_spec", lambda _: None)
    assert choose(family, CUDA, engine="graph") == "eager"
    assert choose(family, engine="graph", block_size=1024, small_block_size=8) == "eager"
    odd = save_model(tmp_path / "odd", toy_model("llama", 1))
    edit_config(odd, mlp_bias=True)
    assert choose({"target": odd}, engine="graph") == "eager"
    assert choose(family, engine="graph", record=True) == "eager"
    reasons = [record.getMessage().partition("because ")[2] for record in caplog.records]
    assert [len(reason.splitlines()) for reason in reasons] == [1, 1, 1, 1]
    assert "triton" in reasons[0] and "at most 512" in reasons[1] and "biases" in reasons[2]
    assert "recorded" in reasons[3]


def test_a_target_too_big_for_one_gpu_is_spread_and_runs_eagerly(family, two_gpus, monkeypatch, caplog) -> None:
    target, drafter = find_model(TARGET, str(family["target"])), find_model(AR_DRAFTER, str(family["ar"]))
    assert must_spread(target, CUDA, torch.float32) and not must_spread(drafter, CUDA, torch.float32)
    assert not must_spread(target, torch.device("cuda:1"), torch.float32)
    assert choose(family, CUDA, engine="graph") == "eager" and "does not fit one GPU" in caplog.text
    asked = []

    def load(source, dtype, device_map=None):
        asked.append(device_map)
        return toy_model("qwen2", 1)

    monkeypatch.setattr(models, "load_hf_model", load)
    assert type(load_lm(target, CUDA, torch.float32, backend="eager")) is CachedLM
    load_lm(drafter, CPU, torch.float32)
    assert asked == ["auto", None]


def test_a_target_that_a_trace_stands_for_decides_nothing(family, two_gpus, monkeypatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda _: object())
    assert choose(family, CUDA, engine="graph", verify="trace") == "graph"


def test_one_gpu_with_room_takes_all(family, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**9, 10**9))
    assert not must_spread(find_model(TARGET, str(family["target"])), CUDA, torch.float32)


def test_loading_makes_the_engine_asked_for(family) -> None:
    source, tokens = find_model(TARGET, str(family["target"])), random_ids(1, 40, vocab_size=60)
    eager, graph = (load_lm(source, CPU, torch.float32, 50, engine) for engine in ("eager", "graph"))
    assert type(eager) is CachedLM and type(graph) is GraphLM
    torch.testing.assert_close(graph.forward(tokens), eager.forward(tokens), atol=1e-4, rtol=1e-4)


def test_both_engines_make_the_same_records_apart_from_their_name(family, tmp_path) -> None:
    """Each says which engine made it, so that no run continues the other's records."""
    made = {}
    for engine in ("eager", "graph"):
        arguments = flags(family, tmp_path / engine, "--num_questions", "1", "--engine", engine)
        assert failfast.main(arguments) == 0
        records = {path.parent.name: load_record(path) for path in find_records(tmp_path / engine)}
        made[engine] = {name: [turn.draft_tokens for turn in record.rounds] for name, record in records.items()}
        assert {record.identity.settings.get("backend") for record in records.values()} == {
            None if engine == "eager" else "graph"
        }
    assert made["eager"] == made["graph"] and len(made["eager"]) == 6


def test_records_of_another_engine_are_not_continued(family, tmp_path, capsys) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "1", "--drafters", "plain")
    assert failfast.main([*arguments, "--engine", "graph"]) == 0
    assert failfast.main([*arguments, "--engine", "eager"]) == 2
    assert "backend: stored 'graph', asked nothing" in capsys.readouterr().err
