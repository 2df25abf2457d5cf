"""Records of given texts: drafters that guess them with a given luck. Tokens are the bundled target's."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from samples import make_record, with_settings

from specdec.drafters.families import parse_name
from specdec.models.token_text import TokenBytes, find_tokenizer, read_token_bytes
from specdec.ranking.entries import PLAIN
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.views.trajectory import Reader

HOSTILE = (
    "<script>alert('gone')</script></script><!-- <img src=x onerror=alert(1)> &lt;b&gt; \"quotes\" 'too'\n"
    "\u202e\u2028\u2029 \x1b[31m \x1b]0;title\x07 \u0000 ]]> {{data}} `${1}` </dialog> 👩‍👩‍👧 naïve 漢字 🇩🇪 ✓\n"
)
BLOCKS = {"block_size": 32, "small_block_size": 8}


@cache
def bundled_tokens() -> TokenBytes:
    return read_token_bytes(find_tokenizer("bundled"))


def reader() -> Reader:
    return Reader(bundled_tokens())


def tokens_of(text: str | bytes) -> list[int]:
    """A token per byte, so that every character beyond ASCII is split."""
    by_byte = {data: token for token, data in bundled_tokens().by_id.items() if len(data) == 1}
    data = text.encode() if isinstance(text, str) else text
    return [by_byte[bytes([byte])] for byte in data]


def written(
    tokens: Sequence[int], drafter: str, *, question_id: int = 0, luck: float = 0.8, **changes: object
) -> Record:
    """A record whose output is `tokens`; each drafted token is right with probability `luck`."""
    rng = random.Random(f"{drafter} {question_id}")
    words = range(300, 4000)
    rounds, place = [], 0
    while place < len(tokens):
        draft, accepted = [], 0
        if drafter != PLAIN:
            size = rng.randint(3, 16)
            while accepted < size and place + accepted < len(tokens) and rng.random() < luck:
                accepted += 1
            draft = [*tokens[place : place + accepted], *rng.choices(words, k=size - accepted)]
        rest = tokens[place + accepted : place + accepted + 1]
        if not rest:  # the text ends in an accepted draft, where the cut falls
            draft = draft[:accepted]
        rounds.append(_round(3 + place, draft, accepted, rest[0] if rest else None, rng))
        place += accepted + len(rest)
    identity = with_settings(make_record(question_id, drafter).identity, vars(parse_name(drafter)) | BLOCKS)
    values = {"identity": identity, "output_text": "text", "raw_data": {"question": f"Question number {question_id}?"}}
    return make_record(question_id, drafter, rounds, **(values | changes))


def _round(prefix_len: int, draft: list[int], accepted: int, own: int | None, rng: random.Random) -> Round:
    return Round(
        prefix_len=prefix_len,
        draft_tokens=draft,
        confidences=[rng.random() ** 0.3 for _ in draft],
        num_prefill_passes=0,
        num_denoise_passes=rng.randint(1, 4) if draft else 0,
        num_commit_passes=0,
        stop_reason="length" if draft else "none",
        accepted_len=accepted,
        next_token=own,
        draft_ms=rng.random() * 20 if draft else 0.0,
        verify_ms=15 + rng.random(),
    )
