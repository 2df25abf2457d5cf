"""CachedLM: whatever is run in pieces, kept, dropped and rewound equals one uncached forward of the raw model."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from reference import full_logits
from toys import MASK_ID, VOCAB_SIZE, causal_logits, random_ids, toy_model

from specdec.decoding.denoising import Denoising, LiveBlocks
from specdec.models.lm import CachedLM, most_probable

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module", params=["qwen2", "llama", "qwen2-tied"])
def model(request) -> torch.nn.Module:
    torch.set_num_threads(1)
    return toy_model(request.param.split("-")[0], seed=21, scale=2.0, tie="tied" in request.param)


def _commit(lm: CachedLM, tokens: list[int], block_size: int = 1) -> None:
    lm.forward(tokens, block_size=block_size, keep=[])
    lm.commit(len(tokens))


def _pieces(rng: random.Random, total: int, unit: int) -> list[int]:
    """Random lengths, whole multiples of `unit` but for the last, that add up to `total`."""
    lengths = []
    while (left := total - sum(lengths)) > 0:
        lengths.append(min(left, unit * rng.randint(1, max(1, 48 // unit))))
    return lengths


def test_oracle_with_blocks_of_one_is_the_models_own_causal_attention(model) -> None:
    tokens = random_ids(0, 50)
    torch.testing.assert_close(full_logits(model, tokens, 1).float(), causal_logits(model, tokens), **TOLERANCE)


@pytest.mark.parametrize("block_size", [1, 8, 32])
def test_pieces_equal_one_forward(model, block_size: int) -> None:
    for seed in range(6):
        rng = random.Random(f"{block_size} {seed}")
        total = rng.choice((1, 7, 31, 32, 33, 64, 65, 150))
        tokens, lm, logits = random_ids(seed, total), CachedLM(model), []
        for length in _pieces(rng, total, block_size):
            piece = tokens[lm.length : lm.length + length]
            logits.append(lm.forward(piece, block_size=block_size))
            lm.commit(length)
        assert lm.length == total and list(lm.tokens) == tokens
        torch.testing.assert_close(torch.cat(logits).double(), full_logits(model, tokens, block_size), **TOLERANCE)


@pytest.mark.parametrize("block_size", [1, 8, 32])
def test_keep_selects_rows(model, block_size: int) -> None:
    lm, tokens = CachedLM(model), random_ids(4, 70)
    _commit(lm, tokens[:32], block_size)
    whole = lm.forward(tokens[32:], block_size=block_size)
    for keep in ([], [0], [37], [3, 4, 20], list(range(38))):
        kept = lm.forward(tokens[32:], block_size=block_size, keep=keep)
        assert kept.shape == (len(keep), VOCAB_SIZE)
        torch.testing.assert_close(kept, whole[keep], **TOLERANCE)


def test_head_is_computed_for_kept_positions_only(model) -> None:
    rows = []
    handle = model.lm_head.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[-2]))
    try:
        CachedLM(model).forward(random_ids(1, 40), keep=[5, 39])
    finally:
        handle.remove()
    assert rows == [2]


def test_only_new_tokens_go_through_the_model(model) -> None:
    seen, lm, tokens = [], CachedLM(model), random_ids(2, 100)
    _commit(lm, tokens[:90])
    embedding = model.get_input_embeddings()
    handle = embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    try:
        lm.forward(tokens[90:])
    finally:
        handle.remove()
    assert seen == [10]


def test_forward_without_commit_changes_nothing(model) -> None:
    lm, tokens = CachedLM(model), random_ids(3, 64)
    _commit(lm, tokens[:40])
    before = lm.forward(tokens[40:50])
    for other in (random_ids(9, 30), random_ids(8, 1)):
        lm.forward(other, block_size=8)
        assert lm.length == 40 and list(lm.tokens) == tokens[:40]
    torch.testing.assert_close(lm.forward(tokens[40:50]), before, **TOLERANCE)


def test_random_walk_of_forward_commit_rollback_and_reuse(model) -> None:
    """After any history, the next logits are those of the committed tokens and the new ones alone."""
    rng = random.Random(5)
    lm, committed = CachedLM(model), []
    for step in range(120):
        action = rng.choice(("extend", "extend", "drop", "rollback", "reuse"))
        if action in ("extend", "drop") and len(committed) < 200:
            tokens = random_ids(1000 + step, rng.randint(1, 20))
            logits = lm.forward(tokens)
            want = full_logits(model, committed + tokens, 1)[len(committed) :]
            torch.testing.assert_close(logits.double(), want, **TOLERANCE)
            kept = rng.randint(0, len(tokens)) if action == "extend" else 0
            lm.commit(kept)
            committed += tokens[:kept]
        elif action == "rollback":
            committed = committed[: rng.randint(len(committed) // 2, len(committed))]
            lm.rollback(len(committed))
        else:
            same = rng.randint(len(committed) // 2, len(committed))
            assert lm.reuse(committed[:same]) == same
            committed = committed[:same]
        assert lm.length == len(committed) and list(lm.tokens) == committed


def test_reuse_keeps_the_longest_common_prefix_in_whole_blocks(model) -> None:
    tokens = random_ids(6, 70)
    changed = [*tokens[:50], (tokens[50] + 1) % VOCAB_SIZE, *tokens[51:]]
    cases = [(tokens, 1, 70), (tokens, 32, 64), (changed, 1, 50), (changed, 8, 48), (changed, 32, 32)]
    cases += [(tokens[:40], 1, 40), (tokens[:40], 32, 32), (tokens + [1, 2], 1, 70), ([], 1, 0), ([63, 63], 1, 0)]
    for prefix, block_size, want in cases:
        lm = CachedLM(model)
        lm.forward(tokens, block_size=block_size)
        lm.commit(len(tokens))
        assert lm.reuse(prefix, block_size=block_size) == want == lm.length
        assert list(lm.tokens) == tokens[:want]
        new = random_ids(7, 5)
        torch.testing.assert_close(
            lm.forward(new, block_size=block_size).double(),
            full_logits(model, tokens[:want] + new, block_size)[want:],
            **TOLERANCE,
        )


def test_what_another_block_size_made_is_not_reused(model) -> None:
    lm, tokens = CachedLM(model), random_ids(6, 64)
    _commit(lm, tokens)
    assert lm.reuse(tokens, block_size=32) == 0
    lm.forward(tokens, block_size=32)
    lm.commit(64)
    assert lm.reuse(tokens, block_size=32) == 64
    assert lm.reuse(tokens, block_size=1) == 0


def test_attention_that_misreads_the_mask_is_refused() -> None:
    model = toy_model("qwen2", 3)
    model.config._attn_implementation = "eager"
    with pytest.raises(ValueError, match="sdpa"):
        CachedLM(model)


def test_cache_grows_beyond_its_first_capacity(model) -> None:
    lm, tokens = CachedLM(model), random_ids(8, 1300)
    for end in (500, 511, 512, 513, 640, 1020, 1030):
        _commit(lm, tokens[lm.length : end])
    torch.testing.assert_close(lm.forward(tokens[1030:]).double(), full_logits(model, tokens, 1)[1030:], **TOLERANCE)
    lm.rollback(300)
    assert list(lm.tokens) == tokens[:300]
    torch.testing.assert_close(
        lm.forward(tokens[300:320]).double(), full_logits(model, tokens[:320], 1)[300:], **TOLERANCE
    )


def test_vocabulary_can_be_cut(model) -> None:
    tokens = random_ids(9, 12)
    whole = CachedLM(model).forward(tokens)
    cut = CachedLM(model, vocab_size=50).forward(tokens, keep=[0, 11])
    assert cut.shape == (2, 50)
    torch.testing.assert_close(cut, whole[[0, 11], :50], **TOLERANCE)


def test_two_caches_of_one_model_do_not_meet(model) -> None:
    first, second = CachedLM(model), CachedLM(model)
    one, other = random_ids(1, 20), random_ids(2, 30)
    _commit(first, one)
    _commit(second, other)
    torch.testing.assert_close(first.forward([5]).double(), full_logits(model, [*one, 5], 1)[-1:], **TOLERANCE)
    torch.testing.assert_close(second.forward([5]).double(), full_logits(model, [*other, 5], 1)[-1:], **TOLERANCE)


# ---- errors --------------------------------------------------------------------------------------------------


def test_no_more_can_be_committed_than_was_run(model) -> None:
    lm = CachedLM(model)
    with pytest.raises(ValueError):
        lm.commit(1)
    lm.forward([1, 2, 3])
    with pytest.raises(ValueError):
        lm.commit(4)
    lm.commit(2)
    with pytest.raises(ValueError):
        lm.commit(1)
    assert list(lm.tokens) == [1, 2]


def test_rollback_goes_back_only(model) -> None:
    lm = CachedLM(model)
    _commit(lm, [1, 2, 3])
    for length in (4, -1):
        with pytest.raises(ValueError):
            lm.rollback(length)
    assert list(lm.tokens) == [1, 2, 3]


def test_rollback_forgets_the_last_forward(model) -> None:
    lm = CachedLM(model)
    _commit(lm, [1, 2, 3])
    lm.forward([4, 5])
    lm.rollback(2)
    with pytest.raises(ValueError):
        lm.commit(1)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("part", ["self_attn", "mlp"])
def test_fault_inside_the_model_leaves_the_cache_as_it_was(model, layer: int, part: str) -> None:
    """Also when a layer has stored its keys already, and when the cache was about to grow."""

    def fail(*_: object) -> None:
        raise RuntimeError("fault")

    lm, tokens = CachedLM(model), random_ids(3, 60)
    _commit(lm, tokens[:40])
    before = lm.forward(tokens[40:])
    for fatal in (random_ids(4, 10), random_ids(5, 600)):
        handle = getattr(model.model.layers[layer], part).register_forward_pre_hook(fail)
        try:
            with pytest.raises(RuntimeError, match="fault"):
                lm.forward(fatal)
        finally:
            handle.remove()
        assert lm.length == 40 and list(lm.tokens) == tokens[:40]
        with pytest.raises(ValueError):
            lm.commit(1)
    torch.testing.assert_close(lm.forward(tokens[40:]), before, **TOLERANCE)


# ---- probabilities near 1 ------------------------------------------------------------------------------------

NEAR_ONE = (9.0, 16.0, 14.0, 25.0, 33.0, 20.0)  # by how much the best of a row's logits, all about 30, leads


def near_one(vocab_size: int = 5000) -> torch.Tensor:
    logits_KV = 30 - torch.tensor(NEAR_ONE)[:, None] - 3 * torch.rand(len(NEAR_ONE), vocab_size)
    logits_KV[:, 4321] = 30.0
    return logits_KV


def test_probabilities_near_one_stay_apart() -> None:
    """What is left to 1 is right to five digits, down to where float64 ends: 1 - 1e-16 is 1."""
    logits_KV = near_one()
    tokens, sure = zip(*most_probable(logits_KV).tolist(), strict=True)
    others = logits_KV.double().softmax(-1)
    others[:, 4321] = 0.0
    assert tokens == (4321,) * len(NEAR_ONE) and len({*sure}) == len(NEAR_ONE)
    assert [1 - one for one in sure] == pytest.approx(others.sum(-1).tolist(), rel=1e-5, abs=2e-16)


class SureLM(CachedLM):
    """Predicts by planted logits, whatever it is shown."""

    def _run(self, tokens: list[int], block_size: int, keep: Sequence[int] | None) -> torch.Tensor:
        self._cache.length = self.length
        return near_one()[: len(tokens if keep is None else keep)]


def test_the_surest_of_positions_near_one_is_unmasked(model) -> None:
    """Not the first: logits of about 30 left several at exactly 1, or in steps of 2e-6."""
    blocks = LiveBlocks(SureLM(model), [1, 2], Denoising(1.0, 32, 8, MASK_ID, frozenset()))
    blocks.step()
    assert [at for at, token in enumerate(blocks.ids) if token is not None] == [0, 1, 2 + NEAR_ONE.index(33.0)]
