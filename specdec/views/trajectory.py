"""Trajectory: a record's rounds as text: what was accepted, what rejected, what the target put in its place.

How it looks is decided elsewhere: `terminal.py` colours it, `question_data.py` packs it for the HTML report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from generate import Blocks, Denoising, masked_positions
from specdec.decoding.stopping import FailFastWindow
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.views.pieces import Piece, Reader

_UNKNOWN = -1  # stands for tokens that do not matter: how sure the drafter was decides which positions become known


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
    steps, pending = [], b""
    for turn in record.rounds:
        accepted, pending = reader.read(turn.draft_tokens[: turn.accepted_len], pending)
        rejected, _ = reader.read(turn.draft_tokens[turn.accepted_len :], pending)
        own, pending = reader.read([] if turn.next_token is None else [turn.next_token], pending)
        confidences = draft_confidences(turn, record.identity)
        steps.append(Step(accepted, rejected, own[0] if own else None, turn.final_token is not None, confidences))
    return steps


def draft_confidences(turn: Round, identity: dict[str, Any]) -> list[float | None]:
    """Per drafted token, how probable the drafter held it when it chose it; None where that was not recorded.

    FailFast's published rule records every masked position of every pass instead. Which of them became tokens
    follows from them: the passes are gone through again. The first token of a block has none under that rule.
    """
    if identity.get("rule") != "published" or not identity.keys() >= {"first_window", "block_size"}:
        known = turn.confidences[: turn.draft_len]
        return [*known, *[None] * (turn.draft_len - len(known))]
    how = Denoising(
        threshold=identity["unmask_threshold"],
        block_size=identity["block_size"],
        small_block_size=identity["small_block_size"],
        mask_id=_UNKNOWN,
        stop_ids=frozenset(),
    )
    window = FailFastWindow(
        *(identity[name] for name in ("first_window", "confidence_threshold", "draft_step", "max_draft_len")),
        rule="published",
    )
    run = _Again(turn, how)
    for _ in range(turn.num_denoise_passes + turn.num_commit_passes):
        run.step()
        window.test(run)
    # After the window come tokens of the round before (draft reuse), which no pass was sure of.
    count = min(turn.draft_len, window.size) if turn.stop_reason == "low_confidence" else turn.draft_len
    known = [run.confidence.get(run.prefix_len + index) for index in range(count)]
    return [*known, *[None] * (turn.draft_len - count)]


class _Again(Blocks):
    """A round's passes once more, by what it recorded of them. The confidence of a block's first token is None."""

    def __init__(self, turn: Round, how: Denoising) -> None:
        start = turn.prefix_len // how.block_size * how.block_size
        super().__init__([_UNKNOWN] * turn.prefix_len, how, start, (_UNKNOWN, None))
        self._left = list(turn.confidences)

    def step(self) -> None:
        masked = masked_positions(self.block, self.how.small_block_size)
        if not masked:
            self.committed(_UNKNOWN, None)
            return
        confidences, self._left = self._left[: len(masked)], self._left[len(masked) :]
        if len(confidences) == len(masked):
            self.denoised(masked, [_UNKNOWN] * len(masked), confidences)
