"""Ranking: drafter configurations, best first, from what each question gave under each of them.

Not here: reading logs (`logs.py`), making tables (`tables.py`), how far a difference can be believed
(`comparisons.py`), and the prices themselves (`latency.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from specdec.latency.profile import MEASURED
from specdec.ranking.ceiling import Ceiling, sum_ceilings
from specdec.ranking.entries import PLAIN, QuestionStats, merge


@dataclass(frozen=True)
class RankRow:
    """One configuration under one engine. Counts and times are sums over its priced questions.

    `rank` counts from 1; None, with no speedup, when no question has the engine's price.
    """

    rank: int | None
    drafter_name: str
    num_questions: int
    num_left_out: int  # questions without this engine's price; in none of the other numbers
    num_output_tokens: int
    num_accepted: int
    num_drafted: int
    num_rounds: int
    num_forward_passes: int
    draft_ms: float
    verify_ms: float
    baseline_ms: float
    speedup_mean: float | None  # mean of the questions' speedups (the paper's)
    ceiling: Ceiling | None = None  # sums; None unless it is known of every question
    num_correct: int = 0
    num_graded: int = 0  # questions whose answer is known to be right or wrong
    num_degenerate: int = 0
    num_checked: int = 0  # questions whose output was checked for repetition

    @property
    def total_ms(self) -> float:
        return self.draft_ms + self.verify_ms

    @property
    def speedup_ratio(self) -> float | None:
        """Ratio of sums: what all questions together gain."""
        return _ratio(self.baseline_ms, self.total_ms)

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted / drafted tokens, ratio of sums."""
        return _ratio(self.num_accepted, self.num_drafted)

    @property
    def acceptance_len(self) -> float | None:
        """Tokens emitted per round, bonus included, ratio of sums."""
        return _ratio(self.num_output_tokens, self.num_rounds)

    @property
    def passes_per_round(self) -> float | None:
        return _ratio(self.num_forward_passes, self.num_rounds)


@dataclass(frozen=True)
class PlainRow:
    """Plain decoding as it was measured: the baseline of the measured speedups."""

    num_questions: int
    num_output_tokens: int
    total_ms: float

    @property
    def ms_per_token(self) -> float | None:
        return _ratio(self.total_ms, self.num_output_tokens)


def engines_of(stats: Sequence[QuestionStats]) -> list[str]:
    """Modelled engines in order of appearance, then "measured" if any entry has measured times or prices."""
    drafted = [entry for entry in stats if entry.drafter_name != PLAIN]
    names = dict.fromkeys(name for entry in drafted for name in entry.prices if name != MEASURED)
    has_measured = any(entry.has_measured_times or MEASURED in entry.prices for entry in drafted)
    return [*names, *([MEASURED] if has_measured else [])]


def rank(stats: Sequence[QuestionStats], engine: str) -> list[RankRow]:
    """The configurations, best mean-of-questions speedup first; ties by name. Plain decoding is not ranked.

    Questions without the engine's price are left out and counted; configurations without any come last,
    unranked.
    """
    rows = [_row(name, entries, engine) for name, entries in by_drafter(stats).items()]
    rows.sort(key=lambda row: (row.speedup_mean is None, -(row.speedup_mean or 0.0), row.drafter_name))
    return [
        row if row.speedup_mean is None else dataclasses.replace(row, rank=position)
        for position, row in enumerate(rows, start=1)
    ]


def by_drafter(stats: Iterable[QuestionStats]) -> dict[str, list[QuestionStats]]:
    """The merged entries of each configuration but plain decoding."""
    found: dict[str, list[QuestionStats]] = {}
    for entry in merge(stats):
        if entry.drafter_name != PLAIN:
            found.setdefault(entry.drafter_name, []).append(entry)
    return found


def priced_under(engine: str, entries: Iterable[QuestionStats]) -> list[QuestionStats]:
    """The entries that have the engine's price, sorted by question.

    Sorted, so that the last digit of a sum does not depend on the order of the inputs.
    """
    priced = [entry for entry in entries if engine in entry.prices and entry.prices[engine].total_ms > 0]
    return sorted(priced, key=lambda entry: (entry.source, entry.question_id))


def _row(name: str, entries: list[QuestionStats], engine: str) -> RankRow:
    priced = priced_under(engine, entries)
    prices = [entry.prices[engine] for entry in priced]
    return RankRow(
        rank=None,
        drafter_name=name,
        num_questions=len(priced),
        num_left_out=len(entries) - len(priced),
        num_output_tokens=sum(entry.num_output_tokens for entry in priced),
        num_accepted=sum(entry.num_accepted for entry in priced),
        num_drafted=sum(entry.num_drafted for entry in priced),
        num_rounds=sum(entry.num_rounds for entry in priced),
        num_forward_passes=sum(entry.num_forward_passes for entry in priced),
        draft_ms=sum(one.draft_ms for one in prices),
        verify_ms=sum(one.verify_ms for one in prices),
        baseline_ms=sum(one.baseline_ms for one in prices),
        speedup_mean=_ratio(sum(one.speedup for one in prices), len(prices)),
        ceiling=sum_ceilings([entry.ceilings.get(engine) for entry in priced]),
        num_correct=sum(entry.is_correct is True for entry in priced),
        num_graded=sum(entry.is_correct is not None for entry in priced),
        num_degenerate=sum(entry.is_degenerate is True for entry in priced),
        num_checked=sum(entry.is_degenerate is not None for entry in priced),
    )


def best(rows: Sequence[RankRow]) -> RankRow | None:
    """The first row of a ranking, if it has a speedup at all."""
    return rows[0] if rows and rows[0].rank == 1 else None


def plain_row(stats: Sequence[QuestionStats]) -> PlainRow | None:
    """Plain decoding as measured; None if no entry has it."""
    entries = [entry for entry in merge(stats) if entry.drafter_name == PLAIN and entry.has_measured_times]
    if not entries:
        return None
    entries.sort(key=lambda entry: (entry.source, entry.question_id))
    return PlainRow(
        num_questions=len(entries),
        num_output_tokens=sum(entry.num_output_tokens for entry in entries),
        total_ms=sum((entry.draft_ms or 0.0) + (entry.verify_ms or 0.0) for entry in entries),
    )


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
