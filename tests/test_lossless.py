"""The promise of the whole program: with any drafter the output is what the target alone writes, token for token.

Targets and drafters are random tiny models. A drafter is a perturbed copy of its target with weak attention, so that it
is right often, but not always; its weights are good enough to test the loop with, and for nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from itertools import pairwise

import pytest
import torch
from reference import Rules, static_draft
from toys import VOCAB_SIZE, causal_logits, greedy_tokens, perturbed, random_ids, toy_model, weaken_attention

from specdec.config import ArDynamic, ArStatic, DllmStatic, FailFast
from specdec.drafters import ArDrafter, BlockSettings, DllmDrafter, NoDrafter
from specdec.lm import CachedLM
from specdec.speculate import speculate
from specdec.target import Target

MASK_ID = VOCAB_SIZE - 3
TOO_CLOSE = 1e-4  # logits nearer than this may swap in float32
PROMPT_LENGTHS = (1, 20, 31, 32, 33, 63, 64, 200)
NUM_TOKENS = 28
AR_SPECS = (ArStatic(1), ArStatic(8), ArDynamic(0.4, 20, 5), ArDynamic(0.7, 12, 1))
DLLM_SPECS = (
    DllmStatic(0.9, 8),
    DllmStatic(0.05, 13),
    FailFast(0.05, 0.45, 60, 10),
    FailFast(0.6, 0.2, 40, 7, first_window=4),
    FailFast(0.05, 0.45, 60, 10, rule="strict"),
    FailFast(0.6, 0.2, 40, 7, first_window=4, rule="strict"),
)
BLOCKS = {  # every kind of bookkeeping between rounds
    "kvs": {},
    "no-kvs": {"reuse_kvs": False},
    "kvs-drafts": {"reuse_drafts": True},
    "small-blocks": {"block_size": 8, "small_block_size": 4, "reuse_drafts": True},
}


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def pair(request) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A target and the model of its drafters; the Qwen2 pair has tied embeddings, as the small real ones have."""
    torch.set_num_threads(1)
    target = weaken_attention(toy_model(request.param, 31, scale=4.0, tie=request.param == "qwen2"), 0.3)
    return target, perturbed(target, 32, 0.2)


def _drafters(model: torch.nn.Module, stop_ids: Collection[int] = ()) -> dict[str, object]:
    """Every drafter there is, by a telling name; each has its own cache."""
    made: dict[str, object] = {"plain": NoDrafter()}
    for spec in AR_SPECS:
        made[spec.name] = ArDrafter(CachedLM(model), spec, stop_ids)
    for spec in DLLM_SPECS:
        for name, settings in BLOCKS.items():
            blocks = BlockSettings(mask_id=MASK_ID, stop_ids=stop_ids, **settings)
            rule = getattr(spec, "rule", "static")
            made[f"{spec.name} {rule} {name}"] = DllmDrafter(CachedLM(model), spec, blocks)
    return made


def _taking_turns(drafters: dict[str, object], turn: int) -> dict[str, object]:
    """All drafters, but each dLLM spec with one kind of bookkeeping only: another one every turn."""
    chosen = {name: drafter for name, drafter in drafters.items() if "dllm" not in name}
    dllm = [item for item in drafters.items() if "dllm" in item[0]]
    for index in range(len(DLLM_SPECS)):
        name, drafter = dllm[index * len(BLOCKS) + (index + turn) % len(BLOCKS)]
        chosen[name] = drafter
    return chosen


def _run(target: torch.nn.Module, drafter, prompt: list[int], *, max_new_tokens: int, stop_ids: Sequence[int] = ()):
    return speculate(
        Target(CachedLM(target)), drafter, prompt, max_new_tokens=max_new_tokens, stop_ids=frozenset(stop_ids)
    )


def _output(rounds: Sequence) -> list[int]:
    return [token for made in rounds for token in made.emitted_tokens]


