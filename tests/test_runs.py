"""Runs and status: run.json before and after work, killed, damaged and failing runs, clocks that jump."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from families import flags, save_family
from samples import make_record

from specdec.commands import reporter
from specdec.commands import run as failfast
from specdec.errors import UserError
from specdec.models import loaded
from specdec.ranking.entries import entry_of
from specdec.records import pickles, provenance
from specdec.records.places import load_records
from specdec.records.record import find_records, load_record, record_path, save_record
from specdec.runs import run_file as runs
from specdec.runs.footprint import footprints
from specdec.runs.recording import record_trace
from specdec.runs.run_file import RunFile, find_runs, read_run, runs_of, slurm_ids
from specdec.runs.status import read_status, status_report
from specdec.text import ranges
from specdec.traces.trace import find_traces

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parent.parent
ASKED = {
    "target": "bundled",
    "dataset": "gsm8k",
    "max_new_tokens": 64,
    "question_ids": [0, 1, 2],
    "drafters": ["plain", "ar_None_sf_3"],
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("family"))


def save(folder: Path, question_id: int, drafter: str) -> None:
    save_record(make_record(question_id, drafter), record_path(folder, "bundled", "gsm8k", question_id, drafter, 64))


def test_a_run_says_what_it_was_asked_and_how_it_ended(family, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    arguments = flags(family, tmp_path, "--num_questions", "3", "--shard", "1/2", "--drafters", "plain", "ar_sf")
    assert failfast.main(arguments) == 0
    (path,) = find_runs(tmp_path)
    found = read_run(path)
    assert found["question_ids"] == [1] and found["shard"] == {"index": 1, "count": 2}
    assert found["drafters"] == ["plain", "ar_None_sf_10"] and found["settings"]["num_questions"] == 3
    assert {title: len(one["sha256"]) for title, one in found["models"].items()} == {"target": 64, "AR drafter": 64}
    (drafter,) = footprints(load_records(tmp_path), runs_of(tmp_path)).values()
    assert drafter.weight_bytes == 4 * found["models"]["AR drafter"]["num_parameters"] > 0 < drafter.kv_bytes_per_token
    assert [one["card"] for one in found["models"].values()] == [{"datasets": None, "base_model": None}] * 2
    assert len(found["questions_sha256"]) == len(found["chat_template_sha256"]) == 64
    assert found["generation"]["decoding"].startswith("greedy") and found["generation"]["dtype"] == "float32"
    assert {"torch", "transformers", "numpy", "driver", "git_revision", "git_is_dirty"} <= found["provenance"].keys()
    assert found["slurm"] == {"SLURM_ARRAY_JOB_ID": "17"}
    end = found["end"]
    assert (end["outcome"], end["num_computed"], end["num_found"], end["failed"]) == ("done", 2, 0, None)
    assert failfast.main(arguments) == 0
    later = [read_run(one)["end"] for one in find_runs(tmp_path) if one != path]
    assert [(one["num_computed"], one["num_found"]) for one in later] == [(0, 2)]


def test_run_json_is_there_before_any_work(family, tmp_path, monkeypatch, capsys) -> None:
    def fail(*_: object) -> None:
        (path,) = find_runs(tmp_path)
        assert read_run(path)["end"] is None
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(loaded, "load_lm", fail)
    arguments = flags(family, tmp_path, "--num_questions", "2", "--drafters", "plain")
    with pytest.raises(RuntimeError):
        failfast.main(arguments)
    (path,) = find_runs(tmp_path)
    end = read_run(path)["end"]
    assert end["outcome"] == "failed" and end["failed"] == {"question_id": 0, "drafter": "plain"}
    assert failfast.main(["--status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "CUDA out of memory" in out and "Runs: 1 failed" in out
    (row,) = (line.split() for line in out.splitlines() if line.startswith("target ") and "bundled" in line)
    assert row[:9] == ["target", "bundled", "24", "plain", "2", "0", "1", "1", "0-1"]


def test_what_cannot_be_graded_is_not_lost(family, tmp_path, monkeypatch, capsys) -> None:
    """A sandbox that fails in the middle of a run: the record in hand is kept, and only the others are made later."""
    seen = []

    def fails_once(record: object, *more: object, **options: object) -> object:
        seen.append(record)
        if len(seen) == 2:
            raise UserError("the sandbox has gone")
        return entry_of(record, *more, **options)

    arguments = flags(family, tmp_path, "--num_questions", "3", "--drafters", "plain")
    with monkeypatch.context() as patched:
        patched.setattr(reporter, "entry_of", fails_once)
        assert failfast.main(arguments) == 2
    assert "the sandbox has gone" in capsys.readouterr().err
    kept = find_records(tmp_path)
    assert [load_record(path) for path in kept] == seen and len(kept) == 2
    assert all(path.with_suffix(".txt").exists() for path in kept)
    assert failfast.main(arguments) == 0
    ends = sorted(
        (end["num_computed"], end["num_found"]) for end in (read_run(one)["end"] for one in find_runs(tmp_path))
    )
    assert (1, 2) in ends


def test_a_run_writes_down_a_folder_whose_name_is_not_utf8(tmp_path) -> None:
    with RunFile(tmp_path, ASKED | {"output_dir": "results/\udcff"}) as run:
        pass
    assert read_run(run.path)["output_dir"] == "results/\udcff"


def test_status_counts_done_missing_and_failed(tmp_path) -> None:
    with RunFile(tmp_path, ASKED):
        save(tmp_path, 0, "plain")
        save(tmp_path, 1, "plain")
    with pytest.raises(ValueError, match="broken"), RunFile(tmp_path, ASKED) as broken:
        broken.job = (2, "ar_None_sf_3")
        raise ValueError("broken")
    RunFile(tmp_path, ASKED | {"question_ids": [7]})  # still running, or killed
    status = read_status(tmp_path)
    plain = status.configurations["bundled", "gsm8k", 64, "plain"]
    drafted = status.configurations["bundled", "gsm8k", 64, "ar_None_sf_3"]
    assert (plain.done, plain.missing, plain.failed) == ({0, 1}, {2, 7}, set())
    assert (drafted.done, drafted.missing, drafted.failed) == (set(), {0, 1, 7}, {2})
    text = status_report(status)
    assert "1 done, 1 failed, 1 without an end" in text and "0-2,7" in text and "ValueError: broken" in text
    save(tmp_path, 2, "ar_None_sf_3")
    assert read_status(tmp_path).configurations["bundled", "gsm8k", 64, "ar_None_sf_3"].failed == set()


def test_a_recording_can_be_watched(family, tmp_path, monkeypatch, capsys) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "3", "--drafters", "plain", "ar_sf", "--record")
    made = []

    def record(*of: object) -> object:
        made.append(of)
        if len(made) == 3:
            raise RuntimeError("CUDA out of memory")
        return record_trace(*of)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr("specdec.runs.recording.record_trace", record)
        failfast.main(arguments)
    (key, progress), *others = read_status(tmp_path).configurations.items()
    assert (key[1:], progress.done, progress.failed, others) == (("bundled", 24, "traces"), {0, 1}, {2}, [])
    assert failfast.main(arguments) == 0
    (path,) = (path for path in find_runs(tmp_path) if read_run(path)["end"]["outcome"] == "done")
    assert (read_run(path)["end"]["num_computed"], read_run(path)["end"]["num_found"]) == (1, 2)
    (trace, *_) = find_traces(tmp_path)
    trace.write_bytes(trace.read_bytes()[:-9])
    capsys.readouterr()
    assert failfast.main(["--status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    (row,) = (line.split() for line in out.splitlines() if line.startswith("target ") and "bundled" in line)
    assert row == ["target", "bundled", "24", "traces", "3", "2", "1", "0", "0"] and f"{trace} is not whole" in out


@pytest.mark.parametrize("cut", [0, 1, -1])
def test_half_a_record_is_not_done_and_is_named(tmp_path, cut) -> None:
    with RunFile(tmp_path, ASKED):
        save(tmp_path, 0, "plain")
        save(tmp_path, 1, "plain")
    path = record_path(tmp_path, "bundled", "gsm8k", 1, "plain", 64)
    path.write_bytes(path.read_bytes()[:cut])
    status = read_status(tmp_path)
    assert status.configurations["bundled", "gsm8k", 64, "plain"].done == {0}
    assert [str(path) in line for line in status.damaged] == [True]


@pytest.mark.parametrize("damage", ["", "{", "null", "[]", '{"schema_version": 1}', '{"schema_version": 9}'])
def test_a_half_written_run_json_is_named_and_nothing_else_suffers(tmp_path, damage) -> None:
    save(tmp_path, 0, "plain")
    with RunFile(tmp_path, ASKED):
        pass
    half = tmp_path / "runs" / "half" / "run.json"
    half.parent.mkdir()
    half.write_text(damage)
    with pytest.raises(UserError, match="half"):
        read_run(half)
    status = read_status(tmp_path)
    assert len(status.damaged) == 1 and status.outcomes["done"] == 1
    assert "Left out: " in status_report(status)
    assert find_records(tmp_path)


def test_hostile_names_stay_on_their_line(tmp_path) -> None:
    with RunFile(tmp_path, ASKED | {"drafters": ["a\nb"], "target": "\x1b[2J"}):
        pass
    assert all(line.isprintable() for line in status_report(read_status(tmp_path)).splitlines())


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_a_checkout_tells_its_revision_and_an_unpacked_archive_none(tmp_path, monkeypatch) -> None:
    """In folders of their own: these tests may themselves run in either."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # as in a hook of git
        monkeypatch.delenv(name, raising=False)
    archive, checkout = tmp_path / "archive", tmp_path / "checkout"
    inside = checkout / ".venv"  # as an installed program lies in the checkout of another one
    archive.mkdir()
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "--quiet", checkout], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "first"], check=True)
    inside.mkdir()
    found = {}
    for folder in (archive, checkout, inside):
        monkeypatch.setattr(provenance, "PROJECT_DIR", folder)
        found[folder] = provenance.provenance(None)
    for folder in (archive, inside):
        assert (found[folder]["git_revision"], found[folder]["git_is_dirty"]) == (None, None)
    assert re.fullmatch("[0-9a-f]{40}", found[checkout]["git_revision"]) and not found[checkout]["git_is_dirty"]


