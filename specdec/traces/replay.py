"""Replayed: what a live run would have recorded, from a trace alone: any drafter, any setting, no model and no torch.

One record at a time; `replay.py` runs grids of them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from specdec.decoding.cost_aware import Advice
from specdec.decoding.loop import speculate
from specdec.drafters.specs import CostAware, DrafterSpec, FailFast, Plain
from specdec.records.record import Record
from specdec.traces.recorded import RecordedTarget, recorded_drafter
from specdec.traces.trace import Trace


def replay(
    trace: Trace,
    spec: DrafterSpec,
    *,
    reuse_kvs: bool = True,
    reuse_drafts: bool = False,
    advice: Advice | None = None,
) -> Record:
    """The record of a live run of `spec` on the trace's question; its times are zero, for nothing was measured.

    `reuse_kvs`, `reuse_drafts`, `advice`: as for a live dLLM drafter. Raises UserError if the trace lacks the
    drafter's chains or holds too short ones.
    """
    rounds = speculate(
        RecordedTarget(trace),
        recorded_drafter(trace, spec, reuse_kvs=reuse_kvs, reuse_drafts=reuse_drafts, advice=advice),
        trace.prompt_ids,
        max_new_tokens=trace.identity["max_new_tokens"],
        stop_ids=trace.stop_ids,
        clock=_no_time,
    )
    kept = {"reuse_drafter_kvs": reuse_kvs, "reuse_drafts": reuse_drafts}
    if advice is not None:
        kept["advice_sha256"] = advice.digest
    return Record(
        identity=record_identity(trace, spec, kept),
        provenance=trace.provenance | {"replayed": datetime.now(UTC).isoformat(timespec="seconds")},
        prompt_ids=trace.prompt_ids,
        raw_data=trace.raw_data,
        question_id=trace.question_id,
        drafter_name=spec.name,
        output_text=trace.output_text,
        prefill_ms=0.0,
        rounds=rounds,
    )


def record_identity(trace: Trace, spec: DrafterSpec, kept: dict[str, Any]) -> dict[str, Any]:
    """The identity of the live run that a replay stands for: they have the same results. `kept`: settings of the
    drafter's bookkeeping, of which those count that its kind has."""
    identity = trace.identity | {"drafter": spec.name} | vars(spec)
    if isinstance(spec, Plain):
        return identity
    chains = trace.chains_of(spec)
    counts = set() if chains.is_ar else {"reuse_drafter_kvs"}
    counts |= {FailFast: {"reuse_drafts"}, CostAware: {"advice_sha256"}}.get(type(spec), set())
    return identity | chains.identity | {key: value for key, value in kept.items() if key in counts}


def _no_time() -> float:
    return 0.0
