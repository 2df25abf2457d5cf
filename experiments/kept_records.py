"""Kept records: what a stored result has of each record, in few bytes: sums over its rounds, and no text."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from specdec.records.record import Record

FIELDS = (
    *("question_id", "num_output_tokens", "output_sha256", "draft_ms", "verify_ms"),
    *("num_rounds", "num_drafted", "num_accepted", "num_forward_passes"),
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
    return [record.question_id, record.num_output_tokens, output, *times, len(counts), *sums]


def kept_in(summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What `kept_records` has of each record, by the names of its fields, its data set and its drafter."""
    names = summary["record_fields"]
    for dataset, drafters in summary["records"].items():
        for drafter, rows in drafters.items():
            for row in rows:
                yield {"dataset": dataset, "drafter": drafter, **dict(zip(names, row, strict=True))}
