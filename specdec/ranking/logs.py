"""Logs: what a log says about each question and configuration; the inverse of `report.record_lines`.

Reads logs of this program and of the published one. Lines of generated text, quoted with "| ", do not count.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from specdec.errors import MALFORMED, UserError
from specdec.latency.accounting import OURS
from specdec.latency.pricing import Price
from specdec.ranking.acceptance import RoundCounts
from specdec.ranking.ceiling import Ceiling
from specdec.ranking.entries import COUNTS, UNKNOWN, Entry, merge
from specdec.ranking.source import Source
from specdec.ranking.trust import Conditions
from specdec.records import fields
from specdec.records.identity import current_name

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
    reader = _Reader()
    for line in lines:
        reader.read(_ANSI.sub("", line).rstrip("\r\n"))
    return merge(entry for key, known in reader.known.items() if (entry := _entry(key, known, source)) is not None)


def _entry(key: Key, known: dict[str, Any], source: Source) -> Entry | None:
    """What was read about one question under one configuration; None while too little of it is known."""
    if "exact" in known:
        return known["exact"]
    if "num_accepted" not in known or not known.get("num_rounds"):
        return None
    derived = {"num_output_tokens": known["num_accepted"] + known["num_rounds"]}
    return Entry(*key, source=source, **(derived | known))


class _Reader:
    """Takes lines one by one; holds the last heading and, by heading, an entry's known fields (or it all: "exact")."""

    def __init__(self) -> None:
        self.known: dict[Key, dict[str, Any]] = {}
        self.current: Key | None = None

    def read(self, line: str) -> None:
        head = _HEAD.search(line) or _INTRODUCTION.search(line)
        quote = line.find("|")
        if quote >= 0 and (head is None or quote < head.start()):
            return
        if head is not None:
            self.current = (int(head[1]), current_name(head[2]))
            line = line[head.end() :].lstrip()
        if self.current is None:
            return
        for pattern, store in _METRICS:
            # After a heading nothing but a metric counts, directly after it.
            found = pattern.match(line) if head else pattern.search(line)
            if found:
                store(self, self.current, found, line)
                return

    def _store(self, key: Key, text: str = "", **said: Any) -> dict[str, Any]:
        """Fields of the entry; and the number of output tokens, if `text` says it. Returns all that is known."""
        stated = _OUTPUT.search(text)
        if stated and int(stated[1]) > 0:
            said["num_output_tokens"] = int(stated[1])
        known = self.known.setdefault(key, {})
        known |= said
        return known

    def _store_totals(self, key: Key, found: re.Match[str], text: str) -> None:
        exact = _exact(key, found[1])
        if exact is not None:
            self._store(key, exact=exact)

    def _store_acceptance(self, key: Key, found: re.Match[str], text: str) -> None:
        known = self.known.get(key, {})
        if "num_accepted" in known and "exact" not in known:  # a second report of the same run
            del self.known[key]
        self._store(key, num_accepted=int(found[1]), num_drafted=int(found[2]))

    def _store_passes(self, key: Key, found: re.Match[str], text: str) -> None:
        self._store(key, text, num_forward_passes=int(found[1]), num_rounds=int(found[2]))

    def _store_speedup(self, key: Key, found: re.Match[str], text: str) -> None:
        engine, (speedup, _, draft_ms, total_ms) = found[1], map(float, found.groups()[1:])
        prices = self._store(key, text).setdefault("prices", {})
        if 0 <= draft_ms <= total_ms and total_ms > 0:
            prices[engine] = Price(draft_ms, total_ms - draft_ms, speedup * total_ms)


_METRICS = (
    (_TOTALS, _Reader._store_totals),
    (_ACCEPTANCE, _Reader._store_acceptance),
    (_PASSES, _Reader._store_passes),
    (_SPEEDUP, _Reader._store_speedup),
)


def _exact(key: Key, text: str) -> Entry | None:
    """The entry in one of our own "Totals" lines; None if it is damaged."""
    try:
        totals = json.loads(text)
        counts: dict[str, Any] = {n: fields.take(totals, n.removeprefix("num_"), fields.is_count) for n in COUNTS}
        return Entry(
            *key,
            **counts,
            prices=_prices(totals["prices"]),
            draft_ms=None if totals["draft_ms"] is None else _ms(totals["draft_ms"]),
            verify_ms=None if totals["verify_ms"] is None else _ms(totals["verify_ms"]),
            source=Source.from_builtins(totals["source"]),
            settings=str(totals.get("settings", "")),
            origin=str(totals.get("origin", "")),
            output=str(totals.get("output", "")),
            ceilings={str(name): Ceiling.from_builtins(value) for name, value in totals.get("ceilings", {}).items()},
            is_correct=_flag(totals.get("correct")),
            is_degenerate=_flag(totals.get("degenerate")),
            losslessness=str(totals.get("losslessness", "")),
            accounting=str(totals.get("accounting", OURS)),
            category=str(totals.get("category", "")),
            other_prices=_prices(totals.get("other_prices", {})),
            conditions=Conditions.from_builtins(totals.get("conditions", {})),
            has_seen=_flag(totals.get("has_seen")),
            ttft_ms=_ms(totals["ttft_ms"]) if "ttft_ms" in totals else None,
            rounds=RoundCounts.from_log(totals["shapes"]) if "shapes" in totals else None,
        )
    except (UserError, *MALFORMED):
        return None


def _prices(said: Any) -> dict[str, Price]:
    return {str(name): Price(*map(_ms, values)) for name, values in said.items()}


def _flag(value: Any) -> bool | None:
    if value not in (True, False, None):
        raise ValueError(f"{value!r} is not a flag")
    return value


def _ms(value: Any) -> float:
    if type(value) not in (int, float) or not fields.is_duration(value):
        raise ValueError(f"{value!r} is not a time")
    return float(value)
