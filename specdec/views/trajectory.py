"""Trajectory: a record's rounds as text: what was accepted, what rejected, what the target put in its place.

How it looks is decided elsewhere: `terminal.py` colours it, `question_data.py` packs it for the HTML report.
"""

from dataclasses import dataclass

from specdec.drafters.families import parse_name
from specdec.records.record import Record
from specdec.views.pieces import Piece, Reader


@dataclass(frozen=True)
class Step:
    """One round. `own`: the target's token, a correction after rejected tokens or a bonus; None where the cut fell.

    `confidences`: per drafted token the drafter's probability when it chose it, None where the record cannot tell.
    """

    accepted: list[Piece]
    rejected: list[Piece]
    own: Piece | None
    is_correction: bool
    confidences: list[float | None]


def trajectory(record: Record, reader: Reader) -> list[Step]:
    """One step per round. A character split over tokens reads on across rounds, and into what was rejected."""
    steps: list[Step] = []
    pending, spec = b"", parse_name(record.drafter_name)
    for turn in record.rounds:
        accepted, pending = reader.read(turn.draft_tokens[: turn.accepted_len], pending)
        rejected, _ = reader.read(turn.draft_tokens[turn.accepted_len :], pending)
        own, pending = reader.read([] if turn.next_token is None else [turn.next_token], pending)
        confidences = spec.token_confidences(turn, record.identity.settings)
        steps.append(Step(accepted, rejected, own[0] if own else None, turn.final_token is not None, confidences))
    return steps
