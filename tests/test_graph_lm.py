"""GraphLM against the eager CachedLM and the uncached model, on the CPU, where it runs the plain operations.

The same code is recorded as CUDA graphs on a GPU; test_gpu.py compares there.
"""

from __future__ import annotations

import random

import pytest
import torch
from reference import full_logits
from toys import MASK_ID, VOCAB_SIZE, random_ids, toy_model

from specdec.models.graph import graph_lm, network, reference
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.graphs import padded
from specdec.models.graph.weights import join_weights, unsupported
from specdec.models.lm import CachedLM

pytestmark = pytest.mark.slow
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
MODELS = {
    "qwen2": lambda: toy_model("qwen2", 21, scale=2.0),
    "qwen2-tied": lambda: toy_model("qwen2", 22, scale=2.0, tie=True),
    "qwen2-wide": lambda: toy_model("qwen2", 23, scale=2.0, hidden_size=96),
    "llama": lambda: toy_model("llama", 24, scale=2.0),
    "llama-tied": lambda: toy_model("llama", 25, scale=2.0, tie=True),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request, one_thread) -> torch.nn.Module:
    return MODELS[request.param]()


@pytest.fixture(autouse=True)
def toy_sizes(monkeypatch) -> None:
    """Toy heads have 8 or 24 values, and short chunks and caches show what happens at their ends."""
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8, 24))
    monkeypatch.setattr(graph_lm, "TOKEN_COUNTS", (1, 2, 4, 8, 16, 32, 64))
    monkeypatch.setattr(graph_lm, "MAX_TOKENS", 64)
    monkeypatch.setattr(graph_lm, "INITIAL_CAPACITY", 128)


