"""Sampled runs from the command line: flags, seeds, what records say, and who refuses them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from families import flags, save_family
from samples import make_record, make_round, with_settings

from specdec.commands import rank as parse_log
from specdec.commands import replay
from specdec.commands import run as failfast
from specdec.commands.run import parse_args
from specdec.config import RunConfig
from specdec.errors import UserError
from specdec.ranking.entries import entry_of
from specdec.ranking.lossless import count_grades, losslessness_line
from specdec.ranking.source import Source
from specdec.records.record import Record, find_records, load_record, save_record
from specdec.records.rounds import Round
from specdec.traces.trace import find_traces, load_trace

pytestmark = pytest.mark.slow
HOT = ("--temperature", "1.0", "--top_k", "40", "--top_p", "0.95", "--draft_sampling", "sample")
DRAFTERS = ("--drafters", "plain", "ar_sf", "dllm_sf", "failfast", "--spec_len", "4")
SAMPLED_KEYS = {"temperature", "top_k", "top_p", "draft_sampling"}


@pytest.fixture(autouse=True)
def _threads(one_thread) -> None:
    """Toy matrices."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("family"))


def results(family: dict[str, Path], folder: Path, *more: str) -> dict[tuple[int, str], list]:
    """What a run of three questions leaves, without its times."""
    asked = ("--num_questions", "3", "--max_new_tokens", "12")
    assert failfast.main(flags(family, folder, *DRAFTERS, *HOT, *asked, *more)) == 0
    return {
        (record.question_id, record.drafter_name): [
            dataclasses.replace(turn, draft_ms=0.0, verify_ms=0.0) for turn in record.rounds
        ]
        for record in map(load_record, find_records(folder))
    }


def test_a_seed_decides_whatever_the_order_and_the_shards(family, tmp_path: Path) -> None:
    whole = results(family, tmp_path / "a")
    assert (
        len(whole) == 12 and len({tuple(turn.emitted_tokens for turn in rounds)[0][0] for rounds in whole.values()}) > 1
    )
    assert results(family, tmp_path / "b", "--question_ids", "2", "0", "1") == whole
    for part in ("1/2", "0/2"):
        parts = results(family, tmp_path / "c", "--shard", part)
    assert parts == whole
    alone = results(family, tmp_path / "d", "--drafters", "failfast")
    assert alone == {key: rounds for key, rounds in whole.items() if key[1].startswith("dllm_0.05_df")}
    other = results(family, tmp_path / "e", "--seed", "1")
    assert all(other[key] != rounds for key, rounds in whole.items())


def test_records_say_how_they_were_sampled(family, tmp_path: Path, capsys) -> None:
    assert failfast.main(flags(family, tmp_path, *DRAFTERS, *HOT, "--num_questions", "1")) == 0
    out = capsys.readouterr().out
    assert "Sampled outputs, not compared with plain decoding: 3." in out and "equals plain" not in out
    for path in find_records(tmp_path):
        record = load_record(path)
        assert record.is_sampled and record.divergence is None
        is_plain = record.drafter_name == "plain"
        assert SAMPLED_KEYS - set(record.identity.settings) == ({"draft_sampling"} if is_plain else set())
        sampling = [record.identity.settings[key] for key in ("temperature", "top_k", "top_p")]
        assert sampling == [1.0, 40, 0.95]
        assert "against plain decoding: sampled" in path.with_suffix(".txt").read_text()
        for turn in record.rounds:
            assert len(turn.target_probabilities) == len(turn.draft_probabilities) == turn.draft_len
        assert "temperature 1.0" in Source.of(record).title
    assert failfast.main(flags(family, tmp_path, *DRAFTERS, *HOT, "--num_questions", "1")) == 0  # nothing to do
    assert failfast.main(flags(family, tmp_path, *DRAFTERS, "--temperature", "0.5", "--num_questions", "1")) == 2
    assert "temperature: stored 1.0, asked 0.5" in capsys.readouterr().err


def test_greedy_records_are_as_they_were(family, tmp_path: Path) -> None:
    assert failfast.main(flags(family, tmp_path, *DRAFTERS, "--num_questions", "1")) == 0
    for path in find_records(tmp_path):
        record = load_record(path)
        assert record.identity.settings["decoding"] == "greedy" and not SAMPLED_KEYS & set(record.identity.settings)
        assert all("target_probabilities" not in turn.to_builtins(0) for turn in record.rounds)


