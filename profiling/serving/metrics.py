"""Metrics: what a server says of its own speculative decoding. It fetches nothing (`chat.py` does).

The text is Prometheus', read by prometheus_client. vLLM counts drafts, drafted and accepted tokens, also per position
(`vllm:spec_decode_num_...`). SGLang has no counters, but two gauges over its last interval of steps,
`sglang:spec_accept_length` (tokens per verification, the bonus included) and `sglang:spec_accept_rate`; counts are
derived from them and marked so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from specdec.errors import UserError

YES, NO, UNKNOWN = "yes", "no", "unknown"  # whether a server speculates: no is a thing that it says
DEFINITION = "tokens emitted per round, bonus included: tokens after the prompt's pass / decode steps"
SERVER_DEFINITION = "1 + accepted / drafts, as vLLM's log says it"
_VLLM = "vllm:spec_decode_num_"
_GENERATED = ("vllm:generation_tokens", "sglang:generation_tokens")
# A histogram that vLLM fills once a decode step of a request, by its name now and before version 0.11.
_STEPS = ("vllm:inter_token_latency_seconds_count", "vllm:time_per_output_token_seconds_count")


@dataclass(frozen=True)
class Counters:
    """vLLM's counters of speculation. A draft is counted where something was proposed; `per_position`: how many drafts
    were accepted up to each position, the first first, one for every position that there is."""

    num_drafts: int
    num_drafted: int
    num_accepted: int
    per_position: tuple[int, ...] = ()

    def since(self, before: Counters) -> Counters:
        """What was counted after `before`."""
        pairs = zip_longest(self.per_position, before.per_position, fillvalue=0)
        return Counters(
            self.num_drafts - before.num_drafts,
            self.num_drafted - before.num_drafted,
            self.num_accepted - before.num_accepted,
            tuple(now - then for now, then in pairs),
        )

    @property
    def is_possible(self) -> bool:
        """Whether a difference is of one run of the server: it was not started anew in between."""
        return self.num_drafts >= 0 and 0 <= self.num_accepted <= self.num_drafted


@dataclass(frozen=True)
class Speculation:
    """Counts over some rounds. A round is a decode step, with a draft or without; `num_emitted`: the tokens of the
    answers that came of rounds, all but the prompt's pass's. The others are the server's own: what it accepted after an
    answer's end is in `num_accepted`, and `accepted_per_position` is empty where it does not say."""

    num_rounds: int
    num_emitted: int
    num_drafts: int
    num_drafted: int
    num_accepted: int
    accepted_per_position: tuple[int, ...] = ()
    is_derived: bool = False

    @property
    def acceptance_len(self) -> float:
        """See DEFINITION. `Speculation(10, 25, 9, 30, 15).acceptance_len == 2.5`."""
        return self.num_emitted / self.num_rounds

    @property
    def acceptance_rate(self) -> float | None:
        return self.num_accepted / self.num_drafted if self.num_drafted else None

    @property
    def counts(self) -> dict[str, Any]:
        return asdict(self) | {"accepted_per_position": list(self.accepted_per_position)}


@dataclass(frozen=True)
class Metrics:
    """One reading of a server's metrics: totals since its start, and SGLang's gauges; None: it does not say.

    `denies`: the page says that nothing speculates. vLLM has its counters of it only where it does (its source,
    `SpecDecodingProm`), so a page with its tokens and without them says so; SGLang's gauge is 0 where it does not.
    """

    num_generated: int | None
    counters: Counters | None = None
    num_steps: int | None = None
    accept_len: float | None = None
    accept_rate: float | None = None
    denies: bool = False


def read_metrics(text: str) -> Metrics:
    """What a page tells of speculation, over all engines. UserError for another format, or counts that are none."""
    samples = parse_metrics(text)
    is_counted = any(sample.name.startswith(_VLLM) for sample in samples)
    accept_len = mean_of(samples, "sglang:spec_accept_length")
    try:
        return Metrics(
            num_generated=_first_count(samples, _GENERATED),
            counters=_vllm_counters(samples),
            num_steps=_first_count(samples, _STEPS),
            accept_len=accept_len,
            accept_rate=mean_of(samples, "sglang:spec_accept_rate"),
            denies=accept_len == 0 or (not is_counted and sum_of(samples, _GENERATED[0]) is not None),
        )
    except (ValueError, OverflowError) as error:
        raise UserError(f"the server's metrics hold a count that is not a number ({error})") from error


def parse_metrics(text: str) -> list[Sample]:
    """All samples of a page: `parse_metrics('a{b="c"} 3')[0][:3] == ("a", {"b": "c"}, 3.0)`. Raises UserError."""
    try:
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except Exception as error:  # of foreign text; what the parser raises is not documented
        raise UserError(f"the server's metrics are not in Prometheus' text format ({error or 'no sample'})") from error


def sum_of(samples: Sequence[Sample], name: str) -> float | None:
    """The sum of a counter over all its labels, with or without its "_total"; None if it is not there."""
    values = [sample.value for sample in samples if sample.name in (name, f"{name}_total")]
    return sum(values) if values else None


