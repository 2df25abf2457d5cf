"""Recorder: one question's trace, made by the models of a session: the target's text, then every drafter's chains.

`record_ar.py` and `record_dllm.py` make the chains, `trace.py` the file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from specdec.decoding.chains import AR, Chain, Chains
from specdec.decoding.loop import speculate
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target, Verdict
from specdec.drafters.live import denoising
from specdec.drafters.record_ar import Text, record_ar
from specdec.drafters.record_dllm import DllmRecorder
from specdec.drafters.specs import ArStatic, DllmStatic, DrafterSpec, FailFast, Plain
from specdec.models.checkpoints import AR_DRAFTER, DLLM_DRAFTER
from specdec.models.lm import CachedLM, most_probable, unpacked
from specdec.models.pages import PagedLM
from specdec.questions.sets import Problem
from specdec.records.identity import prompt_sha256, question_identity
from specdec.records.provenance import provenance
from specdec.runs.jobs import fitting_prompt
from specdec.session import Session
from specdec.traces.trace import Trace, chains_name, load_matching, num_prefixes, trace_path

TRAJECTORY_DRAFT = 8


@dataclass(frozen=True)
class TraceJob:
    """One question to record; `missing`: chains that `stored`, its trace so far, lacks: name -> tokens."""

    problem: Problem
    prompt_ids: list[int] = field(repr=False)
    identity: dict[str, object] = field(repr=False)
    path: Path
    stored: Trace | None = field(repr=False)
    missing: dict[str, int]


def plan_traces(session: Session, problems: Sequence[Problem]) -> list[TraceJob]:
    """A job per question. Raises UserError, before any weight is loaded, for a trace made with other settings."""
    config, wanted = session.config, wanted_chains(session)
    settings = session.results_identity(Plain())
    jobs = []
    for problem in problems:
        prompt_ids = fitting_prompt(session, problem)
        identity = question_identity(config, problem, prompt_sha256(prompt_ids), Plain().name) | settings
        path = trace_path(config.output_dir, identity)
        stored = None if config.overwrite else load_matching(path, identity)
        missing = {name: length for name, length in wanted.items() if not _has(stored, session, name, length)}
        jobs.append(TraceJob(problem, prompt_ids, identity, path, stored, missing))
    return jobs


def _has(stored: Trace | None, session: Session, name: str, length: int) -> bool:
    """Whether a trace has chains of that length, made by the session's drafter."""
    chains = stored.chains.get(name) if stored is not None else None
    return chains is not None and chains.chain_len >= length and chains.identity == _chains_identity(session, name)


def wanted_chains(session: Session) -> dict[str, int]:
    """The chains that the asked drafters need, and how long: name -> tokens (--chain_len at least)."""
    config, wanted = session.config, {}
    for spec in config.drafter_specs:
        name = chains_name(spec)
        if name is not None:
            length = needed_len(spec, config.block_size)
            wanted[name] = max(wanted.get(name, 0), length, config.chain_len or 0)
    return wanted


def needed_len(spec: DrafterSpec, block_size: int) -> int:
    """How long a chain must be for every draft of `spec`: for FailFast in general N_max + N.

    With an N below the sub-block the passes may run further ahead of the window than that.
    """
    if isinstance(spec, ArStatic | DllmStatic):
        return spec.draft_len
    if not isinstance(spec, FailFast) or spec.rule == "strict":
        return spec.max_draft_len
    size = spec.first_window
    # A window grows while fewer than N_max confidences are recorded; the first token of a block has none.
    while size < spec.max_draft_len + 1 + size // block_size:
        size += spec.draft_step
    return size


