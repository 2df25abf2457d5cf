"""Records of counts alone: how they are kept in few bytes, and records made of them again, with made-up tokens.

What a simulation of many requests needs of a record, and no more. `summarise_records.py` keeps such counts.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from specdec.ranking.source import Source
from specdec.records.identity import Identity
from specdec.records.record import Record
from specdec.records.rounds import Round

TOKEN, OTHER = 5, 6
Counts = Sequence[int]  # drafted, accepted, drafter passes
FIELDS = (
    *("question_id", "num_output_tokens", "output_sha256", "draft_ms", "verify_ms"),
    *("num_rounds", "num_drafted", "num_accepted", "num_forward_passes", "rounds"),
)


def kept_records(records: Iterable[Record]) -> dict[str, Any]:
    """Records without their texts, by data set and drafter: of each the values of FIELDS."""
    found: dict[str, dict[str, list[list[Any]]]] = {}
    for record in records:
        found.setdefault(record.identity.dataset, {}).setdefault(record.drafter_name, []).append(_values(record))
    return {"record_fields": list(FIELDS), "records": found}


def _values(record: Record) -> list[Any]:
    counts = [(turn.draft_len, turn.accepted_len, turn.num_forward_passes) for turn in record.rounds]
    sums = [sum(one[column] for one in counts) for column in range(3)]
    output = hashlib.sha256(json.dumps(record.output_tokens).encode()).hexdigest()[:16]
    times = round(record.draft_ms, 1), round(record.verify_ms, 1)
    return [record.question_id, record.num_output_tokens, output, *times, len(counts), *sums, rounds_text(counts)]


def kept_in(summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What `kept_records` has of each record, by the names of its fields, its data set and its drafter."""
    names = summary["record_fields"]
    for dataset, drafters in summary["records"].items():
        for drafter, rows in drafters.items():
            for row in rows:
                yield {"dataset": dataset, "drafter": drafter, **dict(zip(names, row, strict=True))}


def rounds_text(rounds: Iterable[Counts]) -> str:
    """Rounds in few letters: accepted, passes and drafted, without what is as in the round before at its end.

    Example: `rounds_text([(8, 0, 2), (8, 3, 2), (8, 3, 1), (4, 3, 1)]) == "0.2.8 3 3.1 3.1.4"`.
    """
    words: list[str] = []
    before: Counts = (-1, -1, -1)
    for drafted, accepted, passes in rounds:
        now = accepted, passes, drafted
        num_told = max([1, *(place for place in (2, 3) if now[place - 1] != before[place - 1])])
        words.append(".".join(map(str, now[:num_told])))
        before = now
    return " ".join(words)


def rounds_of(text: str) -> list[Counts]:
    """The inverse of `rounds_text`."""
    found: list[Counts] = []
    before = [0, 0, 0]
    for word in text.split():
        told = [int(one) for one in word.split(".")]
        before = told + before[len(told) :]
        found.append((before[2], before[0], before[1]))
    return found


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
    """The records of a summary of one target that keeps their rounds; no prompts are in it, so that each gets one of
    `prompt_len` tokens."""
    target = Source.from_builtins(summary["ranking"]["sources"][0]).target
    for one in kept_in(summary):
        budget = summary["models"][one["drafter"]]["max_new_tokens"]
        identity = Identity(target, one["dataset"], one["question_id"], one["drafter"], budget, {})
        yield record_of(identity, rounds_of(one["rounds"]), one["num_output_tokens"], prompt_len)
