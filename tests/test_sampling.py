"""Sampling piece by piece: the warp, drawing, judging, sampled targets and drafters, and their limit at temperature 0.

That the right distribution comes out is test_sampling_laws.py's.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from toys import MASK_ID, VOCAB_SIZE, clear_prompt, random_ids, toy_model, toy_pair

from specdec.decoding.loop import speculate
from specdec.decoding.sampled import SampledLM, SampledTarget
from specdec.decoding.sampling import Sampler, Warp, drawn, judge, nucleus
from specdec.decoding.stopping import Draft
from specdec.drafters.ar import ArDrafter, ArDynamic, ArStatic, SampledArDrafter
from specdec.drafters.block_diffusion import BlockSettings, DllmDrafter, DllmStatic, FailFast
from specdec.drafters.plain import NoDrafter
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.lm import CachedLM
from specdec.records.rounds import Round

pytestmark = pytest.mark.slow
AR_SPECS = (ArStatic(6), ArDynamic(0.4, 12, 3))
DLLM_SPECS = (DllmStatic(0.9, 8), FailFast(0.3, 0.3, 20, 5, first_window=4), FailFast(0.3, 0.3, 20, 5, rule="strict"))


@pytest.fixture(autouse=True)
def _threads(one_thread) -> None:
    """Toy matrices."""


@pytest.fixture(scope="module")
def pair() -> tuple[torch.nn.Module, torch.nn.Module]:
    return toy_pair("qwen2")


# ---- the warp ------------------------------------------------------------------------------------------------


def by_hand(logits: list[float], warp: Warp) -> list[float]:
    """One row's distribution, in float64 and by sorting everything."""
    scaled = torch.tensor(logits, dtype=torch.float64) / warp.temperature
    order = scaled.argsort(descending=True).tolist()
    kept = order[: warp.top_k] if warp.top_k else order
    chances = {token: float((scaled[token] - scaled.max()).exp()) for token in kept}
    total, so_far, nucleus_of = sum(chances.values()), 0.0, {}
    for token in kept:
        if so_far < warp.top_p * total:
            nucleus_of[token] = chances[token]
        so_far += chances[token]
    return [nucleus_of.get(token, 0.0) / sum(nucleus_of.values()) for token in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 7, 50, 500])
@pytest.mark.parametrize("top_p", [1.0, 0.999, 0.9, 0.5, 0.01])
def test_warping_is_temperature_then_top_k_then_top_p(temperature: float, top_k: int, top_p: float) -> None:
    warp, logits_KV = Warp(temperature, top_k, top_p), 3 * torch.randn(4, 300, generator=torch.manual_seed(1))
    p_KV = warp.probabilities(logits_KV)
    assert p_KV.dtype == torch.float32
    for row, logits in zip(p_KV, logits_KV.tolist(), strict=True):
        assert row.tolist() == pytest.approx(by_hand(logits, warp), abs=1e-6)


def test_warping_is_in_float32_whatever_the_logits_are() -> None:
    logits_KV = torch.randn(2, 50, dtype=torch.bfloat16)
    torch.testing.assert_close(Warp(0.7).probabilities(logits_KV), (logits_KV.float() / 0.7).softmax(-1))


def test_the_mask_has_no_chance_and_no_temperature_is_too_low() -> None:
    logits_KV = torch.tensor([[1.0, 9.0, 2.0, -50.0]])
    assert Warp(1e-30).probabilities(logits_KV, never=1).tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert Warp(1.0, 2).probabilities(logits_KV, never=1)[0, [1, 3]].tolist() == [0.0, 0.0]
    assert Warp(1.0).probabilities(logits_KV, never=7).argmax() == 1


@pytest.mark.parametrize("settings", [(0.0,), (-1.0,), (1.0, -1), (1.0, 0, 0.0), (1.0, 0, 1.5), (float("nan"),)])
def test_other_settings_are_no_warp(settings: tuple) -> None:
    with pytest.raises(ValueError, match="not a warp"):
        Warp(*settings)


def test_a_nucleus_of_equal_tokens_has_enough_of_them() -> None:
    p_KV = torch.full((1, 8), 1 / 8)
    for top_p, count in ((0.125, 1), (0.126, 2), (0.5, 4), (0.99, 8), (1e-9, 1), (1 - 1e-9, 8)):
        assert int((nucleus(p_KV, top_p) > 0).sum()) == count, top_p


# ---- drawing and judging -------------------------------------------------------------------------------------


def test_drawing_at_the_edges_never_gives_a_token_without_weight() -> None:
    weights = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]] * 5)
    uniforms = torch.tensor([0.0, 0.2499999, 0.25, 0.9999999, 1 - 2**-53], dtype=torch.float64)
    assert drawn(weights, uniforms).tolist() == [1, 1, 3, 3, 3]


def judged(p: list, draft: list[int], q: list | None, uniforms: list[float]) -> tuple[int, int, list[float]]:
    rows = None if q is None else torch.tensor([q])
    found = judge(torch.tensor([p]), torch.tensor([draft], dtype=torch.long), rows, torch.tensor([uniforms]))
    return int(found.accepted_len_B), int(found.next_token_B), found.p_BL[0].tolist()


