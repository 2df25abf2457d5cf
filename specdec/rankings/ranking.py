"""Ranking: drafter configurations, best first, from what each question gave under each of them.

Not here: reading logs (`logs.py`), making tables (`tables.py`), how far a difference can be believed
(`comparisons.py`), and the prices themselves (`latency.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from specdec.answers.grading import is_correct
from specdec.answers.repetition import is_degenerate
from specdec.errors import UserError
from specdec.latency import MEASURED, LatencyProfile, Price, measured, price, priced_entry
from specdec.rankings.ceiling import Ceiling, sum_ceilings
from specdec.records import SAMPLED, Record
from specdec.specs import Plain

PLAIN = Plain().name


@dataclass(frozen=True)
class QuestionStats:
    """One question under one configuration, from a record or a log. Counts are totals over the rounds."""

    question_id: int
    drafter_name: str
    num_output_tokens: int
    num_accepted: int
    num_drafted: int
    num_rounds: int
    num_forward_passes: int
    prices: dict[str, Price] = field(default_factory=dict)  # by engine name; "measured" is wall clock
    draft_ms: float | None = None  # wall clock; None where only modelled prices are known
    verify_ms: float | None = None
    source: str = ""  # what makes question 0 another question (see `source_of`); "" if unknown
    settings: str = ""  # digest of everything that decided the result; "" if unknown
    output: str = ""  # digest of the output tokens; "" if unknown
    ceilings: dict[str, Ceiling] = field(default_factory=dict)  # by engine name, where a trace is known
    is_correct: bool | None = None  # the answer; None where it was not graded
    is_degenerate: bool | None = None  # mostly one loop (`repetition.py`); None if unknown
    losslessness: str = ""  # "exact", "tie", "bug" or "sampled" (`losslessness.py`); "" if unknown

    @property
    def measured_ms_per_token(self) -> float:
        """Wall clock per output token; ValueError where it is not known."""
        if self.draft_ms is None or self.verify_ms is None:
            raise ValueError(f"question {self.question_id}, {self.drafter_name}: no measured times")
        return (self.draft_ms + self.verify_ms) / self.num_output_tokens

    @property
    def has_measured_times(self) -> bool:
        return self.draft_ms is not None and self.verify_ms is not None


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


def stats_of(
    record: Record,
    prices: dict[str, Price] | None = None,
    ceilings: dict[str, Ceiling] | None = None,
    *,
    run_code: bool = False,
) -> QuestionStats:
    """What a ranking needs of a record, with its modelled `prices` and `ceilings` by engine name.

    `run_code`: grade programs by running them (`grading.py`).
    """
    return QuestionStats(
        question_id=record.question_id,
        drafter_name=record.drafter_name,
        num_output_tokens=record.num_output_tokens,
        num_accepted=record.num_accepted,
        num_drafted=record.num_drafted,
        num_rounds=record.num_rounds,
        num_forward_passes=record.num_forward_passes,
        prices=dict(prices or {}),
        draft_ms=float(record.draft_ms) if record.is_timed else None,
        verify_ms=float(record.verify_ms) if record.is_timed else None,
        source=source_of(record),
        settings=_digest(record.identity),
        output=_digest(record.output_tokens),
        ceilings=dict(ceilings or {}),
        is_correct=is_correct(record, run_code=run_code),
        is_degenerate=_is_degenerate(tuple(record.output_tokens)),
        losslessness=SAMPLED if record.is_sampled else "" if record.divergence is None else record.divergence.kind,
    )


@lru_cache(maxsize=1024)
def _is_degenerate(tokens: tuple[int, ...]) -> bool:
    """Asked once for all drafters, and all replayed settings, that wrote the same."""
    return is_degenerate(tokens)


def source_of(record: Record) -> str:
    """Target, data set, budget and arithmetic: "bundled gsm8k 1024 float32 cpu"; of sampled records also how."""
    identity, known = record.identity, ("target", "dataset", "max_new_tokens", "dtype", "device")
    parts = [str(identity[key]) for key in known if key in identity]
    parts += [f"{key} {identity[key]}" for key in ("temperature", "top_k", "top_p") if key in identity]
    return " ".join(parts)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def plain_outputs(stats: Iterable[QuestionStats]) -> dict[tuple[str, int], str]:
    """(source, question) -> digest of what plain decoding wrote, where it is known."""
    return {(e.source, e.question_id): e.output for e in stats if e.drafter_name == PLAIN and e.output}


def model_prices(
    record: Record, profiles: Iterable[LatencyProfile], latency_target: str | None = None
) -> dict[str, Price]:
    """Modelled prices by engine name, which says "as if TARGET" where that is not the record's own target.

    `latency_target` None: the record's own target, the bundled one as Qwen2.5-32B-Instruct. UserError for a
    target that a profile lacks.
    """
    own = str(record.identity["target"])
    prices = {}
    for profile in profiles:
        entry = priced_entry(profile, own, latency_target)
        prices[engine_name(profile.title, entry, own)] = price(record, profile, entry)
    return prices


def engine_name(profile_title: str, entry: str, target: str) -> str:
    """`("P", "Q-7B", "org/Q-7B")` gives "P"; `("P", "Q-7B", "bundled")` gives "P as if Q-7B"."""
    return profile_title if target.rstrip("/").rpartition("/")[2] == entry else f"{profile_title} as if {entry}"


def merge(stats: Iterable[QuestionStats]) -> list[QuestionStats]:
    """One entry per question and configuration, in order of first appearance, with its measured price.

    A later entry replaces an earlier one; if both report the same run, their prices are united. The measured
    price needs plain decoding of the same question; where that is missing, a price that a log states is kept.
    """
    merged: dict[tuple[str, int, str], QuestionStats] = {}
    for entry in stats:
        key = (entry.source, entry.question_id, entry.drafter_name)
        earlier = merged.get(key)
        if earlier is not None and earlier.settings and entry.settings and earlier.settings != entry.settings:
            raise UserError(
                f"question {entry.question_id}, {entry.drafter_name}, is there twice, made with other settings: "
                "rank the two runs apart"
            )
        if earlier is not None and _counts(earlier) == _counts(entry):
            prices, ceilings = earlier.prices | entry.prices, earlier.ceilings | entry.ceilings
            entry = dataclasses.replace(entry, prices=prices, ceilings=ceilings)
        merged[key] = entry
    return [
        _with_measured(entry, merged.get((source, question_id, PLAIN)))
        for (source, question_id, _), entry in merged.items()
    ]


def _counts(entry: QuestionStats) -> QuestionStats:
    return dataclasses.replace(entry, prices={}, ceilings={})


def _with_measured(entry: QuestionStats, plain: QuestionStats | None) -> QuestionStats:
    if plain is None or not plain.has_measured_times or not entry.has_measured_times:
        return entry
    if not (entry.num_output_tokens and plain.num_output_tokens):
        return entry
    return dataclasses.replace(entry, prices=entry.prices | {MEASURED: measured(entry, plain)})


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
