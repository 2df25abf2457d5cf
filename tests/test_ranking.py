"""Ranking: both averages, questions left out, measured prices, merging, order."""

import dataclasses
import math
from typing import Any

import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from samples import FAILFAST, make_plain, make_record, make_round, records, with_settings

from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.latency.pricing import Price, Pricing, measured
from specdec.latency.profile import MEASURED, engine_name, load_profile
from specdec.ranking.entries import Entry, entry_of, merge
from specdec.ranking.lossless import count_grades
from specdec.ranking.ranking import engines_of, plain_row
from specdec.ranking.source import Source
from specdec.ranking.table import Row, Table, table_of
from specdec.records.identity import LIVE, REPLAY
from specdec.records.record import Record
from specdec.views.tables import ranking_report

ENGINE = "vLLM_A6000 as if Qwen2.5-32B-Instruct"


def make_stats(question_id: int = 0, drafter: str = "d", prices: Any = None, **changes: Any) -> Entry:
    values: dict[str, Any] = {"num_output_tokens": 10, "num_accepted": 6, "num_drafted": 8, "num_rounds": 4}
    values |= {"num_forward_passes": 12, "prices": prices or {}}
    return Entry(question_id, drafter, **(values | changes))


def rank(stats, engine) -> list[Row]:
    return table_of(stats, engine).rows


def numbers(row: Row, *names: str) -> tuple[float | None, ...]:
    return tuple(map(row.number, names))


def test_both_averages():
    prices = Price(0, 100, 400), Price(100, 200, 300)  # speedups 4 and 1
    stats = [make_stats(i, prices={"E": one}) for i, one in enumerate(prices)]
    (row,) = rank(stats, "E")
    assert numbers(row, "speedup_mean", "speedup_ratio") == (2.5, 700 / 400)
    assert numbers(row, "draft_ms", "verify_ms", "total_ms") == (100, 300, 400)
    assert numbers(row, "acceptance_rate", "acceptance_len", "passes_per_round") == (0.75, 2.5, 3.0)


def test_best_first_by_the_mean_and_ties_by_name():
    prices = {"b": 200, "a": 200, "c": 300, "plain": 900}
    stats = [make_stats(drafter=name, prices={"E": Price(0, 100, ms)}) for name, ms in prices.items()]
    rows = rank(stats, "E")
    assert [(row.rank, row.drafter_name) for row in rows] == [(1, "c"), (2, "a"), (3, "b")]
    assert table_of(stats, "E").best.drafter_name == "c"


def test_questions_without_the_price_are_left_out_and_counted():
    stats = [
        make_stats(0, prices={"E": Price(0, 100, 200)}),
        make_stats(1, num_rounds=1000),
        make_stats(0, "never", num_rounds=1000),
    ]
    rows = rank(stats, "E")
    counts = [(row.rank, row.num_questions, row.num_left_out, row.sums["num_rounds"]) for row in rows]
    assert counts == [(1, 1, 1, 4), (None, 0, 1, 0)]
    assert numbers(rows[1], "speedup_mean", "speedup_ratio", "acceptance_rate") == (None, None, None)
    assert table_of(stats, "F").best is None and Table("E", []).best is None


def test_the_measured_baseline_is_plain_decoding_of_the_same_question():
    records_ = [make_record(0), make_record(1), make_plain(0, num_tokens=7, verify_ms=20.0)]
    stats = merge(map(entry_of, records_))
    assert stats[0].prices[MEASURED] == measured(records_[0], records_[2]) == Price(8.0, 20.0, 100.0)
    (row,) = rank(stats, MEASURED)
    assert (row.num_questions, row.num_left_out, row.number("speedup_mean")) == (1, 1, 100 / 28)
    assert (plain_row(stats).ms_per_token, plain_row(stats).num_questions) == (20.0, 1)
    assert engines_of(stats) == [MEASURED]
    assert plain_row(stats[:2]) is None


def test_the_baseline_of_another_run_does_not_count():
    other = make_plain()
    other = dataclasses.replace(other, identity=dataclasses.replace(other.identity, dataset="math"))
    stats = merge([entry_of(make_record()), entry_of(other)])
    assert MEASURED not in stats[0].prices


def test_the_bundled_target_is_priced_as_if_and_says_so():
    profiles = (load_profile("vLLM_A6000"),)
    record = make_record()
    assert list(Pricing(profiles).prices(record)) == [ENGINE]
    assert list(Pricing(profiles, "Qwen/Qwen2.5-7B-Instruct").prices(record)) == [
        "vLLM_A6000 as if Qwen2.5-7B-Instruct"
    ]
    own = dataclasses.replace(record.identity, target="Qwen/Qwen2.5-14B-Instruct")
    record = dataclasses.replace(record, identity=own)
    assert list(Pricing(profiles).prices(record)) == ["vLLM_A6000"]
    assert engine_name("P", "Q", "some/folder/Q/") == "P"


def test_pricing_is_loaded_once_checks_a_target_and_names_its_entries():
    pricing = Pricing.load(["vLLM_A6000"])
    assert pricing.engines("bundled") == ["Qwen2.5-32B-Instruct@vLLM_A6000"]
    as_if = Pricing.load(["vLLM_A6000"], "Qwen2.5-7B-Instruct")
    assert as_if.engines("my model") == ["Qwen2.5-7B-Instruct@vLLM_A6000"]
    as_if.entries("my model")
    with pytest.raises(UserError, match="--latency_target"):
        pricing.entries("my model")
    assert Pricing.load(["none"]) == Pricing() and Pricing().engines("my model") == []
    with pytest.raises(UserError, match="nope"):
        Pricing.load(["nope"])


