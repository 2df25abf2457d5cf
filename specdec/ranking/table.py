"""The table: drafter configurations under one engine, best first, every quantity with its interval.

Views (`specdec/views/`) and figures choose among the quantities (`quantities.py`). Not here: reading files
(`table_files.py`), and how far two configurations can be told apart (`comparisons.py`).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from specdec.drafters.base import Spec
from specdec.drafters.families import parse_name
from specdec.latency.accounting import OURS
from specdec.latency.profile import MEASURED
from specdec.ranking.comparisons import (
    BEHIND,
    BEST,
    UNDECIDED,
    Difference,
    ar_baseline,
    differences,
    questions_needed,
    standing_of_first,
)
from specdec.ranking.entries import PLAIN, Entry
from specdec.ranking.quantities import CEILING_SHARES as CEILING_SHARES
from specdec.ranking.quantities import COMPARED, QUANTITIES, Quantity, parts_of, summed, values_from
from specdec.ranking.question_sets import num_rows, paired
from specdec.ranking.ranking import by_drafter, plain_entries, priced_under
from specdec.ranking.scopes import scope_of
from specdec.ranking.statistics import PairedBootstrap, Value, ratio_values, values_of
from specdec.ranking.trust import doubt


@dataclass(frozen=True)
class Row:
    """One drafter configuration. What is not known of it stands in neither `sums` (by part) nor `values` (by quantity).

    `rank` counts from 1; None, with no speedup, when no question has the engine's price, or a file does not say.
    """

    drafter_name: str
    sums: dict[str, float] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    rank: int | None = None
    num_left_out: int = 0  # questions without this engine's price; in none of the numbers
    differences: dict[str, Difference] = field(default_factory=dict)  # "to_best", "ratio_to_ar", ...
    standing: str = ""  # best, level, behind or undecided (`comparisons.py`); "": not known
    own_label: str = ""  # a file's name for it, where it has one

    @property
    def spec(self) -> Spec:
        return parse_name(self.drafter_name)

    @property
    def may_be_best(self) -> bool | None:
        """Whether it is the best, or not told from it; None: not known."""
        return self.standing != BEHIND if self.standing else None

    @property
    def num_questions(self) -> int | None:
        found = self.sums.get("num_questions")
        return None if found is None else int(found)

    def has(self, *quantities: str) -> bool:
        return all(quantity in self.values for quantity in quantities)

    def number(self, name: str) -> float | None:
        """A quantity's value, or a part's sum."""
        return self.values[name].value if name in self.values else self.sums.get(name)

    @property
    def ms_per_token(self) -> float | None:
        """Its time an output token, under the table's engine."""
        total, tokens = self.number("total_ms"), self.sums.get("num_output_tokens")
        return total / tokens if total and tokens else None

    def per_question(self, quantity: str) -> Value:
        """A time of one question, mean of all; of a single one where a file does not count them."""
        return self.values[quantity].times(1 / (self.num_questions or 1))


