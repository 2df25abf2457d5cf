"""Hostile records: code, damage, truncation and bombs in place of a pickle are refused, executing nothing."""

import os
import pickle
import tracemalloc
from pathlib import Path

import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from samples import make_record

from specdec.errors import UserError
from specdec.records import pickles
from specdec.records.record import Record, load_record

ROOT = Path(__file__).resolve().parent.parent


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
@many(150)
def test_a_flipped_byte_gives_a_valid_record_or_a_user_error(position, change):
    data = bytearray(pickles.dumps(make_record().to_builtins()))
    data[position % len(data)] ^= change
    try:
        record = Record.from_builtins(pickles.loads(bytes(data)))
    except (UserError, ValueError):
        return
    assert Record.from_builtins(record.to_builtins()) == record


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"\x80\x04" + tail + b"."))
@many(150)
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
    """In little memory. No clock is asked: what is not refused at once asks for gigabytes or never ends."""
    path = tmp_path / "64.pickle"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    with pytest.raises(UserError, match="64.pickle is not a record of this program") as caught:
        load_record(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64e6
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