def test_the_paper_formula():
    one = Pricing((load_profile("vLLM_A6000"),)).prices(make_record())[ENGINE]
    assert one.total_ms == pytest.approx(4 * 6.1 + 2 * 52.6)
    assert one.speedup == pytest.approx(5 * 52.6 / (4 * 6.1 + 2 * 52.6))


def test_a_later_run_replaces_an_earlier_one_and_prices_of_one_run_unite():
    old, new = make_stats(num_rounds=9), make_stats(prices={"E": Price(1, 1, 1)})
    assert merge([old, new]) == [new]
    again = make_stats(prices={"F": Price(2, 2, 2)})
    assert merge([new, again])[0].prices.keys() == {"E", "F"}
    elsewhere = make_stats(source=Source(name="elsewhere"))
    assert merge([new, elsewhere]) == [new, elsewhere]


@given(st.lists(records(), min_size=1, max_size=6), st.randoms(use_true_random=False))
@many(50)
def test_the_ranking_does_not_depend_on_the_order_of_distinct_records(found, shuffler):
    unique = list({(one.question_id, one.drafter_name): one for one in found}.values())
    pricing = Pricing((load_profile("vLLM_A6000"),))
    stats = [entry_of(one, pricing) for one in unique]
    engines = engines_of(stats)
    tables = [rank(stats, engine) for engine in engines]
    shuffler.shuffle(stats)
    assert [rank(stats, engine) for engine in engines] == tables
    assert merge(merge(stats)) == merge(stats)
    for rows in tables:
        means = [row.values["speedup_mean"].value for row in rows if row.has("speedup_mean")]
        assert means == sorted(means, reverse=True) and all(map(math.isfinite, means))
        assert all(row.num_questions + row.num_left_out > 0 for row in rows)


def test_a_draft_that_cost_no_time_at_all_is_no_division_by_zero():
    record = make_record(rounds=[make_round(draft_ms=0.0, verify_ms=0.0)])
    stats = merge(map(entry_of, [record, make_plain()]))
    assert rank(stats, MEASURED)[0].num_left_out == 1


def with_identity(record: Record, **changes: object) -> Record:
    return dataclasses.replace(record, identity=with_settings(record.identity, changes))


def test_two_runs_under_other_settings_are_not_mixed():
    published, strict = (with_identity(make_record(), rule=rule) for rule in ("published", "strict"))
    assert len(merge([entry_of(published), entry_of(published)])) == 1
    with pytest.raises(UserError, match="other settings"):
        merge([entry_of(published), entry_of(strict)])


def test_a_run_and_its_replay_are_not_mixed_and_a_log_that_says_neither_fits_both():
    live, replayed = (
        entry_of(
            dataclasses.replace(make_record(), identity=dataclasses.replace(make_record().identity, origin=origin))
        )
        for origin in (LIVE, REPLAY)
    )
    with pytest.raises(UserError, match="once run and once replayed"):
        merge([live, replayed])
    for record in (live, replayed):
        logged = dataclasses.replace(record, origin="", prices={"E": Price(1.0, 2.0, 6.0)})
        for stats in ([logged, record], [record, logged]):
            (found,) = merge(stats)
            assert found.origin == record.origin and found.prices.keys() == {"E"}


def test_an_older_record_ranks_beside_new_ones():
    """Once each: what the older version called by the published name, and the same run again."""
    settings = vars(parse_name(f"{FAILFAST}_w9"))
    new = with_identity(make_record(drafter=f"{FAILFAST}_w9"), **settings)
    data = make_record(drafter=FAILFAST).to_builtins()
    data["identity"] |= {"confidence_threshold" if key == "tau" else key: value for key, value in settings.items()}
    del data["identity"]["origin"]
    old = Record.from_builtins(data)
    published = with_identity(make_record(drafter=FAILFAST), **vars(parse_name(FAILFAST)))
    stats = merge(map(entry_of, (old, new, published, make_plain())))
    assert {row.drafter_name for row in rank(stats, MEASURED)} == {FAILFAST, f"{FAILFAST}_w9"}


def test_arithmetic_makes_another_question():
    """Plain decoding in float32 is not a baseline for a draft verified in bfloat16."""
    drafted = entry_of(with_identity(make_record(), dtype="bfloat16"))
    assert MEASURED not in merge([entry_of(make_plain()), drafted])[1].prices


def test_outputs_that_differ_from_plain_decoding_are_told():
    plain = entry_of(make_plain())
    same = dataclasses.replace(entry_of(make_record()), output=plain.output)
    assert count_grades([plain, same])["exact"] == 1
    assert "Every output equals plain decoding." in ranking_report([plain, same])
    other = dataclasses.replace(same, drafter_name="ar_None_sf_4", output="another")
    assert count_grades([plain, same, other]) == {"exact": 1, "tie": 0, "bug": 0, "different": 1, "sampled": 0}
    assert "1 of 2 outputs differ from plain decoding: 1 were not judged (questions 0)" in ranking_report(
        [plain, same, other]
    )
