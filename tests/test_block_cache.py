"""The sub-block cache and drawn tokens: standalone decoding and drafting against Fast-dLLM v2's description."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from reference import full_logits
from toys import MASK_ID, random_ids, toy_model

from generate import generate
from specdec.config import RunConfig
from specdec.decoding.denoising import Denoising, LiveBlocks
from specdec.drafters.block_diffusion import DllmStatic
from specdec.errors import UserError
from specdec.models.lm import CachedLM

HOW = {"block_size": 32, "small_block_size": 8, "mask_id": MASK_ID, "stop_ids": ()}


@pytest.fixture(scope="module")
def model(one_thread: None) -> torch.nn.Module:
    return toy_model("qwen2", 12, scale=4.0)


class WatchedLM(CachedLM):
    """Notes how many tokens each pass runs, and where in the open block those of a partial one begin."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.passes: list[tuple[int, int | None]] = []

    def forward(self, tokens: Sequence[int], **how: object) -> torch.Tensor:
        self.passes.append((len(tokens), None))
        return super().forward(tokens, **how)

    def forward_within(self, tokens: Sequence[int], at: int, keep: Sequence[int]) -> torch.Tensor:
        self.passes.append((len(tokens), at))
        return super().forward_within(tokens, at, keep)


def test_a_partial_pass_over_the_same_tokens_changes_nothing(model: torch.nn.Module) -> None:
    """What is approximate is that the rest of the block changes meanwhile: where it does not, the pass is exact."""
    lm, tokens = CachedLM(model), random_ids(1, 96)
    lm.forward(tokens[:64], block_size=32, keep=[])
    lm.commit(64)
    lm.forward(tokens[64:], block_size=32, keep=[])
    want = full_logits(model, tokens, 32)
    for at in (0, 8, 24):
        logits = lm.forward_within(tokens[64 + at : 72 + at], at, range(8))
        torch.testing.assert_close(logits.double(), want[64 + at : 72 + at], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="commit"):
        lm.commit(32)
    with pytest.raises(ValueError, match="last 32"):
        lm.forward_within(tokens[:8], 25, [0])
    lm.rollback(64)
    with pytest.raises(ValueError, match="last 0"):
        lm.forward_within(tokens[:8], 0, [0])


def test_sub_blocks_run_alone_once_their_first_token_is_known(model: torch.nn.Module) -> None:
    """The first pass over a sub-block, and those until its first token is known, run the whole block."""
    lm, prefix = WatchedLM(model), random_ids(2, 32 + 3, exclude=[MASK_ID])
    blocks = LiveBlocks(lm, prefix, Denoising(1.0, 32, 8, MASK_ID, frozenset(), use_block_cache=True))
    lm.passes.clear()
    while blocks.passes.commit == 0:
        masked = [at for at, token in enumerate(blocks.block) if token is None]
        blocks.step()
        begin = masked[0] // 8 * 8 if masked else None
        is_alone = bool(masked) and masked[0] > begin and blocks.passes.denoise > 1
        assert lm.passes[-1] == ((8, begin) if is_alone else (32, None))
    assert 0 < blocks.num_within < blocks.passes.denoise == 29


@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_the_cache_is_exact_where_a_pass_fills_a_sub_block(model: torch.nn.Module, threshold: float) -> None:
    """At threshold 0 every sub-block takes one pass, so that nothing is left to approximate."""
    for seed in range(3):
        prompt = random_ids(seed, 20 + 9 * seed, exclude=[MASK_ID])
        near, exact = (
            generate(CachedLM(model), prompt, max_new_tokens=60, threshold=threshold, use_block_cache=cache, **HOW)
            for cache in (True, False)
        )
        assert len(near.tokens) == len(exact.tokens) == 60 and MASK_ID not in near.tokens
        assert threshold > 0 or near == exact


def test_tokens_are_drawn_by_their_warped_probabilities(model: torch.nn.Module) -> None:
    """Of a position whose neighbours do not matter: the first one filled after a block's first, over many seeds."""
    lm, prefix, counts = CachedLM(model), random_ids(3, 32, exclude=[MASK_ID]), torch.zeros(64)
    how = {"max_new_tokens": 2, "threshold": 0.0, **HOW}
    for seed in range(150):
        drawn = generate(lm, prefix, temperature=3.0, top_p=0.8, seed=seed, **how)
        assert drawn.tokens[0] == int(full_logits(model, prefix, 32)[-1].argmax())  # greedy, as in Fast-dLLM v2
        counts[drawn.tokens[1]] += 1
    logits = full_logits(model, [*prefix, drawn.tokens[0], *[MASK_ID] * 31], 32)[32]
    logits[MASK_ID] = -torch.inf
    sure, ids = (logits / 3.0).softmax(-1).sort(descending=True)
    kept = (sure.cumsum(0) - sure) < 0.8
    law = torch.zeros(64, dtype=torch.double).scatter(0, ids, sure * kept / (sure * kept).sum())
    assert kept.sum() >= 2 and set(counts.nonzero().flatten().tolist()) <= set(ids[kept].tolist())
    assert (counts / 150 - law).abs().max() < 0.15


def test_a_seed_decides_what_is_drawn_and_no_temperature_draws_nothing(model: torch.nn.Module) -> None:
    how = {"max_new_tokens": 20, "threshold": 0.5, **HOW}
    first, again, other, cold, greedy = (
        generate(CachedLM(model), [1, 2, 3], temperature=temperature, seed=seed, **how).tokens
        for temperature, seed in ((1.5, 1), (1.5, 1), (1.5, 2), (0.0, 1), (0.0, 2))
    )
    assert first == again != other and cold == greedy
    with pytest.raises(ValueError, match="not a warp"):
        generate(CachedLM(model), [1], temperature=-1.0, **how)


def test_approximate_drafts_say_so_and_are_not_recorded_or_replayed() -> None:
    from made_up import made_up_trace

    from specdec.drafters.base import Setup
    from specdec.traces.replay import replay

    setups = [Setup((), {"use_block_cache": cache}) for cache in (True, False)]
    kept = [DllmStatic(0.5, 3).kept_settings(setup) for setup in setups]
    assert kept[0] == kept[1] | {"use_block_cache": True} and "use_block_cache" not in kept[1]
    with pytest.raises(UserError, match="approximate.*run it live"):
        replay(made_up_trace(1), DllmStatic(0.5, 3), {"use_block_cache": True})
    with pytest.raises(UserError, match="cannot be recorded"):
        RunConfig.of(record=True, use_block_cache=True)
