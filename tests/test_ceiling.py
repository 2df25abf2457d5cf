"""Ceilings as data: shares, sums, their table, and what a log may say of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from samples import make_record

from specdec.latency.pricing import Price
from specdec.ranking.ceiling import Ceiling
from specdec.ranking.entries import Entry, entry_of
from specdec.ranking.logs import parse_log_lines
from specdec.ranking.quantities import CEILING_PARTS
from specdec.ranking.table import table_of
from specdec.views.record_text import record_lines
from specdec.views.tables import ceiling_table, ranking_report

ONE, OTHER = Ceiling(60.0, 20.0, 15.0, 5.0), Ceiling(90.0, 0.0, 10.0, 0.0)


def entry(drafter: str, ceiling: Ceiling | None, question_id: int = 0, engine: str = "P") -> Entry:
    ceilings = {} if ceiling is None else {"P": ceiling}
    return Entry(question_id, drafter, 5, 3, 4, 2, 6, {engine: Price(30.0, 70.0, 200.0)}, ceilings=ceilings)


def priced(question_id: int, **changes: Any) -> Entry:
    return dataclasses.replace(entry_of(make_record(question_id)), prices={"P": Price(30.0, 70.0, 200.0)}, **changes)


def lines_of(question_id: int, ceiling: Ceiling) -> list[str]:
    return record_lines(make_record(question_id), priced(question_id, ceilings={"P": ceiling}))


def sums_of(*entries: Entry) -> list[float | None]:
    (row,) = table_of(entries, "P").rows
    assert row.has("ceiling_share") == ("best_ms" in row.sums and row.num_questions > 0)
    return [row.sums.get(name) for name in CEILING_PARTS] if row.has("ceiling_share") else [None]


def test_shares_and_sums() -> None:
    assert (ONE.total_ms, ONE.share) == (100.0, 0.6)
    assert sums_of(entry("a", ONE), entry("a", OTHER, 1)) == [150.0, 20.0, 25.0, 5.0]
    assert sums_of(entry("a", ONE, engine="Q")) == sums_of(entry("a", ONE), entry("a", None, 1)) == [None]


def test_the_table_names_what_is_lost_to_what() -> None:
    table = ceiling_table(table_of([entry("a", ONE), entry("unknown", None)], "P")).split("\n")
    assert table[1].split() == ["a", "60.0%", "20.0%", "15.0%", "5.0%"] and "unknown" not in "\n".join(table)
    assert ceiling_table(table_of([entry("unknown", None)], "P")) == ""


def test_a_log_carries_them() -> None:
    stats = parse_log_lines(lines_of(0, ONE) + lines_of(1, OTHER))
    assert [entry.ceilings for entry in stats] == [{"P": ONE}, {"P": OTHER}]
    assert sums_of(*stats) == [150.0, 20.0, 25.0, 5.0]
    assert "of the ceiling" in ranking_report(stats)
    assert sums_of(*stats, priced(2)) == [None]  # not known of every question


@pytest.mark.parametrize("value", ["Infinity", "NaN", '"x"', "null", "-1000"])
def test_a_damaged_one_is_no_entry(value: str) -> None:
    (line, *_) = lines_of(0, ONE)
    assert parse_log_lines([line.replace('"best_ms": 60.0', f'"best_ms": {value}')]) == []
