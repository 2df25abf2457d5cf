"""Jobs: one question under one drafter each, with where its record goes and what must match to reuse it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from specdec.config import RunConfig
from specdec.decoding.cost_aware import learning_of
from specdec.drafters.base import Spec
from specdec.drafters.earlier import NOTHING, Earlier
from specdec.drafters.flags import Options
from specdec.errors import UserError
from specdec.models.graph.plans import MAX_NODES
from specdec.questions.sets import Problem
from specdec.records.identity import Identity, first_difference, prompt_sha256
from specdec.records.places import load_finished
from specdec.records.provenance import load_now, num_cores, provenance
from specdec.records.record import Record, identity_path
from specdec.session import Session
from specdec.traces.replay import RecordedTarget
from specdec.traces.trace import Trace, load_trace, trace_path


@dataclass(frozen=True)
class Job:
    """One question and one drafter; `done` is its finished record, if there is one, `trace` what to verify against
    instead of the target."""

    problem: Problem
    prompt_ids: list[int] = field(repr=False)
    spec: Spec
    identity: Identity = field(repr=False)
    path: Path
    done: Record | None = field(repr=False)
    trace: Trace | None = field(default=None, repr=False)
    earlier: Earlier = NOTHING


def plan_jobs(
    session: Session, problems: Sequence[Problem], before: Callable[[Problem], Earlier] = lambda problem: NOTHING
) -> list[Job]:
    """Every question under every drafter, question by question. `before`: what was asked before a question.

    Raises UserError, before any weight is loaded, for a prompt that does not fit the context and
    for a stored record that was made with other settings.
    """
    for spec in session.specs:
        check_room(spec, session.options, session.context_len)
    prompts = [fitting_prompt(session, problem) for problem in problems]
    by_spec = {spec: session.results_identity(spec) for spec in session.specs}
    jobs = [
        _plan_job(session.config, (problem, prompt_ids), spec, settings, before)
        for problem, prompt_ids in zip(problems, prompts, strict=True)
        for spec, settings in by_spec.items()
    ]
    for job in jobs:
        if job.done is None:  # what is finished may be of before, when passes had more room
            check_pass(job.spec, session.backend)
        if job.trace is not None:
            session.require_readable(job.trace.output_tokens, f"the trace of question {job.problem.question_id}")
    return jobs


def check_room(spec: Spec, options: Options, context_len: int) -> None:
    """Raise UserError for a drafter that models of `context_len` positions have no room for. `options`: what its
    model's config.json states, and flags."""
    spec.check_context(options, context_len)
    _require_room(spec, "the models' context", context_len - 1, "ask for fewer")


def check_pass(spec: Spec, backend: str) -> None:
    """The same of a pass of the backend, eager or graph."""
    if backend == "graph":
        _require_room(spec, "a pass of the graph backend", MAX_NODES, "ask for fewer, or add --engine eager")


def _require_room(spec: Spec, what: str, room: int, advice: str) -> None:
    if spec.most_nodes > room:
        raise UserError(f"{spec.name} verifies trees of {spec.most_nodes} tokens, and {what} takes {room}: {advice}")


def _plan_job(
    config: RunConfig,
    question: tuple[Problem, list[int]],
    spec: Spec,
    settings: Mapping[str, Any],
    before: Callable[[Problem], Earlier],
) -> Job:
    problem, prompt_ids = question
    earlier = before(problem) if spec.reads_earlier else NOTHING
    settings = {**settings, **(earlier.settings if spec.reads_earlier else {})}
    where = problem.dataset, problem.question_id, spec.name, prompt_sha256(prompt_ids)
    identity, trace = config.identity(*where, settings), None
    if config.decoding.verify == "trace":
        trace = _trace_to_verify_with(config, identity)
        identity = config.identity(*where, {**settings, "target_sha256": trace.identity.settings["target_sha256"]})
    path = identity_path(config.output.output_dir, identity)
    starts_afresh = config.output.overwrite or config.output.dry_run
    done = None if starts_afresh else load_finished(path, identity)
    return Job(problem, prompt_ids, spec, identity, path, done, trace, earlier)