def record_trace(session: Session, job: TraceJob, check_stop: Callable[[], None]) -> Trace:
    """The job's trace with all that was missing; nothing is saved. `check_stop` may raise, between passes of the
    target and between drafters."""
    if job.stored is None:
        output_tokens, gaps = _trajectory(session, job, check_stop)
    else:
        output_tokens, gaps = job.stored.output_tokens, job.stored.gaps
    count = num_prefixes(len(output_tokens), session.config.max_new_tokens)
    text = Text(job.prompt_ids + output_tokens, len(job.prompt_ids), count)
    check_stop()
    made = dict(job.stored.chains) if job.stored is not None else {}
    for name, chains in _record_chains(session, text, job.missing).items():
        length, identity = job.missing[name], _chains_identity(session, name)
        made[name] = Chains.pack(name, identity, length, chains)
    return Trace(
        identity=job.identity,
        provenance=provenance(session.device),
        raw_data=job.problem.row,
        prompt_ids=job.prompt_ids,
        output_tokens=output_tokens,
        gaps=gaps,
        output_text=session.tokenizer.decode(output_tokens, skip_special_tokens=True),
        chains=made,
    )


def _record_chains(session: Session, text: Text, missing: dict[str, int]) -> dict[str, list[Chain]]:
    config, made = session.config, {}
    if AR in missing:
        lm = session.drafter(ArStatic(1)).lm
        made[AR] = record_ar(PagedLM(lm, 1), text, missing[AR], session.stop_ids, config.record_batch)
    thresholds = {float(name.removeprefix("dllm_")): name for name in missing if name != AR}
    if thresholds:
        lm, settings = session.drafter(DllmStatic(0.0, 1)).lm, session.block_settings
        recorder = DllmRecorder(PagedLM(lm, settings.block_size), text, config.record_batch)
        lengths = {threshold: missing[name] for threshold, name in thresholds.items()}
        recorded = recorder.record(lengths, denoising(0.0, settings))
        made |= {thresholds[threshold]: chains for threshold, chains in recorded.items()}
    return made


def _chains_identity(session: Session, name: str) -> dict[str, object]:
    """What decides a drafter's chains beside the text: of the identity of its records, what is not the target's, the
    stop rule's or the cache's."""
    spec = ArStatic(1) if name == AR else DllmStatic(float(name.removeprefix("dllm_")), 1)
    not_ours = {*session.results_identity(Plain()), *(f.name for f in fields(spec)), "reuse_drafter_kvs"}
    return {key: value for key, value in session.results_identity(spec).items() if key not in not_ours}


def _trajectory(session: Session, job: TraceJob, check_stop: Callable[[], None]) -> tuple[list[int], list[float]]:
    """The target's greedy text, drafted by whichever drafter is at hand (it changes the time only), and the gap
    between the best and the second logit at each of its tokens."""
    target = WatchedTarget(session.target().lm)

    def clock() -> float:
        check_stop()
        return 0.0

    rounds = speculate(
        target,
        session.drafter(_helper(session)),
        job.prompt_ids,
        max_new_tokens=session.config.max_new_tokens,
        stop_ids=session.stop_ids,
        clock=clock,
    )
    output_tokens = [token for turn in rounds for token in turn.emitted_tokens]
    return output_tokens, target.gaps[: len(output_tokens)]


class WatchedTarget(Target):
    """A target whose gaps between the best and the second logit are noted, at each token that it lets pass or adds.

    It looks at the logits of every verification, which a target that only verifies leaves on the device.
    """

    def __init__(self, lm: CachedLM) -> None:
        super().__init__(lm)
        self.gaps: list[float] = []
        self._last_gaps: list[float] = []

    def start(self, prompt_ids: Sequence[int]) -> None:
        super().start(prompt_ids)
        self.gaps = []

    def verify(self, draft: Draft) -> Verdict:
        verdict = super().verify(draft)
        self.gaps += self._last_gaps[: verdict.accepted_len + 1]
        return verdict

    def _greedy(self, tokens: list[int]) -> list[int]:
        logits_LV = self.lm.forward(tokens)
        best_L2 = logits_LV.float().topk(2).values
        self._last_gaps = (best_L2[:, 0] - best_L2[:, 1]).tolist()
        return unpacked(most_probable(logits_LV))[0]


def _helper(session: Session) -> DrafterSpec:
    if AR_DRAFTER in session.sources:
        return ArStatic(TRAJECTORY_DRAFT)
    return DllmStatic(0.05, TRAJECTORY_DRAFT) if DLLM_DRAFTER in session.sources else Plain()