def _assert_sound(rounds: Sequence, prompt_len: int, max_new_tokens: int, *, is_dllm: bool) -> None:
    """What every round owes: it starts where the last ended, keeps the budget, and counts right."""
    assert rounds[0].prefix_len == prompt_len
    for before, after in pairwise(rounds):
        assert after.prefix_len == before.prefix_len + len(before.emitted_tokens)
    for made in rounds:
        left = prompt_len + max_new_tokens - made.prefix_len
        assert 0 <= made.accepted_len <= made.draft_len <= left - 1
        assert not (is_dllm and MASK_ID in made.draft_tokens)
        assert (made.num_forward_passes > 0) or made.draft_len in (0, 1)


def _prompt(seed: int, length: int, target: torch.nn.Module) -> tuple[list[int], list[int]]:
    """A prompt whose greedy continuation is clear-cut, and that continuation without any stop token."""
    for attempt in range(20):
        prompt = random_ids(1000 * seed + attempt, length)
        greedy, gap = greedy_tokens(target, prompt, max_new_tokens=NUM_TOKENS, stop_ids=())
        if gap > TOO_CLOSE:
            return prompt, greedy
    raise AssertionError("no clear-cut prompt in 20")


def test_output_equals_plain_greedy_decoding(pair) -> None:
    """Every drafter on every kind of prompt length; each is asked for several questions in a row."""
    target, drafter_model = pair
    drafters, totals = _drafters(drafter_model), {}
    for turn, length in enumerate(PROMPT_LENGTHS):
        prompt, greedy = _prompt(length, length, target)
        for name, drafter in _taking_turns(drafters, turn).items():
            rounds = _run(target, drafter, prompt, max_new_tokens=NUM_TOKENS)
            assert _output(rounds) == greedy, (name, length)
            _assert_sound(rounds, length, NUM_TOKENS, is_dllm="dllm" in name)
            accepted, drafted = totals.get(name, (0, 0))
            totals[name] = (
                accepted + sum(made.accepted_len for made in rounds),
                drafted + sum(made.draft_len for made in rounds),
            )
    assert totals.pop("plain") == (0, 0)
    for name, (accepted, drafted) in totals.items():
        assert 0.02 * drafted < accepted < 0.98 * drafted, name  # else little would have been tested


@pytest.mark.parametrize("max_new_tokens", [1, 2, 3, 17])
def test_budget(pair, max_new_tokens: int) -> None:
    target, drafter_model = pair
    for turn, length in enumerate((1, 31, 64)):
        prompt, greedy = _prompt(length, length, target)
        for name, drafter in _taking_turns(_drafters(drafter_model), turn).items():
            rounds = _run(target, drafter, prompt, max_new_tokens=max_new_tokens)
            assert _output(rounds) == greedy[:max_new_tokens], (name, length)
            _assert_sound(rounds, length, max_new_tokens, is_dllm="dllm" in name)


def _cut(greedy: list[int], stop_id: int) -> list[int]:
    return greedy[: greedy.index(stop_id) + 1] if stop_id in greedy else greedy


def _role(made, stop_id: int) -> str:
    """What the stop token was in the last round."""
    if made.next_token is None:
        return "accepted" if made.draft_len else "none"
    if made.next_token != stop_id:
        return "none"
    return "correction" if made.final_token is not None else "bonus"


