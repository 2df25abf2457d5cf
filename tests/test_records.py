"""Records: round trips, the published schema, hostile and damaged files, atomic saving, resume."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import make_plain, make_record, make_round, records, trees

from specdec import pickles
from specdec.errors import UserError
from specdec.records import (
    Record,
    find_records,
    identity_difference,
    load_finished,
    load_record,
    record_path,
    save_record,
)
from specdec.rounds import Round

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED_KEYS = {
    "orig_model_inputs",
    "raw_data",
    "num_target_tokens",
    "stats_each_round",
    "num_speculation_rounds",
    "total_num_forward_passes",
    "accepted_tokens",
    "drafted_tokens",
    "rejected_tokens",
    "acceptance_rate",
    "total_output_tokens",
}
PUBLISHED_ROUND_KEYS = {
    "target_tokens",
    "prefix_len",
    "spec_len",
    "~draft_proposal",
    "accepted_len",
    "acceptance_rate",
    "num_forward_passes",
    "final_token",
    "bonus_token",
}


# --- schema ---


@given(records())
@settings(max_examples=60, deadline=None)
def test_a_record_survives_the_pickle(record):
    data = pickles.dumps(record.to_builtins())
    assert Record.from_builtins(pickles.loads(data)) == record
    assert pickle.loads(data) == record.to_builtins()  # and any reader of pickles sees the same


@given(records())
@settings(max_examples=60, deadline=None)
def test_the_published_keys_hold_and_agree(record):
    data = record.to_builtins()
    assert data.keys() >= PUBLISHED_KEYS
    assert all(entry.keys() >= PUBLISHED_ROUND_KEYS for entry in data["stats_each_round"])
    assert data["accepted_tokens"] + data["rejected_tokens"] == data["drafted_tokens"]
    assert data["total_output_tokens"] == len(data["output_tokens"]) == data["num_target_tokens"]
    assert data["output_tokens"] == [t for entry in data["stats_each_round"] for t in entry["target_tokens"]]
    for entry in data["stats_each_round"]:
        assert entry["final_token"] is None or entry["bonus_token"] is None
        tail = [t for t in (entry["final_token"], entry["bonus_token"]) if t is not None]
        assert entry["target_tokens"] == entry["~draft_proposal"][: entry["accepted_len"]] + tail


def test_correction_bonus_and_cut():
    corrected, bonus = make_round(accepted=2), make_round(accepted=3)
    cut = make_round(accepted=3, next_token=None)
    assert (corrected.final_token, corrected.bonus_token) == (9, None)
    assert (bonus.final_token, bonus.bonus_token) == (None, 9)
    assert (cut.final_token, cut.bonus_token, cut.emitted_tokens) == (None, None, [5, 6, 7])
    plain = make_round(draft=(), accepted=0)
    assert (plain.emitted_tokens, plain.acceptance_rate, plain.num_forward_passes) == ([9], 0.0, 0)


def test_derived_numbers():
    record = make_record()
    assert record.output_tokens == [5, 6, 9, 8, 9]
    assert (record.num_accepted, record.num_drafted, record.acceptance_rate) == (3, 4, 0.75)
    assert (record.num_rounds, record.acceptance_len, record.passes_per_round) == (2, 2.5, 2.0)
    assert (record.draft_ms, record.verify_ms, record.measured_ms_per_token) == (8.0, 20.0, 5.6)


CORRUPTIONS = {
    "a total": (lambda d: d.update(accepted_tokens=4), "accepted_tokens"),
    "a total that is True": (lambda d: d["stats_each_round"][1].update(accepted_len=True), "accepted_len"),
    "accepted more than drafted": (lambda d: d["stats_each_round"][0].update(accepted_len=5), "accepted_len"),
    "a token as a string": (lambda d: d["stats_each_round"][0]["~draft_proposal"].append("5"), "~draft"),
    "a negative token": (lambda d: d["orig_model_inputs"].append(-1), "orig_model_inputs"),
    "a time that is NaN": (lambda d: d["stats_each_round"][0].update(draft_ms=float("nan")), "draft_ms"),
    "a time that is negative": (lambda d: d.update(prefill_ms=-1.0), "prefill_ms"),
    "two next tokens": (lambda d: d["stats_each_round"][0].update(bonus_token=1), "bonus_token"),
    "a gap": (lambda d: d["orig_model_inputs"].append(1), "prefix_len"),
    "a missing round": (lambda d: d["stats_each_round"].pop(), "does not agree"),
    "a round that is none": (lambda d: d["stats_each_round"].append(3), "dict"),
    "another drafter": (lambda d: d.update(drafter_name="x"), "drafter"),
    "an identity without target": (lambda d: d["identity"].pop("target"), "target"),
    "the next schema": (lambda d: d.update(schema_version=2), "schema_version"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_inconsistent_record_is_refused_by_name(name, tmp_path):
    corrupt, named = CORRUPTIONS[name]
    data = make_record().to_builtins()
    corrupt(data)
    path = tmp_path / "64.pickle"
    path.write_bytes(pickle.dumps(data))
    with pytest.raises(UserError, match=named) as caught:
        load_record(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", sorted(make_record().to_builtins()))
def test_a_missing_key_is_named(key):
    data = make_record().to_builtins()
    del data[key]
    with pytest.raises(UserError, match=key):
        Record.from_builtins(data)


@given(trees)
@settings(max_examples=50, deadline=None)
def test_any_builtin_in_place_of_a_record_is_a_user_error(tree):
    with pytest.raises(UserError):
        Record.from_builtins(tree)


# --- reading what is not a record ---


class Payload:
    """Pickles as a call of os.system."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_with_code_is_never_executed(tmp_path, protocol):
    marker = tmp_path / "executed"
    for content in (Payload(marker), make_record().to_builtins() | {"raw_data": {"x": Payload(marker)}}):
        path = tmp_path / "64.pickle"
        path.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(UserError, match="is not a record of this program"):
            load_record(path)
    assert not marker.exists()


