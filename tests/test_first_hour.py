"""What a new user meets: flags that say what is meant, plans that say how long, machines named as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from samples import make_record, saved, with_settings

from specdec import session
from specdec.commands import run
from specdec.commands.run import parse_args
from specdec.config import RunConfig
from specdec.errors import UserError
from specdec.models import loaded
from specdec.models.load import backend_title, threads_for
from specdec.records.identity import Identity
from specdec.records.record import identity_path, save_record
from specdec.runs.plan import time_line
from specdec.runs.resume import stored_records

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--num_question 3", "unrecognized arguments: --num_question 3; did you mean --num_questions?"),
        ("--specs_len 3", "did you mean --spec_len?"),
        ("--zzz", "unrecognized arguments: --zzz (see"),
        ("--spec_len 4,8", "'4,8' is not a positive integer: give several with blanks, 4 8"),
        ("--tau 0.3,0.4", "'0.3,0.4' is not a probability (0 to 1): give several with blanks, 0.3 0.4"),
        ("--log_level loud", "--log_level"),
    ],
)
def test_a_mistyped_flag_says_what_may_be_meant(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_args(line.split())
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.count("\n") == 1 and "_positive_int" not in error


def test_a_log_level_is_read_in_any_case() -> None:
    assert parse_args(["--log_level", "debug"]).output.log_level == "DEBUG"


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("--spec_len 4", "spec_len"),
        ("--tau 0.3", "sweep_lowconf_threshold"),
        ("--drafters ar_sf", "drafters"),
        ("--run_ar", "run_ar"),
    ],
)
def test_a_grid_refuses_what_it_would_ignore(line: str, flag: str) -> None:
    with pytest.raises(UserError, match=f"--grid paper says all settings itself: leave out --{flag}"):
        parse_args(["--grid", "paper", *line.split()])
    assert len(parse_args(["--grid", "paper", "--max_new_tokens", "64"]).drafters.specs()) == 65


def test_status_without_a_folder_is_of_the_output_dir(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = parse_args(["--output_dir", str(tmp_path), "--status"])
    assert asked.output.status is True and parse_args([]).output.status is None
    with_folder = run.main(["--status", str(tmp_path)]), capsys.readouterr()
    assert (run.main(["--output_dir", str(tmp_path), "--status"]), capsys.readouterr()) == with_folder


def test_records_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    record, _ = saved(tmp_path)
    asked = RunConfig.of(output_dir=str(tmp_path), dataset_name="math", read_pickle=True)
    with pytest.raises(UserError, match=rf"it holds bundled gsm8k 64: questions 0, {record.drafter_name}\): check"):
        stored_records(asked)
    with pytest.raises(UserError, match="it holds none"):
        stored_records(RunConfig.of(output_dir=str(tmp_path / "empty"), read_pickle=True))


@pytest.mark.parametrize(
    ("stored", "asked", "said"),
    [
        ({}, {"temperature": 0.8}, "decoded greedily: leave out --temperature"),
        (
            {"decoding": "sampled", "temperature": 1.0},
            {"temperature": 0.8},
            "decoded otherwise: leave out --temperature",
        ),
        ({"decoding": "sampled", "temperature": 0.8}, {"temperature": 0.8, "top_p": 0.9}, "leave out --top_p"),
        ({"decoding": "sampled", "temperature": 0.8}, {"temperature": 0.8}, ""),
        ({"decoding": "sampled", "temperature": 0.8}, {}, ""),
        ({}, {"thinking": "on"}, "asked otherwise: leave out --thinking"),
        ({"thinking": "on"}, {"thinking": "off"}, "asked otherwise: leave out --thinking"),
        ({}, {"prompt_style": "published"}, "asked otherwise: leave out --prompt_style"),
        ({"thinking": "on"}, {"thinking": "on"}, ""),
        ({"thinking": "on"}, {}, ""),
    ],
)
def test_stored_records_are_not_taken_for_others(
    tmp_path: Path, stored: dict[str, object], asked: dict[str, object], said: str
) -> None:
    record = make_record()
    record = dataclasses.replace(record, identity=with_settings(record.identity, stored))
    save_record(record, identity_path(tmp_path, record.identity))
    wanted = {"dataset_name": "gsm8k", "max_new_tokens": 64, "drafters": ("ar_sf",), "read_pickle": True}
    config = RunConfig.of(output_dir=str(tmp_path), **wanted, **asked)
    if not said:
        assert len(stored_records(config)) == 1
        return
    with pytest.raises(UserError, match=said):
        stored_records(config)


def test_a_seed_that_decides_nothing_ends_no_resume() -> None:
    greedy = Identity("bundled", "gsm8k", 0, "plain", 64, {"seed": 0, "decoding": "greedy"})
    greedy.require(with_settings(greedy, {"seed": 3}), "made", "stop")
    for others in ({"dataset": "gpqa"}, {"settings": {"seed": 0, "decoding": "sampled"}}):
        seeded = dataclasses.replace(greedy, **others)
        with pytest.raises(UserError, match="seed: stored 0, asked 3"):
            seeded.require(with_settings(seeded, {"seed": 3}), "made", "stop")


def test_a_plan_says_how_long_or_that_it_cannot() -> None:
    seven = RunConfig.of(target_model_name="Qwen/Qwen2.5-7B-Instruct", max_new_tokens=1000)
    said = "time: about 1.1 hours by vLLM_A6000, if all 1000 tokens were written at plain's 13.5 ms each"
    assert time_line(seven, 300) == said
    assert "minutes" in time_line(seven, 3)
    for other in (
        RunConfig.of(),
        RunConfig.of(latency_target="Qwen2.5-7B-Instruct"),
        RunConfig.of(latency_profile=("none",)),
    ):
        assert time_line(other, 3).startswith("time: cannot be said")


def test_the_graph_backend_without_a_gpu_is_named_as_what_it_is() -> None:
    assert "say nothing of the engine" in backend_title("graph", CPU)
    assert backend_title("graph", torch.device("cuda")) == "graph" and backend_title("eager", CPU) == "eager"


@pytest.mark.parametrize(
    ("asked", "millions", "most", "expected"),
    [
        (None, 12, 64, 1),
        (None, 135, 64, 3),
        (None, 1_500, 64, 24),
        (None, 32_000, 16, 16),
        (None, 135, 1, 1),
        (5, 12, 2, 5),
    ],
)
def test_threads_are_chosen_by_the_size_of_the_models(
    asked: int | None, millions: int, most: int, expected: int
) -> None:
    assert threads_for(asked, CPU, millions * 10**6, most) == expected


def test_a_gpus_host_keeps_its_threads() -> None:
    assert threads_for(None, torch.device("cuda"), 10**9, 8) is None


def test_a_line_stands_before_a_long_silence(
    one_thread: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = RunConfig.of(drafters=("plain",), device="cpu")
    with caplog.at_level("INFO", "failfast"):
        session.open_session(usual).target()
        assert caplog.messages == []
        monkeypatch.setattr(loaded, "SLOW_TO_LOAD", 0)
        session.open_session(usual).target()
    (said,) = caplog.messages
    assert said.startswith("loading target bundled: ") and said.endswith("MB, float32 on cpu, eager, threads: 1")
