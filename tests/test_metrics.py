"""The metrics of vLLM and SGLang, as text, and what they say of speculation."""

from __future__ import annotations

import math

import pytest
from examples import many
from fake_server import OLDER_STEPS, STEPS, sglang_metrics, vllm_metrics
from hypothesis import given
from hypothesis import strategies as st

from profiling.serving.metrics import (
    Metrics,
    Speculation,
    between,
    mean_of,
    parse_metrics,
    read_metrics,
    speculates,
    sum_of,
    total,
)
from specdec.errors import UserError

COUNTERS = "".join(f"vllm:spec_decode_num_{name} 8\n" for name in ("drafts", "draft_tokens", "accepted_tokens"))


def test_samples_with_everything_that_the_format_allows():
    text = '# HELP a b\n\na_total{b="c,}\\"\\n\\\\",d="e",} 3.5e+01 1395066363000\nx:y NaN\nz{} +Inf # {id="1"} 2\n'
    first, second, third = (sample[:3] for sample in parse_metrics(text))
    assert first == ("a_total", {"b": 'c,}"\n\\', "d": "e"}, 35.0)
    assert second[0] == "x:y" and math.isnan(second[2]) and third == ("z", {}, math.inf)


@pytest.mark.parametrize("text", ["<html>", "a{", 'a{b="c" 3', "a", "a three", "{} 3"])
def test_what_is_not_a_sample_is_one_line(text):
    with pytest.raises(UserError, match="the server's metrics are not in Prometheus' text format"):
        parse_metrics(text)


@pytest.mark.parametrize("value", ["NaN", "+Inf"])
def test_a_count_that_is_not_a_number_is_one_line(value):
    with pytest.raises(UserError, match="hold a count that is not a number"):
        read_metrics(COUNTERS.replace("drafts 8", f"drafts {value}"))
    with pytest.raises(UserError, match="hold a count that is not a number"):
        read_metrics(COUNTERS + 'vllm:spec_decode_num_accepted_tokens_per_pos{position="first"} 1')


@many(300)
@given(st.data())
def test_a_damaged_page_is_read_or_refused_and_never_a_traceback(data):
    page = data.draw(st.sampled_from([vllm_metrics(4)(3, 36), sglang_metrics(2.5, 0.5)(0, 100)]))
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(page))] * 2)))
    damage = data.draw(st.text('ab_:{}=",\\# \n\t\x00019.eE+-NaI\u20ac', max_size=8))
    try:
        assert isinstance(read_metrics(page[:begin] + damage + page[end:]), Metrics)
    except UserError as error:
        assert str(error).startswith("the server's metrics ")


def test_sums_and_means_over_labels():
    samples = parse_metrics('a_total{engine="0"} 1\na_total{engine="1"} 2\ng{tp="0"} 3\ng{tp="1"} 5\n')
    assert sum_of(samples, "a") == 3 and mean_of(samples, "g") == 4
    assert sum_of(samples, "b") is None and mean_of(samples, "b") is None


def test_vllm_counters_are_subtracted():
    text = vllm_metrics(4, drafted_each=3, accepted=(4, 2, 1))
    found = between(read_metrics(text(1, 12)), read_metrics(text(3, 36)), 22)
    assert found == Speculation(8, 22, 8, 24, 14, (8, 4, 2)) and not found.is_derived
    assert found.acceptance_len == 22 / 8 == 1 + 14 / 8
    assert between(read_metrics(text(1, 12)), read_metrics(text(1, 12)), 5) is None  # nothing was written in between


@pytest.mark.parametrize("name", [STEPS, OLDER_STEPS])
def test_rounds_are_decode_steps_also_those_without_a_draft(name):
    """ngram proposed in 103 of 334 steps; its acceptance length was said to be 1.94, and is 1.29."""
    text = vllm_metrics(103, drafted_each=5, accepted=(50, 24, 10, 7, 6), steps_per_answer=334, steps_name=name)
    found = between(read_metrics(text(0, 0)), read_metrics(text(1, 441)), 431)
    assert found == Speculation(334, 431, 103, 515, 97, (50, 24, 10, 7, 6))
    whole = total([found])
    assert whole["acceptance_len"] == pytest.approx(1.29, abs=0.005)
    assert whole["server_acceptance_len"] == pytest.approx(1.94, abs=0.005)


def test_what_is_accepted_after_the_end_is_not_emitted():
    """Question 0 of 16 tokens: 4 drafts, 16 accepted; the server says 5.0 tokens a round, and 15 came in 4."""
    text = vllm_metrics(4, drafted_each=5, accepted=(4, 4, 4, 4), steps_per_answer=4)
    found = between(read_metrics(text(0, 0)), read_metrics(text(1, 16)), 15)
    assert found.acceptance_len == 15 / 4 and total([found])["server_acceptance_len"] == 5.0


