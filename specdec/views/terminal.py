"""Terminal: a record's trajectory in colour: accepted tokens plain, rejected ones red and struck through, the target's
correction green.

Every line starts with "| ", as text does in a log. What is generated cannot steer the terminal: only the colours here
are escape sequences. Without colours the same is said by marks: [-rejected-] and {+correction+}.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

from specdec.models.token_text import TokenBytes
from specdec.records.record import Record
from specdec.text import quote_text, visible
from specdec.views.trajectory import BYTES, Piece, Reader, Step, trajectory

ACCEPTED, REJECTED, CORRECTION, BONUS = "accepted", "rejected", "correction", "bonus"
_RESET = "\x1b[0m"
_COLOURS = {ACCEPTED: ("", ""), REJECTED: ("\x1b[9;31m", _RESET), CORRECTION: ("\x1b[32m", _RESET), BONUS: ("", "")}
_MARKS = {ACCEPTED: ("", ""), REJECTED: ("[-", "-]"), CORRECTION: ("{+", "+}"), BONUS: ("", "")}


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal that shows colours, and its user has not said NO_COLOR."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


class AnswerView:
    """What a log says of a record's answer: its trajectory, or its text alone.

    `tokens`: asked once, when the first trajectory is to be shown; None: show none.
    """

    def __init__(self, tokens: Callable[[], TokenBytes] | None, is_coloured: bool) -> None:
        self._tokens, self._is_coloured = tokens, is_coloured
        self._reader: Reader | None = None

    def lines(self, record: Record) -> list[str]:
        if self._tokens is None:
            return quote_text(record.output_text)
        if self._reader is None:
            self._reader = Reader(self._tokens())
        return trajectory_lines(record, trajectory(record, self._reader), is_coloured=self._is_coloured)


def trajectory_lines(record: Record, steps: Sequence[Step], *, is_coloured: bool) -> list[str]:
    """A heading that explains the marks, then the answer, each line after "| "."""
    styles = _COLOURS if is_coloured else _MARKS
    words = ", ".join(_styled(word, styles[word]) for word in (ACCEPTED, REJECTED, CORRECTION))
    head = f"[Problem {record.question_id}, {visible(record.drafter_name)}] Trajectory ({words}):"
    lines = [""]
    for kind, text in _runs(steps):
        first, *others = text.split("\n")
        lines[-1] += _styled(first, styles[kind])
        lines += [_styled(line, styles[kind]) for line in others]
    return [head, *("| " + line for line in lines)]


def _styled(text: str, style: tuple[str, str]) -> str:
    return style[0] + text + style[1] if text else ""


def _runs(steps: Sequence[Step]) -> Iterator[tuple[str, str]]:
    """(what became of it, text) for each stretch of tokens with the same fate."""
    for step in steps:
        yield ACCEPTED, "".join(map(_shown, step.accepted))
        # A rejected line break is not a line break of the answer.
        yield REJECTED, "".join(map(_shown, step.rejected)).replace("\n", "\\n").replace("\t", "\\t")
        own = "" if step.own is None else _shown(step.own)
        yield CORRECTION if step.is_correction else BONUS, own


def _shown(piece: Piece) -> str:
    return f"<{piece.text}>" if piece.kind == BYTES else piece.text
