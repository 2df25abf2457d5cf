"""generate.py against the uncached oracle of reference.py, and the lengths and confidences it promises."""

from __future__ import annotations

import pytest
import torch
from cases import Case, assert_equal, call, make_models, oracle, passes_of, random_case, static_case
from reference import Outcome, Rules, Window, block_mask, failfast_draft, full_logits
from toys import MASK_ID, VOCAB_SIZE, random_ids, toy_model

from specdec.models.lm import CachedLM

pytestmark = pytest.mark.slow
TOO_CLOSE = 3e-6  # a decision nearer than this may go either way in float32
MAX_SKIPPED = 0.02
NUM_CASES = {"generate": 150, "static": 200, "failfast": 450}


@pytest.fixture(scope="module")
def models() -> dict[str, torch.nn.Module]:
    return make_models()


@pytest.mark.parametrize("function", sorted(NUM_CASES))
def test_equals_the_uncached_oracle(function: str, models) -> None:
    """Tokens, passes and stop reason exactly, confidences to 1e-4; too close decisions are left out, and are few."""
    skipped, outcomes = 0, []
    for seed in range(NUM_CASES[function]):
        case = random_case(function, seed, models)
        want = oracle(case, models)
        if want.margin < TOO_CLOSE:
            skipped += 1
            continue
        draft = call(function, CachedLM(models[case.checkpoint]), case)
        assert_equal(draft, want, (function, seed, case))
        assert MASK_ID not in draft.tokens
        assert all(type(token) is int for token in draft.tokens)
        assert all(type(confidence) is float for confidence in draft.confidences)
        outcomes.append((case, want))
    assert skipped <= MAX_SKIPPED * NUM_CASES[function]
    _assert_cases_are_telling(function, outcomes)


def _assert_cases_are_telling(function: str, outcomes: list[tuple[Case, Outcome]]) -> None:
    """The cases reach every way to stop, every kind of pass and, for FailFast, reuse and several windows."""
    few = len(outcomes) // 20
    reasons = [want.stop_reason for _, want in outcomes]
    for reason in ("low_confidence", "max_len", "stop_token") if function == "failfast" else ("length", "stop_token"):
        assert reasons.count(reason) >= few, reason
    assert sum(want.commit > 0 for _, want in outcomes) >= few
    assert sum(want.prefill > 0 for _, want in outcomes) >= few
    assert sum(want.denoise > 8 for _, want in outcomes) >= few
    if function == "failfast":
        assert sum(want.reused > 0 for _, want in outcomes) >= few
        assert sum(len(want.tokens) > case.window.first for case, want in outcomes) >= few


def test_confidences_of_the_checkpoints_spread_over_0_to_1(models) -> None:
    """Otherwise thresholds would not be tested: each fifth of 0..1 holds a fair share."""
    rules = Rules(MASK_ID, frozenset(), threshold=0.5)
    confidences = []
    for model in models.values():
        for seed in range(4):
            prefix = random_ids(seed, 10 + 17 * seed, exclude=[MASK_ID])
            confidences += failfast_draft(model, prefix, Window(20, 0.0, 10, 60), rules).confidences
    counts = torch.histc(torch.tensor(confidences), bins=5, min=0.0, max=1.0)
    assert (counts / counts.sum()).min() > 0.04, counts


# ---- the oracle itself -------------------------------------------------------------------------------------


def test_block_mask_is_causal_between_blocks_and_full_inside() -> None:
    mask = block_mask(8, 4)[0, 0]
    assert mask[:4, :4].all() and not mask[:4, 4:].any() and mask[4:].all()
    assert torch.equal(block_mask(5, 1)[0, 0], torch.ones(5, 5, dtype=torch.bool).tril())


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_raw_models_obey_the_block_mask(architecture: str) -> None:
    """The oracle stands on this: later blocks have no influence, later tokens of the own block have."""
    model, tokens = toy_model(architecture, 3), random_ids(1, 16)
    before = full_logits(model, tokens, 8)
    tokens[15] = (tokens[15] + 1) % VOCAB_SIZE
    after = full_logits(model, tokens, 8)
    assert torch.allclose(before[:8], after[:8], atol=1e-5)
    assert ((before[8:] - after[8:]).abs().amax(dim=1) > 1e-3).all()


# ---- lengths and confidences -------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["generate", "static"])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64])
def test_static_returns_the_asked_number_with_one_confidence_each(function: str, length: int, models) -> None:
    for num_tokens in (1, 2, 31, 32, 33, 70):
        case = static_case("qwen2-soft", random_ids(length, length, exclude=[MASK_ID]), num_tokens)
        draft = call(function, CachedLM(models["qwen2-soft"]), case)
        assert len(draft.tokens) == len(draft.confidences) == num_tokens
        assert draft.stop_reason == "length"
        assert all(0.0 < confidence <= 1.0 for confidence in draft.confidences)


def test_generate_is_static_drafting_of_all_tokens(models) -> None:
    case = static_case("llama-soft", random_ids(5, 40, exclude=[MASK_ID]), 50)
    whole, drafted = (call(name, CachedLM(models["llama-soft"]), case) for name in ("generate", "static"))
    assert (whole.tokens, whole.confidences, whole.passes) == (drafted.tokens, drafted.confidences, drafted.passes)


