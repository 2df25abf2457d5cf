"""Recorded chains equal what live drafters write after the same prefixes, however many rows run at once."""

from __future__ import annotations

import pytest
import torch
from made_up import ended
from toys import MASK_ID, greedy_tokens, random_ids, toy_pair

from specdec.decoding.block_recorder import DllmRecorder, is_close, is_level
from specdec.decoding.chains import Chain, Text
from specdec.decoding.denoising import Denoising, LiveBlocks
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target
from specdec.drafters.ar import ArDrafter, ArStatic, record_ar
from specdec.models.lm import CachedLM
from specdec.models.pages import PagedLM
from specdec.runs.recording import WatchedTarget

pytestmark = pytest.mark.slow
NUM_TOKENS = 34
LENGTHS = {0.05: 38, 0.3: 9, 0.9: 12}


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return toy_pair(request.param)[1]


@pytest.fixture(scope="module", params=[1, 31, 32])
def text(request: pytest.FixtureRequest, model: torch.nn.Module) -> Text:
    """A text about which the drafter is right often, not always: its own words, with some others thrown in."""
    prompt, others = random_ids(request.param, request.param), random_ids(9, NUM_TOKENS)
    ids = list(prompt)
    while len(ids) < len(prompt) + NUM_TOKENS:
        ids += greedy_tokens(model, ids, max_new_tokens=5, stop_ids=())[0] + [others.pop()]
    return Text(ids[: len(prompt) + NUM_TOKENS], len(prompt), NUM_TOKENS - 1)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_ar_chains_equal_live_drafts(model: torch.nn.Module, text: Text, batch: int) -> None:
    stop_ids = frozenset({text.ids[-5]})
    chains = record_ar(PagedLM(CachedLM(model), 1), text, 12, stop_ids, batch)
    drafter = ArDrafter(CachedLM(model), ArStatic(12), stop_ids)
    num_right = 0
    for at, chain in zip(text.prefix_lens, chains, strict=True):
        draft = drafter.propose(text.ids[:at], 12)
        assert chain.tokens == draft.tokens
        assert chain.confidences == pytest.approx(draft.confidences, abs=1e-4, rel=0)
        assert chain.known == list(range(len(draft.tokens) + 1))
        num_right += draft.tokens[0] == text.ids[at]
    assert 0 < num_right < len(chains)


@pytest.fixture(scope="module")
def live(model: torch.nn.Module, text: Text) -> dict[tuple[float, int], tuple[LiveBlocks, list[int]]]:
    """By threshold and prefix length a live draft, from an empty cache, and how many tokens were known by pass."""
    made = {}
    for threshold, length in LENGTHS.items():
        for at in text.prefix_lens:
            blocks = LiveBlocks(CachedLM(model), text.ids[:at], Denoising(threshold, 32, 8, MASK_ID, frozenset()))
            known = [blocks.num_known]
            while blocks.num_known < length:
                blocks.step()
                known.append(blocks.num_known)
            made[threshold, at] = blocks, known
    return made


@pytest.mark.parametrize("batch", [5, 64])
def test_block_chains_equal_live_drafts(
    model: torch.nn.Module,
    text: Text,
    live: dict[tuple[float, int], tuple[LiveBlocks, list[int]]],
    batch: int,
) -> None:
    recorder = DllmRecorder(PagedLM(CachedLM(model), 32), text, batch)
    num_passes = 0
    for threshold, chains in recorder.record(LENGTHS, Denoising(0.0, 32, 8, MASK_ID, frozenset())).items():
        for at, chain in zip(text.prefix_lens, chains, strict=True):
            blocks, known = live[threshold, at]
            assert (chain.tokens, chain.known) == (blocks.tokens(blocks.num_known), known), (threshold, at)
            assert sum(chain.is_commit) == blocks.passes.commit
            assert chain.confidences == pytest.approx(blocks.confidences(blocks.num_known), abs=1e-4, rel=0)
            assert chain.recorded == pytest.approx(blocks.pass_confidences, abs=1e-4, rel=0)
            num_passes += chain.num_passes
    assert len(recorder._answers) < 0.9 * num_passes  # what was seen before was not run again


def test_chains_end_with_the_pass_where_longer_ones_show_a_stop_token(model: torch.nn.Module, text: Text) -> None:
    stop_ids = frozenset(text.ids[-9:-4])
    long, short = (
        DllmRecorder(PagedLM(CachedLM(model), 32), text, 64).record(LENGTHS, Denoising(0.0, 32, 8, MASK_ID, stops))
        for stops in (frozenset(), stop_ids)
    )
    num_shorter = 0
    for threshold in LENGTHS:
        for was, chain in zip(long[threshold], short[threshold], strict=True):
            expected = ended(was, stop_ids)
            for part in ("tokens", "unmasked_by", "is_commit", "num_recorded"):
                assert getattr(chain, part) == getattr(expected, part)
            assert chain.confidences == pytest.approx(expected.confidences, abs=1e-4, rel=0)
            assert chain.recorded == pytest.approx(expected.recorded, abs=1e-4, rel=0)
            num_shorter += len(chain.tokens) < len(was.tokens)
    assert num_shorter > 3


def test_a_chain_knows_after_each_pass_what_was_known() -> None:
    chain = Chain([7, 8, 9], [0.5] * 3, [0, 2, 1], [0, 0], [2, 1], [0.9, 0.5, 0.5])
    assert (chain.known, chain.passes_for, chain.recorded_ends) == ([1, 1, 3], [0, 0, 2, 2], [0, 2, 3])


def test_equal_confidences_are_a_close_call() -> None:
    assert is_level([0.3, 0.3]) and is_level([0.2, 0.300001, 0.3]) and not is_level([0.3]) and not is_level([0.3, 0.2])


@pytest.mark.parametrize(
    ("best", "second", "is_one"),
    [
        (0.7123, 0.2, False),
        (0.4, 0.399999, True),  # two tokens
        (0.450001, 0.2, True),  # a hundredth
        (0.655, 0.2, True),  # the unmask threshold
        (0.6552, 0.2, False),
        (0.9999999, 1e-8, False),  # nothing is above one
    ],
)
def test_a_close_call_is_two_tokens_or_a_threshold(best: float, second: float, is_one: bool) -> None:
    logits_KV = torch.tensor([[best, second, 1 - best - second]]).clamp(1e-9).log()
    assert is_close(logits_KV, 3, (0.655,)) == [is_one]


def test_gaps_are_those_of_the_prompt_alone_whatever_ran_before_and_a_prompt_just_run_is_not_run_again(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, shared = CachedLM(model), random_ids(3, 250)
    prompt, other = [*shared, *random_ids(4, 40)], [*shared, *random_ids(5, 31)]
    passes: list[int] = []
    forward = lm.forward
    monkeypatch.setattr(lm, "forward", lambda tokens, **how: passes.append(len(tokens)) or forward(tokens, **how))

    def gaps() -> list[float]:
        target = WatchedTarget(lm)
        target.start(prompt)
        for _ in range(12):
            target.verify(Draft())
        return target.gaps

    alone = gaps()
    assert passes[0] == len(prompt) - 1
    assert gaps() == alone and passes[13:] == [1] * 12
    Target(lm).start(other)
    assert gaps() == alone
    Target(lm).start(other, [0])
    passes.clear()
    assert gaps() == alone and passes[0] == len(prompt) - 1
