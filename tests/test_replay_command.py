"""The commands: record, replay, verify against a trace; over made-up traces and tiny random families on disk."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from families import flags, save_family, save_model
from made_up import made_up_trace
from toys import toy_model

from specdec.commands import rank as parse_log
from specdec.commands import replay
from specdec.commands import run as failfast
from specdec.errors import UserError
from specdec.models import loaded
from specdec.ranking.logs import parse_log_lines
from specdec.records.identity import LIVE, REPLAY, TRACE
from specdec.records.record import find_records, load_record
from specdec.traces.trace import find_traces, load_trace, save_trace, trace_path

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traces")
    for seed in range(4):
        trace = made_up_trace(seed, num_tokens=60, chain_len=32, block_size=8, thresholds=(0.05,))
        save_trace(trace, trace_path(folder, trace.identity))
    return folder


# ---- replay ----------------------------------------------------------------------------------------------------------


def test_the_ranking_shows_the_share_of_the_ceiling(traces: Path) -> None:
    out = replay.run([str(traces), "--sweep_lowconf_threshold", "0.3", "0.6", "--sweep_max_spec_len", "20", "--wide"])
    assert "dllm_0.05_df_0.3_20_10" in out and "ar_None_sf_10" in out
    assert "of the ceiling  over-drafting  under-drafting  drafter passes" in out
    assert "weights a pass" in out  # the drafters themselves, as rank --wide has them
    assert "Plain decoding: not measured." in out and "Every output equals plain decoding." in out


def test_several_processes_rank_as_one_does(traces: Path) -> None:
    line = [str(traces), "--spec_len", "3", "8", "--drafters", "plain", "ar_sf", "dllm_sf", "--json"]
    assert replay.run([*line, "--workers", "1"]) == replay.run([*line, "--workers", "2"])


def test_log_and_records_rank_like_the_replay_itself(traces: Path, tmp_path: Path) -> None:
    line = [str(traces), "--spec_len", "5", "--sweep_max_spec_len", "20", "--workers", "1"]
    out = replay.run([*line, "--log", str(tmp_path / "log.txt"), "--output_dir", str(tmp_path / "out")])
    assert parse_log.run([str(tmp_path / "log.txt")]) == out
    assert parse_log.run([str(tmp_path / "out"), "--trace_dir", str(traces)]) == out
    without = parse_log.run([str(tmp_path / "out")])
    assert "of the ceiling" not in without and without.split("\n")[:5] == out.split("\n")[:5]
    rows = json.loads(parse_log.run([str(tmp_path / "log.txt"), "--json"]))["engines"][0]["rows"]
    for row in rows:
        parts = row["best_ms"] + row["over_ms"] + row["under_ms"] + row["passes_ms"]
        assert parts == pytest.approx(row["total_ms"])
        assert row["ceiling_share"] == pytest.approx(row["best_ms"] / parts, rel=1e-12)
    assert ",ceiling_share" in parse_log.run([str(tmp_path / "log.txt"), "--csv"]).split("\n")[0]
    (entry, *_) = parse_log_lines((tmp_path / "log.txt").read_text().splitlines())
    assert not entry.has_measured_times


def test_windows_and_rules_rank_in_one_table(traces: Path, tmp_path: Path) -> None:
    """Each has a name, and so a place, of its own."""
    line = [str(traces), "--drafters", "plain", "failfast", "--sweep_max_spec_len", "15", "--workers", "1"]
    line += ["--sweep_first_window", "4", "10", "--output_dir", str(tmp_path), "--failfast_rule"]
    for rule in ("published", "strict"):
        replay.run([*line, rule])
    rows = json.loads(parse_log.run([str(tmp_path), "--json"]))["engines"][0]["rows"]
    name = "dllm_0.05_df_0.45_15_10"
    assert {row["drafter_name"] for row in rows} == {name, f"{name}_w4", f"{name}_strict", f"{name}_w4_strict"}
    assert len({row["num_drafted"] for row in rows}) > 2 and {row["num_questions"] for row in rows} == {4}


def test_a_replay_loads_neither_torch_nor_a_model(traces: Path) -> None:
    code = (
        "import sys; from specdec.commands import replay; replay.run([sys.argv[1], '--workers', '1']); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    line = [str(traces), "--sweep_max_spec_len", "20"]
    subprocess.run([sys.executable, "-c", code, *line], cwd=PROJECT, check=True, capture_output=True)


def test_the_command_itself(traces: Path) -> None:
    """As a user types it: `-m specdec.replay`, which starts its processes anew."""
    line = ["-m", "specdec.replay", str(traces), "--drafters", "ar_sf", "--workers", "2"]
    done = subprocess.run([sys.executable, *line], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0 and "ar_None_sf_10" in done.stdout


BAD_REPLAYS = {
    "--question_ids 9": "no trace of question 9",
    "--spec_len 50 --drafters dllm_sf": "--chain_len",
    "--spec_len 50 --drafters ar_sf": "32 tokens long",
    "--drafter_thresholds 0.6": "--record",
    "--latency_target Qwen2.5-99B": "--latency_target",
    "--policy cost_aware": "specdec.calibrate",
    "--log nowhere/log.txt --drafters ar_sf": "--log",
}


@pytest.mark.parametrize("line", BAD_REPLAYS)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_bad_replays_are_one_line_and_status_2(
    traces: Path, line: str, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay.main([str(traces), *line.split(), "--workers", workers]) == 2
    error = [text for text in capsys.readouterr().err.split("\n") if text and not text.startswith(("\r", "traces:"))]
    assert len(error) == 1 and BAD_REPLAYS[line] in error[0]


def test_a_trace_that_lies_under_another_number_is_not_taken_for_it(
    traces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trace_path(tmp_path, replace(load_trace(find_traces(traces)[0]).identity, question_id=7))
    path.parent.mkdir(parents=True)
    shutil.copy(find_traces(traces)[0], path)
    line = [str(tmp_path), "--drafters", "ar_sf", "--workers", "1"]
    assert replay.main(line) == 0, "where no number is asked, it is what it is"
    capsys.readouterr()
    assert replay.main([*line, "--question_ids", "7"]) == 2
    assert "under the number of another question: its own is 0" in capsys.readouterr().err


def test_the_trace_of_another_text_or_drafter_is_no_ceiling(traces: Path, tmp_path: Path) -> None:
    replay.run([str(traces), "--drafters", "ar_sf", "--output_dir", str(tmp_path), "--workers", "1"])
    other = made_up_trace(0, num_tokens=60, chain_len=32, block_size=8, thresholds=(0.05,), vocab_size=2)
    save_trace(other, trace_path(tmp_path, other.identity))
    with pytest.raises(UserError, match="the trace of another text"):
        parse_log.run([str(tmp_path / "pickles" / "bundled" / "bundled" / "0"), "--trace_dir", str(tmp_path)])
    own = load_trace(find_traces(traces)[0])
    stranger = dataclasses.replace(own.chains["ar"], identity={"drafter_sha256": "another"})
    save_trace(dataclasses.replace(own, chains=own.chains | {"ar": stranger}), trace_path(tmp_path, own.identity))
    with pytest.raises(UserError, match="another drafter .drafter_sha256"):
        parse_log.run([str(tmp_path / "pickles" / "bundled" / "bundled" / "0"), "--trace_dir", str(tmp_path)])


# ---- record and verify -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("family"))


SHORT = ("--sweep_max_spec_len", "20", "--num_questions", "2")


def test_recorded_once_replayed_as_run_live(family: dict[str, Path], tmp_path: Path) -> None:
    """Live, replayed and verified against the trace: the same records but for times, provenance and origin."""
    line = flags(family, tmp_path, *SHORT)
    assert failfast.main([*line, "--record"]) == 0
    assert failfast.main(line) == 0
    assert (
        failfast.main(
            [*line, "--output_dir", str(tmp_path / "verified"), "--verify", "trace", "--trace_dir", str(tmp_path)]
        )
        == 0
    )
    priced = ["--latency_target", "Qwen2.5-7B-Instruct"]
    replay.run([str(tmp_path), *SHORT[:2], *priced, "--output_dir", str(tmp_path / "replayed")])
    live = {path.relative_to(tmp_path): load_record(path) for path in find_records(tmp_path / "pickles")}
    assert len(live) == 12
    for name, origin in (("verified", TRACE), ("replayed", REPLAY)):
        for path, record in live.items():
            other = load_record(tmp_path / name / path)
            assert dataclasses.replace(other.identity, origin=LIVE) == record.identity
            assert (other.identity.origin, record.identity.origin) == (origin, LIVE)
            assert [_counts(turn) for turn in other.rounds] == [_counts(turn) for turn in record.rounds]
            assert (other.output_text, other.is_timed, record.is_timed) == (record.output_text, False, True)


def test_a_replay_is_not_a_finished_run(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = flags(family, tmp_path, "--num_questions", "1", "--drafters", "plain")
    assert failfast.main([*line, "--record"]) == 0
    replay.run([str(tmp_path), "--drafters", "plain", "--latency_profile", "none", "--output_dir", str(tmp_path)])
    capsys.readouterr()
    assert failfast.main(line) == 2
    assert "origin: stored 'replay', asked 'live'" in capsys.readouterr().err


def test_a_replay_writes_over_no_run(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = flags(family, tmp_path, "--num_questions", "1", "--drafters", "plain")
    assert failfast.main([*line, "--record"]) == failfast.main(line) == 0
    (path,) = find_records(tmp_path)
    kept = path.read_bytes()
    into = [str(tmp_path), "--drafters", "plain", "--latency_profile", "none", "--output_dir"]
    capsys.readouterr()
    assert replay.main([*into, str(tmp_path)]) == 2
    assert "origin: stored 'live', asked 'replay'): choose another --output_dir" in capsys.readouterr().err
    assert path.read_bytes() == kept
    assert replay.main([*into, str(tmp_path / "own")]) == replay.main([*into, str(tmp_path / "own")]) == 0


# Of a live round alone: its times, and what the target would say after the first rejected token.
NOT_REPLAYED = ("confidences", "draft_ms", "verify_ms", "cpu_ms", "target_tokens")


def _counts(turn: object) -> dict[str, object]:
    return {key: value for key, value in vars(turn).items() if key not in NOT_REPLAYED}


def test_a_second_recording_does_the_rest(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [*flags(family, tmp_path, *SHORT), "--record"]
    assert failfast.main([*line, "--drafters", "plain", "ar_sf"]) == 0
    _, _, *lines = capsys.readouterr().out.splitlines()  # after what is asked, and by what it is done
    assert lines[:3] == ["Question 0: recorded", "Question 1: recorded", "Recorded 2 of 2 questions. They are in:"]
    assert failfast.main(line) == 0  # the same questions, now with all drafters
    (first, second) = map(load_trace, find_traces(tmp_path))
    assert sorted(first.chains) == sorted(second.chains) == ["ar", "dllm_0.05", "lookup_3"]
    assert [first.chains[name].chain_len for name in ("ar", "dllm_0.05")] == [20, 31]
    assert failfast.main([*line, "--drafters", "ar_sf", "--chain_len", "25"]) == 0
    assert load_trace(find_traces(tmp_path)[0]).chains["ar"].chain_len == 25
    capsys.readouterr()
    monkeypatch.setattr(loaded, "load_lm", None)
    assert failfast.main(line) == 0
    out = capsys.readouterr().out
    assert "\nQuestion 0: has its trace\n" in out and "Recorded 0 of 2 questions; the others had" in out


def test_other_models_are_named(family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = flags(family, tmp_path / "out", "--num_questions", "1", "--drafters", "plain", "ar_sf")
    assert failfast.main([*line, "--record"]) == 0
    other = save_model(tmp_path / "other" / "target", toy_model("qwen2", 99, scale=4.0))
    line[line.index("--target_model_name") + 1] = str(other)
    capsys.readouterr()
    assert failfast.main([*line, "--record"]) == 2
    assert "target_sha256: stored" in capsys.readouterr().err


def test_verifying_needs_no_target_weights(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = flags(family, tmp_path / "out", "--num_questions", "1", "--drafters", "plain", "ar_sf")
    assert failfast.main([*line, "--record"]) == 0
    bare = tmp_path / "bare" / "target"
    bare.mkdir(parents=True)
    for file in family["target"].iterdir():
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    line[line.index("--target_model_name") + 1] = str(bare)
    assert failfast.main([*line, "--verify", "trace"]) == 0
    assert "Plain decoding: not measured." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--verify trace", "--record"),
        ("--trace_dir x", "--verify trace"),
        ("--record --verify trace", "choose one"),
        ("--record --read_pickle", "leave out"),
    ],
)
def test_bad_lines(
    family: dict[str, Path], tmp_path: Path, more: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failfast.main([*flags(family, tmp_path / "out", "--num_questions", "1"), *more.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
