"""The oracle against brute force on small made-up traces, and never beaten by any policy on larger ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import pytest
from made_up import made_up_trace

from specdec.decoding.loop import speculate
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Verification
from specdec.drafters.ar import ArDynamic, ArStatic
from specdec.drafters.base import Setup
from specdec.drafters.block_diffusion import DllmStatic, FailFast
from specdec.drafters.plain import NoDrafter, Plain
from specdec.latency.pricing import price
from specdec.latency.profile import LatencyProfile
from specdec.ranking.oracle import Board, Costs, Judge, Oracle
from specdec.records.record import Record
from specdec.traces.replay import RecordedTarget, replay
from specdec.traces.trace import Trace

pytestmark = pytest.mark.slow
TARGET = "Big"


def profile(
    draft_pass_ms: float, verify_ms: dict[int, float] | None = None, ar_draft_pass_ms: float | None = None
) -> LatencyProfile:
    tables = {TARGET: verify_ms} if verify_ms else {}
    return LatencyProfile("made-up", draft_pass_ms, {TARGET: 10.0}, tables, {}, ar_draft_pass_ms)


PROFILES = {
    "flat": profile(1.0),
    "dear-drafts": profile(6.0),
    "free-drafts": profile(1e-6),
    "cheap-ar": profile(4.0, ar_draft_pass_ms=0.5),
    "rising": profile(2.0, {1: 10.0, 3: 14.0, 6: 30.0}),
    "falling": profile(2.0, {1: 20.0, 4: 9.0, 6: 12.0}),
}


class Scripted(NoDrafter):
    """Drafts what a script says, round by round: (drafter's spec, length), or nothing."""

    def __init__(self, trace: Trace, script: Sequence[DllmStatic | ArStatic | None]) -> None:
        self.trace, self.script = trace, iter(script)
        # One drafter of each kind, so that what a cache keeps is kept over all rounds.
        setup = Setup(trace.stop_ids)
        self.drafters = {kind: spec.replayed(trace, setup) for kind, spec in _one_of_each(trace).items()}

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        spec = next(self.script)
        if spec is None:
            return Draft()
        drafter = self.drafters[type(spec)]
        drafter.spec = spec
        return drafter.propose(prefix_ids, budget)

    def observe(self, verification: Verification) -> None:
        for drafter in self.drafters.values():
            drafter.observe(verification)


def _one_of_each(trace: Trace) -> dict[type, DllmStatic | ArStatic]:
    return {DllmStatic: DllmStatic(0.5, 1), ArStatic: ArStatic(1)}


def all_costs(trace: Trace, choices: list, costs: Costs) -> Iterator[float]:
    """The time of every policy there is: one choice per round, whatever it may be."""
    for script in product(choices, repeat=len(trace.output_tokens)):
        rounds = speculate(
            RecordedTarget(trace),
            Scripted(trace, script),
            trace.prompt_ids,
            max_new_tokens=trace.identity.max_new_tokens,
            stop_ids=trace.stop_ids,
        )
        yield sum(
            costs.pass_ms(not isinstance(choice, ArStatic)) * r.num_forward_passes + costs.verify_ms[r.draft_len]
            for r, choice in zip(rounds, script, strict=False)
        )


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("drafters", ["dllm", "ar", "both"])
def test_equals_brute_force(name: str, drafters: str) -> None:
    costs = Costs.of(PROFILES[name], TARGET, 20)
    num_tokens = 3 if drafters == "both" else 4
    lengths = range(1, num_tokens + 1)
    choices: list = [None]
    choices += [DllmStatic(0.5, n) for n in lengths] if drafters != "ar" else []
    choices += [ArStatic(n) for n in lengths] if drafters != "dllm" else []
    names = {"dllm": ("dllm_0.5",), "ar": ("ar",), "both": ("ar", "dllm_0.5")}[drafters]
    for seed in range(8):
        size = (2, 4)[seed // 2 % 2]
        budget = num_tokens + seed % 2  # the text ends with the budget, or with a stop token
        trace = made_up_trace(seed, num_tokens=num_tokens, max_new_tokens=budget, chain_len=5, block_size=size)
        best = min(all_costs(trace, choices, costs))
        assert Oracle(Board(trace, costs), names).best_ms == pytest.approx(best, abs=1e-9), seed


POLICIES = [
    *(ArStatic(n) for n in (1, 3, 8)),
    *(ArDynamic(tau, 12, 3) for tau in (0.3, 0.7)),
    *(DllmStatic(threshold, n) for threshold in (0.2, 0.8) for n in (1, 4, 9)),
    *(FailFast(0.2, tau, 12, 4, first_window=4, rule=r) for tau in (0.1, 0.4, 0.7) for r in ("published", "strict")),
]


@pytest.mark.parametrize("name", PROFILES)
def test_never_beaten_and_every_millisecond_has_its_place(name: str) -> None:
    """Over every policy and bookkeeping; the parts of a record's time add up to its price."""
    num_cold = num_reused = 0
    for seed in range(6):
        settings = {"num_tokens": 60, "chain_len": 24, "block_size": 8, "vocab_size": 2 + seed % 2}
        trace = made_up_trace(seed, skill=0.6, thresholds=(0.2, 0.8), max_new_tokens=60 + seed % 2, **settings)
        judge = Judge(trace, PROFILES[name], TARGET)
        for spec, kvs, drafts in product(POLICIES, (True, False), (True, False)):
            record = replay(trace, spec, {"reuse_drafts": drafts, "disable_reusing_drafter_kvs": not kvs})
            total_ms = price(record, PROFILES[name], TARGET).total_ms
            ceiling = judge.ceiling(record)
            assert ceiling.total_ms == pytest.approx(total_ms, abs=1e-6), spec
            parts = (ceiling.over_ms, ceiling.under_ms, ceiling.passes_ms)
            assert min(parts) > -1e-6 and ceiling.best_ms <= total_ms + 1e-6, (spec, parts)
            num_cold += not kvs and ceiling.passes_ms > 0
            num_reused += _was_reused(record, trace, spec)
    assert num_cold and num_reused


def _was_reused(record: Record, trace: Trace, spec: object) -> bool:
    """Whether a draft went on after its drafter's own tokens, and was right to."""
    if not isinstance(spec, FailFast) or not record.identity.settings["reuse_drafts"]:
        return False
    chains, begin = trace.chains_of(spec).chains, len(trace.prompt_ids)
    drafts = ((turn, chains[turn.prefix_len - begin].tokens) for turn in record.rounds if turn.draft_tokens)
    return any(turn.draft_tokens[: turn.accepted_len] != own[: turn.accepted_len] for turn, own in drafts)


def test_plain_decoding_loses_what_drafting_saves() -> None:
    trace = made_up_trace(1, num_tokens=30, chain_len=12, block_size=8, skill=0.9)
    ceiling = Judge(trace, PROFILES["flat"], TARGET).ceiling(replay(trace, Plain()))
    assert ceiling.total_ms == pytest.approx(300.0)
    assert ceiling.over_ms == 0 and ceiling.under_ms == 0 and 0 < ceiling.share < 0.5


def test_drafting_on_and_stopping_early_are_told_apart() -> None:
    trace = made_up_trace(3, num_tokens=60, chain_len=24, block_size=8, skill=0.8)
    judge = Judge(trace, PROFILES["flat"], TARGET)
    short, long = (judge.ceiling(replay(trace, ArStatic(n))) for n in (1, 16))
    assert short.under_ms > 5 * short.over_ms and long.over_ms > 5 * long.under_ms