def mean_of(samples: Sequence[Sample], name: str) -> float | None:
    """The mean of a gauge over all its labels; None if it is not there."""
    values = [sample.value for sample in samples if sample.name == name]
    return sum(values) / len(values) if values else None


def _count(samples: Sequence[Sample], name: str) -> int | None:
    """`sum_of`, whole. Raises ValueError or OverflowError for what is not a number."""
    value = sum_of(samples, name)
    return None if value is None else round(value)


def _first_count(samples: Sequence[Sample], names: Sequence[str]) -> int | None:
    """`_count` of the first of `names` that is there."""
    return next((count for name in names if (count := _count(samples, name)) is not None), None)


def _vllm_counters(samples: Sequence[Sample]) -> Counters | None:
    names = ("drafts", "draft_tokens", "accepted_tokens")
    drafts, drafted, accepted = (_count(samples, _VLLM + name) for name in names)
    if drafts is None or drafted is None or accepted is None:
        return None
    positions: dict[int, float] = {}
    for sample in samples:
        if sample.name.removesuffix("_total") == f"{_VLLM}accepted_tokens_per_pos" and "position" in sample.labels:
            position = int(sample.labels["position"])
            positions[position] = positions.get(position, 0.0) + sample.value
    per_position = tuple(round(positions[position]) for position in sorted(positions))
    return Counters(drafts, drafted, accepted, per_position)


def between(before: Metrics, after: Metrics, num_emitted: int) -> Speculation | None:
    """The speculation by the readings on either side of answers, of which `num_emitted` tokens came of rounds; None:
    there was none. Counters are subtracted. Gauges tell a mean, so that the counts which give it are derived."""
    if before.counters is not None and after.counters is not None:
        new = after.counters.since(before.counters)
        if num_emitted < 1 or num_new(before, after) <= 0 or not new.is_possible:
            return None
        rounds = _num_rounds(before, after, new, num_emitted)
        return Speculation(rounds, num_emitted, new.num_drafts, new.num_drafted, new.num_accepted, new.per_position)
    if not after.accept_len or after.accept_len < 1:
        return None
    num_rounds = max(1, round(num_emitted / after.accept_len))
    num_accepted = max(0, num_emitted - num_rounds)
    num_drafted = round(num_accepted / after.accept_rate) if after.accept_rate else 0
    return Speculation(num_rounds, num_emitted, num_rounds, num_drafted, num_accepted, is_derived=True)


def _num_rounds(before: Metrics, after: Metrics, new: Counters, num_emitted: int) -> int:
    """Decode steps: by the server's histogram, where it counts what steps can be, else as few as the counters allow.

    A step emits one token beside those that it accepts, and what is accepted after the end is not emitted: so there are
    at least `num_emitted - num_accepted` steps, and as many as drafts.
    """
    least = max(new.num_drafts, num_emitted - new.num_accepted)
    if before.num_steps is None or after.num_steps is None:
        return least
    steps = after.num_steps - before.num_steps
    return steps if least <= steps <= num_emitted else least


def speculates(before: Metrics | None, after: Metrics | None) -> str:
    """Whether a server speculates, YES, NO or UNKNOWN, by readings before and after answers that it gave.

    Metrics that are missing, stand still, began anew or change their kind in between say neither.
    """
    if before is None or after is None or num_new(before, after) <= 0:
        return UNKNOWN
    if before.counters is not None and after.counters is not None:
        drafts = after.counters.num_drafts - before.counters.num_drafts
        return UNKNOWN if drafts < 0 else YES if drafts else NO
    if before.denies and after.denies:
        return NO
    return YES if (after.accept_len or 0) >= 1 else UNKNOWN


def num_new(before: Metrics, after: Metrics) -> float:
    """Tokens generated between two readings; without a counter of them, as many as anyone may wait for."""
    if before.num_generated is None or after.num_generated is None:
        return float("inf")
    return after.num_generated - before.num_generated


def is_alone(before: Metrics, after: Metrics, num_tokens: int) -> bool:
    """Whether the tokens between two readings are those of the answers, `num_tokens`, and of nobody else."""
    return abs(num_new(before, after) - num_tokens) <= max(2, 0.02 * num_tokens)


def total(parts: Sequence[Speculation]) -> dict[str, Any] | None:
    """All rounds together, with the acceptance length, its definition, the server's own, and the rate; None where no
    round of `parts` drafted."""
    num_drafts = sum(part.num_drafts for part in parts)
    if not num_drafts:
        return None
    columns = zip_longest(*(part.accepted_per_position for part in parts), fillvalue=0)
    whole = Speculation(
        sum(part.num_rounds for part in parts),
        sum(part.num_emitted for part in parts),
        num_drafts,
        sum(part.num_drafted for part in parts),
        sum(part.num_accepted for part in parts),
        tuple(map(sum, columns)),
        any(part.is_derived for part in parts),
    )
    return {
        **whole.counts,
        "acceptance_len": whole.acceptance_len,
        "acceptance_len_is": DEFINITION,
        "server_acceptance_len": 1 + whole.num_accepted / num_drafts,
        "server_acceptance_len_is": SERVER_DEFINITION,
        "acceptance_rate": whole.acceptance_rate,
    }