@pytest.mark.parametrize("do_drafters_know", [True, False])
def test_stop_tokens(pair, do_drafters_know: bool) -> None:
    """First, inside an accepted draft, as correction and as bonus; also when drafters draft on behind it."""
    target, drafter_model = pair
    roles, rng = set(), random.Random(1)
    for length in (1, 32, 63):
        prompt, greedy = _prompt(length, length, target)
        for turn, stop_id in enumerate([greedy[0], *rng.choices(greedy, k=2)]):
            drafters = _drafters(drafter_model, [stop_id] if do_drafters_know else [])
            for name, drafter in _taking_turns(drafters, turn).items():
                rounds = _run(target, drafter, prompt, max_new_tokens=NUM_TOKENS, stop_ids=[stop_id])
                assert _output(rounds) == _cut(greedy, stop_id), (name, length, stop_id)
                _assert_sound(rounds, length, NUM_TOKENS, is_dllm="dllm" in name)
                roles.add((name == "plain", _role(rounds[-1], stop_id)))
    assert {(False, "accepted"), (False, "correction"), (False, "bonus")} <= roles


def test_stop_token_in_the_prompt_is_a_token_like_any_other(pair) -> None:
    target, drafter_model = pair
    prompt, greedy = _prompt(7, 40, target)
    stop_id = prompt[-1] = next(token for token in range(VOCAB_SIZE) if token not in greedy and token != MASK_ID)
    greedy, gap = greedy_tokens(target, prompt, max_new_tokens=NUM_TOKENS, stop_ids=[stop_id])
    assert gap > TOO_CLOSE
    for name, drafter in _taking_turns(_drafters(drafter_model, [stop_id]), 0).items():
        assert _output(_run(target, drafter, prompt, max_new_tokens=NUM_TOKENS, stop_ids=[stop_id])) == greedy, name


def test_a_perfect_ar_drafter_is_wholly_accepted(pair) -> None:
    target, _ = pair
    prompt, greedy = _prompt(3, 33, target)
    rounds = _run(target, ArDrafter(CachedLM(target), ArStatic(6), ()), prompt, max_new_tokens=NUM_TOKENS)
    assert _output(rounds) == greedy
    assert all(made.accepted_len == made.draft_len for made in rounds)
    assert [made.draft_len for made in rounds] == [6] * 4


# ---- what may be kept between rounds changes nothing but the passes -------------------------------------------


@pytest.mark.parametrize("reuse_drafts", [False, True])
@pytest.mark.parametrize("spec", DLLM_SPECS, ids=lambda spec: f"{spec.name} {getattr(spec, 'rule', 'static')}")
def test_drafts_do_not_depend_on_kept_kvs(pair, spec, reuse_drafts: bool) -> None:
    target, drafter_model = pair
    saved = 0
    for length in (31, 64):
        prompt, _ = _prompt(length, length, target)
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
    """Not the cache of this round, nor of those before it, leaks into a draft."""
    target, drafter_model = pair
    rules = Rules(MASK_ID, frozenset(), threshold=0.6)
    prompt, greedy = _prompt(5, 29, target)
    drafter = DllmDrafter(CachedLM(drafter_model), DllmStatic(0.6, 9), BlockSettings(MASK_ID, ()))
    for made in _run(target, drafter, prompt, max_new_tokens=NUM_TOKENS)[:-1]:
        prefix = (prompt + greedy)[: made.prefix_len]
        assert made.draft_tokens == static_draft(drafter_model, prefix, made.draft_len, rules).tokens


# ---- AR drafters ---------------------------------------------------------------------------------------------


def test_ar_drafts_are_the_drafters_own_greedy_text(pair) -> None:
    """With one pass per token, and the probabilities of the tokens as confidences."""
    target, drafter_model = pair
    prompt, greedy = _prompt(6, 30, target)
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
        is_low = [confidence < spec.confidence_threshold for confidence in draft.confidences]
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
    prompt, _ = _prompt(9, 120, target_model)
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
    prompt, _ = _prompt(9, 200, target_model)
    lm = CachedLM(drafter_model)
    meter = _Meter(lm)
    drafter = DllmDrafter(lm, FailFast(0.05, 0.45, 60, 10), BlockSettings(MASK_ID, ()))
    _run(target_model, drafter, prompt, max_new_tokens=NUM_TOKENS)
    assert meter.counts[0] == 192
    assert set(meter.counts[1:]) == {32}
