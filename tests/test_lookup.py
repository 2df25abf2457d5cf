"""Prompt lookup: drafts, rounds and texts, live, recorded and replayed, beside the search that its definition says."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from live import plain_answer
from made_up import STOP_ID, made_up_trace

from specdec.commands import rank, report
from specdec.commands import replay as replay_command
from specdec.commands import run as failfast
from specdec.config import RunConfig
from specdec.drafters.base import Setup
from specdec.drafters.families import kinds, parse_name
from specdec.drafters.lookup import Index, Lookup, LookupDrafter
from specdec.latency.pricing import Pricing, price
from specdec.latency.profile import load_profile
from specdec.models.tokens import encode_prompt
from specdec.questions.sets import load_problems
from specdec.ranking.oracle import TraceJudges
from specdec.records.record import find_records, load_record
from specdec.session import Session, open_session
from specdec.traces.replay import replay
from specdec.traces.trace import load_trace, save_trace, trace_path

pytestmark = pytest.mark.slow
BUDGET = 96
BOUND = load_profile("vLLM_A6000")


def searched(prefix: Sequence[int], match_len: int, draft_len: int) -> list[int]:
    """What the definition says: the last M tokens, then fewer down to 1; the newest place first; up to K tokens."""
    for size in range(match_len, 0, -1):
        wanted = list(prefix[-size:])
        for begin in range(len(prefix) - size - 1, -1, -1):
            if len(wanted) == size and list(prefix[begin : begin + size]) == wanted:
                return list(prefix[begin + size : begin + size + draft_len])
    return []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 9), st.integers(0, 12))
def test_drafts_are_what_a_search_finds(text: list[int], match_len: int, draft_len: int, budget: int) -> None:
    """One drafter along all prefixes of a text, as in decoding."""
    drafter = LookupDrafter(Lookup(match_len, draft_len), ())
    for end in range(1, len(text) + 1):
        draft = drafter.propose(text[:end], budget)
        assert draft.tokens == searched(text[:end], match_len, min(draft_len, budget))
        assert draft.passes.total == 0 and draft.confidences == []
        assert draft.stop_reason == ("length" if draft.tokens else "none")


def test_another_text_is_read_anew_and_a_draft_ends_with_a_stop_token() -> None:
    index = Index(2)
    assert index.following([7, 1, 2, 9, 1, 2]) == [9, 1, 2]
    assert index.following([1, 2]) == [] and index.following([3, 9, 3]) == [9, 3]
    drafter = LookupDrafter(Lookup(2, 8), {9})
    assert drafter.propose([5, 9, 4, 5], 8).tokens == [9]
    assert drafter.propose([5, 9, 4, 5], 8).stop_reason == "stop_token"
    drafter.reset()
    assert drafter.propose([5], 8).tokens == []


def test_names_and_flags() -> None:
    assert parse_name("lookup_3_sf_8") == Lookup(3, 8) and kinds()["lookup"] is Lookup
    config = RunConfig.of(drafters=("lookup",), match_len=(2, 3), draft_len=(4, 8))
    assert [spec.name for spec in config.drafters.specs()] == [
        f"lookup_{match}_sf_{length}" for match in (2, 3) for length in (4, 8)
    ]
    assert Lookup(3, 10) in RunConfig.of().drafters.specs()


@pytest.mark.parametrize("seed", range(6))
def test_replays_need_no_chains_and_nothing_beats_the_ceiling(seed: int) -> None:
    """Also of a trace that was recorded before there was such a drafter."""
    trace = made_up_trace(seed, num_tokens=60, chain_len=24, vocab_size=3, max_new_tokens=60 + seed % 2)
    judges = TraceJudges(trace, Pricing((BOUND,), "Qwen2.5-7B-Instruct"))
    for spec in (Lookup(3, 8), Lookup(1, 2), Lookup(4, 20)):
        record = replay(trace, spec)
        assert record.output_tokens == trace.output_tokens and record.num_forward_passes == 0
        assert STOP_ID not in [token for turn in record.rounds for token in turn.draft_tokens[:-1]]
        (ceiling,) = judges.ceilings(record).values()
        total_ms = price(record, BOUND, "Qwen2.5-7B-Instruct").total_ms
        assert ceiling.total_ms == pytest.approx(total_ms) and ceiling.share <= 1 + 1e-9
        assert min(ceiling.over_ms, ceiling.under_ms, ceiling.passes_ms) > -1e-6


@pytest.fixture(scope="module")
def session(one_thread: None) -> Session:
    config = RunConfig.of(device="cpu", max_new_tokens=BUDGET, drafters=("plain", "lookup", "ar_sf"))
    return open_session(config)


@pytest.fixture(scope="module")
def prompts(session: Session) -> list[list[int]]:
    problems = load_problems("bundled", question_ids=[0, 2, 13])
    return [encode_prompt(session.tokenizer, problem.prompt) for problem in problems]


def test_the_text_is_plain_decodings_and_tokens_are_accepted(session: Session, prompts: list[list[int]]) -> None:
    accepted = 0
    for prompt_ids in prompts:
        expected = plain_answer(session, prompt_ids, BUDGET)
        for spec in (Lookup(3, 8), Lookup(1, 3)):
            rounds = session.decode(spec, prompt_ids)
            assert [token for turn in rounds for token in turn.emitted_tokens] == expected
            accepted += sum(turn.accepted_len for turn in rounds)
    assert accepted > 10


def test_hugging_faces_prompt_lookup_writes_the_same_texts(session: Session, prompts: list[list[int]]) -> None:
    """It takes the oldest place, and drafts less near the end: its rounds differ, its text must not."""
    from transformers import GenerationConfig

    model, stops = session.target().lm.model, sorted(session.stop_ids)
    settings = GenerationConfig(max_new_tokens=BUDGET, do_sample=False, eos_token_id=stops, pad_token_id=stops[0])
    for prompt_ids in prompts:
        ids = torch.tensor([prompt_ids])
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            prompt_lookup_num_tokens=8,
            max_matching_ngram_size=3,
        )
        rounds = session.decode(Lookup(3, 8), prompt_ids)
        ours = [token for turn in rounds for token in turn.emitted_tokens]
        assert found[0, len(prompt_ids) :].tolist() == ours


def test_live_recorded_replayed_priced_ranked_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way of a user: record, replay, run live, rank both, write the report."""
    where = ["--num_questions", "2", "--max_new_tokens", "32", "--device", "cpu", "--drafters", "plain", "lookup"]
    assert failfast.main([*where, "--record", "--output_dir", str(tmp_path / "traced")]) == 0
    replayed = ["--drafters", "plain", "lookup", "--output_dir", str(tmp_path / "replayed"), "--workers", "1"]
    assert replay_command.main([str(tmp_path / "traced"), *replayed]) == 0
    assert failfast.main([*where, "--output_dir", str(tmp_path / "live"), "--figures"]) == 0
    live, again = (
        {(one.question_id, one.drafter_name): one for one in map(load_record, find_records(tmp_path / folder))}
        for folder in ("live", "replayed")
    )
    assert set(live) == set(again) and {name for _, name in live} == {"plain", "lookup_3_sf_10"}
    for key, record in live.items():
        blank = {"draft_ms": 0.0, "verify_ms": 0.0}
        ours, theirs = ([dataclasses.replace(turn, **blank) for turn in one.rounds] for one in (record, again[key]))
        assert ours == theirs and record.output_text == again[key].output_text
    capsys.readouterr()
    assert rank.main([str(tmp_path / "replayed"), "--trace_dir", str(tmp_path / "traced"), "--wide"]) == 0
    shown = capsys.readouterr().out
    assert "lookup_3_sf_10" in shown and "Of the ceiling" in shown
    assert report.main([str(tmp_path / "live"), "--out", str(tmp_path / "report.html")]) == 0
    assert "prompt lookup" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_recorded_chains_are_what_would_be_drafted(tmp_path: Path) -> None:
    place = ["--output_dir", str(tmp_path), "--device", "cpu", "--num_questions", "1", "--max_new_tokens", "32"]
    assert failfast.main([*place, "--record", "--drafters", "plain", "lookup", "--spec_len", "4", "8"]) == 0
    (path,) = tmp_path.rglob("*.npz")
    trace = load_trace(path)
    assert set(trace.chains) == {"lookup_3"}
    chains = trace.chains["lookup_3"]
    assert chains.chain_len == 8 and not chains.has_blocks
    text, rng = trace.prompt_ids + trace.output_tokens, random.Random(0)
    for at in rng.sample(range(chains.num_prefixes), 10):
        assert chains.chains[at].tokens == searched(text[: len(trace.prompt_ids) + at], 3, 8)
    setup = Setup(trace.stop_ids)
    assert Lookup(3, 8).replayed(trace, setup).propose(text[: len(trace.prompt_ids) + 3], 5).passes.total == 0
    save_trace(dataclasses.replace(trace, chains={}), trace_path(tmp_path / "old", trace.identity))
    assert Lookup(3, 4).derived_chains(trace).num_prefixes == trace.num_prefixes
