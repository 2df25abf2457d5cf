"""Records of counts alone: rounds of which only [drafted, accepted, drafter passes] are known, with made-up tokens.

What a simulation of many requests needs of a record, and no more. `summarise_records.py` keeps such counts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from specdec.ranking.source import Source
from specdec.records.identity import Identity
from specdec.records.record import Record
from specdec.records.rounds import Round

TOKEN, OTHER = 5, 6
Counts = Sequence[int]  # drafted, accepted, drafter passes


def record_of(identity: Identity, rounds: Sequence[Counts], num_output_tokens: int, prompt_len: int) -> Record:
    """The record whose output has so many tokens: its last round may end inside its accepted draft."""
    turns, place = [], 0
    for drafted, accepted, passes in rounds:
        turns.append(_round(prompt_len + place, drafted, accepted, passes, place + accepted < num_output_tokens))
        place += accepted + (turns[-1].next_token is not None)
    return Record(identity, {}, [TOKEN] * prompt_len, {}, "", 0.0, turns)


def _round(place: int, drafted: int, accepted: int, passes: int, has_next: bool) -> Round:
    return Round(
        prefix_len=place,
        draft_tokens=[TOKEN] * drafted,
        confidences=[],
        num_prefill_passes=0,
        num_denoise_passes=passes,
        num_commit_passes=0,
        stop_reason="",
        accepted_len=accepted,
        next_token=OTHER if has_next else None,
        draft_ms=0.0,
        verify_ms=0.0,
    )


def records_of_summary(summary: Mapping[str, Any], prompt_len: int) -> Iterator[Record]:
    """The records of a summary of one target; no prompts are in it, so that each gets one of `prompt_len` tokens."""
    target = Source.from_builtins(summary["ranking"]["sources"][0]).target
    for one in summary["records"]:
        budget = summary["models"][one["drafter"]]["max_new_tokens"]
        identity = Identity(target, one["dataset"], one["question_id"], one["drafter"], budget, {})
        yield record_of(identity, one["rounds"], one["num_output_tokens"], prompt_len)
