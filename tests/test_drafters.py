"""The drafters one by one: what they draft, what it costs, and that nothing kept between rounds leaks into a draft."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from reference import Rules, Window, failfast_draft, static_draft
from toys import MASK_ID, causal_logits, clear_prompt, random_ids, toy_pair

from specdec.decoding.loop import speculate
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target, Verification
from specdec.drafters.ar import ArDrafter, ArDynamic, ArStatic
from specdec.drafters.block_diffusion import BlockSettings, DllmDrafter, DllmStatic, FailFast
from specdec.models.lm import CachedLM

pytestmark = pytest.mark.slow
NUM_TOKENS = 28
DLLM_SPECS = (
    DllmStatic(0.9, 8),
    FailFast(0.05, 0.45, 60, 10),
    FailFast(0.6, 0.2, 40, 7, first_window=4),
    FailFast(0.6, 0.2, 40, 7, first_window=4, rule="strict"),
)


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def pair(request) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A target and the model of its drafters."""
    return toy_pair(request.param)


def _run(target: torch.nn.Module, drafter, prompt: list[int], *, max_new_tokens: int) -> list:
    return speculate(Target(CachedLM(target)), drafter, prompt, max_new_tokens=max_new_tokens, stop_ids=())


def _output(rounds: Sequence) -> list[int]:
    return [token for made in rounds for token in made.emitted_tokens]


# ---- what may be kept between rounds changes nothing but the passes -------------------------------------------


@pytest.mark.parametrize("spec", DLLM_SPECS, ids=lambda spec: f"{spec.name} {getattr(spec, 'rule', 'static')}")
def test_drafts_do_not_depend_on_kept_kvs(pair, spec) -> None:
    """Each length with drafts reused and not: one way round with the tied pair, the other with the untied one."""
    target, drafter_model = pair
    is_tied, saved = target.config.tie_word_embeddings, 0
    for length, reuse_drafts in ((31, is_tied), (64, not is_tied)):
        prompt, _ = clear_prompt(target, length, NUM_TOKENS)
        kept, dropped = (
            _run(target, DllmDrafter(CachedLM(drafter_model), spec, settings), prompt, max_new_tokens=NUM_TOKENS)
            for settings in (
                BlockSettings(MASK_ID, (), reuse_drafts=reuse_drafts),
                BlockSettings(MASK_ID, (), reuse_kvs=False, reuse_drafts=reuse_drafts),
            )
        )
        assert [made.draft_tokens for made in kept] == [made.draft_tokens for made in dropped]
        for ours, theirs in zip(kept, dropped, strict=True):
            assert ours.confidences == pytest.approx(theirs.confidences, abs=1e-4, rel=0)
            assert (ours.stop_reason, ours.num_denoise_passes) == (theirs.stop_reason, theirs.num_denoise_passes)
            assert ours.num_prefill_passes <= theirs.num_prefill_passes
            saved += theirs.num_prefill_passes - ours.num_prefill_passes
    assert saved > 0


def test_static_dllm_rounds_equal_the_oracle_at_every_prefix(pair) -> None:
    """The caches of this round and of those before it do not leak into a draft."""
    target, drafter_model = pair
    rules = Rules(MASK_ID, frozenset(), threshold=0.6)
    prompt, greedy = clear_prompt(target, 29, NUM_TOKENS)
    drafter = DllmDrafter(CachedLM(drafter_model), DllmStatic(0.6, 9), BlockSettings(MASK_ID, ()))
    for made in _run(target, drafter, prompt, max_new_tokens=NUM_TOKENS)[:-1]:
        prefix = (prompt + greedy)[: made.prefix_len]
        assert made.draft_tokens == static_draft(drafter_model, prefix, made.draft_len, rules).tokens


@pytest.mark.parametrize("rule", ["published", "strict"])
def test_failfast_rounds_equal_the_oracle_with_reuse(pair, rule: str) -> None:
    """Round by round, told what stood after the token that the round before rejected; also for a second question."""
    target, drafter_model = pair
    spec, rules = FailFast(0.05, 0.6, 30, 5, first_window=8, rule=rule), Rules(MASK_ID, frozenset(), 0.05)
    drafter = DllmDrafter(CachedLM(drafter_model), spec, BlockSettings(MASK_ID, (), reuse_drafts=True))
    num_reused = 0
    for length in (29, 30, 31, 64, 90):
        prompt, greedy = clear_prompt(target, length, NUM_TOKENS)
        rejected: list[int] = []
        for made in _run(target, drafter, prompt, max_new_tokens=NUM_TOKENS)[:-1]:
            window = Window(8, 0.6, 5, 30, rule, tuple(rejected))
            want = failfast_draft(drafter_model, (prompt + greedy)[: made.prefix_len], window, rules)
            assert made.draft_tokens == want.tokens[: length + NUM_TOKENS - made.prefix_len - 1]
            assert made.confidences == pytest.approx(want.confidences, abs=1e-4, rel=0)
            assert (made.num_denoise_passes, made.num_commit_passes) == (want.denoise, want.commit)
            rejected = made.draft_tokens[made.accepted_len + 1 :]
            num_reused += want.reused > 0
    assert num_reused > 0