def test_a_record_truncated_at_any_byte_is_refused(tmp_path):
    data = pickles.dumps(make_record().to_builtins())
    path = tmp_path / "64.pickle"
    for length in range(len(data)):
        with pytest.raises(pickles.UnsafePickle):
            pickles.loads(data[:length])
    for length in range(0, len(data), 50):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="64.pickle"):
            load_record(path)


@given(st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_gives_a_valid_record_or_a_user_error(position, change):
    data = bytearray(pickles.dumps(make_record().to_builtins()))
    data[position % len(data)] ^= change
    try:
        record = Record.from_builtins(pickles.loads(bytes(data)))
    except (UserError, ValueError):
        return
    assert Record.from_builtins(record.to_builtins()) == record


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"\x80\x04" + tail + b"."))
@settings(max_examples=150, deadline=None)
def test_random_bytes_are_refused(data):
    with pytest.raises((UserError, ValueError)):
        Record.from_builtins(pickles.loads(data))


def deep_list(depth: int) -> bytes:
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def shared_lists(depth: int) -> bytes:
    """A list of two times the same list, and so on: 2 ** depth paths in a few bytes."""
    level = b"]\x94"
    for index in range(depth):
        level = b"]\x94(" + level + b"h" + bytes([index + 1]) + b"e"
    return b"\x80\x04" + level + b"."