@pytest.mark.parametrize("tau", [0.0, 0.6])
def test_strict_rule_records_one_confidence_per_token_and_caps_the_window(tau: float, models) -> None:
    for seed in range(12):
        prefix = tuple(random_ids(seed, 20 + seed, exclude=[MASK_ID]))
        window = Window(first=4 + seed, tau=tau, step=7, maximum=9 + seed, rule="strict")
        case = Case("qwen2-sharp", prefix, Rules(MASK_ID, frozenset(), 0.3), window=window)
        draft = call("failfast", CachedLM(models["qwen2-sharp"]), case)
        assert len(draft.confidences) == len(draft.tokens) <= window.maximum
        is_sure = all(confidence >= tau for confidence in draft.confidences)
        assert draft.stop_reason == ("max_len" if is_sure else "low_confidence")


@pytest.mark.parametrize("length", [32, 64])
def test_the_first_of_equally_probable_positions_is_unmasked(length: int) -> None:
    """A model without any preference fills from the left, so that n tokens take n passes, less the block's first."""
    model = toy_model("llama", 5)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    for num_tokens in (1, 2, 7):
        case = static_case("", random_ids(length, length, exclude=[MASK_ID]), num_tokens, threshold=1.0)
        assert passes_of(call("static", CachedLM(model), case)) == (1, num_tokens - 1, 0)


# ---- reuse of the last draft ---------------------------------------------------------------------------------


def _reuse(models, tail: list[int], *, tau: float = 1.0, stop_ids: frozenset[int] = frozenset()) -> list[int]:
    """A FailFast draft of five tokens (at tau 1 never sure of itself), told that `tail` was rejected last time."""
    rules = Rules(MASK_ID, stop_ids, threshold=0.9)
    case = Case("llama-soft", tuple(random_ids(2, 20)), rules, window=Window(5, tau, 5, 5, "strict", tuple(tail)))
    return call("failfast", CachedLM(models["llama-soft"]), case).tokens


def test_reuse_appends_what_followed_the_longest_end_of_the_draft(models) -> None:
    draft = _reuse(models, [])
    end, (a, b, c) = draft[-2:], [token for token in range(VOCAB_SIZE) if token not in draft][:3]
    assert len(draft) == 5 and end != [draft[-1]] * 2  # else the tails below would say something else
    for tail, appended in (
        ([a, b, c], []),
        ([*end, a, b], [a, b]),
        ([c, *end, a, *end, b], [a, *end, b]),  # the leftmost of equally long ones
        ([*end, a, *draft, b], [b]),  # the longest, up to the whole draft
        ([*draft[1:], a, c, *draft, b], [b]),
        ([a, *draft], []),  # nothing follows
        ([*end, a, *draft], []),  # and the longest one counts all the same
        ([draft[-1], a], []),  # one token is too little
    ):
        assert _reuse(models, tail) == draft + appended, tail


def test_reuse_stops_behind_a_stop_token_and_needs_a_low_confidence(models) -> None:
    draft = _reuse(models, [])
    a, b = [token for token in range(VOCAB_SIZE) if token not in draft][:2]
    assert _reuse(models, [*draft, a, b], stop_ids=frozenset({a})) == [*draft, a]
    assert _reuse(models, [*draft, a, b], tau=0.0) == draft


# ---- the mask ------------------------------------------------------------------------------------------------


def test_mask_is_never_drafted_even_where_it_is_likeliest(models) -> None:
    model, was_likeliest = models["qwen2-mask-lover"], 0
    for seed in range(10):
        prefix = random_ids(seed, 64 + seed, exclude=[MASK_ID])
        case = static_case("qwen2-mask-lover", prefix, 40, threshold=0.05)
        draft = call("static", CachedLM(model), case)
        assert MASK_ID not in draft.tokens
        was_likeliest += int((full_logits(model, prefix + draft.tokens, 32).argmax(dim=1) == MASK_ID).sum())
    assert was_likeliest > 10


def test_mask_may_lie_beyond_the_vocabulary_that_the_target_knows(models) -> None:
    """A dLLM with a mask token of its own after the shared ones: the cut vocabulary has no column for it."""
    for seed in range(5):
        prefix = random_ids(seed, 30 + seed, vocab_size=MASK_ID)
        case = static_case("qwen2-mask-lover", prefix, 20)
        draft = call("static", CachedLM(models["qwen2-mask-lover"], vocab_size=MASK_ID), case)
        assert len(draft.tokens) == 20 and max(draft.tokens) < MASK_ID


def test_mask_id_in_the_prefix_is_a_known_token_like_any_other(models) -> None:
    """A prefix of that token alone makes a block of 32 equal inputs, whose positions are all equally sure: only where
    a pass unmasks all that it predicts does it not matter which of them is surest.
    """
    for seed, (length, threshold) in enumerate(((1, 0.0), (30, 0.5), (33, 0.5), (64, 0.5), (70, 0.5), (2, 0.5))):
        prefix = random_ids(seed, length)
        prefix[-1] = prefix[length // 2] = MASK_ID
        case = static_case("llama-soft", prefix, 20, threshold=threshold)
        want = oracle(case, models)
        assert want.margin >= TOO_CLOSE, case
        assert_equal(call("static", CachedLM(models["llama-soft"]), case), want, case)