P = [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]
Q = [[0.25, 0.5, 0.25], [0.3, 0.6, 0.1]]


def test_rule_ratio_by_hand() -> None:
    assert judged(P, [1, 0], Q, [0.59, 0.33, 0.99]) == (2, 2, pytest.approx([0.3, 0.1]))  # bonus from the last row
    assert judged(P, [1, 0], Q, [0.61, 0.0, 0.99]) == (0, 0, pytest.approx([0.3, 0.1]))  # p - q leaves token 0 alone
    assert judged(P, [0, 0], Q, [0.99, 0.34, 0.01])[:2] == (1, 2)  # p > q is always kept; then p - q leaves token 2


def test_rule_point_by_hand() -> None:
    assert judged(P, [1, 1], None, [0.29, 0.59, 0.3])[:2] == (2, 1)
    assert judged(P, [1, 1], None, [0.31, 0.0, 0.71])[:2] == (0, 0)  # 0.5 and 0.2 are left: 5/7 and 2/7
    assert judged(P, [1, 1], None, [0.31, 0.0, 0.72])[:2] == (0, 2)


def test_without_a_draft_the_token_is_the_targets() -> None:
    assert judged(P[:1], [], None, [0.55]) == (0, 1, [])


def test_equal_distributions_reject_nothing_and_what_p_forbids_is_never_kept() -> None:
    for u in (0.0, 0.5, 1 - 1e-7):
        assert judged(P[:2], [2], P[:1], [u, 0.0])[0] == 1
        assert judged([[0.4, 0.6, 0.0], P[0]], [2], [[0.2, 0.2, 0.6]], [u, 0.0])[:2] == (0, 0)
    # A rejection that only rounding made has nothing left to draw from.
    assert judged([[0.5, 0.5], [1, 0]], [0], [[0.5001, 0.5]], [0.99999, 0.7])[:2] == (0, 1)


def test_a_key_decides_all_numbers() -> None:
    def numbers(key: str) -> list[float]:
        return Sampler(Warp(1.0), key).uniforms(3, torch.device("cpu")).tolist()

    assert numbers("0 gsm8k 1 plain") == numbers("0 gsm8k 1 plain") != numbers("0 gsm8k 2 plain")
    assert numbers("0 gsm8k 1 plain") == pytest.approx(FIRST_NUMBERS)  # runs are repeatable years later, too


FIRST_NUMBERS = [0.5301491683897482, 0.9774740456496469, 0.27136921321647]


# ---- target and drafters -------------------------------------------------------------------------------------


def drafters_of(model: torch.nn.Module, sampler: Sampler | None, stop_ids: tuple[int, ...] = ()) -> dict[str, object]:
    """Every kind of drafter; all of them draw if there is a sampler."""
    lm = CachedLM(model) if sampler is None else SampledLM(CachedLM(model), sampler)
    made: dict[str, object] = {"plain": NoDrafter()}
    for spec in AR_SPECS:
        made[spec.name] = (ArDrafter if sampler is None else SampledArDrafter)(lm, spec, stop_ids)
    for spec in DLLM_SPECS:
        for reuse_kvs in (True, False):
            settings = BlockSettings(MASK_ID, stop_ids, block_size=8, reuse_kvs=reuse_kvs, reuse_drafts=True)
            made[f"{spec} {reuse_kvs}"] = DllmDrafter(lm, spec, settings)
    return made


def run(pair, warp: Warp, name: str, is_drawn: bool, prompt: list[int], **how) -> list[Round]:
    sampler = Sampler(warp, name)
    drafter = drafters_of(pair[1], sampler if is_drawn else None, tuple(how.get("stop_ids", ())))[name]
    return speculate(SampledTarget(CachedLM(pair[0]), sampler), drafter, prompt, **{"stop_ids": ()} | how)


def output(rounds: list[Round]) -> list[int]:
    return [token for made in rounds for token in made.emitted_tokens]


ALL_NAMES = list(drafters_of(toy_model("qwen2", 1), None))


@pytest.mark.parametrize("is_drawn", [False, True])
def test_near_temperature_0_the_text_is_the_greedy_one(pair, is_drawn: bool) -> None:
    prompt, greedy = clear_prompt(pair[0], 30, 24)
    for name in ALL_NAMES:
        assert output(run(pair, Warp(1e-6), name, is_drawn, prompt, max_new_tokens=24)) == greedy, name


