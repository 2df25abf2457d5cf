"""`failfast load`: tables by load over records and traces, no policy above the bound, and mistakes in one line."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import made_up_trace
from samples import make_record, make_round

from specdec import cli
from specdec.commands import load, report
from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.latency.batch_costs import BatchCosts
from specdec.latency.load import serve
from specdec.latency.pricing import Pricing
from specdec.latency.profile import load_profile
from specdec.latency.scheduling import Scheduled
from specdec.latency.serving import Plan
from specdec.ranking import load_study
from specdec.ranking.entries import records_of
from specdec.ranking.load_table import CONCURRENCY, Load, LoadRow, table_of, value_of
from specdec.records.record import identity_path, save_record
from specdec.traces.prospects import _gains, prospects
from specdec.traces.replay import replay
from specdec.traces.trace import load_trace, save_trace, trace_path

DRAFTERS = ("plain", "ar_None_sf_2", "ar_None_sf_4", "dllm_0.5_sf_3", "dllm_0.5_df_0.6_5_2")
PRICED = ("--latency_profile", "H100_bound", "--latency_target", "Qwen2.5-7B-Instruct")
PRICING = ["H100_bound"], "Qwen2.5-7B-Instruct"
REPORTED = {
    "latency_profile": ["H100_bound"],
    "latency_target": PRICING[1],
    "allow_unequal": False,
    "allow_seen": False,
}
BLOCKS = {"block_size": 4, "small_block_size": 2}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces of six made-up questions, and records replayed from them."""
    folder = tmp_path_factory.mktemp("load")
    for question in range(6):
        trace = made_up_trace(question, num_tokens=30, chain_len=16, max_new_tokens=40, vocab_size=9)
        save_trace(trace, trace_path(folder, trace.identity))
        for name in DRAFTERS:
            record = replay(trace, parse_name(name), BLOCKS)
            save_record(record, identity_path(folder, record.identity))
    return folder


def asked(results: Path, *flags: str) -> dict[str, Any]:
    return json.loads(load.run([str(results), *PRICED, "--seeds", "5", "--json", *flags]))


def test_every_load_has_a_table_with_plain_decoding_in_it(results, capsys):
    found = asked(results, "--concurrency", "1", "4", "32")
    assert [one["value"] for one in found["loads"]] == [1, 4, 32] and found["is_bound"]
    for one in found["loads"]:
        rows = {row["name"]: row for row in one["rows"]}
        assert set(rows) == set(DRAFTERS)
        assert rows["plain"]["speedup"]["value"] == 1 and rows["plain"]["wasted_per_s"]["value"] == 0
        order = [row["tokens_per_s"]["value"] for row in one["rows"]]
        assert order == sorted(order, reverse=True) and one["best"] == one["rows"][0]["name"]
        for row in one["rows"]:
            low, value, high = (row["speedup"][key] for key in ("low", "value", "high"))
            assert low <= value <= high
            assert row["break_even_len"]["value"] == pytest.approx(row["acceptance_len"] / value)
    assert found["loads"][0]["batch_1"] == found["loads"][0]["best"]
    assert found["loads"][0]["batch_1_loss"]["value"] == 0
    assert asked(results, "--concurrency", "1", "4", "32") == found  # the same seed, the same numbers
    assert cli.main(["load", str(results), *PRICED, "--concurrency", "1", "8", "--seeds", "5"]) == 0
    text = capsys.readouterr().out
    for part in (
        "simulated, not measured",
        "lower bounds",
        "Speedup over plain",
        "break even",
        "The best at each load",
    ):
        assert part in text
    assert "\nAt 1 " in text and "at a time: " in text


def test_no_policy_beats_the_clairvoyant_at_any_load(results):
    found = asked(results, "--concurrency", "1", "2", "8", "64", "--policies", "fixed", "scheduled", "clairvoyant")
    for one in found["loads"]:
        bound, *others = one["rows"]
        assert bound["policy"] == "clairvoyant"
        assert {row["name"] for row in others if row["policy"] == "scheduled"} == {"ar", "dllm_0.5"}
        assert max(row["tokens_per_s"]["value"] for row in others) <= bound["tokens_per_s"]["value"] * (1 + 1e-9)
        assert one["best_policy"] in ("fixed", "scheduled")


