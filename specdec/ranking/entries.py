"""Entries: what a ranking keeps of one question under one configuration, from a record or a log."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from specdec.config import add_flags
from specdec.drafters.specs import Plain
from specdec.errors import UserError
from specdec.latency.pricing import Price, measured, price
from specdec.latency.profile import MEASURED, LatencyProfile, engine_name, priced_entry
from specdec.questions.grading import is_correct
from specdec.questions.repetition import is_degenerate
from specdec.ranking.ceiling import Ceiling
from specdec.ranking.oracle import Judges
from specdec.records.identity import SAMPLED
from specdec.records.record import Record, find_records, load_record

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


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """How records are priced and graded, and whether they must be of the same questions; flags as in failfast.py."""
    add_flags(parser, ("latency_profile", "latency_target", "run_code"))
    parser.add_argument(
        "--allow_unequal",
        action="store_true",
        help="rank configurations that were run on different questions, over those that all of them have",
    )


@dataclass(frozen=True)
class Reading:
    """How records become entries: what prices them, what says how near they come to the ceiling, what grades them."""

    profiles: Sequence[LatencyProfile]
    latency_target: str | None = None
    judges: Judges | None = None
    run_code: bool = False

    def entry(self, record: Record) -> QuestionStats:
        prices = model_prices(record, self.profiles, self.latency_target)
        ceilings = None if self.judges is None else self.judges.ceilings(record)
        return stats_of(record, prices, ceilings, run_code=self.run_code)


def records_of(folder: str | Path) -> list[Record]:
    """All records of a results folder, or of a folder in it. Raises UserError if there is none, or a damaged one."""
    paths = find_records(folder)
    if not paths:
        raise UserError(f"{folder} holds no records: give the --output_dir of a finished run")
    return [load_record(path) for path in paths]
