"""generate.py against the uncached oracle of reference.py, and what must hold whatever the cache holds."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from reference import Outcome, Rules, Window, block_mask, failfast_draft, full_logits, static_draft
from toys import VOCAB_SIZE, random_ids, toy_model

from generate import generate, generate_draft_tokens, generate_draft_tokens_arbitrary_length
from specdec.lm import CachedLM

MASK_ID = VOCAB_SIZE - 3
TOO_CLOSE = 3e-6  # a decision nearer than this may go either way in float32
MAX_SKIPPED = 0.02
NUM_CASES = {"generate": 150, "static": 200, "failfast": 450}
PREFIX_LENGTHS = (1, 2, 31, 32, 33, 63, 64, 65, 96, 160, 200)


def _mask_lover(seed: int) -> torch.nn.Module:
    """A checkpoint whose likeliest token would often be the mask."""
    model = toy_model("qwen2", seed, scale=4.0)
    with torch.no_grad():
        model.lm_head.weight[MASK_ID].mul_(4.0)
    return model


CHECKPOINTS = {
    "qwen2-soft": lambda: toy_model("qwen2", 11, scale=2.0),
    "qwen2-sharp": lambda: toy_model("qwen2", 12, scale=8.0),
    "qwen2-tied": lambda: toy_model("qwen2", 13, scale=5.0, tie=True),
    "qwen2-wide": lambda: toy_model("qwen2", 14, scale=4.0, hidden_size=64),
    "qwen2-mask-lover": lambda: _mask_lover(15),
    "llama-soft": lambda: toy_model("llama", 16, scale=3.0),
    "llama-sharp": lambda: toy_model("llama", 17, scale=8.0),
    "llama-tied": lambda: toy_model("llama", 18, scale=5.0, tie=True),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One call; `window` is None for the static functions, `num_tokens` for FailFast."""

    checkpoint: str
    prefix: tuple[int, ...]
    rules: Rules
    num_tokens: int | None = None
    window: Window | None = None


@pytest.fixture(scope="module")
def models() -> dict[str, torch.nn.Module]:
    torch.set_num_threads(1)
    return {name: make() for name, make in CHECKPOINTS.items()}


# ---- random cases ------------------------------------------------------------------------------------------


def _random_case(function: str, seed: int, models: dict[str, torch.nn.Module]) -> Case:
    rng = random.Random(f"{function} {seed}")
    length = rng.choice(PREFIX_LENGTHS) if rng.random() < 0.4 else rng.randint(1, 200)
    block_size = rng.choice((32, 32, 32, 32, 16, 8))
    rules = Rules(
        mask_id=MASK_ID,
        stop_ids=frozenset(),
        threshold=rng.choice((0.0, 0.05, 0.3, 0.6, 0.9, 1.0, rng.random(), rng.random())),
        block_size=block_size,
        small_block_size=rng.choice([size for size in (4, 8, 8, 16, 32) if size <= block_size]),
    )
    prefix = tuple(_ids(rng, length))
    checkpoint = sorted(models)[seed % len(models)]
    if function == "failfast":
        case = Case(checkpoint, prefix, rules, window=_random_window(rng))
    else:
        case = Case(checkpoint, prefix, rules, num_tokens=rng.randint(1, 80 if function == "generate" else 40))
    return _with_stop_ids(_with_rejected(case, rng, models), rng, models)


def _ids(rng: random.Random, length: int) -> list[int]:
    return random_ids(rng.randrange(10**9), length, exclude=[MASK_ID])


def _random_window(rng: random.Random) -> Window:
    return Window(
        first=rng.choice((1, 5, 8, 10, 20, rng.randint(1, 45))),
        tau=rng.choice((0.0, 0.05, 0.2, 0.45, 0.9, 1.0, rng.random(), rng.random())),
        step=rng.choice((1, 4, 10, 10, rng.randint(1, 40))),
        maximum=rng.choice((1, 10, 30, 60, 60, rng.randint(1, 100))),
        rule=rng.choice(("published", "strict")),
    )


def _with_rejected(case: Case, rng: random.Random, models: dict[str, torch.nn.Module]) -> Case:
    """In half of the dynamic cases, last round's tail holds an end of the draft that will be drafted."""
    if case.window is None or rng.random() < 0.5:
        return case
    draft = _oracle(case, models).tokens
    overlap = draft[-rng.randint(1, len(draft)) :]
    before, behind = (_ids(rng, rng.randint(0, 6)) for _ in range(2))
    tail = before + overlap + behind + rng.choice(([], overlap + before))
    return dataclasses.replace(case, window=dataclasses.replace(case.window, rejected=tuple(tail)))


def _with_stop_ids(case: Case, rng: random.Random, models: dict[str, torch.nn.Module]) -> Case:
    kind = rng.choice(("none", "none", "any", "drafted", "drafted"))
    if kind == "none":
        return case
    likely = _oracle(case, models).tokens if kind == "drafted" else range(VOCAB_SIZE)
    stop_ids = frozenset({rng.choice(list(likely)), rng.randrange(VOCAB_SIZE)} - {MASK_ID})
    return dataclasses.replace(case, rules=dataclasses.replace(case.rules, stop_ids=stop_ids))


