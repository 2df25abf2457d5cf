"""A server's own speculation in the ranking of recorded drafters."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import json
from pathlib import Path

import pytest
from samples import make_plain, make_record, make_round, of_question, with_settings

from specdec.commands import rank as parse_log
from specdec.records.record import Record, record_path, save_record

NUM_QUESTIONS = 6


def of_7b(record: Record, **settings: object) -> Record:
    """The record of another target, and of more settings."""
    identity = dataclasses.replace(record.identity, target="Qwen2.5-7B-Instruct")
    return dataclasses.replace(record, identity=with_settings(identity, settings))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records of an AR drafter and of plain decoding."""
    for question in range(NUM_QUESTIONS):
        rounds = [make_round(3, (5, 6, 7), question % 3), make_round(4 + question % 3, (8, 8, 8), 2)]
        for record in (make_record(question, "ar_None_sf_3", rounds), make_plain(question)):
            record = of_7b(record)
            path = record_path(tmp_path / "out", "q7b", "gsm8k", question, record.drafter_name, 64)
            save_record(record, path)
    return tmp_path / "out"


def row(**changes: object) -> dict:
    """What a profiler prints under "row": 10 rounds a question, at 4 ms against 10 ms a token."""
    counts = {"num_drafts": 10, "num_drafted": 30, "num_accepted": 15, "accepted_per_position": [8, 5, 2]}
    times = {"ms_per_token": 4.0, "vanilla_ms_per_token": 10.0, "is_derived": False}
    questions = [{"question_id": index, **counts, **times} for index in range(NUM_QUESTIONS)]
    server = {"drafter_name": "eagle3_vllm_3", "engine": "vLLM", "engine_version": "0.13.0", "hardware": "H100"}
    made = {"target": "Qwen2.5-7B-Instruct", "dataset": "gsm8k", "max_new_tokens": 64, "questions": questions}
    return {**server, **made, **changes}


def save(folder: Path, made: dict) -> str:
    path = folder / "eagle3.json"
    path.write_text("log line\n" + json.dumps({"engine": "vLLM", "row": made}) + "\n")
    return str(path)


def test_the_row_stands_in_every_table_with_a_note(folder, tmp_path):
    document = json.loads(parse_log.run([str(folder), "--also", save(tmp_path, row()), "--json"]))
    assert [engine["engine"] for engine in document["engines"]] == ["vLLM_A6000", "measured"]
    for engine in document["engines"]:
        (found,) = [one for one in engine["rows"] if one["drafter_name"] == "eagle3_vllm_3"]
        assert found["speedup_mean"] == pytest.approx(2.5) and found["num_questions"] == NUM_QUESTIONS
        assert found["acceptance_len"] == 2.5 and found["acceptance_rate"] == 0.5
        assert found["mean_low"] is not None  # an interval over the same questions
    assert "measured on a server (vLLM 0.13.0 H100)" in document["note"]
    assert "Whether that plain decoding was plain is unknown" in document["note"]
    text = parse_log.run([str(folder), "--also", save(tmp_path, row(vanilla_speculates="no"))])
    assert "is unknown" not in text
    assert text.count("eagle3_vllm_3") >= 3 and "that server's own plain decoding" in text


def test_csv_has_the_row(folder, tmp_path, capsys):
    table = csv.DictReader(io.StringIO(parse_log.run([str(folder), "--also", save(tmp_path, row()), "--csv"])))
    assert {line["drafter_name"] for line in table} == {"ar_None_sf_3", "eagle3_vllm_3", "plain"}
    assert "measured on a server" in capsys.readouterr().err


def test_other_questions_are_not_ranked_together_unless_asked(folder, tmp_path, capsys):
    made = row()
    made["questions"] = made["questions"][1:]
    path = save(tmp_path, made)
    assert parse_log.main([str(folder), "--also", path]) == 2
    assert "--allow_unequal" in capsys.readouterr().err
    document = json.loads(parse_log.run([str(folder), "--also", path, "--allow_unequal", "--json"]))
    assert {one["num_questions"] for one in document["engines"][0]["rows"]} == {NUM_QUESTIONS - 1}
    assert "Careful" in document["note"] and "measured on a server" in document["note"]


def test_a_greedy_server_does_not_stand_beside_sampled_records(tmp_path, capsys):
    record = of_7b(make_record(0), temperature=0.7)
    save_record(record, record_path(tmp_path / "sampled", "q7b", "gsm8k", 0, record.drafter_name, 64))
    assert parse_log.main([str(tmp_path / "sampled"), "--also", save(tmp_path, row())]) == 2
    assert "rank what was run alike" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["my model", "temperature", "of temperature 1", "gsm8k 64"])
def test_a_target_of_any_name_finds_its_row(target, tmp_path):
    """A source was one string, split at spaces, in which "my model" was the target "my"."""
    for question in range(NUM_QUESTIONS):
        for record in (of_question(make(question), target=target) for make in (make_record, make_plain)):
            save_record(record, record_path(tmp_path / "out", target, "gsm8k", question, record.drafter_name, 64))
    arguments = ["--also", save(tmp_path, row(target=target)), "--latency_target", "Qwen2.5-7B-Instruct", "--json"]
    document = json.loads(parse_log.run([str(tmp_path / "out"), *arguments]))
    for engine in document["engines"]:
        assert {one["drafter_name"] for one in engine["rows"]} == {"ar_None_sf_3", "eagle3_vllm_3"}
    assert document["sources"] == [{"target": target, "dataset": "gsm8k", "max_new_tokens": 64, "dtype": "float32"}]


def broken(field: str, value: object) -> dict:
    made = copy.deepcopy(row())
    made["questions"][0][field] = value
    return made


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (row(target="Qwen2.5-14B-Instruct"), "rank what was run alike"),
        (row(dataset="math"), "of target Qwen2.5-7B-Instruct, data set math"),
        (row(max_new_tokens=32), "32 new tokens"),
        (row(drafter_name="a] [b"), "damaged"),
        (row(questions=[]), "damaged"),
        (broken("question_id", 1), "damaged"),
        (broken("num_drafts", 0), "damaged"),
        (broken("num_accepted", -1), "damaged"),
        (broken("ms_per_token", 0.0), "damaged"),
        (broken("ms_per_token", None), "damaged"),
        ({"drafter_name": "x"}, "damaged"),
        (3, "damaged"),
    ],
)
def test_a_row_that_does_not_belong_is_one_line(made, why, folder, tmp_path, capsys):
    assert parse_log.main([str(folder), "--also", save(tmp_path, made)]) == 2
    error = capsys.readouterr().err
    assert why in error and "--also" in error and error.count("\n") == 1


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"row": ', '{"ms_per_token": {"median": 1.0}}'])
def test_what_has_no_row_is_one_line(text, folder, tmp_path, capsys):
    path = tmp_path / "eagle3.json"
    path.write_text(text)
    assert parse_log.main([str(folder), "--also", str(path)]) == 2
    assert "has no row for a ranking" in capsys.readouterr().err
    assert parse_log.main([str(folder), "--also", str(tmp_path / "nowhere")]) == 2
    assert "cannot read" in capsys.readouterr().err
