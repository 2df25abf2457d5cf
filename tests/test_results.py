"""Profilers' results: lines for people on a terminal, JSON into a file; and questions of one's own asked whole."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_server import FakeServer, answer, vllm_metrics
from test_server_profile import flags

from profiling import profile_tpt_vllm, profile_tpt_vllm_eagle3, roofline
from profiling.common import first_turns
from profiling.results import result_lines
from profiling.serving.asking import NUM_QUESTIONS, question_arguments
from specdec.errors import UserError
from specdec.questions.sets import load_problems
from specdec.ranking.server_rows import _read_row

SPREAD = {"median": 12.0, "p10": 11.0, "p90": 13.0, "num": 6}


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A call that says what a person has seen since the last one."""

    def shown() -> str:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        return capsys.readouterr().out

    return shown


def measured(program, *more: str, **server: object) -> int:
    with FakeServer([answer(10)], **server) as one:
        return int(program.main(flags(one, "--repeats", "1", *more)))


def test_a_person_reads_lines_and_a_pipe_gets_json_alone(terminal, capsys) -> None:
    terminal()
    assert measured(profile_tpt_vllm, metrics=vllm_metrics()) == 0
    lines = terminal().splitlines()
    assert lines[0] == "org/big under vLLM 0.13.0, questions of bundled: 3 of 3 answers count"
    assert [line.split("  ")[0] for line in lines[2:4]] == ["ms per token", "time to the first token, ms"]
    assert lines[-1] == "All of it as JSON: --json" and len(lines) < 10 and max(map(len, lines)) <= 100
    assert measured(profile_tpt_vllm, "--json", metrics=vllm_metrics()) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["num_valid"] == 3 and "ms per token" in printed.err
    assert "tokens a second, 1 at a time" in printed.err


def test_a_file_of_json_is_what_documented_commands_take(terminal, tmp_path: Path) -> None:
    terminal()
    plain, served = tmp_path / "plain.json", tmp_path / "served.json"
    assert measured(profile_tpt_vllm, "--out", str(plain), metrics=vllm_metrics()) == 0
    asked = ("--out", str(served), "--vanilla", str(plain))
    assert measured(profile_tpt_vllm_eagle3, *asked, metrics=vllm_metrics(4)) == 0
    shown = terminal()
    assert f"All of it as JSON: {served}" in shown and "acceptance length" in shown and "{" not in shown
    assert _read_row(served)["drafter_name"].startswith("eagle3_vllm")
    assert json.loads(plain.read_text())["ms_per_token"]["num"] == 3


def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path: Path, capsys) -> None:
    with FakeServer([answer(10)], metrics=vllm_metrics()) as server:
        assert profile_tpt_vllm.main(flags(server, "--out", str(tmp_path / "nowhere" / "a.json"))) == 2
        assert not server.requests
    assert "give a file in a folder that is there" in capsys.readouterr().err
    assert roofline.main(["--gpu", "H100", "--targets", "Qwen2.5-7B", "--out", str(tmp_path)]) == 2


def test_verifications_and_drafters_have_a_line_each() -> None:
    found = {"model": "m", "engine": "E", "dataset": "d", "num_valid": 6, "num_trials": 6, "ms_per_token": SPREAD}
    found |= {"verify_ms": {"1": SPREAD, "8": SPREAD}, "output_tokens": SPREAD, "ar_drafter": {"ms_per_pass": SPREAD}}
    lines = result_lines(found)
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "ms per token", "verify 1 tokens, ms", "verify 8 tokens, ms", "output tokens", "AR drafter, ms per pass",
    ]  # fmt: skip
    assert lines[2].split()[-4:] == ["12.00", "11.00", "13.00", "6"]


def own(folder: Path, *rows: dict) -> str:
    path = folder / "traffic.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_system_prompt_and_what_was_said_before_are_asked_with_a_question(tmp_path: Path) -> None:
    said = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    asked = own(tmp_path, {"prompt": "Why?", "system": "Be brief."}, {"messages": said})
    with FakeServer([answer(10)], metrics=vllm_metrics()) as server:
        questions = ("--dataset_name", asked, "--num_questions", "2", "--repeats", "1", "--warm_up", "1")
        assert profile_tpt_vllm.main(flags(server, *questions)) == 0
    first, second = (request["messages"] for request in server.requests[1:])
    assert [one["content"] for one in first] == ["Be brief.", "Why?"] and second == said


def test_later_turns_of_ones_own_are_refused_in_one_line(tmp_path: Path, capsys) -> None:
    asked = own(tmp_path, {"prompt": "Why?"}, {"turns": ["One?", "Two?", "Three?"]})
    with FakeServer([answer(10)], metrics=vllm_metrics()) as server:
        assert profile_tpt_vllm.main(flags(server, "--dataset_name", asked, "--num_questions", "2")) == 2
        assert not server.requests
    error = capsys.readouterr().err
    assert "line 2 has 2 more turns, and a profiler asks one" in error and error.count("\n") == 1
    with pytest.raises(UserError):
        first_turns(load_problems(asked))


def test_of_ones_own_questions_all_are_asked(tmp_path: Path) -> None:
    asked = own(tmp_path, {"prompt": "Why?"})
    for name, given, number in ((asked, None, None), ("gsm8k", None, NUM_QUESTIONS), (asked, 1, 1), ("gsm8k", 3, 3)):
        options = {"data_dir": None, "question_ids": None, "seed": 0, "prompt_style": "short"}
        flags_ = Namespace(dataset_name=name, num_questions=given, **options)
        assert question_arguments(flags_)["num_questions"] == number
    assert question_arguments(Namespace(num_questions=None, **options))["num_questions"] == NUM_QUESTIONS