@dataclass(frozen=True)
class Table:
    """All configurations under one engine, best first. `title`: which questions, or which file.

    `plain`: plain decoding, the baseline, at 1.00x; it has no rank. `num_needed`: about how many questions would do,
    where these are too few to tell the configurations apart.
    """

    engine: str
    rows: list[Row]
    title: str = ""
    target: str = ""
    num_paired: int = 0  # questions that intervals and differences are over, or conversations; 0 where there are none
    num_rows: int = 0  # of the questions' data sets: less than the questions where these are turns of conversations
    ar_baseline: str | None = None  # the best static AR drafter, where there are differences
    num_degenerate: int = 0  # questions left out because an answer is mostly one loop
    accounting: str = OURS  # whose way of counting passes and drafted tokens
    plain: Row | None = None
    num_needed: int | None = None
    dataset: str = ""
    max_new_tokens: int | str = ""  # of several budgets, all of them
    doubt: str = ""  # why measured times are not to be trusted: then nothing is best

    @property
    def first(self) -> Row | None:
        """The highest speedup, if there is one at all."""
        return self.rows[0] if self.rows and self.rows[0].rank == 1 else None

    @property
    def best(self) -> Row | None:
        """The first row, if it beats plain decoding and its times can be trusted."""
        is_best = self.first and not self.doubt and (self.first.number("speedup_mean") or 0.0) > 1
        return self.first if is_best else None

    @property
    def with_plain(self) -> list[Row]:
        """The rows with plain decoding in its place: before what is slower than it."""
        if self.plain is None:
            return self.rows
        before = [row for row in self.rows if row.rank is not None and (row.number("speedup_mean") or 0.0) > 1]
        return [*before, self.plain, *self.rows[len(before) :]]

    @property
    def over(self) -> str:
        """What intervals and differences are over: "40 questions", or "12 conversations" where these have turns."""
        num = self.num_paired or self.num_rows
        return f"{num} {'conversations' if num < max(self.num_questions, default=0) else 'questions'}"

    @property
    def num_questions(self) -> list[int]:
        """Of every row, where it is known."""
        return [row.num_questions for row in self.rows if row.num_questions is not None]


def table_of(entries: Sequence[Entry], engine: str, intervals: Collection[str] = tuple(QUANTITIES)) -> Table:
    """The configurations but plain decoding, best mean-of-questions speedup first; ties by name.

    Questions without the engine's price are left out and counted; configurations without any come last, unranked.
    Where all others answered the same questions, of MIN_QUESTIONS rows or more, there are differences, and intervals
    of the speedups and of the quantities in `intervals`. Where a busy machine was timed, nothing is best or level.
    """
    table = _table_of(entries, engine, intervals)
    reason = _doubt(entries) if engine == MEASURED else ""
    rows = [replace(row, standing="") for row in table.rows] if reason else table.rows
    return replace(table, rows=rows, doubt=reason)


def _doubt(entries: Sequence[Entry]) -> str:
    """What speaks against the clock: of each device's records, the first that says something."""
    timed = [entry for entry in entries if entry.has_measured_times]
    devices = sorted({entry.source.device for entry in timed})
    said = (
        doubt([one.conditions for one in timed if one.source.device == device], on_gpu=device not in ("", "cpu"))
        for device in devices
    )
    return next(filter(None, said), "")


def _table_of(entries: Sequence[Entry], engine: str, intervals: Collection[str]) -> Table:
    columns, rows = _ranked(entries, engine)
    accounting = next((entry.accounting for column in columns.values() for entry in column), OURS)
    ranked = [row for row in rows if row.rank is not None]
    others = rows[len(ranked) :]
    pairs = paired(entries, [columns[row.drafter_name] for row in ranked])
    plain, of_rows = _plain(entries, engine), num_rows([entry for column in columns.values() for entry in column])
    made = Table(engine, rows, accounting=accounting, plain=plain, num_rows=of_rows, **scope_of(entries))
    if not pairs:
        return made
    baseline = ar_baseline([row.drafter_name for row in ranked])
    # The turns of a conversation resemble each other: they are one observation, the sums of theirs.
    parts = [[summed([parts_of(entry, engine) for entry in turns]) for turns in column] for column in pairs]
    ranked = _with_intervals(ranked, parts, intervals, baseline)
    first = None if baseline is None else ranked[baseline].drafter_name
    to_best = {row.drafter_name: row.differences["to_best"] for row in ranked[1:]}
    needed = questions_needed(to_best, ranked[0].values["speedup_mean"].value, len(parts[0]))
    return replace(made, rows=[*ranked, *others], num_paired=len(parts[0]), ar_baseline=first, num_needed=needed)


def first_by_number(entries: Sequence[Entry], engine: str) -> Row | None:
    """The configuration of the highest mean speedup alone: a table's first row without its intervals."""
    _, rows = _ranked(entries, engine)
    return rows[0] if rows and rows[0].rank else None