def test_a_clock_that_jumps_gives_no_negative_time_and_no_second_use_of_a_folder(tmp_path, monkeypatch) -> None:
    class Jumping(runs.datetime):
        @classmethod
        def now(cls, zone=None):
            return runs.datetime(1970, 1, 1, tzinfo=zone)

    with RunFile(tmp_path, ASKED):
        monkeypatch.setattr(runs, "datetime", Jumping)
    with RunFile(tmp_path, ASKED), RunFile(tmp_path, ASKED):
        pass
    found = [read_run(path) for path in find_runs(tmp_path)]
    assert len(found) == 3 and all(one["end"]["elapsed_s"] >= 0 for one in found)


def test_a_folder_that_cannot_be_written_is_one_line(family, tmp_path, capsys) -> None:
    (tmp_path / "out").write_text("a file")
    assert failfast.main(flags(family, tmp_path / "out", "--num_questions", "1")) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "runs").write_text("a file")
    assert failfast.main(flags(family, tmp_path / "other", "--num_questions", "1")) == 2
    assert "runs" in capsys.readouterr().err


def test_a_full_disk_keeps_what_is_finished(family, tmp_path, monkeypatch, capsys) -> None:
    arguments = flags(family, tmp_path, "--num_questions", "1")
    written = []

    def fsync(descriptor: int) -> None:
        if len(written) >= 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(descriptor)

    monkeypatch.setattr(pickles.os, "fsync", fsync)
    assert failfast.main(arguments) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error and error.count("\n") == 1
    kept = find_records(tmp_path)
    assert kept and not list(tmp_path.rglob("*.tmp"))
    before = {path: path.stat().st_mtime_ns for path in kept}
    monkeypatch.undo()
    assert failfast.main(arguments) == 0
    assert len(find_records(tmp_path)) == 6 and all(path.stat().st_mtime_ns == then for path, then in before.items())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_disk_that_is_really_full(family, tmp_path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", small], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no tmpfs available here: {mount.stderr.strip()}")
    try:
        arguments = flags(family, small, "--num_questions", "4", "--max_new_tokens", "64")
        done = subprocess.run([sys.executable, "failfast.py", *arguments], cwd=PROJECT, capture_output=True, text=True)
        assert done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr
        failfast.main(["--read_pickle", *arguments])  # whatever is there loads
        assert not list(small.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_bad_lines(family, tmp_path, capsys, monkeypatch) -> None:
    for line, named in (
        ("--shard 8/8", "outside its range"),
        ("--shard x", "--shard"),
        ("--status nowhere", "nowhere"),
    ):
        assert failfast.main([*flags(family, tmp_path / "out"), *line.split()]) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "x")
    assert failfast.main([*flags(family, tmp_path / "out"), "--shard", "slurm"]) == 2
    assert "SLURM_ARRAY_TASK_ID" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_more_tasks_than_questions_is_no_error(family, tmp_path, capsys) -> None:
    assert failfast.main(flags(family, tmp_path / "out", "--num_questions", "2", "--shard", "5/8")) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_ranges() -> None:
    assert (ranges([]), ranges([5]), ranges([4, 1, 2, 3, 9])) == ("", "5", "1-4,9")


def test_slurm_ids_hold_no_secrets() -> None:
    environment = {"SLURM_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "2", "SLURM_CONF": "/x", "HOME": "/h", "TOKEN": "t"}
    assert slurm_ids(environment) == {"SLURM_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "2"}
    assert json.dumps(slurm_ids(environment))
