"""Hybrids: who drafts which round, rounds and texts, live, recorded and replayed, priced and below the ceiling."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from live import assert_same, blank, plain_trace, rounds_of
from made_up import made_up_trace
from toys import ARCHITECTURES, MASK_ID, perturbed, toy_model

from specdec.commands import rank
from specdec.commands import replay as replay_command
from specdec.commands import run as failfast
from specdec.config import RunConfig
from specdec.decoding.chains import Chains, Text
from specdec.decoding.stopping import Draft, Passes
from specdec.decoding.target import Verification
from specdec.drafters import ar, block_diffusion
from specdec.drafters.ar import ArStatic
from specdec.drafters.base import Recording, Setup, Spec
from specdec.drafters.families import kinds, parse_name
from specdec.drafters.hybrid import Hybrid, HybridDrafter
from specdec.errors import UserError
from specdec.latency.pricing import Pricing, price
from specdec.latency.profile import load_profile
from specdec.models.lm import CachedLM
from specdec.ranking.oracle import TraceJudges
from specdec.records.record import find_records, load_record
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, find_traces, load_trace

BOUND = load_profile("vLLM_A6000")
TARGET = "Qwen2.5-7B-Instruct"
FIRSTS = ("lookup_3_sf_10", "lookup_2_sf_3", "suffix_64", "suffix_64_s1.5", "suffix_8_f2.0_p0.3")
SECONDS = (
    "ar_None_sf_4",
    "ar_None_df_0.5_6_2",
    "dllm_0.5_sf_5",
    "dllm_0.5_df_0.4_12_4",
    "dllm_0.5_df_0.3_8_2_w3_strict",
)
SETTINGS = tuple(Hybrid(first, second) for first in FIRSTS for second in SECONDS)
NESTED = Hybrid("lookup_3_sf_10", "suffix_64_s2.0_else_ar_None_sf_4")


# ---- names -----------------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_parts() -> None:
    assert Hybrid().name == "lookup_3_sf_10_else_dllm_0.05_df_0.45_60_10" and kinds()["hybrid"] is Hybrid
    assert all(parse_name(spec.name) == spec for spec in (Hybrid(), NESTED, *SETTINGS))
    assert [part.name for part in NESTED.parts] == ["lookup_3_sf_10", "suffix_64_s2.0", "ar_None_sf_4"]
    assert Hybrid("suffix_64", "ar_None_sf_8").label == "suffix decoding, depth 64, else AR, static 8"
    asked = RunConfig.of(drafters=("plain", NESTED.name, "lookup")).drafters
    assert asked.specs() == [parse_name("plain"), NESTED, parse_name("lookup_3_sf_10")]
    assert asked.roles == [ar.AR_DRAFTER]
    by_kind = RunConfig.of(drafters=("hybrid",)).drafters
    assert by_kind.specs() == [Hybrid()] and by_kind.roles == [block_diffusion.DLLM_DRAFTER]
    assert "hybrid" not in RunConfig.of().drafters.kinds


@pytest.mark.parametrize(
    "name",
    [
        *("ar_None_sf_8_else_lookup_3_sf_10", "plain_else_ar_None_sf_8", "lookup_3_sf_10_else_plain"),
        *("lookup_3_sf_10_else_", "_else_ar_None_sf_8", "lookup_3_sf_10_else_nobody"),
    ],
)
def test_what_is_not_a_hybrid_has_no_name(name: str) -> None:
    with pytest.raises(UserError, match="does not name a drafter"):
        parse_name(name)
    with pytest.raises(UserError):
        Hybrid(*name.split("_else_"))


# ---- who drafts ------------------------------------------------------------------------------------------------------


class Scripted:
    """Drafts what it is told, and notes what it sees."""

    def __init__(self, *drafts: list[int]) -> None:
        self.drafts, self.seen = list(drafts), []

    taps = ()

    def reset(self, features: object = None) -> None:
        self.seen.append("reset")

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        return Draft(self.drafts.pop(0), passes=Passes(denoise=1))

    def observe(self, verification: Verification) -> None:
        self.seen.append(verification.accepted_len)


def test_the_first_that_finds_something_drafts_and_all_see_the_end() -> None:
    one, two, three = Scripted([1], [], []), Scripted([2, 3], []), Scripted([4])
    hybrid = HybridDrafter([one, two, three])
    hybrid.reset()
    assert [hybrid.propose([0], 5).tokens for _ in range(3)] == [[1], [2, 3], [4]]
    hybrid.observe(Verification(range(1), 7))
    assert one.seen == two.seen == three.seen == ["reset", 1]


def test_a_tail_is_not_taken_from_a_draft_of_another_round() -> None:
    """Appendix E continues from last round's rejected tail, which another drafter's round does not have."""
    spec = parse_name("dllm_0.5_df_0.4_12_4")
    drafter = block_diffusion.DllmDrafter(None, spec, block_diffusion.BlockSettings(MASK_ID, ()))
    drafter._draft_tokens = [5, 6, 7, 8]
    drafter.observe(Verification(range(1), 9))
    assert drafter._rejected == [7, 8]
    drafter.observe(Verification(range(0), 9))
    assert drafter._rejected == []


# ---- replayed, priced, below the ceiling -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_passes_are_those_of_rounds_where_the_first_finds_nothing_and_nothing_beats_the_ceiling(seed: int) -> None:
    trace = made_up_trace(seed, num_tokens=40, chain_len=40, vocab_size=5, max_new_tokens=40 + seed % 2)
    judges = TraceJudges(trace, Pricing((BOUND,), TARGET))
    for spec in (*SETTINGS, NESTED):
        for reuse_drafts in (False, True):
            record = replay(trace, spec, {"reuse_drafts": reuse_drafts})
            assert record.output_tokens == trace.output_tokens
            firsts = [part.replayed(trace, Setup(trace.stop_ids)) for part in spec.parts[:-1]]
            for turn in record.rounds:
                prefix = [*trace.prompt_ids, *trace.output_tokens][: turn.prefix_len]
                budget = len(trace.prompt_ids) + trace.identity.max_new_tokens - turn.prefix_len - 1
                found = next((one for one in (first.propose(prefix, budget).tokens for first in firsts) if one), None)
                assert turn.num_forward_passes == 0 if found else True
                assert turn.draft_tokens == found[: turn.draft_len] if found else True
            kind = "ar" if spec.parts[-1].priced_as == "ar" else "block"
            paid = price(record, BOUND, TARGET)
            assert paid.draft_ms == pytest.approx(record.num_forward_passes * BOUND.pass_ms(kind))
            (ceiling,) = judges.ceilings(record).values()
            assert ceiling.total_ms == pytest.approx(paid.total_ms) and ceiling.share <= 1 + 1e-9
            assert ceiling.passes_ms > -1e-6 and ceiling.over_ms > -1e-6 and ceiling.under_ms > -1e-6


# ---- live ------------------------------------------------------------------------------------------------------------


def setup_of(spec: Spec, model: torch.nn.Module, stop_ids: Sequence[int]) -> Setup:
    """What a run gives: a model for the last part."""
    return Setup(stop_ids, {"block_size": 8, "small_block_size": 4}, lm=CachedLM(model), mask_id=MASK_ID)


def with_chains(trace: Trace, spec: Spec, setup: Setup) -> Trace:
    """What recording adds for a hybrid's last part."""
    last = spec.parts[-1]
    text = Text([*trace.prompt_ids, *trace.output_tokens], len(trace.prompt_ids), trace.num_prefixes)
    record = (ar if last.role is ar.AR_DRAFTER else block_diffusion).FAMILY.record
    made = record(Recording(setup, text, 16), {last.chains_name: 32})
    chains = Chains.pack(last.chains_name, last.chain_settings(setup), 32, made[last.chains_name])
    return dataclasses.replace(trace, chains={chains.name: chains})


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_texts_are_plain_decodings_and_live_rounds_are_the_replayed_ones(architecture: str, one_thread: None) -> None:
    """40 prompts with 0 differences to plain decoding, each setting on one of them; 25 of them replayed for a start."""
    model, rng = toy_model(architecture, 1, scale=4.0), random.Random(architecture)
    lm, drafting, by_first = CachedLM(model), perturbed(model, 2, 0.3), {"first": 0, "last": 0}
    for number in range(40):
        trace = plain_trace(lm, [rng.randrange(12) for _ in range(rng.randint(2, 30))], 14)
        spec = SETTINGS[number % len(SETTINGS)]
        setup = setup_of(spec, drafting, sorted(trace.stop_ids))
        live = rounds_of(lm, spec.drafter(setup), trace)
        by_first["first"] += sum(turn.draft_len > 0 and turn.num_forward_passes == 0 for turn in live)
        by_first["last"] += sum(turn.num_forward_passes > 0 for turn in live)
        if architecture == "qwen2" and number < len(SETTINGS):
            assert_same(live, blank(replay(with_chains(trace, spec, setup), spec).rounds))
    assert min(by_first.values()) > 20


