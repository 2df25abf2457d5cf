"""Replay: what a live run would have recorded, from a trace alone: any drafter, any setting, no model and no torch.

One record at a time; `commands/replay.py` runs grids of them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import MappingProxyType

from specdec.decoding.cost_aware import Advice, RoundCosts, learning_of
from specdec.decoding.loop import speculate
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Verification, count_accepted
from specdec.decoding.trees import walk_text
from specdec.drafters.base import Setup, Spec
from specdec.drafters.earlier import NOTHING, Earlier
from specdec.drafters.flags import Options
from specdec.errors import UserError
from specdec.records.identity import REPLAY
from specdec.records.record import Record
from specdec.traces.trace import Trace


class RecordedTarget:
    """Verifies drafts against a recorded text. Asks no model, takes no time to speak of."""

    prefill_ms = 0.0

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._num_emitted = 0

    def start(self, prompt_ids: Sequence[int], taps: Sequence[int] = ()) -> None:
        """Raises UserError for another prompt than the trace's, and where taps are asked for: it holds none."""
        if taps:
            raise UserError("a trace holds no hidden states of its target: verify by the target itself")
        if list(prompt_ids) != self.trace.prompt_ids:
            raise UserError(f"the trace of question {self.trace.question_id} has another prompt: record it again")
        self._num_emitted = 0

    def verify(self, draft: Draft) -> Verification:
        begin, text = self._num_emitted, self.trace.output_tokens
        path = accepted_text(draft, text[begin : begin + len(draft.tokens)])
        # After the text's end the bonus is cut off by the loop, whatever it is.
        next_token = text[min(begin + len(path), len(text) - 1)]
        self._num_emitted = begin + len(path) + 1
        return Verification(path, next_token)


def accepted_text(draft: Draft, text: Sequence[int]) -> Sequence[int]:
    """What a target keeps of a draft whose own text goes on so."""
    if draft.parents is None:
        return range(count_accepted(draft.tokens, text))
    return walk_text(draft.tokens, draft.parents, text)


def replay(
    trace: Trace,
    spec: Spec,
    options: Options = MappingProxyType({}),
    advice: Advice | None = None,
    earlier: Earlier = NOTHING,
    costs: RoundCosts | None = None,
) -> Record:
    """The record of a live run of `spec` on the trace's question; its times are zero, for nothing was measured.

    `options`, `advice`, `earlier`, `costs`: as for a live drafter. Raises UserError if the trace lacks the drafter's
    chains or holds too short ones.
    """
    setup = Setup(trace.stop_ids, options, advice=advice, earlier=earlier, costs=costs)
    rounds = speculate(
        RecordedTarget(trace),
        spec.replayed(trace, setup),
        trace.prompt_ids,
        max_new_tokens=trace.identity.max_new_tokens,
        stop_ids=trace.stop_ids,
        clock=lambda: 0.0,
    )
    recorded = trace.recorded_of(spec)
    settings = {} if recorded is None else recorded.identity
    settings = {**vars(spec), **settings, **spec.kept_settings(setup)}
    settings |= earlier.settings if spec.reads_earlier else {}
    identity = trace.identity.of_drafter(spec.name, settings, REPLAY)
    learnt = learning_of(advice, identity)
    return Record(
        identity=identity,
        provenance=trace.provenance | {"replayed": datetime.now(UTC).isoformat(timespec="seconds")} | learnt,
        prompt_ids=trace.prompt_ids,
        raw_data=trace.raw_data,
        output_text=trace.output_text,
        prefill_ms=0.0,
        rounds=rounds,
    )