def test_steps_that_are_not_there_or_cannot_be_are_as_few_as_the_counters_allow():
    for steps in (None, 2, 900):  # 2: fewer than drafts; 900: more than tokens, so tokens or somebody else's steps
        text = vllm_metrics(3, drafted_each=5, accepted=(3, 1), steps_per_answer=steps)
        found = between(read_metrics(text(0, 0)), read_metrics(text(1, 31)), 30)
        assert found.num_rounds == 30 - 4
    text = vllm_metrics(12, accepted=(1,))
    assert between(read_metrics(text(0, 0)), read_metrics(text(1, 12)), 11).num_rounds == 12


def test_an_answer_without_any_draft_is_rounds_all_the_same():
    silent = "".join(f"vllm:spec_decode_num_{name} 0\n" for name in ("drafts", "draft_tokens", "accepted_tokens"))
    pages = [f"vllm:generation_tokens_total {tokens}\n{silent}{STEPS}_count {tokens}\n" for tokens in (0, 9)]
    found = between(*map(read_metrics, pages), 8)
    assert found.num_rounds == 8 and not found.num_drafts and found.acceptance_rate is None
    assert total([found]) is None  # a server that never drafts does not speculate
    assert total([found, Speculation(2, 4, 2, 6, 2)])["acceptance_len"] == 12 / 10


def test_a_server_without_speculation_tells_of_none():
    text = vllm_metrics()
    assert read_metrics(text(1, 8)).num_generated == 108
    assert between(read_metrics(text(1, 8)), read_metrics(text(2, 16)), 8) is None
    assert between(read_metrics("a 1"), read_metrics("a 2"), 8) is None
    assert between(read_metrics(sglang_metrics()(0, 0)), read_metrics(sglang_metrics()(0, 8)), 8) is None


VLLM_ON, VLLM_OFF = vllm_metrics(4), vllm_metrics()
SILENT = "python_gc_objects_collected_total 3\n"  # a server whose statistics are off


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (VLLM_OFF(1, 8), VLLM_OFF(2, 16), "no"),
        (VLLM_ON(1, 8), VLLM_ON(2, 16), "yes"),
        (VLLM_ON(1, 8), VLLM_ON(1, 16), "no"),  # its counter of drafts stood still while it wrote
        (VLLM_ON(1, 8), VLLM_ON(1, 8), "unknown"),  # nothing was written: these metrics are not of these answers
        (VLLM_OFF(1, 8), VLLM_OFF(1, 8), "unknown"),
        (VLLM_ON(3, 24), VLLM_ON(1, 40), "unknown"),  # started anew in between
        (VLLM_OFF(1, 8), VLLM_ON(2, 16), "unknown"),
        (sglang_metrics()(0, 8), sglang_metrics()(0, 16), "no"),
        (sglang_metrics()(0, 8), sglang_metrics(2.5, 0.5)(0, 16), "yes"),
        ("sglang:generation_tokens 8", "sglang:generation_tokens 16", "unknown"),  # a version without the gauge
        (SILENT, SILENT, "unknown"),
        ("", "", "unknown"),
        (None, VLLM_OFF(2, 16), "unknown"),
        (VLLM_OFF(1, 8), None, "unknown"),
    ],
)
def test_only_a_server_that_says_so_does_not_speculate(before, after, said):
    readings = [None if page is None else read_metrics(page) for page in (before, after)]
    assert speculates(*readings) == said


def test_counters_that_began_anew_are_no_speculation():
    assert between(read_metrics(VLLM_ON(9, 72)), read_metrics(VLLM_ON(2, 16)), 8) is None


def test_sglang_gauges_become_counts_that_are_marked_as_derived():
    text = sglang_metrics(2.5, 0.5)
    found = between(read_metrics(text(0, 0)), read_metrics(text(0, 100)), 100)
    assert found == Speculation(40, 100, 40, 120, 60, is_derived=True) and found.acceptance_len == 2.5


def test_totals_say_what_the_acceptance_length_is():
    whole = total([Speculation(2, 5, 2, 6, 3, (2, 1)), Speculation(3, 8, 3, 9, 5, (3, 1, 1))])
    assert whole["accepted_per_position"] == [5, 2, 1] and whole["num_emitted"] == 13
    assert whole["acceptance_len"] == 13 / 5 and "bonus included" in whole["acceptance_len_is"]
    assert total([]) is None