def test_a_new_question_forgets_the_rejected_tail_and_the_cache(pair, monkeypatch) -> None:
    told = []
    monkeypatch.setattr(
        "specdec.drafters.block_drafter.finish_draft",
        lambda run, window, *, last_round_rejected, **_: told.append(list(last_round_rejected)) or Draft([1, 2, 3]),
    )
    lm = CachedLM(pair[1])
    drafter = DllmDrafter(lm, FailFast(0.05, 0.6, 30, 5), BlockSettings(MASK_ID, (), reuse_drafts=True))
    for _ in range(2):
        drafter.reset()
        assert lm.length == 0
        drafter.propose([5], 9)
        drafter.observe(Verification(range(1), 7))
        drafter.propose([5, 1, 7], 9)
        lm.forward([5])
        lm.commit(1)
    assert told == [[], [3], [], [3]]


# ---- AR drafters ---------------------------------------------------------------------------------------------


def test_a_perfect_ar_drafter_is_wholly_accepted(pair) -> None:
    target, _ = pair
    prompt, greedy = clear_prompt(target, 33, NUM_TOKENS)
    rounds = _run(target, ArDrafter(CachedLM(target), ArStatic(6), ()), prompt, max_new_tokens=NUM_TOKENS)
    assert _output(rounds) == greedy
    assert all(made.accepted_len == made.draft_len for made in rounds)
    assert [made.draft_len for made in rounds] == [6] * 4


def test_ar_drafts_are_the_drafters_own_greedy_text(pair) -> None:
    """With one pass per token, and the probabilities of the tokens as confidences."""
    target, drafter_model = pair
    prompt, greedy = clear_prompt(target, 30, NUM_TOKENS)
    drafter = ArDrafter(CachedLM(drafter_model), ArStatic(5), ())
    for made in _run(target, drafter, prompt, max_new_tokens=NUM_TOKENS):
        tokens = (prompt + greedy)[: made.prefix_len] + made.draft_tokens
        if made.draft_len == 0:
            continue
        probabilities, greedy_ids = causal_logits(drafter_model, tokens)[made.prefix_len - 1 : -1].softmax(-1).max(-1)
        assert made.draft_tokens == greedy_ids.tolist()
        assert made.confidences == pytest.approx(probabilities.tolist(), abs=1e-4)
        assert (made.num_prefill_passes, made.num_denoise_passes, made.num_commit_passes) == (0, made.draft_len, 0)


def test_ar_dynamic_stops_after_the_chunk_with_a_low_confidence(pair) -> None:
    _, drafter_model = pair
    reasons = set()
    for seed in range(12):
        spec = ArDynamic(0.5, 17, 4)
        draft = ArDrafter(CachedLM(drafter_model), spec, ()).propose(random_ids(seed, 20), 100)
        is_low = [confidence < spec.tau for confidence in draft.confidences]
        assert len(draft.tokens) == len(draft.confidences) == draft.passes.denoise
        chunks_before = (len(draft.tokens) - 1) // 4 * 4
        assert not any(is_low[:chunks_before])
        assert draft.stop_reason == ("low_confidence" if len(draft.tokens) % 4 == 0 else "max_len")
        assert len(draft.tokens) == 17 or any(is_low)
        reasons.add(draft.stop_reason)
    assert "low_confidence" in reasons


@pytest.mark.parametrize("spec", [ArStatic(9), ArDynamic(0.0, 9, 3)])
def test_ar_drafts_end_behind_a_stop_token(pair, spec) -> None:
    _, drafter_model = pair
    prefix = random_ids(4, 25)
    whole = ArDrafter(CachedLM(drafter_model), spec, ()).propose(prefix, 100).tokens
    draft = ArDrafter(CachedLM(drafter_model), spec, [whole[3]]).propose(prefix, 100)
    assert draft.tokens == whole[: whole.index(whole[3]) + 1] and draft.stop_reason == "stop_token"


# ---- cost ----------------------------------------------------------------------------------------------------


class _Meter:
    """Counts the tokens that each forward of a CachedLM runs."""

    def __init__(self, lm: CachedLM) -> None:
        self.counts: list[int] = []
        forward = lm.forward

        def counted(tokens: Sequence[int], **how: object) -> torch.Tensor:
            self.counts.append(len(tokens))
            return forward(tokens, **how)

        lm.forward = counted


def test_neither_target_nor_ar_drafter_runs_the_prefix_again(pair) -> None:
    target_model, drafter_model = pair
    prompt, _ = clear_prompt(target_model, 120, NUM_TOKENS)
    target_lm, drafter_lm = CachedLM(target_model), CachedLM(drafter_model)
    target_meter, drafter_meter = _Meter(target_lm), _Meter(drafter_lm)
    drafter = ArDrafter(drafter_lm, ArStatic(6), ())
    rounds = speculate(Target(target_lm), drafter, prompt, max_new_tokens=NUM_TOKENS, stop_ids=())
    assert sum(target_meter.counts) <= len(prompt) + sum(made.draft_len + 1 for made in rounds)
    assert all(count <= 7 for count in target_meter.counts[1:])
    assert drafter_meter.counts[0] <= len(prompt)
    assert all(count <= 2 for count in drafter_meter.counts[1:])


def test_dllm_drafter_runs_blocks_not_prefixes(pair) -> None:
    """With kept KVs a pass runs one block, and each round's prefill only what became complete since."""
    target_model, drafter_model = pair
    prompt, _ = clear_prompt(target_model, 200, NUM_TOKENS)
    lm = CachedLM(drafter_model)
    meter = _Meter(lm)
    drafter = DllmDrafter(lm, FailFast(0.05, 0.45, 60, 10), BlockSettings(MASK_ID, ()))
    _run(target_model, drafter, prompt, max_new_tokens=NUM_TOKENS)
    assert meter.counts[0] == 192
    assert set(meter.counts[1:]) == {32}