# ---- flags ---------------------------------------------------------------------------------------------------


def test_greedy_is_the_default() -> None:
    assert not RunConfig.of().decoding.is_sampled and parse_args(["--temperature", "0"]) == RunConfig.of()


@pytest.mark.parametrize(
    "line",
    [
        *("--temperature -0.1", "--temperature nan", "--temperature inf", "--temperature hot"),
        *("--temperature 1 --top_p 0", "--temperature 1 --top_p 1.01", "--temperature 1 --top_p nan"),
        *("--temperature 1 --top_k -1", "--temperature 1 --top_k 2.5", "--temperature 1 --draft_sampling maybe"),
    ],
)
def test_impossible_values_are_one_line_and_status_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_args(line.split())
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--top_p 0.9", "--top_p needs a --temperature"),
        ("--temperature 0 --top_k 5", "--top_k needs a --temperature"),
        ("--draft_sampling sample", "--draft_sampling needs a --temperature"),
        ("--temperature 1 --record", "traces are for greedy runs"),
        ("--temperature 1 --verify trace", "traces are for greedy runs"),
        ("--temperature 1 --policy cost_aware --calibration x", "greedy traces"),
    ],
)
def test_sampling_that_would_not_happen_is_refused(line: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        parse_args(line.split())


# ---- traces are greedy ---------------------------------------------------------------------------------------


def test_replay_and_ceilings_refuse_samples(family, tmp_path: Path, capsys) -> None:
    greedy, hot = tmp_path / "greedy", tmp_path / "hot"
    line = ("--drafters", "ar_sf", "--num_questions", "1")
    assert failfast.main(flags(family, greedy, *line, "--record")) == 0
    assert failfast.main(flags(family, hot, *line, *HOT)) == 0
    capsys.readouterr()
    target = ["--latency_target", "Qwen2.5-7B-Instruct"]
    assert replay.main([str(greedy), *target, "--drafters", "ar_sf", "--workers", "1", "--temperature", "1"]) == 2
    assert "traces are for greedy runs" in capsys.readouterr().err
    assert replay.main([str(greedy), *target, "--drafters", "ar_sf", "--workers", "1"]) == 0
    capsys.readouterr()
    assert parse_log.main([str(hot), *target, "--trace_dir", str(greedy)]) == 2
    error = capsys.readouterr().err
    assert "was sampled" in error and error.count("\n") == 1
    trace = load_trace(find_traces(greedy)[0])
    with pytest.raises(UserError, match="greedy"):
        dataclasses.replace(trace, identity=with_settings(trace.identity, {"decoding": "sampled"})).check()


# ---- records -------------------------------------------------------------------------------------------------

SAMPLED = {"target_probabilities": [0.5, 0.25, 0.0], "draft_probabilities": [1.0, 0.5, None]}


def sampled_record() -> Record:
    record = make_record(rounds=[make_round(**SAMPLED)])
    identity = with_settings(record.identity, {"decoding": "sampled", "temperature": 1.0})
    return dataclasses.replace(record, identity=identity)


def test_probabilities_are_kept(tmp_path: Path) -> None:
    save_record(sampled_record(), tmp_path / "1.pickle")
    (turn,) = load_record(tmp_path / "1.pickle").rounds
    assert {key: getattr(turn, key) for key in SAMPLED} == SAMPLED


@pytest.mark.parametrize(
    "change",
    [
        {"target_probabilities": [0.5, 0.25]},
        {"draft_probabilities": [1.0, 0.5, 1.5]},
        {"target_probabilities": [0.5, 0.25, 1]},
        {"draft_probabilities": None},
    ],
)
def test_damaged_ones_are_refused(change: dict) -> None:
    with pytest.raises(UserError):
        Round.from_builtins(make_round(**SAMPLED).to_builtins(3) | change, 3)


def test_samples_are_counted_apart() -> None:
    stats = [entry_of(sampled_record()), entry_of(make_record(1))]
    assert count_grades(stats)["sampled"] == 1
    assert losslessness_line(stats) == "Sampled outputs, not compared with plain decoding: 1."