def test_a_scheduled_request_gets_every_token_once_and_drafts_nothing_where_that_is_dear(results):
    traces = [load_trace(path) for path in sorted(results.rglob("*.npz"))]
    lens = np.array([len(one.output_tokens) for one in traces])
    costs = BatchCosts.of(load_profile("H100_bound"), "Qwen2.5-7B-Instruct", ("ar", "block"), 512)
    shares = []
    for name, kind in (("ar", 0), ("dllm_0.5", 1)):
        policy = Scheduled(prospects(traces, name, [0, 1] * 3))
        for places in (1, 3, 512):
            picks = np.arange(12)[None] % 6
            prompts = np.array([len(one.prompt_ids) for one in traces])
            plan = Plan(places, 12, picks, np.array([kind]), prompts, under_way_BC=np.zeros((1, places)))
            served = serve(plan, policy, costs)
            assert np.array_equal(served.emitted_BN[0], lens[picks[0]])
            shares.append(served.drafted_B[0] / served.tokens_B[0])
    assert shares[2] < shares[0] and shares[5] < shares[3]


def test_what_halves_of_questions_teach_is_used_on_the_other_half(results):
    traces = [load_trace(path) for path in sorted(results.rglob("*.npz"))]
    known = prospects(traces, "ar", [0, 1] * 3)
    others = prospects(traces[::2] + traces[1::2], "ar", [0, 0, 0, 1, 1, 1])
    first = slice(known.begins_Q[0], known.ends_Q[0])
    assert np.array_equal(known.survival_FL[first], others.survival_FL[first])
    assert not np.array_equal(known.gain_2JM[0], known.gain_2JM[1])
    assert np.all(np.diff(known.survival_FL, axis=1) <= 1e-12) and known.survival_FL.max() <= 1
    short = prospects(traces, "ar", [0, 1] * 3, longest=2)
    assert short.known_FJ.max() == short.survival_FL.shape[1] == short.match_F.max() == 2
    lost = [one for one in traces if one.chains.pop("ar")]
    with pytest.raises(UserError, match="has no chains ar"):
        prospects(lost, "ar", [0, 1] * 3)


def test_what_more_passes_bring_is_the_mean_over_all_that_is_right_so_far(monkeypatch):
    """Of the second chain the second token is wrong; the third one ends with its first pass."""
    monkeypatch.setattr("specdec.traces.prospects.PRIOR_WEIGHT", 0.0)
    gain_JM, growth_JM = _gains(np.array([[1, 2, 4], [1, 2, 3], [1, 1, 1]]), np.array([4, 1, 1]))
    assert gain_JM[0, :3] == pytest.approx([1 / 3, 1, 1]) and growth_JM[0, :3] == pytest.approx([2 / 3, 5 / 3, 5 / 3])
    assert gain_JM[1, :2].tolist() == growth_JM[1, :2].tolist() == [1, 1]  # of the first and the third alone


def test_a_rate_that_nothing_keeps_up_with_is_saturated_and_not_simulated_for_ever(results, monkeypatch):
    monkeypatch.setattr(load_study, "LEAST_REQUESTS", 30)
    flags = ("--request_rate", "10", "1e299", "10", "--max_batch", "4", "--policies", "fixed", "off", "--seeds", "0")
    slow, fast = asked(results, *flags)["loads"]
    assert not slow["is_saturated"] and slow["kind"] == "request_rate"
    assert {row["policy"] for row in slow["rows"]} == {"fixed", "off"}
    assert all(row["ttft_ms_p99"]["value"] > row["ttft_ms_p50"]["value"] > 0 for row in slow["rows"])
    assert fast["is_saturated"] and fast["best"] is None and all(row["is_saturated"] for row in fast["rows"])
    text = load.run([str(results), *PRICED, "--request_rate", "1000000", "--max_batch", "2", "--seeds", "0"])
    assert "saturated: nothing keeps up" in text


def test_of_few_questions_nothing_is_told_apart(results, tmp_path):
    for question in range(3):
        for name in DRAFTERS[:3]:
            record = replay(load_trace(sorted(results.rglob("*.npz"))[question]), parse_name(name), BLOCKS)
            save_record(record, identity_path(tmp_path, record.identity))
    (found,) = asked(tmp_path, "--concurrency", "8")["loads"]
    assert all(row["may_be_best"] and row["speedup"]["low"] is None for row in found["rows"])
    assert found["batch_1_loss"]["low"] is None
    text = load.run([str(tmp_path), *PRICED, "--concurrency", "8"])
    assert "not told apart from" in text and "No intervals: they need 5 questions or more" in text


