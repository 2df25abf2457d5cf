"""Recording: one question's trace, made by the models of a session: the target's text, then every drafter's chains.

The drafter families make the chains (`drafters/`), `traces/trace.py` the file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from specdec.decoding.chains import Chains, Text
from specdec.decoding.offers import Offers, packed
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target, Verification, count_accepted
from specdec.drafters.base import Recordable, Recording, Spec
from specdec.drafters.families import families, kinds
from specdec.drafters.plain import PLAIN, NoDrafter, Plain
from specdec.models.checkpoints import TARGET
from specdec.models.heads import HeadRole
from specdec.models.lm import CachedLM, most_probable
from specdec.questions.sets import Problem
from specdec.records.identity import Identity, prompt_sha256
from specdec.records.provenance import num_cores, provenance
from specdec.runs.jobs import fitting_prompt
from specdec.runs.side_by_side import side_by_side
from specdec.session import Session
from specdec.traces.trace import Trace, load_matching, num_prefixes, trace_path

TRAJECTORY_DRAFT = 8
KNOWN_DRAFT = 32  # tokens of a text that is known already, but for the gaps


@dataclass(frozen=True)
class TraceJob:
    """One question to record; `missing`: chains that `stored`, its trace so far, lacks: name -> tokens."""

    problem: Problem
    prompt_ids: list[int] = field(repr=False)
    identity: Identity = field(repr=False)
    path: Path
    stored: Trace | None = field(repr=False)
    missing: dict[str, int]

    @property
    def is_needed(self) -> bool:
        return self.stored is None or bool(self.missing)


def plan_traces(session: Session, problems: Sequence[Problem]) -> list[TraceJob]:
    """A job per question. Raises UserError, before any weight is loaded, for a trace made with other settings, and for
    a drafter that the models have no room for."""
    for spec in session.specs:
        spec.check_context(session.options, session.context_len)
    config, wanted, specs = session.config, wanted_chains(session), chain_specs(session)
    identities = {name: session.chains_identity(spec) for name, spec in specs.items()}
    settings, jobs = session.results_identity(Plain()), []
    for problem in problems:
        prompt_ids = fitting_prompt(session, problem)
        where = problem.dataset, problem.question_id, PLAIN, prompt_sha256(prompt_ids)
        identity = config.identity(*where, settings)
        path = trace_path(config.output.output_dir, identity)
        stored = None if config.output.overwrite else load_matching(path, identity)
        has = {} if stored is None else _sizes(stored, identities)
        missing = {name: length for name, length in wanted.items() if has.get(name, -1) < length}
        jobs.append(TraceJob(problem, prompt_ids, identity, path, stored, missing))
    return jobs


def _sizes(stored: Trace, identities: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """How long the chains of a trace are, and how large its offers, that are of these drafters."""
    sizes = {name: (chains.identity, chains.chain_len) for name, chains in stored.chains.items()}
    sizes |= {name: (offers.identity, offers.size) for name, offers in stored.offers.items()}
    return {name: size for name, (identity, size) in sizes.items() if identity == identities.get(name)}


def next_traces(session: Session, job: TraceJob, answer: str) -> list[TraceJob]:
    """The job of the turn after `job`, which was answered by `answer`. Raises TooLong."""
    problem = job.problem.following(answer)
    return [] if problem is None else plan_traces(session, [problem])


def chain_specs(session: Session) -> dict[str, Spec]:
    """A drafter of the run for each chain that it needs, by the chain's name."""
    return {part.chains_name: part for part in drafting_parts(session) if part.chains_name is not None}


def drafting_parts(session: Session) -> list[Spec]:
    """What the drafters of the run draft with."""
    return [part for spec in session.specs for part in spec.parts]


def wanted_chains(session: Session) -> dict[str, int]:
    """The chains that the asked drafters need, and how long: name -> tokens (--chain_len at least); and of what they
    make trees of, how large it is."""
    least = session.config.recording.chain_len or 0
    wanted = {name: 0 if spec.is_tree else least for name, spec in chain_specs(session).items()}
    for spec in drafting_parts(session):
        if spec.chains_name is not None:
            wanted[spec.chains_name] = max(wanted[spec.chains_name], spec.chain_len(session.options))
    return wanted


def record_trace(session: Session, job: TraceJob, check_stop: Callable[[], None], known: Sequence[int] = ()) -> Trace:
    """The job's trace with all that was missing; nothing is saved. `check_stop` may raise, between passes of the
    target and between drafters. `known`: what the target is expected to write, where somebody knows; it is verified."""
    old = job.stored
    output_tokens, gaps = (old.output_tokens, old.gaps) if old else _trajectory(session, job, check_stop, known)
    count = num_prefixes(len(output_tokens), session.config.decoding.max_new_tokens)
    text = Text(job.prompt_ids + output_tokens, len(job.prompt_ids), count)
    check_stop()
    made = record_chains(session, text, job.missing)
    return Trace(
        identity=job.identity,
        provenance=provenance(session.device),
        raw_data=job.problem.row,
        prompt_ids=job.prompt_ids,
        output_tokens=output_tokens,
        gaps=gaps,
        output_text=session.text_of(output_tokens, skip_special=True),
        chains={**(old.chains if old else {}), **{one.name: one for one in made if isinstance(one, Chains)}},
        offers={**(old.offers if old else {}), **{one.name: one for one in made if isinstance(one, Offers)}},
    )


