"""Served counts: what a server counted for each question, as a file says it. It asks no server.

A file is JSON (a list, JSON lines, or what a profiler printed, whose row has them) or CSV with a head. A question needs
`question_id`, `num_drafted` and `num_accepted`; the rest says more: `num_rounds` (decode steps), `num_drafts`,
`num_tokens` of the answer, `accepted_per_position`, `prompt_ids`, `output_ids` (its stop token among them) and
`finish_reason`. Lists in CSV are numbers with spaces between.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from specdec.errors import UserError
from specdec.records.fields import is_count, is_str, is_tokens

_NEEDED = ("question_id", "num_drafted", "num_accepted")
MAX_DIGITS = 20  # of a count; int() itself refuses 5,000
_MORE = "more"  # cells of a row of CSV beyond its head
_LISTS = ("accepted_per_position", "prompt_ids", "output_ids")


@dataclass(frozen=True)
class ServedCounts:
    """One question on a server; None: it does not say. `output_again`: the answer's tokens when it was asked again."""

    question_id: int
    num_drafted: int
    num_accepted: int
    num_rounds: int | None = None
    num_drafts: int | None = None
    num_tokens: int | None = None
    accepted_per_position: list[int] | None = None
    prompt_ids: list[int] | None = None
    output_ids: list[int] | None = None
    output_again: list[int] | None = None
    finish_reason: str | None = None

    @classmethod
    def of(cls, data: Any) -> ServedCounts:
        """Of one question's entry in a file. Raises ValueError for what is not one, and for a count that is none."""
        if not isinstance(data, dict):
            raise ValueError(f"is {data!r:.40} and not an object with its counts")
        if _MORE in data:
            raise ValueError("has more cells than the head has names")
        known = {one.name for one in fields(cls)}
        given = {key: value for key, value in data.items() if key in known and value is not None}
        if "num_tokens" not in given and is_count(data.get("num_emitted")):
            given["num_tokens"] = data["num_emitted"] + 1  # a profiler's row: without the prompt's pass's token
        for key in _NEEDED:
            if key not in given:
                raise ValueError(f"has no {key}")
        for key, value in given.items():
            if not _is_valid(key, value):
                raise ValueError(f"has the {key} {value!r:.40}")
        made = cls(**given)
        if made.num_accepted > made.num_drafted + (made.num_rounds or made.num_drafted):
            raise ValueError(f"has {made.num_accepted} accepted of {made.num_drafted} drafted tokens")
        return made

    @property
    def length(self) -> int | None:
        """Tokens of the answer."""
        return self.num_tokens if self.output_ids is None else len(self.output_ids)


def _is_valid(key: str, value: Any) -> bool:
    if key == "finish_reason":
        return is_str(value)
    return is_tokens(value) if key in _LISTS or key == "output_again" else is_count(value)


def read_counts(path: Path) -> list[ServedCounts]:
    """The questions of a file, in its order. Raises UserError for anything else, and for a question twice."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a mark
    except (OSError, ValueError) as error:
        raise UserError(f"--counts: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    entries = _json_entries(text)
    if entries is None and text.lstrip()[:1] in ("[", "{"):
        raise UserError(f"--counts {path} is broken JSON: see docs/reconcile.md for what it may hold")
    if entries is None:
        try:
            entries = [_of_csv(row) for row in csv.DictReader(text.splitlines(), restkey=_MORE)]
        except csv.Error as error:
            raise UserError(f"--counts {path} is not a table: {error}") from error
    found: dict[int, ServedCounts] = {}
    for number, entry in enumerate(entries, 1):
        try:
            one = ServedCounts.of(entry)
        except ValueError as error:
            raise UserError(f"--counts {path}: entry {number} {error}: see docs/reconcile.md") from error
        if one.question_id in found:
            raise UserError(f"--counts {path} has question {one.question_id} twice: give each once")
        found[one.question_id] = one
    if not found:
        raise UserError(f"--counts {path} holds no question: see docs/reconcile.md for what it may hold")
    return list(found.values())


def _json_entries(text: str) -> Sequence[Any] | None:
    """The entries of a JSON document, of a profiler's last line or of JSON lines; None: it is neither. Numbers that are
    no counts, NaN as servers' logs have it among them, matter where a count belongs alone."""
    for part in (text, text.strip().rpartition("\n")[2]):
        try:
            found = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and isinstance(found.get("row"), dict):
            found = found["row"]
        if isinstance(found, dict) and isinstance(found.get("questions"), list):
            found = found["questions"]
        if isinstance(found, list):
            return found
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None


def _of_csv(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's cells as numbers and lists; empty cells are left out."""
    found: dict[str, Any] = {}
    for key, cell in row.items():
        if key == _MORE:
            found[_MORE] = cell
        if not isinstance(cell, str) or not cell.strip():
            continue
        words = cell.split()
        is_number = all(word.isascii() and word.isdigit() and len(word) < MAX_DIGITS for word in words)
        if key in _LISTS:
            found[key] = [int(word) for word in words] if is_number else cell
        else:
            found[key] = int(words[0]) if is_number and len(words) == 1 else cell
    return found
