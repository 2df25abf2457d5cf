"""Chains that end at a stop token say all that longer ones say: traces of both kinds give the same everywhere."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from made_up import STOP_ID, ended, made_up_trace

from specdec.decoding.chains import Chains
from specdec.decoding.cost_aware import Advice
from specdec.drafters.families import parse_name
from specdec.latency.profile import LatencyProfile
from specdec.ranking.conventions import Convention, Written, tally
from specdec.ranking.oracle import Judge
from specdec.traces.calibration import calibrate, tokens_seen
from specdec.traces.prospects import prospects
from specdec.traces.replay import replay
from specdec.traces.trace import Trace

pytestmark = pytest.mark.slow
NAME = "dllm_0.5"
LONG, SEEDS = 40, 4
DRAFTERS = (
    *(f"{NAME}_sf_{length}" for length in (1, 3, 6, 12, 30)),
    *(f"{NAME}_df_{tau}_{rest}" for tau in (0.1, 0.5, 0.8) for rest in ("12_4", "24_5_w3", "12_4_strict")),
    f"lookup_2_sf_3_else_{NAME}_df_0.5_12_4",
)
OPTIONS = ({}, {"reuse_drafts": True}, {"disable_reusing_drafter_kvs": True})
BLOCKS = {"block_size": 4, "small_block_size": 2}
PROFILE = LatencyProfile("made up", 2.0, {"Big": 10.0}, {"Big": {1: 10.0, 3: 14.0, 9: 30.0}}, {})


@cache
def pairs() -> list[tuple[Trace, Trace]]:
    """Long chains, and the same that end at a stop token; of texts that end by one, and by the budget."""
    return [both(seed, budget) for seed, budget in product(range(SEEDS), (None, 30))]


def both(seed: int, budget: int | None) -> tuple[Trace, Trace]:
    before = made_up_trace(seed, num_tokens=24, chain_len=LONG, skill=0.8, max_new_tokens=budget)
    own = before.chains[NAME]
    now = Chains.pack(NAME, own.identity, own.chain_len, [ended(chain, before.stop_ids) for chain in own.chains])
    return before, replace(before, chains=before.chains | {NAME: now})


def test_most_chains_of_these_are_shorter() -> None:
    lengths = np.array([[len(one.chains[NAME].arrays["tokens"]) for one in pair] for pair in pairs()])
    assert lengths[:, 1].sum() < 0.8 * lengths[:, 0].sum()


@pytest.mark.parametrize("name", DRAFTERS)
def test_every_rule_drafts_the_same_and_has_the_same_ceiling(name: str) -> None:
    spec = parse_name(name)
    for (before, now), options in product(pairs(), OPTIONS):
        old, new = (replay(trace, spec, {**BLOCKS, **options}) for trace in (before, now))
        assert (old.identity, old.rounds) == (new.identity, new.rounds)
        assert Judge(before, PROFILE, "Big").ceiling(old) == Judge(now, PROFILE, "Big").ceiling(new)


def test_the_same_is_learnt_and_the_policy_that_learnt_drafts_the_same() -> None:
    before, now = zip(*pairs(), strict=True)
    old, new = calibrate(before, NAME), calibrate(now, NAME)
    assert old == new
    spec = parse_name(f"{NAME}_ca_20_Big@made up")
    advice = Advice(new, 2.0, [10.0 + length for length in range(21)], 0.3)
    for pair in pairs():
        first, second = (replay(trace, spec, BLOCKS, advice) for trace in pair)
        assert first.rounds == second.rounds


def test_what_stands_after_an_end_is_neither_accepted_nor_rejected() -> None:
    for trace in (one for pair in pairs() for one in pair):
        expected = []
        for at, chain in enumerate(trace.chains[NAME].chains):
            rest, room = trace.output_tokens[at:], trace.identity.max_new_tokens - at - 1
            for index, (token, confidence) in enumerate(zip(chain.tokens[:room], chain.confidences, strict=False)):
                expected.append((confidence, token == rest[index]))
                if token != rest[index] or token == STOP_ID:
                    break
        assert list(tokens_seen(trace, NAME)) == expected


def test_a_policy_that_knows_the_load_sees_the_same() -> None:
    before, now = zip(*pairs(), strict=True)
    halves = [place % 2 for place in range(len(now))]
    old, new = prospects(before, NAME, halves), prospects(now, NAME, halves)
    for part in ("survival_FL", "match_F", "left_F", "half_F", "whole_F", "begins_Q", "ends_Q"):
        assert np.array_equal(getattr(old, part), getattr(new, part)), part
    width = new.known_FJ.shape[1]
    assert np.array_equal(old.known_FJ[:, :width], new.known_FJ)


def test_a_whole_draft_has_its_length_where_a_pass_wrote_on_after_the_stop_token() -> None:
    written = Written([7, 8, 2], [[7, 8, 2, 5], [8, 2, 5, 5], [2, 5]], {2}, 16)
    for length, drafted in ((3, 3), (4, 4), (6, 6)):
        assert tally(written, Convention(length, is_whole=True)).num_drafted == drafted
    copied = replace(written, is_copied=True)
    assert tally(copied, Convention(6, is_whole=True)).num_drafted == 4