@pytest.mark.slow
def test_run_recorded_replayed_priced_and_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way of a user: by name, greedy and sampled; a replay is the live run."""
    name = Hybrid("lookup_3_sf_10", "dllm_0.5_df_0.45_20_10").name
    drafters = ["--drafters", "plain", name]
    where = ["--num_questions", "1", "--max_new_tokens", "32", "--device", "cpu", *drafters]
    assert failfast.main([*where, "--record", "--output_dir", str(tmp_path / "traced")]) == 0
    (path,) = find_traces(tmp_path / "traced")
    assert set(load_trace(path).chains) == {"lookup_3", "dllm_0.5"}
    replayed = [*drafters, "--output_dir", str(tmp_path / "replayed"), "--workers", "1"]
    assert replay_command.main([str(tmp_path / "traced"), *replayed]) == 0
    assert failfast.main([*where, "--output_dir", str(tmp_path / "live")]) == 0
    live, again = (
        {one.drafter_name: one for one in map(load_record, find_records(tmp_path / folder))}
        for folder in ("live", "replayed")
    )
    assert set(live) == {"plain", name} == set(again)
    assert_same(blank(live[name].rounds), blank(again[name].rounds))
    assert live[name].output_text == live["plain"].output_text
    assert dataclasses.replace(again[name].identity, origin="live") == live[name].identity
    assert failfast.main([*where, "--temperature", "0.7", "--output_dir", str(tmp_path / "sampled")]) == 0
    assert failfast.main([*where, "--read_pickle", "--output_dir", str(tmp_path / "live")]) == 0
    capsys.readouterr()
    assert rank.main([str(tmp_path / "replayed"), "--trace_dir", str(tmp_path / "traced")]) == 0
    shown = capsys.readouterr().out
    assert "prompt lookup 3" in shown and "ceiling" in shown.lower()


def test_a_hybrid_looks_for_the_model_of_its_last_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit status 2."""
    where = ["--ar_model_name", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path), "--device", "cpu"]
    assert failfast.main([*where, "--drafters", Hybrid("suffix_64", ArStatic(4).name).name]) == 2
    error = capsys.readouterr().err
    assert "nowhere" in error and error.count("\n") == 1
