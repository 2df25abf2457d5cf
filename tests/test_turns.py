"""Conversations: every turn a record, asked after the target's own answers; resumed, recorded, replayed, left out."""

import json
from pathlib import Path

import pytest
from families import edit_config, flags, save_family

from specdec.commands import replay
from specdec.commands import run as failfast
from specdec.commands.calibrate import chosen_half
from specdec.commands.rank import run as rank
from specdec.models import loaded
from specdec.records.record import Record, find_records, load_record
from specdec.records.turns import natural
from specdec.runs.run_file import find_runs
from specdec.runs.status import read_status
from specdec.traces.trace import find_traces, load_trace

TURNS = ["word1 word2 word3", "word4", "word5 word6"]
ROWS = [
    {"turns": TURNS, "category": "chat", "reference": ["word9", None, None]},
    {"prompt": "word7 " * 100, "category": "long"},
    {"turns": ["word8 " * 40, "word9 " * 45], "category": "chat"},  # the second fits only after an empty answer
]
IDS = [0, 1_000_000, 2_000_000, 2]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = save_family(tmp_path_factory.mktemp("family"))
    edit_config(made["target"], max_position_embeddings=96)
    return made


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("own") / "traffic.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


@pytest.fixture(scope="module")
def line(family: dict[str, Path], asked: str) -> list[str]:
    drafters = ("--drafters", "plain", "ar_sf", "--spec_len", "3")
    return flags(family, Path("-"), "--dataset_name", asked, *drafters, "--max_new_tokens", "8")


@pytest.fixture(scope="module")
def done(line: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of the run."""
    folder = tmp_path_factory.mktemp("results")
    assert failfast.main([*line, "--output_dir", str(folder)]) == 0
    return folder


def by_question(folder: Path) -> dict[tuple[int, str], Record]:
    found = [load_record(path) for path in find_records(folder)]
    return {(one.question_id, one.drafter_name): one for one in found}


def test_every_turn_is_a_record_asked_after_the_answers_before_it(done: Path) -> None:
    records = by_question(done)
    assert sorted(records, key=lambda key: (natural(key[0]), key[1])) == [
        (number, name) for number in IDS for name in ("ar_None_sf_3", "plain")
    ]
    for number in IDS:
        ours, plain = (records[number, name] for name in ("ar_None_sf_3", "plain"))
        assert ours.prompt_ids == plain.prompt_ids and ours.output_tokens == plain.output_tokens
        assert ours.raw_data in ROWS and ours.divergence is not None
    first, second, third = (records[number, "plain"] for number in IDS[:3])
    assert len(first.prompt_ids) < len(second.prompt_ids) < len(third.prompt_ids)
    assert second.prompt_ids[: len(first.prompt_ids)] == first.prompt_ids
    assert "turn" not in first.identity.settings and second.identity.settings["turn"] == 2


def test_what_does_not_fit_is_left_out_and_counted(done: Path) -> None:
    (path,) = find_runs(done)
    left_out = json.loads(path.read_text())["left_out"]
    assert set(left_out) == {"1", "1000002"}
    assert "traffic.jsonl, line 2) needs" in left_out["1"] and "turn 2" in left_out["1000002"]
    for progress in read_status(done).configurations.values():
        assert progress.done == progress.asked == set(IDS)


def test_the_end_of_a_run_counts_what_was_left_out(
    line: list[str], done: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "load_lm", lambda *_: pytest.fail("a model was loaded"))
    assert failfast.main([*line, "--output_dir", str(done)]) == 0
    said = capsys.readouterr().out
    assert said.count("Left out: question") == 2 and "Careful: 2 of 3 questions (numbers 1-2)" in said


def test_a_plan_lists_what_a_run_leaves_out(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As far as it is known before there are answers."""
    assert failfast.main([*line, "--output_dir", str(tmp_path / "out"), "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert said.count("Left out: question 1 (") == 1 and "traffic.jsonl, line 2) needs" in said
    assert "Careful: 1 of 3 questions (number 1) is left out" in said and not (tmp_path / "out").exists()


def test_a_finished_conversation_is_reported_without_models(
    line: list[str], done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specdec.runs import jobs

    monkeypatch.setattr(jobs, "plan_jobs", lambda *_: pytest.fail("jobs were planned"))
    num_records = len(find_records(done))
    assert failfast.main([*line, "--output_dir", str(done), "--question_ids", "0"]) == 0
    assert failfast.main([*line, "--output_dir", str(done), "--question_ids", "0", "--read_pickle"]) == 0
    assert len(find_records(done)) == num_records


def test_a_shard_takes_whole_questions_and_the_first_turns_can_be_asked_alone(line: list[str], tmp_path: Path) -> None:
    where = ["--output_dir", str(tmp_path), "--shard", "0/3", "--drafters", "plain"]
    assert failfast.main([*line, *where, "--turns", "first"]) == 0
    assert [number for number, _ in by_question(tmp_path)] == [0]
    before = find_records(tmp_path)[0].stat().st_mtime_ns
    assert failfast.main([*line, *where]) == 0
    assert sorted(number for number, _ in by_question(tmp_path)) == IDS[:3]
    assert find_records(tmp_path)[0].stat().st_mtime_ns == before


def test_recorded_turns_replay_as_they_ran(line: list[str], done: Path, tmp_path: Path) -> None:
    where = ["--output_dir", str(tmp_path), "--drafters", "ar_sf", "--record"]
    assert failfast.main([*line, *where]) == 0
    traces = [load_trace(path) for path in find_traces(tmp_path)]
    live = by_question(done)
    assert {trace.question_id for trace in traces} == set(IDS)
    for trace in traces:
        plain = live[trace.question_id, "plain"]
        assert (trace.prompt_ids, trace.output_tokens) == (plain.prompt_ids, plain.output_tokens)
    assert len(find_traces(tmp_path, [0])) == 3
    where = ["--output_dir", str(tmp_path / "replayed"), "--workers", "1", "--latency_profile", "none"]
    replay.run([str(tmp_path), "--drafters", "ar_sf", "--spec_len", "3", *where])
    for key, record in by_question(tmp_path / "replayed").items():
        assert [turn.accepted_len for turn in record.rounds] == [turn.accepted_len for turn in live[key].rounds]
        assert record.identity.settings.get("turn") == live[key].identity.settings.get("turn")
    assert {trace.question_id for trace in chosen_half(traces)} == set(IDS[:3])


def test_a_sampled_conversation_needs_plain_decoding(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sampled = [*line, "--output_dir", str(tmp_path), "--temperature", "1", "--question_ids", "0"]
    assert failfast.main([*sampled, "--drafters", "ar_sf"]) == 2
    assert "add plain to --drafters" in capsys.readouterr().err
    assert failfast.main([*sampled, "--drafters", "plain", "ar_sf"]) == 0
    records = by_question(tmp_path)
    for number in IDS[:3]:
        assert records[number, "plain"].prompt_ids == records[number, "ar_None_sf_3"].prompt_ids


def test_categories_are_ranked_apart(done: Path) -> None:
    said = rank([str(done), "--latency_target", "Qwen2.5-7B-Instruct"])
    assert "Categories" not in said  # all that fitted are of one
    assert rank([str(done), "--latency_profile", "none", "--category", "chat"])
    document = json.loads(rank([str(done), "--latency_profile", "none", "--json"]))
    assert document["engines"][0]["categories"] == []