def test_the_best_of_a_table_and_what_cannot_be_told_from_it():
    draws = {"a": [10, 9, 11, 10, 9, 11], "b": [10.1, 11, 9, 10.2, 11, 9], "c": [1, 1.1, 0.9, 1, 1.1, 0.9]}
    rows = [
        LoadRow(
            name,
            "fixed",
            {"tokens_per_s": value_of(np.array(one, float))},
            draws={"tokens_per_s": np.array(one, float)},
        )
        for name, one in draws.items()
    ]
    table = table_of(Load(CONCURRENCY, 8), rows, "c")
    assert [row.name for row in table.rows] == ["b", "a", "c"]
    assert [row.may_be_best for row in table.rows] == [True, True, False]
    assert table.batch_1_loss is not None and table.batch_1_loss.value == pytest.approx(1 - 1 / 10.1)
    assert value_of(np.array([3.0, 1.0])).low is None


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (
            ("--latency_profile", "vLLM_A6000", "--latency_target", "Qwen2.5-7B-Instruct"),
            "does not say what passes of batches",
        ),
        (("--concurrency", "1024"), "does not reach 1,024 requests (it has 512)"),
        (("--context", "100000"), "100,000 tokens of context (it has 32,768)"),
        (("--concurrency", "0"), "is not a positive integer"),
        (("--concurrency", "100000000", "--extrapolate"), "is not a positive integer up to 4096"),
        (("--request_rate", "0"), "a number of requests a second above 0"),
        (("--latency_profile", "none"), "a server has one profile"),
        (("--latency_profile", "H100_bound", "A100_bound", "--latency_target", "Qwen3-8B"), "a server has one profile"),
        (("--policies", "scheduled", "--trace_dir", "nowhere"), "nowhere"),
        (("--policies", "off"), "give --request_rate"),
        (("--max_batch", "4"), "--max_batch bounds what comes under --request_rate"),
        (
            ("--policies", "fixed", "off", "--request_rate", "9", "--trace_dir", "."),
            "--trace_dir is read by",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_2(results, capsys, flags, why):
    priced = () if "--latency_profile" in flags else PRICED
    with pytest.raises(SystemExit) if "is not a" in why or "above 0" in why else _nothing():
        assert cli.main(["load", str(results), *priced, *flags]) == 2
    error = capsys.readouterr().err
    assert why in error and error.count("\n") == 1


def test_beyond_the_profile_is_extrapolated_where_asked_and_marked(results):
    found = asked(results, "--concurrency", "600", "--extrapolate", "--seeds", "0")
    assert found["extrapolated"] == ["600 requests (it has 512) for passes of the target, ar, block"]
    assert "extrapolated" in " ".join(found["loads"][0]["notes"])


def with_heads(results: Path, folder: Path, questions: range = range(6)) -> Path:
    """The records of an AR drafter, some of them as if a head had made them, for which the bounds have no price."""
    for question in questions:
        trace = load_trace(next(results.glob(f"traces/*/*/{question}/*.npz")))
        record = replay(trace, parse_name("ar_None_sf_2"))
        head = replace(record, identity=record.identity.of_drafter("eagle3_sf_2", {"draft_len": 2}, "live"))
        for one in (record, head):
            save_record(one, identity_path(folder, one.identity))
    return folder


def test_drafters_that_the_profile_has_no_price_for_are_left_out_and_named(results, tmp_path, capsys):
    folder = with_heads(results, tmp_path)
    found = asked(folder, "--concurrency", "1", "8")
    assert found["unpriced"] == ["eagle3_sf_2"] and asked(results, "--concurrency", "1")["unpriced"] == []
    assert [{row["name"] for row in one["rows"]} for one in found["loads"]] == 2 * [{"plain", "ar_None_sf_2"}]
    assert cli.main(["load", str(folder), *PRICED, "--concurrency", "8"]) == 0
    said = "Left out, as H100_bound does not say what a pass of theirs over several requests costs: eagle3_sf_2;"
    assert said in capsys.readouterr().out
    data = report.under_load(records_of(folder), Pricing.load(*PRICING), Namespace(**REPORTED))
    assert said.rstrip(";") in data["title"]


def test_heads_alone_that_have_no_price_are_one_line_and_status_2(results, tmp_path, capsys):
    folder = with_heads(results, tmp_path)
    for path in folder.glob("pickles/*/*/*/ar_None_sf_2"):
        shutil.rmtree(path)
    assert cli.main(["load", str(folder), *PRICED]) == 2
    error = capsys.readouterr().err
    assert "does not say what a pass of eagle3 over several requests costs" in error and error.count("\n") == 1


def test_a_policy_that_needs_traces_says_so(results, tmp_path, capsys):
    save_record(record := make_record(0, "ar_None_sf_3", [make_round()]), identity_path(tmp_path, record.identity))
    assert cli.main(["load", str(tmp_path), *PRICED, "--policies", "scheduled"]) == 2
    assert "holds no traces" in capsys.readouterr().err
    trace = made_up_trace(0)
    save_trace(trace, trace_path(tmp_path, trace.identity))
    assert cli.main(["load", str(tmp_path), *PRICED, "--policies", "scheduled"]) == 2
    assert "holds no trace of question 0 of gsm8k" in capsys.readouterr().err


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()
