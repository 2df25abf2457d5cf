"""Ceilings as data: shares, sums, their table, and what a log may say of them."""

from __future__ import annotations

import pytest
from samples import make_record

from specdec.latency.pricing import Price
from specdec.ranking.ceiling import Ceiling, ceiling_table, sum_ceilings
from specdec.ranking.entries import stats_of
from specdec.ranking.logs import parse_log_lines
from specdec.ranking.ranking import rank
from specdec.views.record_text import record_lines
from specdec.views.tables import ranking_report

ONE, OTHER = Ceiling(60.0, 20.0, 15.0, 5.0), Ceiling(90.0, 0.0, 10.0, 0.0)


def test_shares_and_sums() -> None:
    assert (ONE.total_ms, ONE.share) == (100.0, 0.6)
    assert sum_ceilings([ONE, OTHER]) == Ceiling(150.0, 20.0, 25.0, 5.0)
    assert sum_ceilings([]) is sum_ceilings([ONE, None]) is None


def test_the_table_names_what_is_lost_to_what() -> None:
    table = ceiling_table([("a", ONE), ("unknown", None)]).split("\n")
    assert table[1].split() == ["a", "60.0%", "20.0%", "15.0%", "5.0%"] and "unknown" not in "\n".join(table)
    assert ceiling_table([("unknown", None)]) == ""


def test_a_log_carries_them() -> None:
    prices, ceilings = {"P": Price(30.0, 70.0, 200.0)}, {"P": ONE}
    lines = record_lines(make_record(0), prices, ceilings) + record_lines(make_record(1), prices, {"P": OTHER})
    stats = parse_log_lines(lines)
    assert [entry.ceilings for entry in stats] == [{"P": ONE}, {"P": OTHER}]
    assert rank(stats, "P")[0].ceiling == Ceiling(150.0, 20.0, 25.0, 5.0)
    assert "of the ceiling" in ranking_report(stats)
    assert rank([*stats, stats_of(make_record(2), prices)], "P")[0].ceiling is None  # not known of every question


@pytest.mark.parametrize("value", ["Infinity", "NaN", '"x"', "null", "-1000"])
def test_a_damaged_one_is_no_entry(value: str) -> None:
    (line, *_) = record_lines(make_record(0), {"P": Price(30.0, 70.0, 200.0)}, {"P": ONE})
    assert parse_log_lines([line.replace('"best_ms": 60.0', f'"best_ms": {value}')]) == []