@pytest.mark.parametrize("block_size", [1, 8, 32])
def test_logits_equal_the_uncached_models(model, block_size: int) -> None:
    """Every padded count, chunks and caches that grow: pieces of 1 to 200 tokens, in whole blocks but for the last."""
    for seed in range(4):
        rng = random.Random(f"{block_size} {seed}")
        tokens, lm = random_ids(seed, rng.choice((1, 33, 64, 65, 300))), GraphLM(model)
        while lm.length < len(tokens):
            piece = tokens[lm.length :][: block_size * rng.choice((1, 2, 3, 7, 200 // block_size))]
            logits = lm.forward(piece, block_size=block_size)
            want = full_logits(model, tokens[: lm.length + len(piece)], block_size)[lm.length :]
            torch.testing.assert_close(logits.double(), want, **TOLERANCE)
            lm.commit(len(piece))
        assert lm.tokens == tokens and lm.capacity >= len(tokens)


def test_warming_up_records_two_graphs_a_count_and_no_draft_another(model, monkeypatch) -> None:
    """What is recorded is counted; how long it takes on a GPU: warm_up_s of profiling/profile_engine.py."""
    lm, keys = GraphLM(model), []
    run = lm.graphs.run
    monkeypatch.setattr(lm.graphs, "run", lambda key, function: keys.append(key) or run(key, function))
    lm.warm_up()
    recorded = set(keys)
    assert len(recorded) == 2 * len(graph_lm.TOKEN_COUNTS) and lm.length == 0
    for count in range(1, 65):
        lm.predict(random_ids(count, count))
        lm.forward(random_ids(count, count), keep=[count - 1])
    assert set(keys) == recorded


def test_same_history_same_answers_as_the_eager_engine(model) -> None:
    """Random passes under two block sizes, kept rows, commits, rewinds and reuse: both engines agree at every step."""
    rng, eager, graph = random.Random(3), CachedLM(model), GraphLM(model)
    for step in range(80):
        block_size = rng.choice((1, 32))
        prefix = [*eager.tokens[: rng.randint(0, 200)], 1, 2, 3]
        assert eager.reuse(prefix, block_size) == graph.reuse(prefix, block_size)
        tokens = random_ids(1000 + step, rng.choice((1, 2, 5, 31, 32, 33, 63, 64, 65, 130)))
        keep = sorted(rng.sample(range(len(tokens)), rng.randint(0, len(tokens)))) if step % 2 else None
        how = {"block_size": block_size, "keep": keep}
        torch.testing.assert_close(graph.forward(tokens, **how), eager.forward(tokens, **how), **TOLERANCE)
        (ours, sure), (theirs, expected) = (lm.predict(tokens, **how, never=MASK_ID) for lm in (graph, eager))
        assert ours == theirs and sure == pytest.approx(expected, abs=1e-4) and MASK_ID not in ours
        num_kept = len(tokens) // 32 * 32 if block_size == 32 else rng.randint(0, len(tokens))
        for lm in (eager, graph):
            lm.commit(num_kept)
            if lm.length > 200:
                lm.rollback(lm.length // 64 * 32)
        assert eager.tokens == graph.tokens


def test_both_engines_agree_on_what_is_left_to_probabilities_near_one(one_thread) -> None:
    model, num_near = toy_model("qwen2", 26, scale=16.0), 0
    eager, graph = CachedLM(model), GraphLM(model)
    for seed in range(4):
        (_, expected), (_, sure) = (lm.predict(random_ids(seed, 64), block_size=32) for lm in (eager, graph))
        assert [1 - one for one in sure] == pytest.approx([1 - one for one in expected], rel=1e-2, abs=1e-15)
        num_near += sum(0 < 1 - one < 1e-6 for one in expected)
    assert num_near >= 20


def test_head_runs_at_kept_rows_only(model, monkeypatch) -> None:
    rows, lm = [], GraphLM(model)
    head = lm.network.head
    monkeypatch.setattr(lm.network, "head", lambda count: rows.append(count) or head(count))
    lm.predict(random_ids(1, 40), keep=[5, 17, 39])
    lm.predict(random_ids(1, 40), keep=[])
    assert rows == [4]


def test_a_pass_costs_its_tokens_padded_up(model, monkeypatch) -> None:
    counts, lm, body = [], GraphLM(model), network.Network.body
    monkeypatch.setattr(network.Network, "body", lambda self, *asked: counts.append(asked[0]) or body(self, *asked))
    for num_tokens in (1, 3, 9, 32, 33, 150):
        lm.forward(random_ids(num_tokens, num_tokens), keep=[])
        lm.commit(num_tokens)
    assert counts == [1, 4, 16, 32, 64, 64, 64, 32]


def test_long_runs_end_their_chunks_with_a_block() -> None:
    assert [graph_lm._chunk_end(32, begin, 150, 32) for begin in (0, 64, 128)] == [64, 128, 150]
    assert graph_lm._chunk_end(40, 0, 150, 48) == 56
    assert graph_lm._chunk_end(0, 0, 65, 1) == 64
    with pytest.raises(ValueError, match="at most 64 positions"):
        graph_lm._chunk_end(0, 0, 200, 128)


def test_cache_grows_and_keeps_what_is_committed(model) -> None:
    lm, tokens = GraphLM(model), random_ids(8, 700)
    for end in (100, 128, 129, 250, 600):
        lm.forward(tokens[lm.length : end], keep=[])
        lm.commit(end - lm.length)
    assert lm.capacity == 1024
    torch.testing.assert_close(lm.forward(tokens[600:]).double(), full_logits(model, tokens, 1)[600:], **TOLERANCE)
    lm.rollback(90)
    assert lm.reuse(tokens[:50]) == 50
    torch.testing.assert_close(lm.forward([7]).double(), full_logits(model, [*tokens[:50], 7], 1)[50:], **TOLERANCE)


def test_padding_never_reaches_past_the_cache(model) -> None:
    """33 tokens are run as 64 at the very end of the cache."""
    lm, tokens = GraphLM(model), random_ids(9, 128)
    lm.forward(tokens[:95], keep=[])
    lm.commit(95)
    logits = lm.forward(tokens[95:])
    assert lm.capacity == 128
    torch.testing.assert_close(logits.double(), full_logits(model, tokens, 1)[95:], **TOLERANCE)


@pytest.mark.parametrize("step", ["queries", "gated", "add"])
def test_a_fault_leaves_the_committed_cache_as_it_was(model, monkeypatch, step: str) -> None:
    lm, tokens = GraphLM(model), random_ids(3, 60)
    lm.forward(tokens[:40], keep=[])
    lm.commit(40)
    before = lm.forward(tokens[40:])
    for fatal in (random_ids(4, 10), random_ids(5, 600)):
        with monkeypatch.context() as patch:
            patch.setattr(network.LibraryProducts, step, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                lm.predict(fatal)
        assert lm.tokens == tokens[:40]
        with pytest.raises(ValueError, match="commit"):
            lm.commit(1)
    torch.testing.assert_close(lm.forward(tokens[40:]), before, **TOLERANCE)


def test_norms_are_told_when_a_kernel_is_surely_before_them(model, monkeypatch) -> None:
    """Not at a pass's start, where the host's inputs are copied, nor in the head's recording, which begins with it."""
    told, norm, lm = [], reference.norm, GraphLM(model)

    def watched(*given, is_after_kernel: bool = False, **named) -> torch.Tensor:
        told.append(is_after_kernel)
        return norm(*given, **named)

    monkeypatch.setattr(reference, "norm", watched)
    for how in ({}, {"parents": [-1, 0, 0]}):
        lm.predict(random_ids(1, 3), **how)
        assert told == [False, *[True] * (2 * len(lm.weights.layers) - 1), False]
        told.clear()


def test_keys_and_values_are_those_of_the_committed_positions(model) -> None:
    tokens = random_ids(12, 50)
    ours, theirs = GraphLM(model), CachedLM(model)
    for lm in (ours, theirs):
        lm.forward(tokens, block_size=8, keep=[])
        lm.commit(41)
    assert ours.keys_values().keys() == theirs.keys_values().keys()
    for layer_idx, both in theirs.keys_values().items():
        for got, want in zip(ours.keys_values()[layer_idx], both, strict=True):
            assert got.shape[2] == 41
            torch.testing.assert_close(got, want, **TOLERANCE)


def test_vocabulary_can_be_cut(model) -> None:
    tokens = random_ids(9, 12)
    cut = GraphLM(model, vocab_size=50).forward(tokens, keep=[0, 11])
    torch.testing.assert_close(cut, CachedLM(model, vocab_size=50).forward(tokens, keep=[0, 11]), **TOLERANCE)
    assert cut.shape == (2, 50)


def test_joined_weights_leave_the_module_as_it_was(model) -> None:
    tokens = random_ids(2, 30)
    before = full_logits(model, tokens, 1)
    weights = join_weights(model, None)
    attention = model.model.layers[0].self_attn
    assert attention.k_proj.weight.untyped_storage().data_ptr() == weights.layers[0].qkv_NC.untyped_storage().data_ptr()
    torch.testing.assert_close(full_logits(model, tokens, 1), before, atol=0, rtol=0)


def test_bytes_of_a_pass_are_counted_once(model) -> None:
    weights = join_weights(model, None)
    parameters = dict(model.named_parameters())
    embedding = 0 if model.config.tie_word_embeddings else parameters["model.embed_tokens.weight"].numel()
    read = [tensor for layer in weights.layers for tensor in vars(layer).values() if tensor is not None]
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in (*read, weights.norm_C, weights.head_VC))
    assert num_bytes == 4 * (sum(p.numel() for p in parameters.values()) - embedding)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "gpt2"}, "architecture gpt2"),
        ({"hidden_act": "gelu"}, "activation gelu"),
        ({"mlp_bias": True}, "biases"),
        ({"head_dim": 12}, "heads of 12 values"),
        ({"head_dim": None, "hidden_size": 80}, "heads of 20 values"),
    ],
)
def test_what_it_does_not_run_is_named(change: dict, reason: str) -> None:
    model = toy_model("llama", 3)
    assert unsupported(model.config) is None
    for name, value in change.items():
        setattr(model.config, name, value)
    assert reason in unsupported(model.config)
    with pytest.raises(ValueError, match=reason):
        GraphLM(model)


def test_warm_up_leaves_nothing(model) -> None:
    lm = GraphLM(model)
    lm.warm_up()
    assert lm.length == 0 and lm.tokens == []
    torch.testing.assert_close(lm.forward([1, 2]), CachedLM(model).forward([1, 2]), **TOLERANCE)
    assert lm.forward([5]).shape == (1, VOCAB_SIZE)


def test_a_pass_is_padded_to_the_first_number_that_suffices() -> None:
    assert [padded(count, (1, 4, 16)) for count in (1, 2, 4, 5, 16)] == [1, 4, 4, 16, 16]