@pytest.mark.parametrize("is_drawn", [False, True])
@pytest.mark.parametrize("name", ALL_NAMES)
def test_rounds_are_sound_and_cut_at_stop_tokens_and_budget(pair, name: str, is_drawn: bool) -> None:
    """Whatever is drawn: the text ends at its first stop token or at the budget, and every drafted token has its p."""
    ends, prompt = set(), random_ids(5, 21)
    for seed in range(8):
        stop_ids = random_ids(seed, 2, exclude=[MASK_ID])
        rounds = run(pair, Warp(1.2), name, is_drawn, [*prompt, seed], max_new_tokens=19, stop_ids=stop_ids)
        text = output(rounds)
        places = [i for i, token in enumerate(text) if token in stop_ids]
        assert places == [len(text) - 1] if places else len(text) == 19
        ends.add(bool(places))
        assert rounds[0].prefix_len == len(prompt) + 1
        for before, after in pairwise(rounds):
            assert after.prefix_len == before.prefix_len + len(before.emitted_tokens)
        for made in rounds:
            assert len(made.target_probabilities) == len(made.draft_probabilities) == made.draft_len
            assert all(made.target_probabilities[: made.accepted_len])  # what p forbids is never kept
            assert made.draft_len <= len(prompt) + 1 + 19 - made.prefix_len
            assert MASK_ID not in made.draft_tokens or "dllm" not in name
            assert Round.from_builtins(made.to_builtins(len(prompt)), len(prompt)) == made
    assert ends == {True, False}


def test_ar_drafts_say_what_they_were_drawn_from(pair) -> None:
    sampler = Sampler(Warp(0.8, 20), "x")
    for spec in AR_SPECS:
        drafter = SampledArDrafter(SampledLM(CachedLM(pair[1]), sampler), spec, ())
        drafter.reset()
        draft = drafter.propose(random_ids(7, 9), 12)
        assert draft.drawn_from.shape == (len(draft.tokens), VOCAB_SIZE)
        given = draft.drawn_from[range(len(draft.tokens)), draft.tokens].tolist()
        assert draft.confidences == draft.token_confidences == pytest.approx(given)
        lm = CachedLM(pair[1])
        q_LV = Warp(0.8, 20).probabilities(lm.forward([*random_ids(7, 9), *draft.tokens])[8:-1])
        torch.testing.assert_close(q_LV, draft.drawn_from, atol=1e-5, rtol=1e-4)
        if isinstance(spec, ArDynamic):
            low = [confidence < spec.tau for confidence in draft.confidences]
            assert not any(low[: len(low) // 3 * 3 - 3])  # the rule looks at what was drawn


def test_a_dllm_unmasks_and_stops_by_the_probabilities_of_what_it_draws(pair) -> None:
    """At a high temperature nearly nothing drawn is probable, so that a draft is short that was long."""
    lengths = {}
    for temperature in (0.1, 3.0):
        sampler, spec = Sampler(Warp(temperature), "x"), FailFast(0.05, 0.4, 60, 10)
        drafter = DllmDrafter(SampledLM(CachedLM(pair[1]), sampler), spec, BlockSettings(MASK_ID, ()))
        drafter.reset()
        drafts = [drafter.propose(random_ids(seed, 20, exclude=[MASK_ID]), 60) for seed in range(6)]
        assert all(draft.drawn_from is None for draft in drafts)  # judged as fixed strings
        lengths[temperature] = sum(len(draft.tokens) for draft in drafts)
    assert lengths[3.0] == 60 < lengths[0.1]


def test_a_drafters_smaller_table_is_no_bar(pair) -> None:
    target, sampler = SampledTarget(CachedLM(pair[0]), Sampler(Warp(1.0), "x")), Sampler(Warp(1.0), "y")
    drafter = SampledArDrafter(SampledLM(CachedLM(pair[1], vocab_size=50), sampler), ArStatic(4), ())
    rounds = speculate(target, drafter, random_ids(2, 12, vocab_size=50), max_new_tokens=40, stop_ids=())
    assert max(output(rounds)) >= 50 > max(token for made in rounds for token in made.draft_tokens)


def test_both_engines_draw_the_same(pair, monkeypatch) -> None:
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))
    texts = []
    for engine in (CachedLM, GraphLM):
        sampler = Sampler(Warp(0.9, 30, 0.95), "x")
        lm = SampledLM(engine(pair[1]), sampler)
        texts.append([])
        for drafter in (
            SampledArDrafter(lm, ArStatic(5), ()),
            DllmDrafter(lm, DLLM_SPECS[1], BlockSettings(MASK_ID, ())),
        ):
            target = SampledTarget(engine(pair[0]), sampler)
            texts[-1].append(output(speculate(target, drafter, random_ids(4, 40), max_new_tokens=30, stop_ids=())))
    assert texts[0] == texts[1]


def test_a_draft_is_verified_in_one_pass(pair, monkeypatch) -> None:
    lm = CachedLM(pair[0])
    target = SampledTarget(lm, Sampler(Warp(1.0), "x"))
    target.start([1, 2, 3])
    passes, forward = [], lm.forward
    monkeypatch.setattr(lm, "forward", lambda tokens, **how: passes.append(list(tokens)) or forward(tokens, **how))
    verification = target.verify(Draft([5, 6, 7]))
    assert passes == [[3, 5, 6, 7]] and len(verification.probabilities) == 3
    assert lm.tokens == [1, 2, 3, 5, 6, 7][: 3 + verification.accepted_len]
