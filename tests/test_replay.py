"""Replay equals live, round by round, on the bundled family: the promise of traces."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from specdec.config import RunConfig
from specdec.drafters.ar import ArDynamic, ArStatic
from specdec.drafters.base import Spec
from specdec.drafters.block_diffusion import DllmStatic, FailFast
from specdec.drafters.plain import Plain
from specdec.errors import UserError
from specdec.questions.sets import load_problems
from specdec.records.identity import LIVE, REPLAY
from specdec.records.record import Record
from specdec.runs.jobs import Job, run_job
from specdec.runs.recording import WatchedTarget, plan_traces, record_trace
from specdec.session import Session, open_session
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, load_trace, save_trace

pytestmark = pytest.mark.slow
BUDGET = 34  # from 31 tokens on, two ends of a block of 32 are passed
AR = [*map(ArStatic, (1, 3, 8, 16)), ArDynamic(0.4, 20, 5), ArDynamic(0.7, 24, 1), ArDynamic(0.0, 12, 4)]
STATIC = [
    *(DllmStatic(0.05, length) for length in (1, 2, 5, 8, 13, 32, 40)),
    *(DllmStatic(0.5, length) for length in (4, 8, 20)),
    *(DllmStatic(0.5, length) for length in (1, 2, 13)),
]
RULES = ("published", "strict")
FAILFAST = [
    *(FailFast(0.05, tau, 60, 10, rule=rule) for tau in (0.0, 0.05, 0.2, 0.45, 0.6, 0.9, 1.0) for rule in RULES),
    *(FailFast(0.05, 0.3, longest, 10, rule=rule) for longest in (1, 10, 20, 45) for rule in RULES),
    *(FailFast(0.5, 0.4, 30, 8, first_window=first, rule=rule) for first in (3, 12) for rule in RULES),
]
SPECS: list[Spec] = [Plain(), *AR, *STATIC, *FAILFAST]


@pytest.fixture(scope="module")
def sessions(one_thread: None) -> dict[tuple[bool, bool], Session]:
    """By (KV reuse, draft reuse). All share their models; what is asked for decides on what is recorded."""
    made = {
        (kvs, drafts): open_session(
            RunConfig.of(
                device="cpu",
                max_new_tokens=BUDGET,
                draft_len=(40,),
                unmask_threshold=(0.05, 0.5),
                max_draft_len=(60,),
                disable_reusing_drafter_kvs=not kvs,
                reuse_drafts=drafts,
            )
        )
        for kvs in (True, False)
        for drafts in (True, False)
    }
    first = next(iter(made.values()))
    for session in made.values():
        session.models = first.models
    return made


@pytest.fixture(scope="module")
def traces(sessions: dict[tuple[bool, bool], Session], tmp_path_factory: pytest.TempPathFactory) -> list[Trace]:
    """Prompts that end in, at and after a block's end, and a whole one to its stop token; each through its file."""
    session, folder = sessions[True, False], tmp_path_factory.mktemp("traces")
    made = []
    for index, (question_id, prompt_len) in enumerate([(2, 31), (2, 32), (2, 33), (1, None)]):
        (job,) = plan_traces(session, load_problems("bundled", question_ids=[question_id]))
        job = dataclasses.replace(job, prompt_ids=job.prompt_ids[:prompt_len], path=folder / f"{index}.npz")
        save_trace(record_trace(session, job, lambda: None), job.path)
        made.append(load_trace(job.path))
    return made


def run_live(session: Session, trace: Trace, spec: Spec) -> Record:
    (problem,) = load_problems("bundled", question_ids=[trace.question_id])
    identity = trace.identity.of_drafter(spec.name, session.results_identity(spec), LIVE)
    return run_job(session, Job(problem, trace.prompt_ids, spec, identity, Path("unused"), None), lambda: None)


