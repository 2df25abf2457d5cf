"""Drafter variants: what a recorded drafter would have written under a mistake that servers make with heads.

Its models run along the recorded texts again, once a mistake. What follows from that for a server's counts is
`ranking/reconcile.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from specdec.config import RunConfig
from specdec.decoding.chains import Chains, Text
from specdec.drafters.base import Spec
from specdec.errors import UserError
from specdec.ranking.conventions import Written
from specdec.runs.recording import record_chains
from specdec.session import Session, open_session
from specdec.traces.trace import Trace

IGNORES_MAP = "its vocabulary map (d2t) is ignored"
ONE_NORM = "the context's keys of all layers go by the first layer's norm, as in vLLM 0.32 on a CPU"


def variants_of(config: RunConfig, spec: Spec, traces: Sequence[Trace], length: int) -> dict[str, dict[int, Written]]:
    """By mistake, the answers of the traces with chains of `length` tokens that the drafter writes under it; {} for a
    drafter that is not a head. Raises UserError where its models are not those that were recorded."""
    session = open_session(config)
    _require_recorded(session, spec, traces)
    network = session.model_of(spec)
    found: dict[str, dict[int, Written]] = {}
    for name, mistaken in _mistakes(session, network):
        with mistaken:
            found[name] = {one.question_id: _written(session, spec, one, length) for one in traces}
    return found


def _require_recorded(session: Session, spec: Spec, traces: Sequence[Trace]) -> None:
    own = session.results_identity(spec), session.chains_identity(spec)
    for trace in traces:
        stored = trace.identity.settings.get("target_sha256"), trace.chains_of(spec).identity
        if stored != (own[0].get("target_sha256"), own[1]):
            raise UserError(
                f"--with_models: the trace of question {trace.question_id} was recorded with other models than those "
                "given: give the target and the drafter of that run"
            )


def _mistakes(session: Session, network: Any) -> Iterator[tuple[str, Any]]:
    """Each mistake and a context in which `network` makes it."""
    taps = tuple(getattr(network, "taps", ()))
    count = session.target().lm.model.config.num_hidden_layers
    for step, words in ((-1, "lower"), (1, "higher")):
        moved = tuple(tap + step for tap in taps)
        if taps and min(moved) >= 0 and max(moved) < count:
            yield f"taps one layer {words}: {list(moved)}, where ours are {list(taps)}", _with(network, "taps", moved)
    if (norms := getattr(network, "context_norms", ())) and len(norms) > 1:
        yield ONE_NORM, _with(network, "context_norms", (0,) * len(norms))
    if getattr(getattr(network, "head", None), "has_own_words", False):
        yield IGNORES_MAP, _without_map(network)


@contextmanager
def _with(network: Any, name: str, changed: tuple[int, ...]) -> Iterator[None]:
    before = getattr(network, name)
    setattr(network, name, changed)
    try:
        yield
    finally:
        setattr(network, name, before)


@contextmanager
def _without_map(network: Any) -> Iterator[None]:
    network.ignore_map(True)
    try:
        yield
    finally:
        network.ignore_map(False)


def _written(session: Session, spec: Spec, trace: Trace, length: int) -> Written:
    """The trace's answer, with what the drafter as it is now writes after each of its tokens."""
    text = Text([*trace.prompt_ids, *trace.output_tokens], len(trace.prompt_ids), trace.num_prefixes)
    (chains,) = record_chains(session, text, {str(spec.chains_name): length})
    assert isinstance(chains, Chains)  # of a draft in a row: `_require_recorded` found it in the trace
    drafts = [chain.tokens for chain in chains.chains]
    return Written(trace.output_tokens, drafts, trace.stop_ids, trace.identity.max_new_tokens)
