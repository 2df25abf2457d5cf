"""Repeated runs: finished work is seen without a model, and anything that is not quite it goes the ordinary way."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from families import flags, save_family
from samples import with_settings

from specdec import session
from specdec.commands import run as failfast
from specdec.commands.run import parse_args
from specdec.models import loaded
from specdec.records.identity import former_name
from specdec.records.record import find_records, load_record, save_record
from specdec.runs.resume import Repeated, asked_problems, repeated_run
from specdec.runs.run_file import find_runs, read_run
from specdec.runs.shards import EVERYTHING

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and the results of two tasks over three questions."""
    folder = tmp_path_factory.mktemp("made")
    save_family(folder / "family")
    for shard in ("0/2", "1/2"):
        assert failfast.main(arguments(folder, "--shard", shard)) == 0
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """The results alone: copied models would be other files."""
    shutil.copytree(made / "results", tmp_path / "results")
    return tmp_path


def arguments(folder: Path, *more: str) -> list[str]:
    family = {name: folder / "family" / name for name in ("target", "ar", "dllm")}
    return flags(family, folder / "results", "--num_questions", "3", "--drafters", "plain", "ar_sf", "failfast", *more)


def look(folder: Path, made: Path, *more: str) -> Repeated | None:
    """What is known of the run before a model is loaded, with the models of `made`."""
    config = parse_args([*arguments(made, *more), "--output_dir", str(folder / "results")])
    return repeated_run(config, asked_problems(config), EVERYTHING)


def test_finished_work_needs_no_model_and_ranks_the_same(made, monkeypatch, capsys) -> None:
    """Made by two tasks, repeated as one."""
    with monkeypatch.context() as patched:
        patched.setattr("specdec.runs.resume.find_runs", lambda _: [])
        assert failfast.main(arguments(made)) == 0
    ordinary = capsys.readouterr().out
    monkeypatch.setattr(session, "open_session", lambda _: pytest.fail("the models are looked at"))
    before = set(find_runs(made / "results"))
    assert failfast.main(arguments(made)) == 0
    assert capsys.readouterr().out == ordinary
    (path,) = set(find_runs(made / "results")) - before
    found = read_run(path)
    assert (found["end"]["num_computed"], found["end"]["num_found"]) == (0, 9)
    assert found["question_ids"] == [0, 1, 2] and found["questions"].keys() == {"0", "1", "2"}
    assert found["models"]["target"]["sha256"] and found["provenance"]["torch"]


def test_no_model_library_is_imported(made) -> None:
    code = "import sys, failfast; status = failfast.main(sys.argv[1:]); sys.exit(status or 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, *arguments(made, "--log_level", "WARNING")]
    assert subprocess.run(command, cwd=PROJECT, stdout=subprocess.DEVNULL).returncode == 0


def remove_a_record(folder: Path) -> None:
    find_records(folder / "results")[-1].unlink()


def damage_a_record(folder: Path) -> None:
    find_records(folder / "results")[-1].write_bytes(b"half")


def change_a_record(folder: Path) -> None:
    path = find_records(folder / "results")[-1]
    record = load_record(path)
    save_record(replace(record, identity=with_settings(record.identity, {"dtype": "bfloat16"})), path)


def unjudge_a_record(folder: Path) -> None:
    path = next(one for one in find_records(folder / "results") if one.parent.name != "plain")
    save_record(replace(load_record(path), divergence=None), path)


def remove_the_runs(folder: Path) -> None:
    shutil.rmtree(folder / "results" / "runs")


def edit_runs(folder: Path, change: Callable[[dict], object]) -> None:
    for path in find_runs(folder / "results"):
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        remove_a_record,
        damage_a_record,
        change_a_record,
        unjudge_a_record,
        remove_the_runs,
        lambda folder: edit_runs(folder, lambda one: one.pop("questions")),
        lambda folder: edit_runs(folder, lambda one: one.update(models=None)),
        lambda folder: edit_runs(folder, lambda one: one.update(identities=[])),
        lambda folder: edit_runs(folder, lambda one: one["questions"]["0" if "0" in one["questions"] else "1"].clear()),
        lambda folder: edit_runs(folder, lambda one: one.update(end=3)),
    ],
)
def test_what_is_not_quite_the_same_goes_the_ordinary_way(copied, made, change) -> None:
    assert look(copied, made) is not None
    change(copied)
    assert look(copied, made) is None


@pytest.mark.parametrize(
    "line",
    ["--num_questions 4", "--seed 1", "--max_new_tokens 25", "--spec_len 9", "--overwrite", "--dtype bfloat16"],
)
def test_other_settings_go_the_ordinary_way(made, line) -> None:
    assert look(made, made, *line.split()) is None


def test_what_decides_no_record_may_differ(made) -> None:
    printing = "--log_level WARNING", "--show_trajectory", "--latency_profile none"
    for line in ("--question_ids 2 0", "--num_questions 1", *printing):
        assert look(made, made, *line.split()) is not None


def test_a_changed_model_goes_the_ordinary_way(made, copied) -> None:
    weights = made / "family" / "ar" / "model.safetensors"
    before = weights.stat()
    try:
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert look(copied, made) is None
    finally:
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert look(copied, made) is not None


def as_before(folder: Path) -> None:
    """What an older version would have left of the same run: no first window in names."""
    for path in find_records(folder):
        record = load_record(path)
        former = path.parent.with_name(former_name(record.drafter_name))
        data = record.to_builtins() | {"drafter_name": former.name, "identity": record.identity.former()}
        path.parent.rename(former)
        (former / path.name).write_bytes(pickle.dumps(data))
    shutil.rmtree(folder / "runs")


def test_the_records_of_an_older_version_are_not_made_again_nor_in_the_way(made, tmp_path, monkeypatch, capsys) -> None:
    family = {name: made / "family" / name for name in ("target", "ar", "dllm")}
    own = flags(family, tmp_path, "--num_questions", "1", "--drafters", "failfast")
    assert failfast.main([*own, "--first_window", "9"]) == 0
    as_before(tmp_path)
    before = {path: path.read_bytes() for path in find_records(tmp_path)}
    with monkeypatch.context() as patched:
        patched.setattr(loaded, "load_lm", lambda *_: pytest.fail("a model is loaded"))
        assert failfast.main([*own, "--first_window", "9"]) == 0
    assert {path: path.read_bytes() for path in find_records(tmp_path)} == before
    assert failfast.main([*own, "--dry_run"]) == 0
    assert "to run: 1 of 1" in capsys.readouterr().out
    assert failfast.main(own) == 0  # the published window, whose place is taken
    names = sorted(load_record(path).drafter_name for path in find_records(tmp_path))
    assert names == sorted(path.parent.name for path in find_records(tmp_path))
    assert [name.partition("_10")[2] for name in names] == ["", "_w9"]
