"""Verdicts: no ranking says more than its numbers show. Standings, plain decoding, data sets, profiles."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from samples import make_plain, make_record
from test_comparisons import NAMES, entry, example

from plotting.inputs import Asked, read_tables
from specdec.commands import rank
from specdec.latency.pricing import Price, Pricing
from specdec.latency.profile import MEASURED, load_profile
from specdec.ranking.comparisons import BEHIND, BEST, EQUAL, MARGIN, UNDECIDED, differences
from specdec.ranking.entries import UNKNOWN, Entry, entry_of
from specdec.ranking.source import Source
from specdec.ranking.statistics import PairedBootstrap
from specdec.ranking.table import table_of
from specdec.ranking.table_files import read_table_file
from specdec.records.record import identity_path, save_record
from specdec.views.captions import profile_words, time_words
from specdec.views.table_data import ranking_csv, ranking_document
from specdec.views.tables import ranking_report
from specdec.views.verdict import (
    FASTEST,
    MAYBE_FIRST,
    MAYBE_PLAIN,
    NOT_PLAIN,
    TOO_FEW,
    headline,
    too_few_line,
    verdict_line,
)

GSM8K, MATH = Source("bundled", "gsm8k", 96), Source("bundled", "math", 64)


def ranked(speedups: Sequence[Sequence[float]], source: Source = UNKNOWN, settings: str = "x") -> list[Entry]:
    """Entries of NAMES; `speedups` by question."""
    return [
        entry(question, name, speedup, source=source, settings=settings)
        for question, row in enumerate(speedups)
        for name, speedup in zip(NAMES, row, strict=False)
    ]


def noisy(means: Sequence[float], num_questions: int, noise: float, seed: int = 0) -> list[list[float]]:
    rng = random.Random(seed)
    return [[mean + rng.uniform(-noise, noise) for mean in means] for _ in range(num_questions)]


# ---- standings -------------------------------------------------------------------------------------------------------


def test_level_is_shown_and_not_merely_not_refuted() -> None:
    """The same two means: with much noise nothing is known, with little they are equal for all purposes."""
    assert [row.standing for row in table_of(ranked(noisy((3.0, 2.9), 8, 1.0)), "E").rows] == [UNDECIDED] * 2
    close = table_of(ranked([[3.0 + 0.01 * (n % 3), 2.999 + 0.01 * (n % 4)] for n in range(40)]), "E")
    assert [row.standing for row in close.rows] == [BEST, EQUAL]
    assert [row.standing for row in table_of(ranked(noisy((3.0, 2.5), 40, 0.1)), "E").rows] == [BEST, BEHIND]


@given(st.integers(0, 10_000), st.integers(5, 30), st.floats(0.0, 1.5), st.floats(-0.5, 0.5))
@many(25)
def test_no_row_contradicts_itself(seed: int, num_questions: int, noise: float, step: float) -> None:
    """Behind has an interval below 0; level one within the margin; what is not clear needs 1 question more, or more."""
    values_QC = np.array(noisy((3.0, 3.0 - step, 3.0 - step / 4), num_questions, noise, seed))
    bootstrap = PairedBootstrap(values_QC, num_resamples=499)
    margin = MARGIN * bootstrap.ratios_C[0]
    for one in differences(bootstrap, 0).values():
        low, high = one.estimate.low, one.estimate.high
        if one.standing == BEHIND:
            assert low > 0 or high < 0
        if one.standing == EQUAL:
            assert -margin <= low <= high <= margin and not one.is_clear
        if one.standing != BEHIND:
            assert one.num_more_questions is None or one.num_more_questions >= 1


def test_too_few_questions_are_said_to_be_too_few() -> None:
    few, many = (table_of(ranked(noisy((3.0, 2.9, 2.8, 1.0), number, 0.8)), "E") for number in (8, 400))
    assert few.num_needed is not None and few.num_needed > 8
    assert too_few_line(few).startswith(f"8 questions are too few for 4 settings; about {few.num_needed} would do")
    assert too_few_line(few) in ranking_report(ranked(noisy((3.0, 2.9, 2.8, 1.0), 8, 0.8)))
    assert many.num_needed is None or many.num_needed > 400


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"rank": 1, "is_level_with_best": True, "speedup_mean": 2.0}, BEST),
        ({"rank": 1, "is_level_with_best": True, "speedup_mean": 0.9}, UNDECIDED),
        ({"rank": 2, "is_level_with_best": True}, UNDECIDED),
        ({"rank": 2, "is_level_with_best": False}, BEHIND),
        ({"rank": 2, "is_level_with_best": True, "standing": EQUAL}, EQUAL),
        ({"rank": 2}, ""),
    ],
)
def test_files_of_before_claim_nothing_that_they_did_not_test(tmp_path: Path, said: dict, expected: str) -> None:
    row = {"drafter_name": NAMES[0]} | said
    (tmp_path / "a.json").write_text(json.dumps({"engines": [{"engine": "E", "rows": [row]}]}))
    assert read_table_file(tmp_path / "a.json")[0].rows[0].standing == expected


# ---- the headline, and plain decoding --------------------------------------------------------------------------------


def test_the_headline_is_no_stronger_than_its_evidence() -> None:
    barely = table_of(ranked(noisy((0.85, 0.5), 8, 0.6)), "E")  # by number slower, and nobody knows
    assert barely.best is None and headline(barely).kind == MAYBE_PLAIN
    cases = {
        TOO_FEW: ranked(noisy((3.0, 1.5), 4, 0.1)),
        FASTEST: ranked(noisy((3.0, 1.5), 20, 0.1)),
        "undecided": ranked(noisy((3.0, 2.99), 8, 1.0)),
        "unpaired": ranked(noisy((3.0, 1.5), 8, 0.1))[:-1],
        NOT_PLAIN: ranked(noisy((0.9, 0.7), 8, 0.05)),
        MAYBE_PLAIN: ranked(noisy((1.05, 0.5), 8, 0.6)),
        MAYBE_FIRST: ranked(
            [[*wide, *narrow] for wide, narrow in zip(noisy((3.5,), 6, 4.0), noisy((2.0,), 6, 0.1), strict=True)]
        ),
    }
    for kind, stats in cases.items():
        table = table_of(stats, "E")
        heading = headline(table)
        assert heading is not None and heading.kind == kind and heading.before.startswith("Modelled, ")
        assert (
            ("fastest" in heading.before) == verdict_line(table).startswith("Best configuration") == (kind == FASTEST)
        )
    assert "too few questions to say (4; at least 5 needed)" in headline(table_of(cases[TOO_FEW], "E")).before
    assert "2 settings cannot be told apart" in headline(table_of(cases["undecided"], "E")).before


def test_the_headline_says_what_time_it_is_of() -> None:
    assert time_words(MEASURED) == "Measured"
    assert time_words("vLLM_A6000 as if Q") == "Modelled, as if Q under vLLM_A6000"
    assert time_words("mine (roofline)") == "Modelled, under mine (bound)"
    assert profile_words("H100_graph") == "H100_graph"  # this program's own engine


def test_nothing_slower_than_plain_decoding_is_called_best() -> None:
    stats = ranked(noisy((0.9, 0.7), 8, 0.05))
    text, table = ranking_report(stats), table_of(stats, "E")
    assert table.best is None and ranking_document(stats)["engines"][0]["best"] is None
    assert "No drafter beats plain decoding here" in text and "Best configuration" not in text
    assert table.rows[0].standing == BEHIND and BEST not in {row.standing for row in table.rows}
    assert table.with_plain[0] is table.plain


@pytest.mark.parametrize("speedups", [(3.0, 2.0), (3.0, 0.5), (0.9, 0.5)])
def test_plain_decoding_is_a_row_of_every_table_in_its_place(speedups: tuple[float, float]) -> None:
    stats = ranked([speedups] * 6)
    names = [line.split()[1] for line in ranking_report(stats).splitlines() if " plain " in line or line[:1].isdigit()]
    assert names.index("plain") == sum(one > 1 for one in speedups)
    rows = list(csv.DictReader(io.StringIO(ranking_csv(stats))))
    assert [row["speedup_mean"] for row in rows if row["drafter_name"] == "plain"] == ["1.0"]
    assert ranking_document(stats)["engines"][0]["plain_row"]["speedup_mean"] == 1.0


def test_plain_decoding_has_its_row_measured_and_modelled() -> None:
    records = [make_record(0), make_plain(0)]
    stats = [entry_of(one, Pricing((load_profile("vLLM_A6000"),))) for one in records]
    document = ranking_document(stats)
    assert [one["plain_row"]["speedup_mean"] for one in document["engines"]] == [1.0, 1.0]
    assert [one["plain_row"]["total_ms"] for one in document["engines"]] == [263.0, 50.0]


# ---- what is ranked over what ----------------------------------------------------------------------------------------


def two_sets() -> list[Entry]:
    return ranked(noisy((3.0, 2.0), 8, 0.1), GSM8K) + ranked(noisy((1.5, 2.5), 5, 0.1, 1), MATH)


def test_data_sets_are_ranked_each_and_together() -> None:
    text = ranking_report(two_sets())
    first = "Target bundled: gsm8k, 8 questions, up to 96 tokens; math, 5 questions, up to 64 tokens"
    assert text.splitlines()[0] == first
    gsm8k, math = text.index("gsm8k, up to 96 tokens. Modelled"), text.index("math, up to 64 tokens. Modelled")
    assert gsm8k < math < text.index("All together. Modelled")
    document = ranking_document(two_sets())
    (together,) = document["engines"]
    assert [(one["dataset"], one["max_new_tokens"], one["engines"][0]["best"]) for one in document["data_sets"]] == [
        ("gsm8k", 96, NAMES[0]),
        ("math", 64, NAMES[1]),
    ]
    assert (together["rows"][0]["dataset"], together["rows"][0]["max_new_tokens"]) == ("all", "64, 96")


def test_rows_of_files_know_what_they_are_over() -> None:
    rows = list(csv.DictReader(io.StringIO(ranking_csv(two_sets()))))
    found = {
        (row["target"], row["dataset"], row["max_new_tokens"]): row["num_questions"] for row in rows if row["rank"]
    }
    assert found == {
        ("bundled", "gsm8k", "96"): "8",
        ("bundled", "math", "64"): "5",
        ("bundled", "all", "64, 96"): "13",
    }
    assert all(row["target"] and row["dataset"] and row["max_new_tokens"] for row in rows)


def test_one_data_set_is_told_once() -> None:
    stats = ranked(noisy((3.0, 2.0), 8, 0.1), GSM8K)
    assert ranking_document(stats)["data_sets"] == [] and "All together" not in ranking_report(stats)
    assert len(list(csv.DictReader(io.StringIO(ranking_csv(stats))))) == 3


def test_two_budgets_are_two_data_sets_for_figures_and_the_command(tmp_path: Path) -> None:
    for budget in (64, 32):
        for one in (make_record(0), make_record(0, NAMES[0]), make_plain(0)):
            one = replace(one, identity=replace(one.identity, max_new_tokens=budget))
            save_record(one, identity_path(tmp_path, one.identity))
    titles = {table.title for table in read_tables([tmp_path], Asked())}
    assert titles == {"gsm8k, up to 64 tokens", "gsm8k, up to 32 tokens"}
    document = json.loads(rank.run([str(tmp_path), "--json"]))
    assert [one["max_new_tokens"] for one in document["data_sets"]] == [32, 64]


def test_a_log_that_states_no_source_is_ranked_whole() -> None:
    stats = two_sets() + ranked(noisy((3.0, 2.0), 5, 0.1), Source(name="a.log"), settings="")
    assert ranking_document(stats)["data_sets"] == [] and "several runs" in ranking_report(stats)


# ---- the winner by profile -------------------------------------------------------------------------------------------


def test_a_line_says_where_the_winner_changes() -> None:
    def under(*profiles: str) -> list[Entry]:
        won = {NAMES[0]: 2.0, NAMES[1]: 4.0}
        return [
            replace(one, other_prices={name: Price(0, 100, 100 * won[one.drafter_name]) for name in profiles})
            for one in ranked([(3.0, 2.0)] * 6)
        ]

    stats = under("X (roofline)")
    said = (
        f"The first by number changes with the profile: under E: {NAMES[0]} 3.00x; under X (bound): {NAMES[1]} 4.00x."
    )
    assert said in ranking_report(stats) and ranking_document(stats)["profiles"] == said
    assert [one["engine"] for one in ranking_document(stats)["engines"]] == ["E"]
    both = said.replace("X (bound)", "X (bound), Y (bound)")  # of one winner, together; a bound is called so once
    assert ranking_document(under("X (roofline)", "Y_bound (roofline)"))["profiles"] == both
    same = [replace(one, other_prices={"X": one.prices["E"]}) for one in stats]
    assert ranking_document(same)["profiles"] == ""
    lacking = [replace(one, other_prices={}) if one.drafter_name == NAMES[0] else one for one in stats]
    assert "under X (bound) (1 not priced): " + NAMES[1] in ranking_document(lacking)["profiles"]


def test_the_default_profile_is_held_against_all_that_know_the_target() -> None:
    record = make_record()
    pricing = Pricing.load(["vLLM_A6000"], "Qwen2.5-7B-Instruct")
    assert list(pricing.prices(record)) == ["vLLM_A6000 as if Qwen2.5-7B-Instruct"]
    assert set(pricing.other_prices(record)) >= {"H100_graph as if Qwen2.5-7B-Instruct"}
    assert not any("H100_graph" in name for name in Pricing.load(["vLLM_A6000"]).other_prices(record))
    assert Pricing.load(["H100_graph"], "Qwen2.5-7B-Instruct").other_prices(record) == {}


def test_a_ranking_of_many_still_has_its_intervals() -> None:
    assert table_of(example(), "E").rows[0].values["speedup_mean"].low is not None
