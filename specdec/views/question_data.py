"""Question data: all trajectories of a question, packed for the HTML report, which unpacks them when they are opened.

The drafters wrote the same text, or nearly: it is kept once, and of each drafter what it proposed beyond it.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from specdec.ranking.entries import PLAIN
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.views.trajectory import BYTES, SPECIAL, Piece, Reader, Step, trajectory

_COLUMNS = ("accepted", "rejected", "own", "passes", "stop", "draft_ms", "verify_ms")


def packed(data: Any) -> str:
    """JSON, deflated, in base64: 7-bit letters that no HTML parser minds."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 9)).decode("ascii")


def question_data(records: Sequence[Record], reader: Reader) -> dict[str, Any]:
    """One question's records as JSON data.

    `texts`: what is shown of tokens, which all else refers to by index; `bytes`, `special`: those of that kind.
    `answer`: plain decoding's text (or the first drafter's). `runs`: each drafter's name, number of rounds and, where
    it is another, answer. The rest goes on from run to run, a column of all of them, which packs best. `rounds`:
    numbers of accepted and rejected tokens, whether a token of the target's follows, drafter passes, stop reason,
    tenths of ms; `rejected`: their texts; `sure`: a digit per drafted token, its confidence in tenths, "-" if unknown.
    """
    packing = _Packing(reader)
    ordered = sorted(records, key=lambda record: record.drafter_name != PLAIN)
    runs = [packing.run(record) for record in ordered]
    kinds = [piece.kind for piece in packing.indices]
    return {
        "row": [[key, _words(value)] for key, value in records[0].raw_data.items()],
        "texts": [piece.text for piece in packing.indices],
        "bytes": [index for index, kind in enumerate(kinds) if kind == BYTES],
        "special": [index for index, kind in enumerate(kinds) if kind == SPECIAL],
        "stops": list(packing.stops),
        "answer": packing.answer,
        "runs": runs,
        "rounds": packing.rounds,
        "rejected": packing.rejected,
        "sure": "".join(packing.sure),
    }


def _words(value: Any) -> str:
    """A field of a question, as people read it: lists line by line, messages with who says them."""
    if isinstance(value, list):
        return "\n".join(map(_words, value))
    if isinstance(value, Mapping) and {"role", "content"} <= set(value):
        return f"{value['role']}: {value['content']}"
    return str(value)


class _Packing:
    """Numbers pieces and stop reasons as they come up; dicts keep that order."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.indices: dict[Piece, int] = {}
        self.stops: dict[str, int] = {}
        self.answer: list[int] | None = None
        self.rounds: dict[str, list[int]] = {name: [] for name in _COLUMNS}
        self.rejected: list[int] = []
        self.sure: list[str] = []

    def run(self, record: Record) -> dict[str, Any]:
        steps = trajectory(record, self._reader)
        answer = [
            index for step in steps for index in self._numbers([*step.accepted, *([step.own] if step.own else [])])
        ]
        if self.answer is None:
            self.answer = answer
        for turn, step in zip(record.rounds, steps, strict=True):
            self._round(turn, step)
        other = {} if answer == self.answer else {"answer": answer}
        return {"name": record.drafter_name, "num_rounds": record.num_rounds, **other}

    def _round(self, turn: Round, step: Step) -> None:
        stop = self.stops.setdefault(turn.stop_reason, len(self.stops))
        counts = turn.accepted_len, len(step.rejected), int(step.own is not None), turn.num_forward_passes, stop
        for name, value in zip(_COLUMNS, (*counts, round(10 * turn.draft_ms), round(10 * turn.verify_ms)), strict=True):
            self.rounds[name].append(value)
        self.rejected += self._numbers(step.rejected)
        self.sure += ["-" if one is None else str(min(9, max(0, int(one * 10)))) for one in step.confidences]

    def _numbers(self, pieces: Sequence[Piece]) -> list[int]:
        indices = self.indices
        return [indices.setdefault(piece, len(indices)) for piece in pieces]
