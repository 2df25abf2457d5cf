"""Calls of generate.py's functions as data: random cases, what the oracle says of them, and how to compare.

Not tests; test_generate.py and test_generate_cache.py use it.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from reference import Outcome, Rules, Window, failfast_draft, static_draft
from toys import MASK_ID, VOCAB_SIZE, random_ids, toy_model

from generate import generate, generate_draft_tokens, generate_draft_tokens_arbitrary_length
from specdec.decoding.stopping import Draft
from specdec.models.lm import CachedLM

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


def make_models() -> dict[str, torch.nn.Module]:
    torch.set_num_threads(1)
    return {name: make() for name, make in CHECKPOINTS.items()}


def random_case(function: str, seed: int, models: dict[str, torch.nn.Module]) -> Case:
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
    prefix = tuple(ids_without_mask(rng, length))
    checkpoint = sorted(models)[seed % len(models)]
    if function == "failfast":
        case = Case(checkpoint, prefix, rules, window=_random_window(rng))
    else:
        case = Case(checkpoint, prefix, rules, num_tokens=rng.randint(1, 80 if function == "generate" else 40))
    return _with_stop_ids(_with_rejected(case, rng, models), rng, models)


def ids_without_mask(rng: random.Random, length: int) -> list[int]:
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
    draft = oracle(case, models).tokens
    overlap = draft[-rng.randint(1, len(draft)) :]
    before, behind = (ids_without_mask(rng, rng.randint(0, 6)) for _ in range(2))
    tail = before + overlap + behind + rng.choice(([], overlap + before))
    return dataclasses.replace(case, window=dataclasses.replace(case.window, rejected=tuple(tail)))


def _with_stop_ids(case: Case, rng: random.Random, models: dict[str, torch.nn.Module]) -> Case:
    kind = rng.choice(("none", "none", "any", "drafted", "drafted"))
    if kind == "none":
        return case
    likely = oracle(case, models).tokens if kind == "drafted" else range(VOCAB_SIZE)
    stop_ids = frozenset({rng.choice(list(likely)), rng.randrange(VOCAB_SIZE)} - {MASK_ID})
    return dataclasses.replace(case, rules=dataclasses.replace(case.rules, stop_ids=stop_ids))


def oracle(case: Case, models: dict[str, torch.nn.Module]) -> Outcome:
    model = models[case.checkpoint]
    if case.window is None:
        return static_draft(model, case.prefix, case.num_tokens, case.rules)
    return failfast_draft(model, case.prefix, case.window, case.rules)


def call(function: str, lm: CachedLM, case: Case) -> Draft:
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


def passes_of(draft: Draft) -> tuple[int, int, int]:
    return draft.passes.prefill, draft.passes.denoise, draft.passes.commit


def assert_equal(draft: Draft, want: Outcome, case: object) -> None:
    assert draft.tokens == want.tokens, case
    assert draft.stop_reason == want.stop_reason, case
    assert passes_of(draft) == (want.prefill, want.denoise, want.commit), case
    assert draft.confidences == pytest.approx(want.confidences, abs=1e-4, rel=0), case


def assert_same_draft(draft: Draft, other: Draft, note: object) -> None:
    assert draft.tokens == other.tokens, note
    assert draft.stop_reason == other.stop_reason, note
    assert draft.confidences == pytest.approx(other.confidences, abs=1e-4, rel=0), note
    assert (draft.passes.denoise, draft.passes.commit) == (other.passes.denoise, other.passes.commit), note
    assert draft.passes.prefill <= other.passes.prefill, note


def static_case(checkpoint: str, prefix: list[int], num_tokens: int, **rules: object) -> Case:
    """A call of a static function; `rules` differ from threshold 0.5 and no stop ids."""
    filled = {"mask_id": MASK_ID, "stop_ids": frozenset(), "threshold": 0.5} | rules
    return Case(checkpoint, tuple(prefix), Rules(**filled), num_tokens=num_tokens)