def assert_same_record(replayed: Record, live: Record) -> None:
    """All but times, provenance and where it is from; confidences to rounding, everything else exactly."""
    assert (replayed.identity.origin, live.identity.origin) == (REPLAY, LIVE)
    assert dataclasses.replace(replayed.identity, origin=LIVE) == live.identity
    assert (replayed.prompt_ids, replayed.raw_data, replayed.output_text) == (
        live.prompt_ids,
        live.raw_data,
        live.output_text,
    )
    assert len(replayed.rounds) == len(live.rounds)
    for ours, theirs in zip(replayed.rounds, live.rounds, strict=True):
        assert ours.confidences == pytest.approx(theirs.confidences, abs=1e-5, rel=0)
        # What the target says after the first rejected token no trace holds: a replay says nothing of it.
        row = ours.to_builtins(0)["target_tokens"]
        assert row == theirs.to_builtins(0)["target_tokens"][: len(row)]
        blank = {"confidences": [], "draft_ms": 0.0, "verify_ms": 0.0}
        assert dataclasses.replace(ours, **blank) == dataclasses.replace(theirs, **blank)


def test_replay_equals_live_for_every_setting(sessions: dict[tuple[bool, bool], Session], traces: list[Trace]) -> None:
    """Each on a prompt, the prompts and the four kinds of bookkeeping between rounds in turn."""
    assert len(set(SPECS)) >= 40
    reasons = set()
    for index, spec in enumerate(SPECS):
        trace, (reuse_kvs, reuse_drafts) = traces[index % 4], list(sessions)[index // 4 % 4]
        live = run_live(sessions[reuse_kvs, reuse_drafts], trace, spec)
        options = {"reuse_drafts": reuse_drafts, "disable_reusing_drafter_kvs": not reuse_kvs}
        replayed = replay(trace, spec, options)
        assert_same_record(replayed, live)
        Record.from_builtins(replayed.to_builtins())
        reasons |= {turn.stop_reason for turn in live.rounds}
    assert reasons == {"length", "low_confidence", "max_len", "none", "stop_token"}


def test_the_text_is_the_targets_own_and_the_gaps_are_its_logits(traces: list[Trace]) -> None:
    for trace in traces:
        assert replay(trace, Plain()).output_tokens == trace.output_tokens
        assert len(trace.gaps) == len(trace.output_tokens) and min(trace.gaps) > 0
        assert trace.num_prefixes == min(len(trace.output_tokens), BUDGET - 1)


def test_what_is_known_of_a_text_changes_nothing_of_its_trace(
    sessions: dict[tuple[bool, bool], Session], traces: list[Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known whole, in part, and wrongly; whole, it is verified by few passes."""
    session, trace, passes = sessions[True, False], traces[2], []
    verify = WatchedTarget.verify
    monkeypatch.setattr(WatchedTarget, "verify", lambda self, draft: passes.append(1) or verify(self, draft))
    (job,) = plan_traces(session, load_problems("bundled", question_ids=[trace.question_id]))
    job = dataclasses.replace(job, prompt_ids=trace.prompt_ids, missing={})
    text = trace.output_tokens
    for known, most in ((text, 1 + len(text) // 33), (text[:9], len(text)), ([text[0], text[0], *text], len(text))):
        passes.clear()
        made = record_trace(session, job, lambda: None, known)
        assert made.output_tokens == text and len(passes) <= most
        assert made.gaps == pytest.approx(trace.gaps, abs=1e-4)


def test_what_was_not_recorded_is_named(traces: list[Trace]) -> None:
    with pytest.raises(UserError, match=r"dllm_0.07.*ar, dllm_0.05.*--record"):
        replay(traces[0], DllmStatic(0.07, 8))
    lengths = {chains.name: chains.chain_len for chains in traces[0].chains.values()}
    with pytest.raises(UserError, match=f"{lengths['dllm_0.5']} tokens long.*--chain_len"):
        replay(traces[0], FailFast(0.5, 0.0, 200, 50))
    with pytest.raises(UserError, match=f"{lengths['ar']} tokens long.*--chain_len"):
        short = dataclasses.replace(traces[0].chains["ar"].chains[0], tokens=[], confidences=[])
        traces[0].chains["ar"].chains[0] = short
        replay(traces[0], ArStatic(3))