def _oracle(case: Case, models: dict[str, torch.nn.Module]) -> Outcome:
    model = models[case.checkpoint]
    if case.window is None:
        return static_draft(model, case.prefix, case.num_tokens, case.rules)
    return failfast_draft(model, case.prefix, case.window, case.rules)


def _call(function: str, lm: CachedLM, case: Case):
    """The call under test, with every argument spelled out."""
    rules, window = case.rules, case.window
    common = {
        "threshold": rules.threshold,
        "block_size": rules.block_size,
        "small_block_size": rules.small_block_size,
        "mask_id": rules.mask_id,
        "stop_ids": sorted(rules.stop_ids),
    }
    if function == "generate":
        return generate(lm, list(case.prefix), max_new_tokens=case.num_tokens, **common)
    if function == "static":
        return generate_draft_tokens(lm, list(case.prefix), spec_len=case.num_tokens, **common)
    return generate_draft_tokens_arbitrary_length(
        lm,
        list(case.prefix),
        spec_len=window.first,
        lowconf_threshold=window.tau,
        incr_len=window.step,
        max_spec_len=window.maximum,
        rule=window.rule,
        last_round_rejected=list(window.rejected) or None,
        **common,
    )


def _passes(draft) -> tuple[int, int, int]:
    return draft.passes.prefill, draft.passes.denoise, draft.passes.commit


def _assert_equal(draft, want: Outcome, case: Case) -> None:
    assert draft.tokens == want.tokens, case
    assert draft.stop_reason == want.stop_reason, case
    assert _passes(draft) == (want.prefill, want.denoise, want.commit), case
    assert draft.confidences == pytest.approx(want.confidences, abs=1e-4, rel=0), case


def _assert_same_draft(draft, other, note: object) -> None:
    assert draft.tokens == other.tokens, note
    assert draft.stop_reason == other.stop_reason, note
    assert draft.confidences == pytest.approx(other.confidences, abs=1e-4, rel=0), note
    assert (draft.passes.denoise, draft.passes.commit) == (other.passes.denoise, other.passes.commit), note
    assert draft.passes.prefill <= other.passes.prefill, note


@pytest.mark.parametrize("function", sorted(NUM_CASES))
def test_equals_the_uncached_oracle(function: str, models) -> None:
    """Tokens, passes and stop reason exactly, confidences to 1e-4; too close decisions are left out, and are few."""
    skipped, outcomes = 0, []
    for seed in range(NUM_CASES[function]):
        case = _random_case(function, seed, models)
        want = _oracle(case, models)
        if want.margin < TOO_CLOSE:
            skipped += 1
            continue
        draft = _call(function, CachedLM(models[case.checkpoint]), case)
        _assert_equal(draft, want, (function, seed, case))
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


def _static(models, checkpoint: str, prefix: list[int], num_tokens: int, **rules) -> Case:
    filled = {"mask_id": MASK_ID, "stop_ids": frozenset(), "threshold": 0.5} | rules
    return Case(checkpoint, tuple(prefix), Rules(**filled), num_tokens=num_tokens)


@pytest.mark.parametrize("function", ["generate", "static"])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64])
def test_static_returns_the_asked_number_with_one_confidence_each(function: str, length: int, models) -> None:
    for num_tokens in (1, 2, 31, 32, 33, 70):
        case = _static(models, "qwen2-soft", random_ids(length, length, exclude=[MASK_ID]), num_tokens)
        draft = _call(function, CachedLM(models["qwen2-soft"]), case)
        assert len(draft.tokens) == len(draft.confidences) == num_tokens
        assert draft.stop_reason == "length"
        assert all(0.0 < confidence <= 1.0 for confidence in draft.confidences)


def test_generate_is_static_drafting_of_all_tokens(models) -> None:
    case = _static(models, "llama-soft", random_ids(5, 40, exclude=[MASK_ID]), 50)
    whole, drafted = (_call(name, CachedLM(models["llama-soft"]), case) for name in ("generate", "static"))
    assert (whole.tokens, whole.confidences, whole.passes) == (drafted.tokens, drafted.confidences, drafted.passes)


@pytest.mark.parametrize("tau", [0.0, 0.6])
def test_strict_rule_records_one_confidence_per_token_and_caps_the_window(tau: float, models) -> None:
    for seed in range(12):
        prefix = tuple(random_ids(seed, 20 + seed, exclude=[MASK_ID]))
        window = Window(first=4 + seed, tau=tau, step=7, maximum=9 + seed, rule="strict")
        case = Case("qwen2-sharp", prefix, Rules(MASK_ID, frozenset(), 0.3), window=window)
        draft = _call("failfast", CachedLM(models["qwen2-sharp"]), case)
        assert len(draft.confidences) == len(draft.tokens) <= window.maximum
        is_sure = all(confidence >= tau for confidence in draft.confidences)
        assert draft.stop_reason == ("max_len" if is_sure else "low_confidence")


