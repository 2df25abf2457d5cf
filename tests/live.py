"""Live: a target's plain text as a trace, and the rounds of a drafter over that target, comparable with replayed ones.

Not tests; those of model-free drafters, of hybrids and of heads use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from toys import TOO_CLOSE, next_of_each

from specdec.decoding.loop import Drafter, speculate
from specdec.decoding.target import Target
from specdec.drafters.base import Spec
from specdec.drafters.plain import NoDrafter
from specdec.models.lm import CachedLM
from specdec.questions.sets import load_problems
from specdec.records.identity import LIVE, Identity
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.runs.jobs import Job, run_job
from specdec.runs.recording import plan_traces, record_trace
from specdec.session import Session
from specdec.traces.trace import Trace, load_trace, save_trace

QUESTION = 1  # of the bundled ones: what prompts of toys are asked under


def plain_trace(lm: CachedLM, prompt_ids: Sequence[int], max_new_tokens: int, stop_ids: Sequence[int] = ()) -> Trace:
    """What a target writes after a prompt by itself, without any chain."""
    known = {"prompt_sha256": "", "stop_ids": sorted(stop_ids)}
    identity = Identity("toy", "toys", 0, "plain", max_new_tokens, known)
    empty = Trace(identity, {}, {}, list(prompt_ids), [], [], "", {})
    text = [token for turn in decoded(lm, NoDrafter(), empty) for token in turn.emitted_tokens]
    return replace(empty, output_tokens=text, gaps=[1.0] * len(text))


def plain_answer(session: Session, prompt_ids: Sequence[int], max_new_tokens: int) -> list[int]:
    """What a run's target writes greedily, which one uncached forward of its raw model says once more."""
    target, stop_ids = session.target(), session.stop_ids
    rounds = speculate(target, NoDrafter(), prompt_ids, max_new_tokens=max_new_tokens, stop_ids=stop_ids)
    answer = [token for turn in rounds for token in turn.emitted_tokens]
    says, gap = next_of_each(target.lm.model, prompt_ids, answer)
    assert says == answer and not stop_ids & set(answer[:-1])
    assert answer[-1] in stop_ids or len(answer) == max_new_tokens
    assert gap > TOO_CLOSE, "a tie: choose another question"
    return answer


def decoded(lm: CachedLM, drafter: Drafter, trace: Trace) -> list[Round]:
    """A drafter's rounds on the question of a trace."""
    how = {"max_new_tokens": trace.identity.max_new_tokens, "stop_ids": trace.stop_ids}
    return speculate(Target(lm), drafter, trace.prompt_ids, **how)


def rounds_of(lm: CachedLM, drafter: Drafter, trace: Trace) -> list[Round]:
    """The same without what no replay has; the text must be the trace's."""
    rounds = decoded(lm, drafter, trace)
    assert [token for turn in rounds for token in turn.emitted_tokens] == trace.output_tokens
    return blank(rounds)


def blank(rounds: Sequence[Round]) -> list[Round]:
    """Without times, and without what the target says of tokens that it rejects."""
    return [replace(turn, draft_ms=0.0, verify_ms=0.0, cpu_ms=None, target_tokens=None) for turn in rounds]


def assert_same(live: Sequence[Round], replayed: Sequence[Round]) -> None:
    """Confidences to rounding, for a recorded pass runs many rows at once; everything else exactly."""
    without = [[replace(turn, confidences=[]) for turn in rounds] for rounds in (live, replayed)]
    assert without[0] == without[1]
    for ours, theirs in zip(live, replayed, strict=True):
        assert ours.confidences == pytest.approx(theirs.confidences, abs=5e-5, rel=0)


def recorded(session: Session, prompts: Iterable[Sequence[int]], folder: Path) -> list[Trace]:
    """A trace per prompt, each through its file."""
    (job,), made = plan_traces(session, load_problems("bundled", question_ids=[QUESTION])), []
    for index, prompt in enumerate(prompts):
        job = replace(job, prompt_ids=list(prompt), path=folder / f"{index}.npz")
        save_trace(record_trace(session, job, lambda: None), job.path)
        made.append(load_trace(job.path))
    return made


def run_live(session: Session, trace: Trace, spec: Spec) -> Record:
    """A drafter's record on the question of a trace of `recorded`."""
    (problem,) = load_problems("bundled", question_ids=[QUESTION])
    identity = trace.identity.of_drafter(spec.name, session.results_identity(spec), LIVE)
    return run_job(session, Job(problem, trace.prompt_ids, spec, identity, Path("unused"), None), lambda: None)


def assert_replays(replayed: Record, live: Record, close: float) -> None:
    """All but times, and what the target says of tokens that it rejects; confidences are as `close`, everything else
    equal."""
    assert replace(replayed.identity, origin=LIVE) == live.identity
    assert len(replayed.rounds) == len(live.rounds)
    for ours, theirs in zip(replayed.rounds, live.rounds, strict=True):
        assert ours.confidences == pytest.approx(theirs.confidences, abs=close, rel=0)
    same = [[replace(turn, confidences=[]) for turn in blank(record.rounds)] for record in (replayed, live)]
    assert same[0] == same[1]
