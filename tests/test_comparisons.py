"""Comparisons and question sets: who is level with whom, over which questions, and what the tables say of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from specdec.errors import UserError
from specdec.latency.pricing import Price
from specdec.ranking.entries import Entry
from specdec.ranking.question_sets import comparable, unequal
from specdec.ranking.source import Source
from specdec.ranking.table import table_of
from specdec.views.table_data import ranking_csv, ranking_json
from specdec.views.tables import ranking_report

NAMES = ("dllm_0.05_df_0.45_60_10", "dllm_0.05_sf_8", "ar_None_sf_8", "ar_None_sf_4")


def entry(question_id: int, drafter: str, speedup: float, **changes: Any) -> Entry:
    counts = {"num_output_tokens": 100, "num_accepted": 60, "num_drafted": 80, "num_rounds": 40}
    values: dict[str, Any] = {
        **counts,
        "num_forward_passes": 90,
        "prices": {"E": Price(40, 60, 100 * speedup)},
        "settings": "x",
    }
    return Entry(question_id, drafter, **(values | changes))


def example(num_questions: int = 40) -> list[Entry]:
    """FailFast and the static dLLM level, both clearly ahead of AR drafting."""
    stats = []
    for question in range(num_questions):
        wobble = (question * 7 % 11 - 5) / 50
        speedups = (3.0 + wobble, 2.99 + 3 * wobble * (-1) ** question, 2.0 + wobble, 1.5 - wobble)
        stats += [entry(question, name, speedup) for name, speedup in zip(NAMES, speedups, strict=True)]
    return stats


def test_level_and_behind():
    table = table_of(example(), "E")
    assert (table.best.drafter_name, table.ar_baseline, table.num_paired) == (NAMES[0], "ar_None_sf_8", 40)
    rows = {row.drafter_name: row for row in table.rows}
    failfast, static, ar_8, ar_4 = (rows[name].differences for name in NAMES)
    assert "to_best" not in failfast and not static["to_best"].is_clear and static["to_best"].num_more_questions > 0
    assert ar_8["to_best"].is_clear and ar_4["to_best"].is_clear and "to_ar" not in ar_8
    mean = rows[NAMES[0]].values["speedup_mean"]
    assert failfast["to_ar"].estimate.low > 0.9 and mean.low < 3.0 < mean.high
    text = ranking_report(example())
    standings = {line.split()[1]: line for line in text.splitlines() if line[:1].isdigit()}
    assert [next(word for word in ("best", "level", "behind") if word in standings[name]) for name in NAMES] == [
        "best", "level", "behind", "behind",
    ]  # fmt: skip
    assert "Paired differences" in text and "AR baseline: ar_None_sf_8" in text


def test_json_and_csv_carry_the_intervals():
    (table,) = json.loads(ranking_json(example()))["engines"]
    row = table["rows"][1]
    assert row["mean_low"] < row["speedup_mean"] < row["mean_high"] and row["is_level_with_best"] is True
    assert row["ratio_to_best_low"] <= row["ratio_to_best_value"] <= row["ratio_to_best_high"]
    assert table["ar_baseline"] == "ar_None_sf_8"
    head, *lines = ranking_csv(example()).splitlines()
    assert "to_best_p_holm" in head and len(lines) == 5  # with plain decoding


def test_the_order_of_the_entries_does_not_matter():
    stats = example()
    assert ranking_json(stats) == ranking_json(stats[::-1])


@pytest.mark.parametrize("stats", [example(4), example()[:-1], example()[1:]])
def test_without_enough_equal_questions_there_are_no_intervals(stats):
    table = table_of(stats, "E")
    assert not table.num_paired and not any(row.differences for row in table.rows)
    assert all(value.low is None for row in table.rows for value in row.values.values())
    assert "No intervals" in ranking_report(stats)


def test_unequal_questions_are_refused_and_the_common_ones_ranked_when_asked():
    stats = [one for one in example(8) if (one.question_id, one.drafter_name) != (3, NAMES[1])]
    assert f"{NAMES[1]}: 7" in unequal(stats)
    with pytest.raises(UserError, match="--allow_unequal"):
        comparable(stats, allow_unequal=False)
    kept, note = comparable(stats, allow_unequal=True)
    assert {one.question_id for one in kept} == {0, 1, 2, 4, 5, 6, 7} and "7 questions" in note
    assert table_of(kept, "E").num_paired == 7
    assert json.loads(ranking_json(kept, note))["note"] == note
    assert comparable(example(8), allow_unequal=False) == (example(8), "")


def test_a_question_without_a_price_counts_as_missing():
    stats = example(8)
    stats[0] = entry(0, NAMES[0], 1.0, prices={})
    with pytest.raises(UserError, match=f"{NAMES[0]}: 7"):
        comparable(stats, allow_unequal=False)
    assert {one.question_id for one in comparable(stats, allow_unequal=True)[0]} == set(range(1, 8))


def test_nothing_in_common_cannot_be_ranked():
    stats = [entry(0, NAMES[0], 2.0), entry(1, NAMES[1], 2.0)]
    with pytest.raises(UserError, match="in common"):
        comparable(stats, allow_unequal=True)


def test_sources_tell_questions_apart_unless_a_log_states_none():
    stats = [
        entry(0, NAMES[0], 2.0, source=Source(dataset="math")),
        entry(0, NAMES[1], 2.0, source=Source(dataset="gsm8k")),
    ]
    assert unequal(stats)
    stats[1] = entry(0, NAMES[1], 2.0, source=Source(name="a.log"), settings="")
    assert not unequal(stats)


def test_correct_and_degenerate_stand_in_every_table():
    stats = [entry(n, NAMES[0], 2.0, is_correct=n < 3, is_degenerate=n == 0) for n in range(5)]
    text = ranking_report(stats)
    assert " 3/5 " in text and " 1/5 " in text
    row = json.loads(ranking_json(stats))["engines"][0]["rows"][0]
    assert (row["num_correct"], row["num_graded"], row["num_degenerate"], row["num_checked"]) == (3, 5, 1, 5)
