"""Ranking: which entries are ranked under which engine, and plain decoding, which is not ranked but measured.

The ranking itself is `table.py`; prices are `specdec/latency/pricing.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from specdec.latency.profile import MEASURED
from specdec.ranking.acceptance import RoundCounts
from specdec.ranking.entries import PLAIN, Entry, merge


@dataclass(frozen=True)
class PlainRow:
    """Plain decoding as it was measured: the baseline of the measured speedups."""

    num_questions: int
    num_output_tokens: int
    total_ms: float

    @property
    def ms_per_token(self) -> float | None:
        return self.total_ms / self.num_output_tokens if self.num_output_tokens else None


def engines_of(stats: Sequence[Entry]) -> list[str]:
    """Modelled engines in order of appearance, then "measured" if any entry has measured times or prices."""
    drafted = [entry for entry in stats if entry.drafter_name != PLAIN]
    names = dict.fromkeys(name for entry in drafted for name in entry.prices if name != MEASURED)
    has_measured = any(entry.has_measured_times or MEASURED in entry.prices for entry in drafted)
    return [*names, *([MEASURED] if has_measured else [])]


def under_other_profiles(stats: Iterable[Entry]) -> list[Entry]:
    """The entries as they are priced by the profiles that were not asked for."""
    return [replace(entry, prices=entry.other_prices, ceilings={}) for entry in stats if entry.other_prices]


def by_drafter(stats: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The merged entries of each configuration but plain decoding."""
    found: dict[str, list[Entry]] = {}
    for entry in merge(stats):
        if entry.drafter_name != PLAIN:
            found.setdefault(entry.drafter_name, []).append(entry)
    return found


def rounds_by_drafter(stats: Iterable[Entry]) -> dict[str, RoundCounts]:
    """The rounds of all questions of each configuration but plain decoding, where they are known of all of them."""
    found = {name: [entry.rounds for entry in own] for name, own in by_drafter(stats).items()}
    known = {name: [one for one in own if one is not None] for name, own in found.items()}
    return {name: RoundCounts.united(own) for name, own in known.items() if len(own) == len(found[name])}


def plain_entries(stats: Iterable[Entry]) -> list[Entry]:
    """The merged entries of plain decoding."""
    return [entry for entry in merge(stats) if entry.drafter_name == PLAIN]


def priced_under(engine: str, entries: Iterable[Entry]) -> list[Entry]:
    """The entries with the engine's price, by question: a sum's last digit must not depend on the inputs' order."""
    priced = [entry for entry in entries if engine in entry.prices and entry.prices[engine].total_ms > 0]
    return sorted(priced, key=lambda entry: (entry.source, entry.question_id))


def plain_row(stats: Sequence[Entry]) -> PlainRow | None:
    """Plain decoding as measured; None if no entry has it."""
    entries = [entry for entry in plain_entries(stats) if entry.has_measured_times]
    if not entries:
        return None
    entries.sort(key=lambda entry: (entry.source, entry.question_id))
    total_ms = sum((entry.draft_ms or 0.0) + (entry.verify_ms or 0.0) for entry in entries)
    return PlainRow(len(entries), sum(entry.num_output_tokens for entry in entries), total_ms)
