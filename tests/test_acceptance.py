"""Acceptance by position against a second implementation from its definitions (docs/measures.md), on random rounds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from statistics import mean

import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from samples import make_plain, make_record, make_round, records, rounds_after

from specdec.latency.pricing import Pricing
from specdec.latency.profile import MEASURED, load_profile
from specdec.ranking.acceptance import RoundCounts
from specdec.ranking.entries import entry_of, merge
from specdec.ranking.ranking import engines_of
from specdec.ranking.table import Row, table_of
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.views.report_data import report_data
from specdec.views.report_page import SOURCES
from specdec.views.table_data import ranking_csv, ranking_json, row_dict

PRICING = Pricing((load_profile("vLLM_A6000"),))
many_rounds = st.lists(rounds_after(3), min_size=1, max_size=30)


def counts_of(rounds: list[Round]) -> RoundCounts:
    return RoundCounts.of(make_record(rounds=rounds))


def unconditional(rounds: list[Round], position: int) -> float:
    """Rounds that accepted at least `position` tokens / rounds that drafted."""
    drafting = [turn for turn in rounds if turn.draft_tokens]
    return sum(len(turn.emitted_tokens) - (turn.next_token is not None) >= position for turn in drafting) / len(
        drafting
    )


def conditional(rounds: list[Round], position: int) -> float | None:
    """Accepted at `position` / those with `position` drafted and all before it accepted; None: there is none."""
    asked = [turn for turn in rounds if len(turn.draft_tokens) >= position and turn.accepted_len >= position - 1]
    return mean(turn.accepted_len >= position for turn in asked) if asked else None


@given(many_rounds)
def test_every_rate_is_as_defined(rounds: list[Round]) -> None:
    counts, longest = counts_of(rounds), max(turn.draft_len for turn in rounds)
    drafting = [turn for turn in rounds if turn.draft_tokens]
    assert (counts.num_rounds, counts.num_drafts) == (len(rounds), len(drafting))
    for position in range(1, longest + 2):
        by_definition = conditional(rounds, position)
        if position <= counts.num_positions:
            assert counts.unconditional[position - 1] == pytest.approx(unconditional(rounds, position))
            assert counts.conditional[position - 1] == pytest.approx(by_definition)
        else:  # nothing more to be said
            assert by_definition is None and (not drafting or unconditional(rounds, position) == 0)
    lengths = [turn.accepted_len for turn in drafting]
    assert counts.histogram == [lengths.count(k) for k in range(max(lengths, default=-1) + 1)]
    emitted = [len(turn.emitted_tokens) for turn in rounds]
    assert counts.emitted_histogram == [emitted.count(k) for k in range(max(emitted) + 1)]


@given(many_rounds)
def test_what_must_hold_between_them(rounds: list[Round]) -> None:
    counts = counts_of(rounds)
    assert sum(counts.histogram) == counts.num_drafts and sum(counts.emitted_histogram) == counts.num_rounds
    assert counts.unconditional == sorted(counts.unconditional, reverse=True)
    assert all(0 <= rate <= 1 for rate in (*counts.unconditional, *counts.conditional))
    accepted = sum(turn.accepted_len for turn in rounds)
    assert sum(counts.unconditional) * counts.num_drafts == pytest.approx(accepted)
    assert sum(k * count for k, count in enumerate(counts.histogram)) == accepted
    emitted = sum(k * count for k, count in enumerate(counts.emitted_histogram))
    assert emitted == sum(len(turn.emitted_tokens) for turn in rounds)


@given(st.integers(1, 6), st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_of_full_drafts_the_conditionals_multiply_to_the_unconditional(draft_len: int, accepted: list[int]) -> None:
    rounds = [make_round(3, tuple(range(draft_len)), min(count, draft_len)) for count in accepted]
    counts, product = counts_of(rounds), 1.0
    for conditional_rate, unconditional_rate in zip(counts.conditional, counts.unconditional, strict=True):
        product *= conditional_rate
        assert product == pytest.approx(unconditional_rate)


@many(20)
@given(st.lists(many_rounds, min_size=1, max_size=4))
def test_rounds_of_questions_together_are_all_their_rounds(questions: list[list[Round]]) -> None:
    together = RoundCounts.united(map(counts_of, questions))
    assert together == counts_of([turn for rounds in questions for turn in rounds])


def test_a_worked_example() -> None:
    """Drafts of 3, 3, 1 and 0 tokens, of which 3, 1, 1 and 0 are accepted."""
    drafts = (((5, 6, 7), 3), ((5, 6, 7), 1), ((5,), 1), ((), 0))
    counts = counts_of([make_round(3, draft, accepted) for draft, accepted in drafts])
    assert counts.to_builtins() == {
        "num_rounds": 4,
        "num_drafts": 3,
        "histogram": [0, 2, 0, 1],
        "num_reached_at": [3, 2, 1],
        "unconditional": [1.0, round(1 / 3, 6), round(1 / 3, 6)],
        "conditional": [1.0, 0.5, 1.0],
    }
    assert counts_of([]).to_builtins()["conditional"] == [] and counts_of([]).num_positions == 0


# ---- means of requests, TPOT and TTFT, in the files ------------------------------------------------------------------


def timed(question_id: int) -> list[Record]:
    """Plain decoding and a drafter of unequal rounds; all times are different."""
    rounds = [make_round(3 + i, (5, 6, 7)[: i % 4], i % (1 + i % 4), verify_ms=7.0 + i + question_id) for i in range(3)]
    places = [3]
    for turn in rounds:
        places.append(places[-1] + len(turn.emitted_tokens))
    rounds = [make_round(at, tuple(one.draft_tokens), one.accepted_len, verify_ms=one.verify_ms)
              for at, one in zip(places, rounds, strict=False)]  # fmt: skip
    return [make_record(question_id, rounds=rounds[: 2 + question_id % 2]), make_plain(question_id, 5)]


def test_times_of_requests_are_of_measured_rows_alone() -> None:
    made = [record for question_id in range(6) for record in timed(question_id)]
    entries = merge(entry_of(record, PRICING) for record in made)
    drafted = [record for record in made if record.drafter_name != "plain"]
    (modelled,), (row,) = (table_of(entries, engine).rows for engine in engines_of(entries))
    tpots = [sum(t.draft_ms + t.verify_ms for t in one.rounds) / len(one.output_tokens) for one in drafted]
    ttfts = [one.prefill_ms + one.rounds[0].draft_ms + one.rounds[0].verify_ms for one in drafted]
    assert row.number("tpot_ms") == pytest.approx(mean(tpots)) and row.number("ttft_ms") == pytest.approx(mean(ttfts))
    lengths = [len(one.output_tokens) / len(one.rounds) for one in drafted]
    tokens, rounds = sum(len(one.output_tokens) for one in drafted), sum(len(one.rounds) for one in drafted)
    assert row.number("request_acceptance_len") == pytest.approx(mean(lengths))
    assert row.number("acceptance_len") == pytest.approx(tokens / rounds) != pytest.approx(mean(lengths))
    assert modelled.number("tpot_ms") is None and modelled.number("ttft_ms") is None
    document = json.loads(ranking_json(entries))
    (said,) = [one["rows"][0] for one in document["engines"] if one["engine"] == MEASURED]
    assert (
        said["ttft_ms"] == pytest.approx(mean(ttfts)) and said["ttft_ms_low"] < said["ttft_ms"] < said["ttft_ms_high"]
    )
    assert document["acceptance"] == {
        drafted[0].drafter_name: RoundCounts.united(map(RoundCounts.of, drafted)).to_builtins()
    }
    assert "request_acceptance_len,tpot_ms,ttft_ms" in ranking_csv(entries).partition("\n")[0]


@given(records())
def test_no_time_where_none_was_taken(record: Record) -> None:
    entry = entry_of(record)
    assert (entry.ttft_ms is None) == (not record.is_timed or not record.rounds)


def test_a_category_says_of_a_row_what_the_page_reads() -> None:
    """The page reads its rows by name: each name that it reads is in the rows of categories as well."""
    program = "".join(path.read_text() for path in SOURCES.glob("*.js"))
    read = set(re.findall(r"\b(?:row|best|baseline)\.(\w+)", program))
    made = [replace(one, raw_data={"question": "?", "category": "ab"[one.question_id % 2]})
            for question_id in range(12) for one in timed(question_id)]  # fmt: skip
    data = report_data(made, merge(entry_of(one, PRICING) for one in made), [])
    assert [one["category"] for one in data["categories"]] == ["a", "b"]
    for document in (data["ranking"], *data["categories"]):
        for engine in document["engines"]:
            for row in (*engine["rows"], engine["plain_row"]):
                known = row.keys() | {"ceiling_share"}  # which is there where it is known
                assert known >= read & set(row_dict(Row("plain")))
