"""The driver from its command line to its files: lossless, resumable, strict. Tiny random families on disk."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from families import edit_config, flags, save_family, save_model
from pausing import wait_until_paused
from toys import toy_model

from specdec.commands import rank, reporter
from specdec.commands import run as failfast
from specdec.models import loaded
from specdec.records.record import find_records, load_record

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parent.parent
DRAFTERS = {
    "plain",
    "ar_None_sf_10",
    "ar_None_df_0.45_60_10",
    "dllm_0.05_sf_10",
    "dllm_0.05_df_0.45_60_10",
    "lookup_3_sf_10",
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading any model is an error."""

    def refuse(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(loaded, "load_lm", refuse)


def modelled_table(output: str) -> str:
    """The part of a ranking that does not depend on the clock."""
    return output[output.index("Modelled time") :].split("\nMeasured: ")[0]


def test_every_drafter_writes_the_same_text(family: dict[str, Path], tmp_path: Path) -> None:
    assert failfast.main(flags(family, tmp_path, "--num_questions", "2")) == 0
    records = [load_record(path) for path in find_records(tmp_path)]
    assert {record.drafter_name for record in records} == DRAFTERS
    for question_id in (0, 1):
        texts = {tuple(record.output_tokens) for record in records if record.question_id == question_id}
        assert len(texts) == 1
    assert all(path.with_suffix(".txt").is_file() for path in find_records(tmp_path))
    assert any(record.num_accepted for record in records)


@pytest.mark.parametrize(
    "more",
    [
        *("--reuse_drafts", "--disable_reusing_drafter_kvs", "--failfast_rule strict"),
        "--spec_len 3 7 --sweep_first_window 3 7",
    ],
)
def test_every_mode_writes_the_same_text(family: dict[str, Path], tmp_path: Path, more: str) -> None:
    assert failfast.main(flags(family, tmp_path, "--num_questions", "1", *more.split())) == 0
    assert len({tuple(load_record(path).output_tokens) for path in find_records(tmp_path)}) == 1


def test_kv_reuse_changes_nothing_but_prefill_passes(family: dict[str, Path], tmp_path: Path) -> None:
    drafts = {}
    for name, more in (("on", []), ("off", ["--disable_reusing_drafter_kvs"])):
        arguments = flags(family, tmp_path / name, "--num_questions", "2", "--drafters", "dllm_sf", "failfast")
        assert failfast.main([*arguments, *more]) == 0
        records = [load_record(path) for path in find_records(tmp_path / name)]
        drafts[name] = [
            (turn.draft_tokens, turn.num_denoise_passes, turn.num_commit_passes)
            for record in records
            for turn in record.rounds
        ]
    assert drafts["on"] == drafts["off"]


def test_a_second_run_computes_nothing(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "2")
    assert failfast.main(arguments) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(loaded, "load_lm", None)
    assert failfast.main(arguments) == 0
    assert capsys.readouterr().out == first
    assert failfast.main([*arguments, "--read_pickle"]) == 0
    assert modelled_table(capsys.readouterr().out) == modelled_table(first)


def test_reading_and_overwriting_draws_the_figures_and_keeps_the_records(
    family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "1", "--drafters", "ar_sf", "--spec_len", "3")
    assert failfast.main(arguments) == 0
    (path,) = find_records(tmp_path)
    kept, when = path.read_bytes(), path.stat().st_mtime_ns
    monkeypatch.setattr(loaded, "load_lm", None)
    assert failfast.main([*arguments, "--read_pickle"]) == 0 and not (tmp_path / "figures").exists()
    assert failfast.main([*arguments, "--read_pickle", "--overwrite"]) == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (kept, when)
    assert len(list((tmp_path / "figures").rglob("*.png"))) == 1


@pytest.mark.parametrize("level", ["ERROR", "CRITICAL"])
def test_quiet_levels_print_the_ranking_alone(
    level: str, family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "1", "--drafters", "ar_sf", "--spec_len", "3")
    assert failfast.main([*arguments, "--log_level", level]) == 0
    out = capsys.readouterr().out
    assert "ar_None_sf_3" in out and "[Problem" not in out


def test_other_settings_are_named_and_nothing_is_lost(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "1", "--drafters", "failfast")
    assert failfast.main(arguments) == 0
    (path,) = find_records(tmp_path)
    kept = path.read_bytes()
    assert failfast.main([*arguments, "--reuse_drafts"]) == 2
    assert "reuse_drafts: stored False, asked True" in capsys.readouterr().err
    assert path.read_bytes() == kept
    assert failfast.main([*arguments, "--reuse_drafts", "--overwrite"]) == 0
    assert load_record(path).identity.settings["reuse_drafts"] is True


def test_published_prompts_are_other_records(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "1", "--drafters", "ar_sf", "--spec_len", "3")
    assert failfast.main([*arguments, "--prompt_style", "published"]) == 0
    (record,) = map(load_record, find_records(tmp_path))
    assert record.identity.settings["prompt_style"] == "published"
    assert failfast.main([*arguments, "--prompt_style", "published"]) == 0
    capsys.readouterr()
    assert failfast.main(arguments) == 2
    assert "prompt_style: stored 'published', asked nothing" in capsys.readouterr().err
    assert load_record(*find_records(tmp_path)) == record


def test_settings_with_names_of_their_own_stand_side_by_side(family: dict[str, Path], tmp_path: Path) -> None:
    """First windows and rules: no run of one takes the other's record for its own, or overwrites it."""
    arguments = flags(family, tmp_path, "--num_questions", "1", "--drafters", "failfast")
    asked = ([], ["--failfast_rule", "strict"], ["--first_window", "9"], ["--failfast_rule", "strict"])
    for more in (*asked, ["--sweep_first_window", "9", "--failfast_rule", "strict"]):
        assert failfast.main([*arguments, *more]) == 0
    found = {record.drafter_name: record for record in map(load_record, find_records(tmp_path))}
    ends = {"": (10, "published"), "_strict": (10, "strict"), "_w9": (9, "published"), "_w9_strict": (9, "strict")}
    decided = {name: one.identity.settings for name, one in found.items()}
    assert {name: (one["first_window"], one["rule"]) for name, one in decided.items()} == {
        f"dllm_0.05_df_0.45_60_10{end}": settings for end, settings in ends.items()
    }


def test_the_order_of_lengths_changes_nothing(
    family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of one order are those of the other: nothing is computed again."""
    arguments = flags(family, tmp_path, "--num_questions", "1", "--drafters", "ar_sf", "dllm_sf", "failfast")
    assert failfast.main([*arguments, "--spec_len", "3", "7"]) == 0
    kept = {path: path.read_bytes() for path in find_records(tmp_path)}
    assert len(kept) == 5
    monkeypatch.setattr(loaded, "load_lm", None)
    assert failfast.main([*arguments, "--spec_len", "7", "3"]) == 0
    assert {path: path.read_bytes() for path in find_records(tmp_path)} == kept


@pytest.mark.usefixtures("no_weights")
def test_a_dry_run_says_what_would_run(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failfast.main(flags(family, tmp_path / "out", "--num_questions", "3", "--dry_run")) == 0
    out = capsys.readouterr().out
    assert all(f"{name}: 3 questions, at most 72 rounds" in out for name in DRAFTERS)
    assert "of weights" in out and "of KV cache" in out
    assert not (tmp_path / "out").exists()


def test_answers_in_a_log_are_quoted(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failfast.main(flags(family, tmp_path, "--num_questions", "1", "--log_level", "DEBUG")) == 0
    shown = capsys.readouterr().out.splitlines()
    (log,) = tmp_path.glob("runs/*/log.txt")
    lines = log.read_text().splitlines()
    assert any(line.startswith("| ") for line in lines)
    ours = ("| ", "[Problem ", "=== [Problem ", "--- Speculation round ")
    assert all(line.startswith(ours) for line in lines)
    begin = next(i for i, line in enumerate(shown) if line.startswith(ours))
    end = next(i for i, line in enumerate(shown) if line.startswith("q0 "))
    assert shown[begin:end] == lines  # DEBUG shows all that the log has


def trajectories(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("| ") or "Trajectory" in line]


def test_trajectories_live_and_stored_with_and_without_colours(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marks where there is no terminal, colours where there is one: --log_level DEBUG shows them there, too."""
    arguments = flags(family, tmp_path, "--num_questions", "1", "--drafters", "plain", "failfast")
    assert failfast.main([*arguments, "--show_trajectory"]) == 0
    live = trajectories(capsys.readouterr().out)
    assert len(live) == 4 and "[-" in live[3] and "{+" in live[3] and "\x1b" not in live[3]
    assert live[1] != live[3]
    assert failfast.main([*arguments, "--show_trajectory", "--read_pickle"]) == 0
    assert trajectories(capsys.readouterr().out) == live
    monkeypatch.setattr(reporter, "wants_colour", lambda *_: True)
    for more in ("--show_trajectory", "--log_level DEBUG"):
        assert failfast.main([*arguments, *more.split(), "--read_pickle"]) == 0
        coloured = trajectories(capsys.readouterr().out)
        assert "\x1b[9;31m" in coloured[3] and "\x1b[32m" in coloured[3] and "[-" not in coloured[3]
    assert failfast.main([*arguments, "--read_pickle"]) == 0
    assert trajectories(capsys.readouterr().out) == []


def test_colours_need_a_terminal_and_no_NO_COLOR(family: dict[str, Path], tmp_path: Path) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "1", "--drafters", "plain", "failfast")
    assert failfast.main(arguments) == 0
    command = [sys.executable, "failfast.py", *arguments, "--read_pickle", "--show_trajectory"]
    outputs = {}
    for name, more in (("terminal", {}), ("no colour", {"NO_COLOR": "1"})):
        reading, writing = os.openpty()
        environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"} | more
        with subprocess.Popen(command, cwd=PROJECT, stdout=writing, env=environment):
            os.close(writing)
            outputs[name] = b"".join(iter(lambda end=reading: _read(end), b""))
        os.close(reading)
    assert b"\x1b[9;31m" in outputs["terminal"] and b"[-" not in outputs["terminal"]
    assert b"\x1b" not in outputs["no colour"] and b"[-" in outputs["no colour"]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that the other side has closed
        return b""


def test_stored_records_are_chosen_by_question_and_kind(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "2")
    assert failfast.main(arguments) == 0
    capsys.readouterr()
    assert (
        failfast.main(
            [*arguments, "--read_pickle", "--drafters", "ar_sf", "--question_ids", "1", "--log_level", "DEBUG"]
        )
        == 0
    )
    reported = {line.split("]")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("[Problem")}
    assert reported == {"[Problem 1, ar_None_sf_10"}
    assert failfast.main([*arguments, "--read_pickle", "--question_ids", "1", "5"]) == 2
    assert "question 5" in capsys.readouterr().err


@pytest.mark.usefixtures("no_weights")
def test_a_useless_output_dir_is_noticed_before_any_work(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "sub", tmp_path / ("x" * 300)):
        assert failfast.main(flags(family, place, "--num_questions", "1")) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_reader_that_goes_away_is_no_mistake(family: dict[str, Path], tmp_path: Path) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "1", "--drafters", "plain", "ar_sf")
    assert failfast.main(arguments) == 0
    lines = {
        "failfast.py": [*arguments, "--read_pickle"],
        "parse_log.py": [str(tmp_path), "--latency_profile", "none"],
    }
    for program, line in lines.items():
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([sys.executable, program, *line], cwd=PROJECT, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b"")


