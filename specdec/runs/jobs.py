"""Jobs: one question under one drafter each, with where its record goes and what must match to reuse it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from specdec.config import RunConfig
from specdec.decoding.loop import speculate
from specdec.drafters.specs import DrafterSpec
from specdec.errors import UserError
from specdec.models.checkpoints import DLLM_DRAFTER
from specdec.models.lm import device_clock
from specdec.models.tokens import encode_prompt
from specdec.questions.sets import Problem
from specdec.records.identity import IDENTITY_KEYS, identity_difference, prompt_sha256, question_identity
from specdec.records.provenance import provenance
from specdec.records.record import Record, load_finished, record_path
from specdec.session import Session
from specdec.traces.recorded import RecordedTarget
from specdec.traces.trace import Trace, load_trace, trace_path


@dataclass(frozen=True)
class Job:
    """One question and one drafter; `done` is its finished record, if there is one, `trace` what to verify against
    instead of the target."""

    problem: Problem
    prompt_ids: list[int] = field(repr=False)
    spec: DrafterSpec
    identity: dict[str, object] = field(repr=False)
    path: Path
    done: Record | None = field(repr=False)
    trace: Trace | None = field(default=None, repr=False)


def plan_jobs(session: Session, problems: Sequence[Problem]) -> list[Job]:
    """Every question under every drafter, question by question.

    Raises UserError, before any weight is loaded, for a prompt that does not fit the context and
    for a stored record that was made with other settings.
    """
    if DLLM_DRAFTER in session.sources and session.config.block_size > session.context_len:
        raise UserError(f"--block_size {session.config.block_size}: the models hold {session.context_len} positions")
    prompts = [fitting_prompt(session, problem) for problem in problems]
    by_spec = {spec: session.results_identity(spec) for spec in session.config.drafter_specs}
    return [
        _plan_job(session.config, (problem, prompt_ids), spec, settings)
        for problem, prompt_ids in zip(problems, prompts, strict=True)
        for spec, settings in by_spec.items()
    ]


def _plan_job(
    config: RunConfig, question: tuple[Problem, list[int]], spec: DrafterSpec, settings: dict[str, object]
) -> Job:
    problem, prompt_ids = question
    identity = question_identity(config, problem, prompt_sha256(prompt_ids), spec.name) | settings
    trace = None
    if config.verify == "trace":
        trace = _trace_to_verify_with(config, identity)
        identity["target_sha256"] = trace.identity["target_sha256"]
    path = record_path(config.output_dir, *(identity[key] for key in IDENTITY_KEYS))
    starts_afresh = config.overwrite or config.dry_run
    done = None if starts_afresh else load_finished(path, identity)
    return Job(problem, prompt_ids, spec, identity, path, done, trace)


def _trace_to_verify_with(config: RunConfig, identity: dict[str, object]) -> Trace:
    """The question's trace. Raises UserError if there is none, or its text answers another prompt or stops otherwise.

    Device and dtype may differ: the target's text is taken as recorded, the drafts are made here.
    """
    path = trace_path(config.trace_dir or config.output_dir, identity)
    if not path.exists():
        raise UserError(f"there is no trace {path}: record it with --record, or give its results folder as --trace_dir")
    trace = load_trace(path)
    keys = ("target", "dataset", "question_id", "max_new_tokens", "prompt_sha256", "stop_ids", "decoding")
    stored, asked = ({key: known.get(key) for key in keys} for known in (trace.identity, identity))
    difference = identity_difference(stored, asked)
    if difference is not None:
        raise UserError(f"{path} was recorded with other settings ({difference}): record it again")
    return trace


def finished(job: Job, config: RunConfig) -> Record | None:
    """The job's finished record, also if another process has written it since the job was planned; None without one.

    Raises UserError for one made with other settings.
    """
    return job.done if job.done is not None or config.overwrite else load_finished(job.path, job.identity)


def run_job(session: Session, job: Job, check_stop: Callable[[], None]) -> Record:
    """Decode one question; the record is returned, not saved. `check_stop` may raise, between the calls of a round."""
    sampler = session.sampler(job.problem.dataset, job.problem.question_id, job.spec)
    target = session.target(sampler) if job.trace is None else RecordedTarget(job.trace)
    drafter = session.drafter(job.spec, sampler)

    def clock() -> float:
        check_stop()
        return device_clock(session.device)

    rounds = speculate(
        target,
        drafter,
        job.prompt_ids,
        max_new_tokens=session.config.max_new_tokens,
        stop_ids=session.stop_ids,
        clock=clock,
    )
    if job.trace is not None:
        rounds = [replace(turn, verify_ms=0.0) for turn in rounds]  # a look into a trace is not a measurement
    output_tokens = [token for turn in rounds for token in turn.emitted_tokens]
    return Record(
        identity=job.identity,
        provenance=provenance(session.device),
        prompt_ids=job.prompt_ids,
        raw_data=job.problem.row,
        question_id=job.problem.question_id,
        drafter_name=job.spec.name,
        output_text=session.tokenizer.decode(output_tokens, skip_special_tokens=True),
        prefill_ms=target.prefill_ms,
        rounds=rounds,
    )


def describe_plan(session: Session, jobs: Sequence[Job]) -> str:
    """What a run would do: configurations, rounds at most, and an estimate of the memory it needs."""
    budget = session.config.max_new_tokens
    by_drafter = Counter(job.spec.name for job in jobs if session.config.overwrite or not job.path.exists())
    lines = [f"{name}: {count} questions, at most {count * budget} rounds" for name, count in by_drafter.items()]
    lines.append(f"to run: {by_drafter.total()} of {len(jobs)}; the others have a record (settings not compared)")
    num_positions = max(len(job.prompt_ids) for job in jobs) + budget
    memory = session.memory_bytes(num_positions)
    for title, (weights, cache) in memory.items():
        lines.append(f"{title}: {_size(weights)} of weights, {_size(cache)} of KV cache at {num_positions} tokens")
    total = sum(weights + cache for weights, cache in memory.values())
    lines.append(f"memory on {session.device}: about {_size(total)} and what the activations need")
    return "\n".join(lines)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"


def fitting_prompt(session: Session, problem: Problem) -> list[int]:
    """The question's prompt ids. Raises UserError where prompt and budget exceed the models' context."""
    prompt_ids = encode_prompt(session.tokenizer, problem.prompt)
    if not prompt_ids:
        raise UserError(f"question {problem.question_id} has no token: check the chat template")
    asked = len(prompt_ids) + session.config.max_new_tokens
    if asked > session.context_len:
        raise UserError(
            f"question {problem.question_id} needs {len(prompt_ids)} prompt + {session.config.max_new_tokens} new "
            f"tokens, but the models hold {session.context_len}: lower --max_new_tokens or leave it out "
            "with --question_ids"
        )
    return prompt_ids