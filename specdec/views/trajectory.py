"""Trajectory: a record's rounds as text: what was accepted, what rejected, what the target put in its place.

Tokens are pieces, as people are shown them, also those that hold only a part of a character. How a trajectory looks is
decided elsewhere: `terminal.py` colours it, `question_data.py` packs it for the HTML report.
"""

import codecs
from collections.abc import Iterable
from dataclasses import dataclass

from specdec.drafters.families import parse_name
from specdec.models.token_text import TokenBytes
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.text import visible

TEXT, BYTES, SPECIAL = "text", "bytes", "special"
# Besides line breaks: a tab, and what joins or parts the letters and emoji around it.
_KEPT = "\n\t\u200c\u200d"


@dataclass(frozen=True)
class Piece:
    """What is shown of a token: `text`, safe to print.

    `kind`: TEXT; BYTES, part of a character that a later token completes, in hex ("F0 9F"); or SPECIAL, a
    token that is not text, by its name.
    """

    text: str
    kind: str = TEXT


class Reader:
    """Reads tokens into pieces; each token's piece is made once."""

    def __init__(self, tokens: TokenBytes) -> None:
        self._tokens = tokens
        self._whole: dict[int, Piece] = {}  # of tokens that begin and end with a character

    def read(self, tokens: Iterable[int], pending: bytes = b"") -> tuple[list[Piece], bytes]:
        """(one piece per token, the bytes of the character left unfinished).

        `pending`: such bytes from the tokens before. A character belongs to the token that completes it.
        """
        pieces = []
        for token in tokens:
            piece = None if pending else self._whole.get(token)
            if piece is None:
                piece, pending = self._read_one(token, pending)
            pieces.append(piece)
        return pieces, pending

    def _read_one(self, token: int, pending: bytes) -> tuple[Piece, bytes]:
        data = self._tokens.by_id.get(token)
        if data is None:
            return Piece(f"<{token}>", SPECIAL), b""
        if token in self._tokens.specials:
            return Piece(visible(self._tokens.specials[token]), SPECIAL), b""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(pending + data)
        unfinished = decoder.getstate()[0]
        if data and not text:
            return Piece(data.hex(" ").upper(), BYTES), unfinished
        piece = Piece(visible(text, keep=_KEPT))
        if not pending and not unfinished:
            self._whole[token] = piece
        return piece, unfinished


@dataclass(frozen=True)
class Step:
    """One round. `own`: the target's token, a correction after rejected tokens or a bonus; None where the cut fell.

    `rejected`: of a tree, what it had for the place of the target's own token; its other branches are not shown.
    `confidences`: per token shown the drafter's probability when it chose it, None where the record cannot tell.
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
        accepted, pending = reader.read(turn.accepted_tokens, pending)
        rejected = _rejected(turn, reader, pending)
        own, pending = reader.read([] if turn.next_token is None else [turn.next_token], pending)
        known = spec.token_confidences(turn, record.identity.settings)
        confidences = [known[node] for node in (*turn.accepted_nodes, *turn.refused_nodes)]
        steps.append(Step(accepted, rejected, own[0] if own else None, turn.correction_token is not None, confidences))
    return steps


def _rejected(turn: Round, reader: Reader, pending: bytes) -> list[Piece]:
    tokens = [turn.draft_tokens[node] for node in turn.refused_nodes]
    if turn.is_tree:  # each stands alone at one and the same place
        return [reader.read([token], pending)[0][0] for token in tokens]
    return reader.read(tokens, pending)[0]