def test_mask_is_never_drafted_even_where_it_is_likeliest(models) -> None:
    model, was_likeliest = models["qwen2-mask-lover"], 0
    for seed in range(10):
        prefix = random_ids(seed, 64 + seed, exclude=[MASK_ID])
        case = _static(models, "qwen2-mask-lover", prefix, 40, threshold=0.05)
        draft = _call("static", CachedLM(model), case)
        assert MASK_ID not in draft.tokens
        was_likeliest += int((full_logits(model, prefix + draft.tokens, 32).argmax(dim=1) == MASK_ID).sum())
    assert was_likeliest > 10


def test_mask_id_in_the_prefix_is_a_known_token_like_any_other(models) -> None:
    for seed, length in enumerate((1, 30, 33, 64, 70)):
        prefix = random_ids(seed, length)
        prefix[-1] = prefix[length // 2] = MASK_ID
        case = _static(models, "llama-soft", prefix, 20)
        _assert_equal(_call("static", CachedLM(models["llama-soft"]), case), _oracle(case, models), case)


# ---- caches ------------------------------------------------------------------------------------------------


def _next_prefix(rng: random.Random, prefix: list[int], draft_tokens: list[int]) -> list[int]:
    """As after a round: part of the draft is kept, then comes another token; now and then an earlier token differs."""
    kind = rng.random()
    if kind < 0.15:
        cut = rng.randrange(1, len(prefix) + 1)
        return prefix[:cut] + _ids(rng, rng.randint(0, 40))
    accepted = len(draft_tokens) if kind < 0.5 else rng.randint(0, len(draft_tokens))
    grown = prefix + draft_tokens[:accepted] + _ids(rng, 1)
    return grown[: len(grown) // 32 * 32] if kind > 0.9 and len(grown) >= 32 else grown


@pytest.mark.parametrize("function", ["static", "failfast"])
@pytest.mark.parametrize("checkpoint", ["qwen2-sharp", "llama-soft"])
def test_a_kept_cache_changes_nothing_but_prefill_passes(function: str, checkpoint: str, models) -> None:
    rng = random.Random(f"rounds {function} {checkpoint}")
    saved = 0
    for _ in range(6):
        lm, prefix = CachedLM(models[checkpoint]), _ids(rng, rng.randint(1, 70))
        for _ in range(10):
            case = _round_case(function, checkpoint, prefix, rng)
            fresh, committed = _call(function, CachedLM(models[checkpoint]), case), list(lm.tokens)
            kept = _call(function, lm, case)
            _assert_same_draft(kept, fresh, case)
            assert lm.length == len(lm.tokens) and lm.length % 32 == 0
            assert list(lm.tokens) == (prefix + kept.tokens)[: lm.length] or len(kept.tokens) < lm.length - len(prefix)
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

    On a block boundary the prediction behind the last block is needed too, and may or may not be remembered.
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
    case = _static(models, "qwen2-soft", random_ids(8, 64, exclude=[MASK_ID]), 1)
    first, second = _call("static", lm, case), _call("static", lm, case)
    assert _passes(first) == (1, 0, 0) and _passes(second) == (0, 0, 0)
    assert (first.tokens, first.confidences) == (second.tokens, second.confidences)


def test_a_remembered_prediction_dies_with_its_block(models) -> None:
    """Behind [A B] something else comes than behind [A C], also if the caches have the same length."""
    lm, prefix = CachedLM(models["qwen2-soft"]), random_ids(8, 64, exclude=[MASK_ID])
    others = [prefix, prefix[:32], prefix[:32] + random_ids(9, 32, exclude=[MASK_ID]), random_ids(10, 64), prefix]
    for other in others:
        case = _static(models, "qwen2-soft", other, 3)
        _assert_same_draft(_call("static", lm, case), _call("static", CachedLM(models["qwen2-soft"]), case), other)


class _Fault(RuntimeError):
    pass


def _fail_at(model: torch.nn.Module, call: int):
    """Makes the second layer's MLP raise at its `call`-th use from now; returns the handle that ends it."""
    uses = iter(range(call + 1))

    def hook(*_: object) -> None:
        if next(uses, call + 1) == call:
            raise _Fault

    return model.model.layers[1].mlp.register_forward_pre_hook(hook)


@pytest.mark.parametrize("call", range(6))
def test_a_fault_inside_the_model_leaves_a_usable_cache(call: int, models) -> None:
    """Whatever had been committed before stays, what was under way is dropped, and the next draft is right."""
    model, prefix = models["qwen2-soft"], random_ids(3, 70, exclude=[MASK_ID])
    case = _static(models, "qwen2-soft", prefix, 40, threshold=0.1)
    want = _call("static", CachedLM(model), case)
    assert want.passes.prefill == 1 and want.passes.denoise + want.passes.commit >= 6
    lm = CachedLM(model)
    handle = _fail_at(model, call)
    try:
        with pytest.raises(_Fault):
            _call("static", lm, case)
    finally:
        handle.remove()
    assert list(lm.tokens) == (prefix + want.tokens)[: lm.length] and lm.length == (64 if call else 0)
    _assert_same_draft(_call("static", lm, case), want, call)