def record_chains(session: Session, text: Text, missing: Mapping[str, int]) -> list[Chains | Offers]:
    """The missing chains and offers along a text, those of a family together, for they may share passes. Nothing is
    timed here, so that networks which share nothing run side by side, where a pass takes one thread of a CPU."""
    specs = chain_specs(session)
    lanes: dict[str, list[Callable[[], Mapping[str, Sequence[Recordable]]]]] = {}
    for family in families():
        own = {name: length for name, length in missing.items() if isinstance(specs[name], family.specs)}
        if own and family.record is not None:
            spec = specs[next(iter(own))]
            setup = session.setup(spec, lm=session.model_of(spec))
            recording = Recording(setup, text, session.config.recording.record_batch, session.features_of)
            lanes.setdefault(_shared(spec), []).append(partial(family.record, recording, own))
    calls = [partial(_in_turn, lane) for lane in lanes.values()]
    found = side_by_side(calls, partial(torch.set_num_threads, 1), _num_lanes(session))
    chains = {name: one for made in found for name, one in made.items()}
    return [packed(name, session.chains_identity(specs[name]), missing[name], one) for name, one in chains.items()]


def _in_turn(calls: Sequence[Callable[[], Mapping[str, Sequence[Recordable]]]]) -> dict[str, Sequence[Recordable]]:
    return {name: chains for call in calls for name, chains in call().items()}


def _shared(spec: Spec) -> str:
    """What a family runs that others may run as well: its network; heads run the target besides."""
    if spec.role is None:
        return spec.kind
    return TARGET.title if isinstance(spec.role, HeadRole) else spec.role.title


def _num_lanes(session: Session) -> int:
    """How many networks may run at a time: a second one helps only if the first leaves a core idle."""
    return num_cores() if session.device.type == "cpu" and session.num_threads == 1 else 1


def _trajectory(
    session: Session, job: TraceJob, check_stop: Callable[[], None], known: Sequence[int]
) -> tuple[list[int], list[float]]:
    """The target's greedy text, drafted by what is known of it or by whichever drafter is at hand (it changes the time
    only), and the gap between the best and the second logit at each of its tokens."""
    target = WatchedTarget(session.target().lm)
    drafter = KnownText([*job.prompt_ids, *known]) if known else None
    rounds = session.decode(_helper(session), job.prompt_ids, target=target, drafter=drafter, check_stop=check_stop)
    output_tokens = [token for turn in rounds for token in turn.emitted_tokens]
    return output_tokens, target.gaps[: len(output_tokens)]


class KnownText(NoDrafter):
    """Drafts a text as far as the target follows it."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        end = len(prefix_ids)
        is_followed = self.ids[:end] == list(prefix_ids)
        return Draft(self.ids[end : end + min(budget, KNOWN_DRAFT)] if is_followed else [])


class WatchedTarget(Target):
    """A target whose gaps between the best and the second logit are noted, at each token that it lets pass or adds.

    It looks at the logits of every verification, which a target that only verifies leaves on the device.
    """

    def __init__(self, lm: CachedLM) -> None:
        super().__init__(lm)
        self.gaps: list[float] = []

    def start(self, prompt_ids: Sequence[int], taps: Sequence[int] = ()) -> torch.Tensor | None:
        """Nothing is timed here: a prompt that was just run is not run again. One that shares only its beginning with
        what was is run whole: rounding, and with it a near tie, must not depend on what ran before."""
        *head, last_token = prompt_ids
        if taps or self.lm.reuse(head) < len(head):
            return super().start(prompt_ids, taps)
        self.taps, self._last_token = (), last_token
        return None

    def _judge(self, tokens: list[int], draft: Draft) -> Verification:
        logits_LV = self.lm.forward(tokens, taps=self.taps)
        best_L2 = logits_LV.float().topk(2).values
        greedy, _ = self.lm.on_host(most_probable(logits_LV))
        accepted_len = count_accepted(draft.tokens, greedy)
        self.gaps += (best_L2[:, 0] - best_L2[:, 1]).tolist()[: accepted_len + 1]
        return Verification(range(accepted_len), greedy[accepted_len])


def _helper(session: Session) -> Spec:
    """A static drafter whose model the run has; else plain decoding."""
    has_model = [kind for kind in kinds().values() if kind.is_static_baseline and kind.role in session.sources]
    return has_model[0].sweep({"draft_len": (TRAJECTORY_DRAFT,)})[0] if has_model else Plain()
