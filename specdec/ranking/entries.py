"""Entries: what a ranking keeps of one question under one configuration, from a record or a log."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from specdec.decoding.cost_aware import has_seen
from specdec.drafters.plain import PLAIN
from specdec.errors import UserError
from specdec.latency.accounting import OURS, num_drafted, num_passes
from specdec.latency.pricing import Price, Pricing, measured
from specdec.latency.profile import MEASURED
from specdec.questions.grading import is_correct
from specdec.questions.repetition import is_degenerate
from specdec.ranking.acceptance import RoundCounts
from specdec.ranking.ceiling import Ceiling
from specdec.ranking.oracle import Judges, TraceJudges
from specdec.ranking.source import Source
from specdec.ranking.trust import Conditions
from specdec.records.identity import SAMPLED, former_name
from specdec.records.places import load_records
from specdec.records.record import Record, load_record

NO_PRICING, UNKNOWN = Pricing(), Source()
_FROM_EITHER: tuple[str, ...] = ("has_seen", "ttft_ms", "rounds")  # what one entry of a run may know and another not
COUNTS = ("num_output_tokens", "num_accepted", "num_drafted", "num_rounds", "num_forward_passes")


@dataclass(frozen=True)
class Entry:
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
    source: Source = UNKNOWN  # what makes question 0 another question
    settings: str = ""  # digest of everything that decided the result; "" if unknown
    origin: str = ""  # live, replayed, ... (`identity.py`); "" if unknown
    output: str = ""  # digest of the output tokens; "" if unknown
    ceilings: dict[str, Ceiling] = field(default_factory=dict)  # by engine name, where a trace is known
    is_correct: bool | None = None  # the answer; None where it was not graded
    is_degenerate: bool | None = None  # mostly one loop (`repetition.py`); None if unknown
    losslessness: str = ""  # "exact", "tie", "bug" or "sampled" (`losslessness.py`); "" if unknown
    accounting: str = OURS  # whose way of counting passes and drafted tokens
    category: str = ""  # of the question, as its row has it; "" for none
    other_prices: dict[str, Price] = field(default_factory=dict)  # by profiles that were not asked for
    conditions: Conditions = Conditions()  # how busy the machine was; of a timed record
    ttft_ms: float | None = None  # wall clock until the first round's tokens (`Record.ttft_ms`); None: not known
    rounds: RoundCounts | None = None  # its rounds by what they drafted and accepted; None: not known
    has_seen: bool | None = None  # whether the drafter's policy has learnt from this question; None: not said

    @property
    def measured_ms_per_token(self) -> float:
        """Wall clock per output token; ValueError where it is not known."""
        if self.draft_ms is None or self.verify_ms is None:
            raise ValueError(f"question {self.question_id}, {self.drafter_name}: no measured times")
        return (self.draft_ms + self.verify_ms) / self.num_output_tokens

    @property
    def has_measured_times(self) -> bool:
        return self.draft_ms is not None and self.verify_ms is not None


def entry_of(
    record: Record, pricing: Pricing = NO_PRICING, judges: Judges | TraceJudges | None = None, *, run_code: bool = False
) -> Entry:
    """The entry of a record: the one place where it is priced, graded and set against the ceiling.

    `judges`: how near it comes to the ceiling; None: not asked. `run_code`: grade programs by running them
    (`grading.py`). Passes are counted as `pricing` says; those of another program were not made here, so that no clock
    and no ceiling goes with them. Raises UserError where it cannot be priced or judged.
    """
    counts: dict[str, Any] = {name: getattr(record, name) for name in ("question_id", "drafter_name", *COUNTS)}
    accounting, is_own = pricing.accounting, pricing.accounting == OURS
    counts |= {"num_drafted": num_drafted(record, accounting), "num_forward_passes": num_passes(record, accounting)}
    is_timed = record.is_timed and (is_own or record.drafter_name == PLAIN)
    return Entry(
        **counts,
        prices=pricing.prices(record),
        draft_ms=float(record.draft_ms) if is_timed else None,
        verify_ms=float(record.verify_ms) if is_timed else None,
        source=Source.of(record),
        settings=_digest(record.identity.former() | ({} if is_own else {"pass_accounting": accounting})),
        origin=record.identity.origin,
        output=_digest(record.output_tokens),
        ceilings=judges.ceilings(record) if judges is not None and is_own else {},
        is_correct=is_correct(record, run_code=run_code),
        is_degenerate=_is_degenerate(tuple(record.output_tokens)),
        accounting=accounting,
        category=category_of(record),
        other_prices=pricing.other_prices(record),
        conditions=Conditions.of(record) if is_timed else Conditions(),
        has_seen=has_seen(record.provenance),
        ttft_ms=record.ttft_ms if is_timed else None,
        rounds=RoundCounts.of(record),
        losslessness=SAMPLED if record.is_sampled else "" if record.divergence is None else record.divergence.kind,
    )


def category_of(record: Record) -> str:
    """The category that a question's row names; "" for none."""
    category = record.raw_data.get("category")
    return str(category) if isinstance(category, str | int | float) else ""


