"""Prometheus text of vLLM and SGLang, and what it says of speculation."""

from __future__ import annotations

import math

import pytest
from fake_server import sglang_metrics, vllm_metrics

from profiling.prometheus import Sample, mean_of, parse_metrics, sum_of
from profiling.speculation import Speculation, between, read_metrics, total


def reading(text):
    return read_metrics(parse_metrics(text))


def test_samples_with_everything_that_the_format_allows():
    text = '# HELP a b\n\na_total{b="c,}\\"\\n\\\\",d="e",} 3.5e+01 1395066363000\nx:y NaN\nz{} +Inf # {id="1"} 2\n'
    first, second, third = parse_metrics(text)
    assert first == Sample("a_total", {"b": 'c,}"\n\\', "d": "e"}, 35.0)
    assert second.name == "x:y" and math.isnan(second.value) and third == Sample("z", {}, math.inf)


@pytest.mark.parametrize("text", ["<html>", "a{", 'a{b="c" 3', "a", "a three", "{} 3"])
def test_what_is_no_sample_is_quoted(text):
    with pytest.raises(ValueError, match="metric|labels"):
        parse_metrics(text)


def test_sums_and_means_over_labels():
    samples = parse_metrics('a_total{engine="0"} 1\na_total{engine="1"} 2\ng{tp="0"} 3\ng{tp="1"} 5\n')
    assert sum_of(samples, "a") == 3 and mean_of(samples, "g") == 4
    assert sum_of(samples, "b") is None and mean_of(samples, "b") is None


def test_vllm_counters_are_subtracted():
    text = vllm_metrics(4, drafted_each=3, accepted=(4, 2, 1))
    found = between(reading(text(1, 12)), reading(text(3, 36)), 24)
    assert found == Speculation(8, 24, 14, (8, 4, 2)) and not found.is_derived
    assert found.num_emitted == 22 and found.acceptance_len == 1 + 14 / 8
    assert between(reading(text(1, 12)), reading(text(1, 12)), 5) is None  # nothing was drafted in between


def test_a_server_without_speculation_tells_of_none():
    text = vllm_metrics()
    assert reading(text(1, 8)).num_generated == 108
    assert between(reading(text(1, 8)), reading(text(2, 16)), 8) is None
    assert between(reading("a 1"), reading("a 2"), 8) is None
    assert between(reading(sglang_metrics()(0, 0)), reading(sglang_metrics()(0, 8)), 8) is None


def test_sglang_gauges_become_counts_that_are_marked_as_derived():
    text = sglang_metrics(2.5, 0.5)
    found = between(reading(text(0, 0)), reading(text(0, 100)), 100)
    assert found == Speculation(40, 120, 60, is_derived=True) and found.acceptance_len == 2.5


def test_totals_say_what_the_acceptance_length_is():
    whole = total([Speculation(2, 6, 3, (2, 1)), Speculation(3, 9, 5, (3, 1, 1))])
    assert whole["accepted_per_position"] == [5, 2, 1] and whole["num_emitted"] == 13
    assert whole["acceptance_len"] == 13 / 5 and "bonus included" in whole["acceptance_len_is"]
    assert total([]) is None
