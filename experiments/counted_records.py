"""Records of counts alone: rounds of which only [drafted, accepted, drafter passes] are known, with made-up tokens.

What a simulation of many requests needs of a record, and no more.
"""

from collections.abc import Sequence

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
