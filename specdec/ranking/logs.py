"""Logs: what a log says about each question and configuration; the inverse of `report.record_lines`.

Reads logs of this program and of the published one. Lines of generated text, quoted with "| ", do not count.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from specdec.latency.pricing import Price
from specdec.ranking.ceiling import Ceiling
from specdec.ranking.entries import UNKNOWN, Entry, merge
from specdec.ranking.source import Source

Key = tuple[int, str]  # question and drafter
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_HEAD = re.compile(r"\[Problem (\d{1,15}), ([^\[\],|]{1,200})\]")
_INTRODUCTION = re.compile(r"\[Problem (\d{1,15})\] Running drafter: ([^\s|]{1,200})")
_NUMBER = r"(\d{1,15}(?:\.\d{1,20})?)"
_ACCEPTANCE = re.compile(r"Acceptance rate: .{1,20}?% ?\((\d{1,15})/(\d{1,15})\)")
_PASSES = re.compile(r"Avg fwd passes/round: \S{1,30} \((\d{1,15})/(\d{1,15})\)")
_SPEEDUP = re.compile(
    rf"\[([^\[\]|]{{1,200}})\] Speedup: {_NUMBER}x "
    rf"\(Drafter ratio {_NUMBER}% \({_NUMBER} ?ms/{_NUMBER} ?ms\)"
)
_OUTPUT = re.compile(r"\((?:total|num) output tokens: (\d{1,15})\)")
_TOTALS = re.compile(r"Totals: (\{.*\})\s*$")


def parse_log_lines(lines: Iterable[str], source: Source = UNKNOWN) -> list[Entry]:
    """One entry per question and configuration that the log reports completely, in order of appearance.

    Our logs carry every number in full precision. A published log does not: its prices are as printed, and
    where it does not state the number of output tokens, that is derived as accepted + rounds (every round
    emits what it accepts and one token more), which is one too many if the last round was cut. A line without
    "[Problem ID, NAME]" belongs to the last one seen. If a run is reported twice, the later report counts.
    ANSI colours and logger prefixes are tolerated; lines quoted with "| " are skipped. `source` becomes
    `Entry.source` where the log states none. An empty list: the log is none.
    """
    reader = _Reader(source)
    for line in lines:
        reader.read(_ANSI.sub("", line).rstrip("\r\n"))
    return merge(entry for draft in reader.entries.values() if (entry := draft.finish()) is not None)


@dataclass
class _Reported:
    """What has been read so far about one question under one configuration."""

    question_id: int
    drafter_name: str
    source: Source
    accepted: tuple[int, int] | None = None  # accepted, drafted
    passes: tuple[int, int] | None = None  # passes, rounds
    num_output_tokens: int | None = None
    prices: dict[str, Price] = field(default_factory=dict)
    exact: Entry | None = None

    def finish(self) -> Entry | None:
        if self.exact is not None:
            return self.exact
        if self.accepted is None or self.passes is None or self.passes[1] == 0:
            return None
        derived = self.accepted[0] + self.passes[1]
        return Entry(
            question_id=self.question_id,
            drafter_name=self.drafter_name,
            num_output_tokens=derived if self.num_output_tokens is None else self.num_output_tokens,
            num_accepted=self.accepted[0],
            num_drafted=self.accepted[1],
            num_rounds=self.passes[1],
            num_forward_passes=self.passes[0],
            prices=self.prices,
            source=self.source,
        )


class _Reader:
    """Takes lines one by one; holds the entries and the last heading."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.entries: dict[Key, _Reported] = {}
        self.current: Key | None = None

    def read(self, line: str) -> None:
        head = _HEAD.search(line) or _INTRODUCTION.search(line)
        quote = line.find("|")
        if quote >= 0 and (head is None or quote < head.start()):
            return
        if head is not None:
            self.current = (int(head[1]), head[2])
            # After a heading nothing but a metric counts, directly after it.
            self._read_metric(self.current, line[head.end() :].lstrip(), is_start=True)
        elif self.current is not None:
            self._read_metric(self.current, line, is_start=False)

    def _read_metric(self, key: Key, text: str, *, is_start: bool) -> None:
        for pattern, store in _METRICS:
            found = pattern.match(text) if is_start else pattern.search(text)
            if found:
                store(self, key, found, text)
                return

    def _entry(self, key: Key) -> _Reported:
        question_id, drafter_name = key
        return self.entries.setdefault(key, _Reported(question_id, drafter_name, self.source))

    def _store_totals(self, key: Key, found: re.Match[str], text: str) -> None:
        exact = _exact(key, found[1])
        if exact is not None:
            self._entry(key).exact = exact

    def _store_acceptance(self, key: Key, found: re.Match[str], text: str) -> None:
        entry = self._entry(key)
        if entry.accepted is not None and entry.exact is None:  # a second report of the same run
            del self.entries[key]
            entry = self._entry(key)
        entry.accepted = (int(found[1]), int(found[2]))

    def _store_passes(self, key: Key, found: re.Match[str], text: str) -> None:
        entry = self._entry(key)
        entry.passes = (int(found[1]), int(found[2]))
        self._store_output(entry, text)

    def _store_speedup(self, key: Key, found: re.Match[str], text: str) -> None:
        engine, (speedup, _, draft_ms, total_ms) = found[1], map(float, found.groups()[1:])
        entry = self._entry(key)
        self._store_output(entry, text)
        if 0 <= draft_ms <= total_ms and total_ms > 0:
            entry.prices[engine] = Price(draft_ms, total_ms - draft_ms, speedup * total_ms)

    @staticmethod
    def _store_output(entry: _Reported, text: str) -> None:
        stated = _OUTPUT.search(text)
        if stated and int(stated[1]) > 0:
            entry.num_output_tokens = int(stated[1])


_METRICS = (
    (_TOTALS, _Reader._store_totals),
    (_ACCEPTANCE, _Reader._store_acceptance),
    (_PASSES, _Reader._store_passes),
    (_SPEEDUP, _Reader._store_speedup),
)


def _exact(key: Key, text: str) -> Entry | None:
    """The entry in one of our own "Totals" lines; None if it is damaged."""
    question_id, drafter_name = key
    try:
        totals = json.loads(text)
        return Entry(
            question_id=question_id,
            drafter_name=drafter_name,
            num_output_tokens=_count(totals["output_tokens"]),
            num_accepted=_count(totals["accepted"]),
            num_drafted=_count(totals["drafted"]),
            num_rounds=_count(totals["rounds"]),
            num_forward_passes=_count(totals["forward_passes"]),
            prices={str(name): _price(values) for name, values in totals["prices"].items()},
            draft_ms=None if totals["draft_ms"] is None else _ms(totals["draft_ms"]),
            verify_ms=None if totals["verify_ms"] is None else _ms(totals["verify_ms"]),
            source=Source.from_builtins(totals["source"]),
            settings=str(totals.get("settings", "")),
            output=str(totals.get("output", "")),
            ceilings={str(name): Ceiling.from_builtins(value) for name, value in totals.get("ceilings", {}).items()},
            is_correct=_flag(totals.get("correct")),
            is_degenerate=_flag(totals.get("degenerate")),
            losslessness=str(totals.get("losslessness", "")),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _price(values: Any) -> Price:
    draft_ms, verify_ms, baseline_ms = map(_ms, values)
    return Price(draft_ms=draft_ms, verify_ms=verify_ms, baseline_ms=baseline_ms)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _flag(value: Any) -> bool | None:
    if value not in (True, False, None):
        raise ValueError(f"{value!r} is not a flag")
    return value


def _ms(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is not a time")
    return float(value)