def _trace_to_verify_with(config: RunConfig, identity: Identity) -> Trace:
    """The question's trace. Raises UserError if there is none, or its text answers another prompt or stops otherwise.

    Device and dtype may differ: the target's text is taken as recorded, the drafts are made here.
    """
    path = trace_path(config.decoding.trace_dir or config.output.output_dir, identity)
    if not path.exists():
        raise UserError(
            f"there is no trace {path}: record it with failfast.py --record, or give its results folder as --trace_dir"
        )
    trace = load_trace(path)
    keys = (
        "target",
        "dataset",
        "question_id",
        "max_new_tokens",
        "prompt_style",
        "thinking",
        "prompt_sha256",
        "stop_ids",
        "decoding",
    )
    known = [one.to_builtins() for one in (trace.identity, identity)]
    difference = first_difference(*({key: one.get(key) for key in keys} for one in known))
    if difference is not None:
        raise UserError(f"{path} was recorded with other settings ({difference}): record it again")
    return trace


def next_jobs(session: Session, job: Job, answer: str) -> list[Job]:
    """The jobs of the turn after `job`, whose answer all its drafters get to see. Raises TooLong."""
    problem = job.problem.following(answer)
    return [] if problem is None else plan_jobs(session, [problem])


def finished(job: Job, config: RunConfig) -> Record | None:
    """The job's finished record, also if another process has written it since the job was planned; None without one.

    Raises UserError for one made with other settings.
    """
    return job.done if job.done is not None or config.output.overwrite else load_finished(job.path, job.identity)


def run_job(session: Session, job: Job, check_stop: Callable[[], None]) -> Record:
    """Decode one question; the record is returned, not saved. `check_stop` may raise, between the calls of a round."""
    sampler = session.sampler(job.problem.dataset, job.problem.question_id, job.spec)
    target = session.target(sampler) if job.trace is None else RecordedTarget(job.trace)
    load = load_now()
    rounds = session.decode(
        job.spec, job.prompt_ids, sampler=sampler, target=target, earlier=job.earlier, check_stop=check_stop
    )
    if job.trace is not None:
        rounds = [
            replace(turn, verify_ms=0.0, cpu_ms=None) for turn in rounds
        ]  # a look into a trace is not a measurement
    machine = {"machine": {"load": [load, load_now()], "num_cores": num_cores()}, "backend": session.backend_title}
    output_tokens = [token for turn in rounds for token in turn.emitted_tokens]
    return Record(
        identity=job.identity,
        provenance=provenance(session.device) | machine | learning_of(session.setup(job.spec).advice, job.identity),
        prompt_ids=job.prompt_ids,
        raw_data=job.problem.row,
        output_text=session.text_of(output_tokens, skip_special=True),
        prefill_ms=target.prefill_ms,
        rounds=rounds,
    )


class TooLong(UserError):
    """Prompt and budget exceed the models' context. `reason`: without advice."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: lower --max_new_tokens or leave it out with --question_ids")
        self.reason = reason


def fitting_prompt(session: Session, problem: Problem) -> list[int]:
    """The question's prompt ids. Raises TooLong where prompt and budget exceed the models' context, and UserError, with
    the file and line of a question of one's own, where the chat template fails."""
    try:
        prompt_ids = session.encode(problem.messages, problem.title)
    except UserError as error:
        raise UserError(f"{problem.place}: {error}" if problem.place else str(error)) from error
    budget = session.config.decoding.max_new_tokens
    asked = len(prompt_ids) + budget
    if asked > session.context_len:
        raise TooLong(
            f"{problem.title} needs {len(prompt_ids)} prompt + {budget} new tokens, "
            f"but the models hold {session.context_len}"
        )
    return prompt_ids


def fitting(session: Session, problems: Sequence[Problem]) -> tuple[list[Problem], dict[int, str]]:
    """(the questions that fit the models' context, why each of the others does not, by its number).

    Raises UserError before any weight is loaded: TooLong where none fits, and what else is wrong with a prompt.
    """
    fit: list[Problem] = []
    unfit: dict[int, TooLong] = {}
    for problem in problems:
        try:
            for turn in problem.turns:
                fitting_prompt(session, turn)
            fit.append(problem)
        except TooLong as error:
            unfit[problem.question_id] = error
    if not fit:
        raise next(iter(unfit.values()))
    return fit, {number: error.reason for number, error in unfit.items()}
