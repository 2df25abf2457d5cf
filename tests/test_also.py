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
    counts = {"num_rounds": 10, "num_emitted": 25, "num_drafts": 10, "num_drafted": 30, "num_accepted": 15}
    counts |= {"accepted_per_position": [8, 5, 2]}
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
        (row(max_new_tokens=32), "(the profiler takes --max_new_tokens 64)"),
        (row(target="target"), "--served-model-name Qwen2.5-7B-Instruct"),
        (row(drafter_name="a] [b"), "damaged"),
        (row(questions=[]), "damaged"),
        (broken("question_id", 1), "damaged"),
        (broken("num_rounds", 0), "damaged"),
        (broken("num_emitted", True), "damaged"),
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


def named(folder: Path, name: str, **changes: object) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"row": row(drafter_name=name, **changes)}))
    return str(path)


def test_also_twice_is_both_files(folder, tmp_path):
    both = [named(tmp_path, "ngram_vllm_5"), named(tmp_path, "suffix_vllm_8")]
    for arguments in (["--also", both[0], "--also", both[1]], ["--also", *both]):
        document = json.loads(parse_log.run([str(folder), *arguments, "--json"]))
        names = {one["drafter_name"] for one in document["engines"][0]["rows"]}
        assert {"ngram_vllm_5", "suffix_vllm_8"} <= names


def test_rows_of_one_name_are_not_added_to_each_other(folder, tmp_path, capsys):
    """draft_model and ngram were both eagle3_vllm_5, and the first of them was lost."""
    one = named(tmp_path, "eagle3_vllm_5")
    other = tmp_path / "other.json"
    other.write_text(Path(one).read_text())
    assert parse_log.main([str(folder), "--also", one, str(other)]) == 2
    error = capsys.readouterr().err
    assert f"{other} has a row called eagle3_vllm_5, and so has --also {one}" in error and "--method" in error
    assert parse_log.main([str(folder), "--also", named(tmp_path, "ar_None_sf_3")]) == 2
    assert "so has what is ranked" in capsys.readouterr().err


def test_a_row_whose_rounds_were_drafts_is_to_be_measured_again(folder, tmp_path, capsys):
    old = row()
    for question in old["questions"]:
        del question["num_rounds"], question["num_emitted"]
    assert parse_log.main([str(folder), "--also", save(tmp_path, old)]) == 2
    assert "an earlier version, which took drafts for rounds" in capsys.readouterr().err


def test_tokens_and_rounds_are_those_of_the_answers_not_of_the_drafts(folder, tmp_path):
    """ngram: 4 of 10 rounds drafted; its tokens are all that its rounds gave."""
    made = row(drafter_name="ngram_vllm_5")
    for question in made["questions"]:
        question.update(num_drafts=4, num_drafted=20, num_accepted=3, num_rounds=22)
    document = json.loads(parse_log.run([str(folder), "--also", save(tmp_path, made), "--json"]))
    (found,) = [one for one in document["engines"][0]["rows"] if one["drafter_name"] == "ngram_vllm_5"]
    assert found["acceptance_len"] == pytest.approx(25 / 22)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"row": ', '{"ms_per_token": {"median": 1.0}}'])
def test_what_has_no_row_is_one_line(text, folder, tmp_path, capsys):
    path = tmp_path / "eagle3.json"
    path.write_text(text)
    assert parse_log.main([str(folder), "--also", str(path)]) == 2
    assert "has no row for a ranking" in capsys.readouterr().err
    assert parse_log.main([str(folder), "--also", str(tmp_path / "nowhere")]) == 2
    assert "cannot read" in capsys.readouterr().err
