"""parse_log.py: folders, logs, both; output formats; every bad input is one line and status 2."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from samples import make_plain, make_record, make_round
from test_report import PUBLISHED, log_of

from specdec.commands import rank as parse_log
from specdec.records.record import record_path, save_record
from specdec.text import quote_text

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def found():
    better = [make_round(3, tuple(range(8)), 8), make_round(12, (1, 2, 3), 1)]
    names = {"ar_None_sf_3": None, "dllm_0.05_df_0.45_60_10": better}
    drafted = [make_record(question, name, rounds) for question in range(3) for name, rounds in names.items()]
    return [*drafted, *(make_plain(question) for question in range(2))]


@pytest.fixture
def folder(tmp_path, found):
    for one in found:
        path = record_path(tmp_path / "out", "bundled", "gsm8k", one.question_id, one.drafter_name, 64)
        save_record(one, path)
    return tmp_path / "out"


@pytest.fixture
def log(tmp_path, found):
    path = tmp_path / "run.log"
    quoted = quote_text("[Problem 0, forged] Acceptance rate\r\u2028x")
    noise = [f"2025-12-01 12:00:00 INFO {line}" for line in quoted]
    path.write_text("\n".join(["hello", *log_of(found), *noise]) + "\n")
    return path


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_the_log_and_the_folder_give_the_same_ranking(folder, log, form):
    assert parse_log.run([str(folder), *form]) == parse_log.run([str(log), *form])
    assert parse_log.run([str(folder), str(log), *form]) == parse_log.run([str(folder), *form])


def test_text(folder, capsys):
    assert parse_log.main([str(folder), "--wide"]) == 0
    text = capsys.readouterr().out
    assert text.count("at least 5 needed). Highest: dllm_0.05_df_0.45_60_10") == 2
    assert text.count("Speedup, mean: ") == 1  # the legend, once under all tables
    assert "as if Qwen2.5-32B-Instruct" in text


def test_json_and_csv(folder):
    document = json.loads(parse_log.run([str(folder), "--json"]))
    modelled, measured = document["engines"]
    assert modelled["best"] == measured["best"] == "dllm_0.05_df_0.45_60_10"
    assert [row["num_questions"] for row in modelled["rows"]] == [3, 3]
    assert [(row["num_questions"], row["num_left_out"]) for row in measured["rows"]] == [(2, 1), (2, 1)]
    table = list(csv.DictReader(io.StringIO(parse_log.run([str(folder), "--csv"]))))
    assert len(table) == 6 and [row["drafter_name"] for row in table].count("plain") == 2


def test_profiles_and_targets(folder):
    document = json.loads(parse_log.run([str(folder), "--json", "--latency_profile", "none"]))
    assert [table["engine"] for table in document["engines"]] == ["measured"]
    arguments = [str(folder), "--json", "--latency_target", "Qwen2.5-7B-Instruct"]
    assert "as if Qwen2.5-7B-Instruct" in json.loads(parse_log.run(arguments))["engines"][0]["engine"]


def test_a_single_record(folder):
    path = record_path(folder, "bundled", "gsm8k", 0, "ar_None_sf_3", 64)
    assert "ar_None_sf_3" in parse_log.run([str(path)])


def test_a_published_log(tmp_path):
    path = tmp_path / "published.log"
    path.write_bytes(PUBLISHED.replace("\n", "\r\n").encode() + b"\xff\xfe broken bytes\n")
    text = parse_log.run([str(path), "--allow_unequal"])
    assert "Highest: dllm_0.05_df_0.45_60_10 (4.10x" in text
    assert "Careful: ranked over the 1 questions that all configurations have" in text


def bad_inputs(tmp_path: Path, folder: Path) -> dict[str, tuple[list[str], str]]:
    (tmp_path / "no.log").write_text("hello\nworld\n")
    (tmp_path / "empty.log").write_text("")
    (tmp_path / "binary.log").write_bytes(os.urandom(5000))
    (tmp_path / "half.log").write_text("[Problem 0, x] Acceptance rate: 58.2% (120/206)\n")
    (tmp_path / "empty").mkdir()
    damaged = record_path(tmp_path / "damaged", "bundled", "gsm8k", 0, "ar_None_sf_3", 64)
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "profile.json").write_text("{")
    published = tmp_path / "published.log"
    published.write_text(PUBLISHED)
    return {
        "unequal question sets": ([str(published)], "--allow_unequal"),
        "no log": ([str(tmp_path / "no.log")], "no.log"),
        "an empty file": ([str(tmp_path / "empty.log")], "empty.log"),
        "a binary file": ([str(tmp_path / "binary.log")], "binary.log"),
        "no finished question": ([str(tmp_path / "half.log")], "half.log"),
        "an empty folder": ([str(tmp_path / "empty")], "no records"),
        "a missing path": ([str(tmp_path / "absent")], "does not exist"),
        "a good and a missing path": ([str(folder), str(tmp_path / "absent")], "does not exist"),
        "a pipe": ([str(tmp_path / "pipe")], "neither"),
        "a damaged record": ([str(tmp_path / "damaged")], "64.pickle"),
        "an unknown profile": ([str(folder), "--latency_profile", "nope"], "nope"),
        "a damaged profile": (
            [str(folder), "--latency_profile", str(tmp_path / "profile.json")],
            "profile.json",
        ),
        "an unknown target": ([str(folder), "--latency_target", "nope"], "nope"),
        "none and a profile": ([str(folder), "--latency_profile", "none", "vLLM_A6000"], "none"),
        "no path": ([], "PATH"),
        "an unknown flag": ([str(folder), "--jason"], "--jason"),
        "a shortened flag": ([str(folder), "--js"], "--js"),
        "two formats": ([str(folder), "--json", "--csv"], "--csv"),
    }


def test_bad_input_is_one_line_and_status_2(tmp_path, folder, capsys):
    for name, (arguments, named) in bad_inputs(tmp_path, folder).items():
        try:
            status = parse_log.main(arguments)
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        assert (name, status, out) == (name, 2, "")
        assert named in err and err.count("\n") == 1 and err.endswith("\n"), name


@pytest.mark.slow
def test_the_command_itself(folder):
    for arguments, status in (([folder, "--json"], 0), ([folder / "absent"], 2)):
        command = [sys.executable, "parse_log.py", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == status
        assert "Traceback" not in done.stderr
        if status == 0:
            json.loads(done.stdout)
