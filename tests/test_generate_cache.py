"""What generate.py makes of a kept cache: the same drafts with fewer prefill passes, also after faults."""

from __future__ import annotations

import random

import pytest
import torch
from cases import Case, assert_same_draft, call, ids_without_mask, make_models, passes_of, static_case
from reference import Rules, Window
from toys import MASK_ID, random_ids

from specdec.models.lm import CachedLM

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models() -> dict[str, torch.nn.Module]:
    return make_models()


def _next_prefix(rng: random.Random, prefix: list[int], draft_tokens: list[int]) -> list[int]:
    """As after a round: part of the draft is kept, then comes another token; now and then an earlier token differs."""
    kind = rng.random()
    if kind < 0.15:
        cut = rng.randrange(1, len(prefix) + 1)
        return prefix[:cut] + ids_without_mask(rng, rng.randint(0, 40))
    accepted = len(draft_tokens) if kind < 0.5 else rng.randint(0, len(draft_tokens))
    grown = prefix + draft_tokens[:accepted] + ids_without_mask(rng, 1)
    return grown[: len(grown) // 32 * 32] if kind > 0.9 and len(grown) >= 32 else grown


@pytest.mark.parametrize("function", ["static", "failfast"])
@pytest.mark.parametrize("checkpoint", ["qwen2-sharp", "llama-soft"])
def test_a_kept_cache_changes_nothing_but_prefill_passes(function: str, checkpoint: str, models) -> None:
    rng = random.Random(f"rounds {function} {checkpoint}")
    saved = 0
    for _ in range(6):
        lm, prefix = CachedLM(models[checkpoint]), ids_without_mask(rng, rng.randint(1, 70))
        for _ in range(10):
            case = _round_case(function, checkpoint, prefix, rng)
            fresh, committed = call(function, CachedLM(models[checkpoint]), case), list(lm.tokens)
            kept = call(function, lm, case)
            assert_same_draft(kept, fresh, case)
            assert lm.length == len(lm.tokens) and lm.length % 32 == 0
            text = prefix + kept.tokens
            assert list(lm.tokens)[: len(text)] == text[: lm.length]
            _assert_prefill(kept.passes.prefill, committed, prefix)
            saved += fresh.passes.prefill - kept.passes.prefill
            prefix = _next_prefix(rng, prefix, kept.tokens)
            prefix = prefix if len(prefix) < 300 else prefix[:50]
    assert saved > 10


def _round_case(function: str, checkpoint: str, prefix: list[int], rng: random.Random) -> Case:
    rules = Rules(MASK_ID, frozenset({5}), threshold=rng.choice((0.05, 0.5, 0.9)))
    if function == "static":
        return Case(checkpoint, tuple(prefix), rules, num_tokens=rng.choice((4, 10, 36)))
    rule = rng.choice(("published", "strict"))
    return Case(checkpoint, tuple(prefix), rules, window=Window(10, rng.choice((0.1, 0.3)), 10, 60, rule))


def _assert_prefill(prefill: int, committed: list[int], prefix: list[int]) -> None:
    """One pass if a complete block is missing from the cache, none if all are there.

    On a block boundary the prediction after the last block is needed too, and may or may not be remembered.
    """
    complete = len(prefix) // 32 * 32
    if committed[:complete] != prefix[:complete]:
        assert prefill == 1
    elif len(prefix) > complete or complete == 0:
        assert prefill == 0
    else:
        assert prefill in (0, 1)


def test_a_prediction_behind_the_last_block_is_remembered(models) -> None:
    lm = CachedLM(models["qwen2-soft"])
    case = static_case("qwen2-soft", random_ids(8, 64, exclude=[MASK_ID]), 1)
    first, second = call("static", lm, case), call("static", lm, case)
    assert passes_of(first) == (1, 0, 0) and passes_of(second) == (0, 0, 0)
    assert (first.tokens, first.confidences) == (second.tokens, second.confidences)


def test_a_remembered_prediction_dies_with_its_block(models) -> None:
    """After another block something else comes, wherever the cache stood in between."""
    model, rng = models["qwen2-soft"], random.Random(9)
    first, other, third = ids_without_mask(rng, 32), ids_without_mask(rng, 32), ids_without_mask(rng, 32)
    histories = (
        [first, other],
        [first + third, first, first + other, first],
        [first, other + third, other],  # one pass over two blocks predicts after the second only
        [first + other + third, third + other, third, third + other + first],
    )
    for history in histories:
        lm = CachedLM(model)
        for prefix in history:
            case = static_case("qwen2-soft", prefix, 3)
            assert_same_draft(call("static", lm, case), call("static", CachedLM(model), case), prefix)


class _Fault(RuntimeError):
    pass


def _fail_at(model: torch.nn.Module, at: int) -> torch.utils.hooks.RemovableHandle:
    """Makes the second layer's MLP raise at its `at`-th use (from 0) from now; returns the handle that ends it."""
    uses = iter(range(at + 1))

    def hook(*_: object) -> None:
        if next(uses, None) == at:
            raise _Fault

    return model.model.layers[1].mlp.register_forward_pre_hook(hook)


@pytest.mark.parametrize("at", range(6))
def test_a_fault_inside_the_model_leaves_a_usable_cache(at: int, models) -> None:
    """Whatever had been committed before stays, what was under way is dropped, and the next draft is right."""
    model, prefix = models["qwen2-soft"], random_ids(3, 70, exclude=[MASK_ID])
    case = static_case("qwen2-soft", prefix, 40, threshold=0.1)
    want = call("static", CachedLM(model), case)
    assert want.passes.prefill == 1 and want.passes.denoise + want.passes.commit >= 6
    lm = CachedLM(model)
    handle = _fail_at(model, at)
    try:
        with pytest.raises(_Fault):
            call("static", lm, case)
    finally:
        handle.remove()
    assert list(lm.tokens) == (prefix + want.tokens)[: lm.length] and lm.length == (64 if at else 0)
    assert_same_draft(call("static", lm, case), want, at)