HOSTILE = {
    "empty": b"",
    "memo index 2**32 - 1": b"\x80\x04]r\xff\xff\xff\xff.",
    "string of 4 GiB": b"\x80\x04X\xff\xff\xff\xffabc.",
    "frame of 2**62 bytes": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"N.",
    "integer of 2 GiB": b"\x80\x04\x8b\xff\xff\xff\x7f.",
    "deep list": deep_list(200_000),
    "shared lists": shared_lists(60),
    "a list in itself": b"\x80\x04]\x94h\x00a.",
    "protocol 99": b"\x80\x63N.",
    "bytes behind the end": pickles.dumps(make_record().to_builtins()) + b"N.",
    "a set": pickle.dumps({1, 2}),
    "a tuple": pickle.dumps((1, 2)),
    "a class of the library": pickle.dumps(Path("x")),
    "a persistent id": b"\x80\x04Nq\x00Q.",
    "a text file": b"[Problem 0, plain] Acceptance rate: 0.0% (0/0)\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_once(name, tmp_path):
    path = tmp_path / "64.pickle"
    path.write_bytes(HOSTILE[name])
    begin = time.monotonic()
    with pytest.raises(UserError, match="64.pickle is not a record of this program") as caught:
        load_record(path)
    assert time.monotonic() - begin < 5
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_too_large_a_file_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_BYTES", 100)
    path = tmp_path / "64.pickle"
    path.write_bytes(pickles.dumps(make_record().to_builtins()))
    with pytest.raises(UserError, match="larger than"):
        load_record(path)


def test_too_many_values_are_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_OPCODES", 50)
    with pytest.raises(pickles.UnsafePickle, match="too many"):
        pickles.loads(pickles.dumps([0] * 100))


def test_a_folder_or_nothing_in_place_of_a_record(tmp_path):
    for path in (tmp_path, tmp_path / "absent.pickle"):
        with pytest.raises(UserError, match="cannot read"):
            load_record(path)


@pytest.mark.parametrize("value", [{1: 2}, {"a": b"x"}, object(), {"a": {1}}])
def test_only_plain_builtins_are_written(value):
    with pytest.raises(TypeError):
        pickles.dumps(value)


# --- saving ---


def saved(tmp_path: Path) -> tuple[Record, Path]:
    record = make_record()
    path = record_path(tmp_path, "bundled", "gsm8k", 0, record.drafter_name, 64)
    save_record(record, path, "the text\n")
    return record, path


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


def test_kill_at_any_moment_leaves_a_whole_record_or_none(tmp_path):
    """Kills a process that saves without pause; whatever lies there then is whole."""
    program = (
        "import sys; sys.path[:0] = ['.', 'tests']\n"
        "from samples import make_record; from specdec.records import save_record\n"
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


# --- finding and resuming ---


def test_find_records_in_numeric_order_and_without_temporary_files(tmp_path):
    for question_id in (10, 9, 100):
        record = make_record(question_id)
        save_record(record, record_path(tmp_path, "bundled", "gsm8k", question_id, record.drafter_name, 64))
    (tmp_path / "pickles" / "bundled" / ".64.pickle.1-ab.tmp").write_bytes(b"half")
    assert [load_record(path).question_id for path in find_records(tmp_path)] == [9, 10, 100]
    assert find_records(tmp_path / "pickles" / "bundled" / "gsm8k" / "9") != []
    assert find_records(tmp_path / "absent") == []


def test_resume(tmp_path):
    record, path = saved(tmp_path)
    assert load_finished(tmp_path / "absent.pickle", record.identity) is None
    assert load_finished(path, dict(record.identity)) == record
    with pytest.raises(UserError, match=r"64.pickle .*seed: stored 0, asked 1.*--overwrite"):
        load_finished(path, record.identity | {"seed": 1})
    with pytest.raises(UserError, match="first_window: stored nothing, asked 10"):
        load_finished(path, record.identity | {"first_window": 10})
    with pytest.raises(UserError, match="dtype: stored 'float32', asked nothing"):
        load_finished(path, {key: value for key, value in record.identity.items() if key != "dtype"})
    path.write_bytes(b"half")
    with pytest.raises(UserError, match="--overwrite"):
        load_finished(path, record.identity)


def test_identities_that_print_alike_differ():
    assert identity_difference({"seed": 1}, {"seed": True}) is not None
    assert identity_difference({"lengths": [1, 2]}, {"lengths": (1, 2)}) is None


def test_plain_decoding_is_a_record_like_any_other(tmp_path):
    plain = make_plain()
    save_record(plain, tmp_path / "64.pickle")
    assert load_record(tmp_path / "64.pickle") == plain
    assert (plain.acceptance_len, plain.num_drafted, plain.measured_ms_per_token) == (1.0, 0, 10.0)


@given(records())
@settings(max_examples=30, deadline=None)
def test_rounds_survive(record):
    assert [Round.from_builtins(turn.to_builtins()) for turn in record.rounds] == record.rounds