BAD_LINES = {
    "--question_ids 4800": "48",
    "--max_new_tokens 2048": "--max_new_tokens",
    "--latency_target Qwen2.5-99B": "--latency_target",
    "--latency_profile nothing_like_it": "vLLM_A6000",
    "--small_block_size 5": "--small_block_size",
    "--device cuda:77": "--device",
    "--block_size 4096": "--block_size",
    "--latency_profile none vLLM_A6000": "none",
    "--target_model_name missing/folder/of/mine": "--target_model_name",
    "--read_pickle": "--output_dir",
    "--dataset_name math --data_dir nowhere": "nowhere",
}


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_input_is_one_line_and_status_2(
    family: dict[str, Path], tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failfast.main([*flags(family, tmp_path / "out", "--num_questions", "1"), *line.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert BAD_LINES[line] in error
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_weights")
def test_a_drafter_of_another_family_is_refused(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = save_model(tmp_path / "stranger", toy_model("qwen2", 3))
    vocabulary = (stranger / "tokenizer.json").read_text().replace('"word7"', '"seven"')
    (stranger / "tokenizer.json").write_text(vocabulary)
    assert failfast.main(flags(family | {"ar": stranger}, tmp_path / "out", "--num_questions", "1")) == 2
    assert re.search("tokenizers differ: id 9 is 'word7' .* 'seven'", capsys.readouterr().err)
    edit_config(stranger, model_type="odd", auto_map={"AutoModel": "odd.Model"})
    assert failfast.main(flags(family | {"dllm": stranger}, tmp_path / "out", "--num_questions", "1")) == 2
    assert "remote code" in capsys.readouterr().err


@pytest.mark.usefixtures("no_weights")
def test_a_damaged_record_is_named_and_never_executed(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "pickles" / "target" / "bundled" / "0" / "plain" / "24.pickle"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cposix\nsystem\n(S'touch " + os.fsencode(tmp_path) + b"/executed'\ntR.")
    assert failfast.main(flags(family, tmp_path / "out", "--num_questions", "1")) == 2
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


@pytest.fixture(scope="module")
def whole_table(family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run says at its end that nobody interrupts."""
    with redirect_stdout(StringIO()) as output:
        assert failfast.main(flags(family, tmp_path_factory.mktemp("whole"), "--num_questions", "4")) == 0
    return modelled_table(output.getvalue())


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_goes_on_where_it_stopped(
    family: dict[str, Path],
    tmp_path: Path,
    stop_signal: signal.Signals,
    whole_table: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = flags(family, tmp_path / "out", "--num_questions", "4")
    paused = tmp_path / "paused"
    command = [sys.executable, "tests/pausing.py", str(paused), "failfast.py", *arguments]
    running = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until_paused(running, paused)
    running.send_signal(stop_signal)
    _, error = running.communicate(timeout=600)  # only what hangs takes longer, however busy the machine
    num_kept = len(find_records(tmp_path / "out"))
    assert 0 < num_kept < 24
    if stop_signal != signal.SIGKILL:
        assert running.returncode == 128 + stop_signal
        assert error.decode().count("\n") == 1
    assert failfast.main(arguments) == 0
    assert modelled_table(capsys.readouterr().out) == whole_table
    assert len(find_records(tmp_path / "out")) == 24


def test_a_wide_run_has_the_table_of_drafters_that_a_ranking_has(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = flags(family, tmp_path, "--num_questions", "1", "--drafters", "plain", "ar_sf", "lookup", "--wide")
    tables = []
    for more in ((), ("--read_pickle",)):
        assert failfast.main([*asked, *more]) == 0
        tables.append(capsys.readouterr().out)
    tables.append(rank.run([str(tmp_path), "--latency_target", "Qwen2.5-7B-Instruct", "--wide"]))
    shown = [re.findall(r"^Drafters\n.*?did not record it\.$", text, re.M | re.S) for text in tables]
    assert len(shown[0]) == 1 and "weights a pass" in shown[0][0] and shown[0] == shown[1] == shown[2]


def test_a_target_that_the_default_profile_does_not_know_is_measured_only(
    family: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the published flags alone, as for a target of one's own: run, ranking and report."""
    given = flags(family, tmp_path / "out", "--num_questions", "1", "--drafters", "plain", "ar_sf")
    place = given.index("--latency_target")
    arguments = [*given[:place], *given[place + 2 :]]
    assert failfast.main(arguments) == 0
    output = capsys.readouterr().out
    assert " ".join(output.split()).count("measured only: the default latency profile vLLM_A6000 has no target") == 1
    assert all(len(line) <= 100 for line in output.splitlines() if str(tmp_path) not in line)
    assert "measured" in output and "as if" not in output
    assert "Times are measured only" in rank.run([str(tmp_path / "out")])
    assert failfast.main([*arguments, "--latency_profile", "vLLM_A6000", "--overwrite"]) == 2
    assert "has no target" in capsys.readouterr().err