@lru_cache(maxsize=1024)
def _is_degenerate(tokens: tuple[int, ...]) -> bool:
    """Asked once for all drafters, and all replayed settings, that wrote the same."""
    return is_degenerate(tokens)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def merge(stats: Iterable[Entry]) -> list[Entry]:
    """One entry per question and configuration, in order of first appearance, with its measured price.

    A later entry replaces an earlier one; if both report the same run, their prices are united. The measured
    price needs plain decoding of the same question; where that is missing, a price that a log states is kept.
    """
    merged: dict[tuple[Source, int, str], Entry] = {}
    for entry in _under_present_names(list(stats)):
        key = (entry.source, entry.question_id, entry.drafter_name)
        earlier = merged.get(key)
        for name, what in (("settings", "made with other settings"), ("origin", "once run and once replayed")):
            known = {getattr(one, name) for one in (earlier, entry) if one is not None} - {""}
            if len(known) > 1:
                twice = f"question {entry.question_id}, {entry.drafter_name}, is there twice, {what}"
                raise UserError(f"{twice}: rank the two runs apart")
        if earlier is not None and _counts(earlier) == _counts(entry):
            entry = _united(earlier, entry)
        merged[key] = entry
    return [
        with_measured(entry, merged.get((source, question_id, PLAIN)))
        for (source, question_id, _), entry in merged.items()
    ]


def _united(earlier: Entry, entry: Entry) -> Entry:
    """Two entries of one run, with what either knows."""
    return dataclasses.replace(
        entry,
        prices=earlier.prices | entry.prices,
        ceilings=earlier.ceilings | entry.ceilings,
        other_prices=earlier.other_prices | entry.other_prices,
        origin=entry.origin or earlier.origin,
        category=entry.category or earlier.category,
        **{name: getattr(earlier if getattr(entry, name) is None else entry, name) for name in _FROM_EITHER},
    )


def _under_present_names(stats: Sequence[Entry]) -> list[Entry]:
    """Entries of logs from when names held no first window and no rule take the names of the same runs' records."""
    names = {
        (entry.source, entry.question_id, entry.settings): entry.drafter_name for entry in stats if _is_renamed(entry)
    }
    present = [names.get((entry.source, entry.question_id, entry.settings), entry.drafter_name) for entry in stats]
    return [dataclasses.replace(entry, drafter_name=name) for entry, name in zip(stats, present, strict=True)]


def _is_renamed(entry: Entry) -> bool:
    return entry.settings != "" and former_name(entry.drafter_name) != entry.drafter_name


def _counts(entry: Entry) -> Entry:
    """What two entries of one run have in common."""
    unknown: dict[str, Any] = dict.fromkeys(_FROM_EITHER)
    return dataclasses.replace(
        entry,
        prices={},
        ceilings={},
        other_prices={},
        origin="",
        category="",
        conditions=Conditions(),
        **unknown,
    )


def with_measured(entry: Entry, plain: Entry | None) -> Entry:
    """The entry with its measured price, where `plain`, plain decoding of the same question, and it have times."""
    if plain is None or not plain.has_measured_times or not entry.has_measured_times:
        return entry
    if not (entry.num_output_tokens and plain.num_output_tokens):
        return entry
    return dataclasses.replace(entry, prices=entry.prices | {MEASURED: measured(entry, plain)})


def records_of(folder: str | Path) -> list[Record]:
    """All records of a results folder, a folder in it, or one file. UserError if there is none, or a damaged one."""
    if not Path(folder).exists():
        raise UserError(f"{folder} does not exist: give a results folder (failfast.py --output_dir) or a record")
    records = [load_record(folder)] if Path(folder).is_file() else load_records(folder)
    if not records:
        raise UserError(f"{folder} holds no records: give the --output_dir of a finished run")
    return records
