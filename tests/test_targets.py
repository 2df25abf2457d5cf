"""Targets of every architecture: texts of transformers' generate on shrunk real configs, cached passes against uncached
ones with windows crossed, and every family of drafters over them.
"""

from __future__ import annotations

import random

import pytest
import torch
from toys import MASK_ID, TOO_CLOSE, causal_logits, greedy_tokens, random_ids, toy_model, toy_pair

from experiments.targets import REAL, compared
from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.drafters.ar import ArDrafter, ArDynamic, ArStatic
from specdec.drafters.base import Setup
from specdec.drafters.block_diffusion import BlockSettings, DllmDrafter, DllmStatic, FailFast
from specdec.drafters.lookup import Lookup
from specdec.models.architectures import ARCHITECTURES
from specdec.models.graph import graph_lm
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.lm import CachedLM
from specdec.models.pages import PagedLM, Row

TOLERANCE = {"atol": 2e-4, "rtol": 2e-4}
BACKENDS = {"eager": CachedLM, "graph": GraphLM}
WAYS = [(one.name, way) for one in ARCHITECTURES for way in BACKENDS if way == "eager" or one.runs_as_graphs]
WINDOWED = {"mistral": [12, 12], "phi3": [12, 12], "gemma3_text": [12, None]}


@pytest.fixture(autouse=True)
def toy_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy heads have 8 values; short chunks and caches show what happens at their ends."""
    torch.set_num_threads(1)
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8, 16))
    monkeypatch.setattr(graph_lm, "TOKEN_COUNTS", (1, 2, 4, 8, 16, 32))
    monkeypatch.setattr(graph_lm, "MAX_TOKENS", 32)
    monkeypatch.setattr(graph_lm, "INITIAL_CAPACITY", 64)


@pytest.mark.parametrize("name", REAL)
def test_texts_are_those_of_generate(name: str) -> None:
    for way, counts in compared(name, num_prompts=2, max_new_tokens=10).items():
        assert set(counts) <= {"exact", "drafted", "accepted"} and counts["exact"] == 2, (name, way)
        assert "AR" not in way or counts["accepted"] > 0


def model_of(name: str) -> torch.nn.Module:
    """Also Qwen's layers slide here, one of two."""
    model = toy_model(name, 21, scale=2.0)
    if name in ("qwen2", "qwen3"):
        model.config.update({"use_sliding_window": True, "sliding_window": 12})
        model.config.layer_types = ["full_attention", "sliding_attention"]
        model = type(model)(model.config).eval()
        model.load_state_dict(toy_model(name, 21, scale=2.0).state_dict())
    return model


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_passes_commits_and_rewinds_equal_uncached_passes(name: str, way: str) -> None:
    """Drafts of 1 to 40 tokens, of which some are accepted, rewinds, a cache that grows; windows are crossed."""
    model = model_of(name)
    rng, tokens = random.Random(name), random_ids(7, 150)
    want = causal_logits(model, tokens)
    lm = BACKENDS[way](model)
    while lm.length < len(tokens):
        drafted = rng.randint(1, 40)
        right = tokens[lm.length :][: rng.randint(1, drafted)]
        wrong = random_ids(lm.length, drafted - len(right))
        logits = lm.forward([*right, *wrong])[: len(right)]
        torch.testing.assert_close(logits, want[lm.length :][: len(right)], **TOLERANCE)
        lm.commit(len(right))
        if rng.random() < 0.3:
            lm.rollback(rng.randint(0, lm.length))


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_are_felt(name: str) -> None:
    """A token outside all windows changes nothing, unless a layer sees everything."""
    model = toy_model(name, 5)
    lm = CachedLM(model)
    assert lm.windows == WINDOWED[name]
    tokens = random_ids(1, 60)
    others = [(tokens[0] + 1) % 60, *tokens[1:]]
    ends = [CachedLM(model).forward(ids, keep=[59]) for ids in (tokens, others)]
    assert torch.equal(*ends) is (None not in lm.windows)


@pytest.mark.parametrize("name", [one.name for one in ARCHITECTURES])
def test_pages_of_single_tokens_equal_uncached_passes(name: str) -> None:
    """What recording AR drafts runs: rows that begin alike, of other lengths, in one pass."""
    model, tokens = model_of(name), random_ids(3, 40)
    paged = PagedLM(CachedLM(model), 1)
    pages, logits = paged.add_trunk(tokens, [39])
    torch.testing.assert_close(logits, causal_logits(model, tokens)[39:], **TOLERANCE)
    lengths = (3, 17, 40)
    rows = paged.forward([Row(tuple(pages[:length]), (5,), (0,)) for length in lengths])
    for length, row in zip(lengths, rows, strict=True):
        torch.testing.assert_close(row, causal_logits(model, [*tokens[:length], 5])[-1], **TOLERANCE)


def drafters_over(model: torch.nn.Module) -> dict[str, object]:
    """Every family; blocks are filled by a model without windows."""
    filler, blocks = toy_pair("qwen2")[1], BlockSettings(mask_id=MASK_ID, stop_ids=())
    dllm = (DllmStatic(0.5, 8), FailFast(0.05, 0.45, 60, 10))
    return {
        **{spec.name: ArDrafter(CachedLM(model), spec, ()) for spec in (ArStatic(6), ArDynamic(0.4, 20, 5))},
        **{spec.name: DllmDrafter(CachedLM(filler), spec, blocks) for spec in dllm},
        "lookup": Lookup(3, 5).drafter(Setup(())),
    }


@pytest.mark.parametrize("name", [one.name for one in ARCHITECTURES if one.name not in ("qwen2", "llama")])
def test_every_drafter_leaves_the_text_as_it_is(name: str) -> None:
    """(Qwen 2 and Llama: test_lossless.py, at length.)"""
    target, drafter_model = toy_pair(name)
    checked, drafters = 0, drafters_over(drafter_model)
    for length in (2, 30):
        prompt = random_ids(length, length)
        greedy, gap = greedy_tokens(target, prompt, max_new_tokens=16, stop_ids=())
        if gap < TOO_CLOSE:
            continue
        for label, drafter in drafters.items():
            rounds = speculate(Target(CachedLM(target)), drafter, prompt, max_new_tokens=16, stop_ids=frozenset())
            assert [token for turn in rounds for token in turn.emitted_tokens] == greedy, (label, length)
        checked += 1
    assert checked
