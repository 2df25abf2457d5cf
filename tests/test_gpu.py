"""The graph engine on a GPU: recorded graphs against the eager engine, and the whole program on the bundled family.

`make test-gpu` runs these (and test_kernels.py, on the GPU); without a GPU they are skipped.
"""

from __future__ import annotations

import copy
import json
import random
import time
from pathlib import Path

import pytest
import torch
from toys import MASK_ID, random_ids, toy_model

import failfast
from profiling import check_lossless
from specdec.checkpoints import AR_DRAFTER, DLLM_DRAFTER, TARGET, find_model
from specdec.engine.graph_lm import EngineOptions, GraphLM
from specdec.lm import CachedLM
from specdec.models import load_hf_model
from specdec.records import find_records, load_record

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LOGITS_ERROR = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
OPTIONS = {
    "library": EngineOptions(fused_up_to=0),
    "fused": EngineOptions(fused_up_to=64),
    "early": EngineOptions(fused_up_to=64, early_launch=True),
}


@pytest.fixture(autouse=True)
def exact_products(monkeypatch) -> None:
    """float32 products in float32: the comparison is with 1e-4."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def _models() -> dict[str, torch.nn.Module]:
    made = {f"bundled {role.title}": load_hf_model(find_model(role, "bundled"), torch.float32) for role in ROLES}
    made["llama"] = toy_model("llama", 5, scale=2.0, hidden_size=64)
    made["qwen2 untied"] = toy_model("qwen2", 6, scale=2.0, hidden_size=128)
    return made


ROLES = (TARGET, AR_DRAFTER, DLLM_DRAFTER)


@pytest.fixture(scope="module")
def models() -> dict[str, torch.nn.Module]:
    return _models()


@pytest.mark.parametrize("name", [*(f"bundled {role.title}" for role in ROLES), "llama", "qwen2 untied"])
@pytest.mark.parametrize("dtype", LOGITS_ERROR, ids=str)
@pytest.mark.parametrize("options", OPTIONS)
def test_logits_agree_with_the_eager_engine(models, name: str, dtype: torch.dtype, options: str) -> None:
    """Random passes, commits and rewinds; the argmax is the same wherever the two best logits lie further apart."""
    model = copy.deepcopy(models[name]).to("cuda", dtype)
    rng, eager, graph = random.Random(4), CachedLM(model), GraphLM(model, options=OPTIONS[options])
    vocab_size = model.config.vocab_size
    for step in range(40):
        block_size = rng.choice((1, 32))
        assert eager.reuse(eager.tokens, block_size) == graph.reuse(graph.tokens, block_size)
        tokens = random_ids(step, rng.choice((1, 2, 5, 9, 31, 32, 33, 64, 70, 96, 130, 600)), vocab_size=vocab_size)
        keep = sorted(rng.sample(range(len(tokens)), rng.randint(1, min(9, len(tokens))))) if step % 2 else None
        ours, theirs = (lm.forward(tokens, block_size=block_size, keep=keep).float() for lm in (graph, eager))
        error = (ours - theirs).norm() / theirs.norm()
        assert error < LOGITS_ERROR[dtype], f"step {step}: {len(tokens)} tokens at {eager.length}"
        best = theirs.topk(2).values
        is_clear = best[:, 0] - best[:, 1] > 2 * (ours - theirs).abs().max()
        assert torch.equal(ours.argmax(-1)[is_clear], theirs.argmax(-1)[is_clear])
        chosen, sure = graph.predict(tokens, block_size=block_size, keep=keep, never=MASK_ID)
        ours[:, MASK_ID] = -torch.inf
        assert chosen == ours.argmax(-1).tolist()
        assert sure == pytest.approx(ours.softmax(-1).max(-1).values.tolist(), abs=1e-4)
        for lm in (eager, graph):
            lm.commit(len(tokens) // 32 * 32 if block_size == 32 else len(tokens) // 2)
            if lm.length > 2500:
                lm.rollback(64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_divergence_from_plain_decoding_is_a_tie(dtype: str, capsys) -> None:
    arguments = ["--num_questions", "6", "--max_new_tokens", "128", "--engine", "graph", "--dtype", dtype]
    assert check_lossless.main(arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["engine"] == "graph" and result["grades"]["exact"] > 0


def test_auto_is_the_graph_engine_and_its_records_say_so(tmp_path: Path) -> None:
    arguments = ["--num_questions", "1", "--max_new_tokens", "32", "--output_dir", str(tmp_path)]
    assert failfast.main(arguments) == 0
    assert {load_record(path).identity["engine"] for path in find_records(tmp_path)} == {"graph"}


def test_recording_all_graphs_takes_seconds(models) -> None:
    lm = GraphLM(copy.deepcopy(models["bundled target"]).to("cuda", torch.bfloat16))
    begin = time.perf_counter()
    lm.warm_up()
    assert time.perf_counter() - begin < 30
