"""Saving: a record on disk is whole, old or absent, whatever interrupts its writer."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from samples import make_record, saved

from specdec.errors import UserError
from specdec.records.record import find_records, load_record, record_path, save_record

ROOT = Path(__file__).resolve().parent.parent


def test_path_and_text(tmp_path):
    record, path = saved(tmp_path)
    assert path == tmp_path / "pickles/bundled/gsm8k/0/ar_None_sf_3/64.pickle"
    assert load_record(path) == record
    assert path.with_suffix(".txt").read_text() == "the text\n"
    assert sorted(p.name for p in path.parent.iterdir()) == ["64.pickle", "64.txt"]


@pytest.mark.parametrize("target", ["Qwen/Qwen2.5-7B-Instruct", "some/folder/Qwen2.5-7B-Instruct/"])
def test_of_the_target_only_the_last_component(target):
    assert record_path("o", target, "d", 1, "n", 2).parts[2] == "Qwen2.5-7B-Instruct"


@pytest.mark.parametrize("target", [".", "..", "../..", ""])
def test_a_target_never_leads_out_of_the_results_folder(target):
    path = record_path("o", target, "d", 1, "n", 2)
    assert ".." not in path.parts and len(path.parts) == 7


@pytest.mark.parametrize("failing", ["replace", "fsync", "open"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_record_and_no_temporary_file(tmp_path, monkeypatch, failing, error):
    old, path = saved(tmp_path)
    new = make_record(output_text="new")

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        if failing == "open":
            patch.setattr("builtins.open", fail)
        else:
            patch.setattr(os, failing, fail)
        with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
            save_record(new, path)
    assert load_record(path) == old
    assert sorted(p.name for p in path.parent.iterdir()) == ["64.pickle", "64.txt"]
    if isinstance(error, OSError):
        assert str(path) in str(caught.value) and "No space left" in str(caught.value)
    save_record(new, path)
    assert load_record(path) == new


def test_the_pickle_comes_last(tmp_path, monkeypatch):
    written = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (written.append(Path(b).suffix), replace(a, b)))
    saved(tmp_path)
    assert written == [".txt", ".pickle"]


def test_an_unwritable_place_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_record(make_record(), tmp_path / "file" / "x" / "64.pickle")


def test_a_record_that_could_not_be_read_back_is_not_written(tmp_path):
    path = tmp_path / "64.pickle"
    with pytest.raises(ValueError, match="prefix_len"):
        save_record(make_record(prompt_ids=[1]), path)
    with pytest.raises(TypeError):
        save_record(make_record(raw_data={"x": b"bytes"}), path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_kill_at_any_moment_leaves_a_whole_record_or_none(tmp_path):
    """Kills a process that saves without pause; whatever lies there then is whole."""
    program = (
        "import sys; sys.path[:0] = ['.', 'tests']\n"
        "from samples import make_record; from specdec.records.record import save_record\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for text in ('a', 'b'): save_record(make_record(output_text=text * 50_000), sys.argv[1])\n"
    )
    path = tmp_path / "64.pickle"
    for delay in (0.0, 0.003, 0.011, 0.023):
        process = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, cwd=ROOT)
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if path.exists():
            assert load_record(path).output_text in ("a" * 50_000, "b" * 50_000)
        assert find_records(tmp_path) in ([], [path])


def test_what_a_killed_writer_left_goes_after_an_hour(tmp_path):
    _, path = saved(tmp_path)
    old, recent, other = (path.with_name(f".{name}.7-ab.tmp") for name in ("64.pickle", "64.txt", "65.pickle"))
    for left_over in (old, recent, other):
        left_over.write_bytes(b"half")
    for left_over in (old, other):
        os.utime(left_over, (0, time.time() - 4000))
    saved(tmp_path)
    assert not old.exists() and recent.exists() and other.exists()
