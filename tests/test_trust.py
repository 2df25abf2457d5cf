"""Measured times on a busy machine: noticed by CPU time, load and uneven tokens, said in one line, never the best."""

from __future__ import annotations

import dataclasses
import json

import pytest
from fakes import FakeClock, FakeDraft, ScriptedDrafter, ScriptedTarget
from samples import make_plain, make_record, make_round, of_question, with_settings

from specdec.decoding.loop import speculate
from specdec.latency.profile import MEASURED
from specdec.ranking.entries import Entry, entry_of, merge
from specdec.ranking.logs import parse_log_lines
from specdec.ranking.table import table_of
from specdec.ranking.trust import Conditions, doubt, spread
from specdec.records.record import Record
from specdec.views.record_text import record_lines
from specdec.views.table_data import ranking_document
from specdec.views.tables import ranking_report

BUSY = "measured times are not to be trusted: the machine was busy (wall/CPU 2.1; load 11 on 2 cores)"


def under(record: Record, wall_over_cpu: float, load: float = 1.0, device: str = "cpu") -> Record:
    """The record as if each round had spent that much of its wall clock waiting, on 2 cores."""
    rounds = [dataclasses.replace(r, cpu_ms=(r.draft_ms + r.verify_ms) / wall_over_cpu) for r in record.rounds]
    provenance = {"machine": {"load": [1.0, load], "num_cores": 2}, "num_threads": 1}
    identity = with_settings(record.identity, {"device": device})
    return dataclasses.replace(record, rounds=rounds, provenance=provenance, identity=identity)


def entries(wall_over_cpu: float, **conditions: object) -> list[Entry]:
    pairs = [(of_question(make_record(), question_id=i), make_plain(i)) for i in range(6)]
    return merge(entry_of(under(one, wall_over_cpu, **conditions)) for pair in pairs for one in pair)


def test_a_busy_machine_is_one_line_and_has_no_measured_best() -> None:
    report = ranking_report(entries(2.1, load=11.0))
    assert report.count("busy") == 1 and f"Best configuration: none ({BUSY})" in report
    (engine,) = ranking_document(entries(2.1, load=11.0))["engines"]
    assert (engine["best"], engine["doubt"]) == (None, BUSY)
    assert all(row["is_level_with_best"] is None for row in engine["rows"])


def test_a_quiet_machine_has_a_best() -> None:
    table = table_of(entries(1.02), MEASURED)
    assert (table.doubt, table.best) == ("", table.rows[0])
    assert "doubt" not in ranking_document(entries(1.02))["engines"][0]


def test_a_waiting_host_is_no_busy_machine_on_a_gpu() -> None:
    """It may sleep while the device works; processes that compete with it, or uneven tokens, still speak."""
    assert table_of(entries(9.0, device="cuda"), MEASURED).doubt == ""
    assert "(load 11 on 2 cores)" in table_of(entries(9.0, device="cuda", load=11.0), MEASURED).doubt


@pytest.mark.parametrize(
    ("known", "is_busy"),
    [
        (Conditions(), False),  # a record of before
        (Conditions(wall_ms=10.0, cpu_ms=19.0, load=2.1, num_cores=2, num_threads=2), False),  # two threads alone
        (Conditions(wall_ms=10.0, cpu_ms=19.0, load=4.0, num_cores=2, num_threads=2), True),  # they spin beside others
        (Conditions(wall_ms=10.0, cpu_ms=9.9, load=4.0, num_cores=2, num_threads=1), False),  # it has its core
        (Conditions(spread=1.6), False),
        (Conditions(spread=3.0), True),
        (Conditions(wall_ms=0.0, cpu_ms=0.0), False),  # a replay
    ],
)
def test_what_speaks_against_a_clock(known: Conditions, is_busy: bool) -> None:
    assert bool(doubt([known], on_gpu=False)) is is_busy


def test_the_spread_is_of_the_slowest_tenth() -> None:
    assert spread([1.0] * 9 + [5.0] * 2) == 5.0
    assert spread([1.0] * 99 + [50.0]) == 1.0
    assert spread([1.0] * 3) is None and spread([0.0] * 20) is None
    uneven = [make_round(3 + i, (), 0, verify_ms=30.0 if i % 5 == 0 else 10.0) for i in range(20)]
    assert Conditions.of(make_record(drafter="plain", rounds=uneven)).spread == 3.0
    assert Conditions.of(make_record(rounds=uneven)).spread is None  # drafts differ in length


def test_records_keep_the_cpu_time_and_older_ones_are_read_without_it() -> None:
    record = under(make_record(), 2.0)
    again = Record.from_builtins(record.to_builtins())
    assert [turn.cpu_ms for turn in again.rounds] == [turn.cpu_ms for turn in record.rounds] != [None, None]
    before = Record.from_builtins(make_record().to_builtins())
    assert all("cpu_ms" not in entry for entry in before.to_builtins()["stats_each_round"])
    assert Conditions.of(before) == Conditions()


def test_strange_provenance_is_not_known() -> None:
    for machine in ("busy", {"load": "high", "num_cores": -1}, {"load": [float("nan"), True]}):
        strange = dataclasses.replace(make_record(), provenance={"machine": machine, "num_threads": "many"})
        assert Conditions.of(strange) == Conditions()


def test_logs_carry_the_conditions() -> None:
    lines = [line for entry_record in (under(make_plain(), 2.1, load=11.0), under(make_record(), 2.1, load=11.0))
             for line in record_lines(entry_record, entry_of(entry_record))]  # fmt: skip
    read = parse_log_lines(lines)
    assert doubt([one.conditions for one in read], on_gpu=False) == BUSY
    damaged = [line.replace('"cpu_ms": ', '"cpu_ms": "x", "y": ') for line in lines]
    assert all(one.conditions == Conditions() for one in parse_log_lines(damaged))
    json.dumps([one.conditions.to_builtins() for one in read])


def test_the_loop_reads_its_clock_thrice_a_round() -> None:
    """Which is how CPU times are told apart (`records.rounds.with_cpu_times`)."""
    from specdec.records.rounds import with_cpu_times

    clock, cpu_s = FakeClock(), []

    def read() -> float:
        cpu_s.append(clock() / 2)
        return clock()

    drafter = ScriptedDrafter(lambda prefix, budget: FakeDraft([]), clock, seconds=0.5)
    target = ScriptedTarget([5, 6, 7, 8], clock, seconds=0.25)
    rounds = speculate(target, drafter, [1], max_new_tokens=3, stop_ids=(), clock=read)
    assert [turn.cpu_ms for turn in with_cpu_times(rounds, cpu_s)] == [375.0] * 3
