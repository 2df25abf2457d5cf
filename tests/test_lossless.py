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
from toys import MASK_ID, TOO_CLOSE, VOCAB_SIZE, clear_prompt, greedy_tokens, toy_pair

from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.drafters.ar import ArDrafter, ArDynamic, ArStatic
from specdec.drafters.block_diffusion import BlockSettings, DllmDrafter, DllmStatic, FailFast
from specdec.drafters.plain import NoDrafter
from specdec.models.lm import CachedLM

pytestmark = pytest.mark.slow
PROMPT_LENGTHS = (1, 20, 31, 32, 33, 63, 64, 200)
NUM_TOKENS = 20
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
    """A target and the model of its drafters."""
    return toy_pair(request.param)


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


def test_output_equals_plain_greedy_decoding(pair) -> None:
    """Every drafter on every kind of prompt length; each is asked for several questions in a row."""
    target, drafter_model = pair
    drafters, totals = _drafters(drafter_model), {}
    for turn, length in enumerate(PROMPT_LENGTHS):
        prompt, greedy = clear_prompt(target, length, NUM_TOKENS)
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
        prompt, greedy = clear_prompt(target, length, NUM_TOKENS)
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
    return "correction" if made.correction_token is not None else "bonus"


@pytest.mark.parametrize("do_drafters_know", [True, False])
def test_stop_tokens(pair, do_drafters_know: bool) -> None:
    """First, inside an accepted draft, as correction and as bonus; also when drafters draft on after it."""
    target, drafter_model = pair
    roles, rng = set(), random.Random(1)
    for length in (1, 32, 63):
        prompt, greedy = clear_prompt(target, length, NUM_TOKENS)
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
    prompt, greedy = clear_prompt(target, 40, NUM_TOKENS)
    stop_id = prompt[-1] = next(token for token in range(VOCAB_SIZE) if token not in greedy and token != MASK_ID)
    greedy, gap = greedy_tokens(target, prompt, max_new_tokens=NUM_TOKENS, stop_ids=[stop_id])
    assert gap > TOO_CLOSE
    for name, drafter in _taking_turns(_drafters(drafter_model, [stop_id]), 0).items():
        assert _output(_run(target, drafter, prompt, max_new_tokens=NUM_TOKENS, stop_ids=[stop_id])) == greedy, name