def num_unpriced(stats: Sequence[Entry], entries: Sequence[Entry], engine: str) -> int:
    """How many of all configurations of `stats` an engine has no price of; `entries`: them under its profiles."""
    priced = [name for name, own in by_drafter(entries).items() if priced_under(engine, own)]
    return len(by_drafter(stats)) - len(priced)


def _ranked(entries: Sequence[Entry], engine: str) -> tuple[dict[str, list[Entry]], list[Row]]:
    """The entries with the engine's price by configuration, and a row of each, best first; without a price, last."""
    found = by_drafter(entries)
    columns = {name: priced_under(engine, own) for name, own in found.items()}
    rows = [_row(name, column, engine, len(found[name]) - len(column)) for name, column in columns.items()]
    rows.sort(key=lambda row: (not row.num_questions, -(row.number("speedup_mean") or 0.0), row.drafter_name))
    return columns, [replace(row, rank=place if row.num_questions else None) for place, row in enumerate(rows, 1)]


def _plain(entries: Sequence[Entry], engine: str) -> Row:
    """Plain decoding: what is known of it under this engine, and a speedup of 1, which is what a speedup means."""
    priced = priced_under(engine, plain_entries(entries))
    row = _row(PLAIN, priced, engine, 0) if priced else Row(PLAIN)
    return replace(row, values=row.values | dict.fromkeys(COMPARED, Value(1.0)))


def _row(name: str, entries: Sequence[Entry], engine: str, num_left_out: int) -> Row:
    sums = summed([parts_of(entry, engine) for entry in entries])
    return Row(name, sums, values_from(sums), num_left_out=num_left_out)


Parts = Sequence[Sequence[Mapping[str, float]]]  # by configuration and question


def _with_intervals(rows: Sequence[Row], parts: Parts, names: Collection[str], baseline: int | None) -> list[Row]:
    """The rows with the intervals of these quantities, and with differences of those that are COMPARED."""
    values = [dict(row.values) for row in rows]
    made: list[dict[str, Difference]] = [{} for _ in rows]
    for name, quantity in QUANTITIES.items():
        known = [index for index, row in enumerate(rows) if row.has(name)]
        if name in COMPARED:
            bootstrap = PairedBootstrap(*_arrays(quantity, parts))
            bounds = values_of(bootstrap.ratios())
            for reference, place in (("to_best", 0), ("to_ar", baseline)):
                for index, difference in ({} if place is None else differences(bootstrap, place)).items():
                    made[index][COMPARED[name] + reference] = difference
        elif name in names and known:
            most = 1.0 if quantity.is_share else math.inf
            found = ratio_values(*_arrays(quantity, [parts[index] for index in known]))
            bounds = [one.times(1 if quantity.per else len(parts[0])).within(0.0, most) for one in found]
        else:
            continue
        for index, one in zip(known, bounds, strict=True):
            values[index][name] = Value(values[index][name].value, one.low, one.high)
    return agreeing(
        [
            replace(row, values=found, differences=own, standing=_standing(found["speedup_mean"], own.get("to_best")))
            for row, found, own in zip(rows, values, made, strict=True)
        ]
    )


def agreeing(rows: Sequence[Row]) -> list[Row]:
    """The rows, none of them called best while it is undecided whether another is."""
    is_open = any(row.standing == UNDECIDED for row in rows)
    return [replace(row, standing=UNDECIDED) if is_open and row.standing == BEST else row for row in rows]


def _standing(speedup: Value, to_best: Difference | None) -> str:
    return standing_of_first(speedup) if to_best is None else to_best.standing


def _arrays(quantity: Quantity, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """What is divided and what divides it, [Q, C] each."""
    pairs_CQ2 = np.array([[quantity.pair(one) for one in column] for column in parts], float)
    return pairs_CQ2[..., 0].T, pairs_CQ2[..., 1].T
