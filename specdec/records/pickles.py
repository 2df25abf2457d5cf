"""Pickles of plain builtins: read without running anything, written atomically.

Not the schema of a record (`records.py`), and not a general pickle reader: the accepted format is the small
subset that `dumps` writes (dict, list, str, int, float, bool, None; every container a tree node of its own).
"""

import contextlib
import glob
import io
import os
import pickle
import pickletools
import secrets
from pathlib import Path
from typing import Any

MAX_BYTES = 256 * 2**20
MAX_OPCODES = 8_000_000  # a record of 30,000 output tokens has about 1 million
PROTOCOL = 4
LEFT_OVER_S = 3600  # no writer takes so long for one file

_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE"})
_PUTS = frozenset({"MEMOIZE", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"BINGET", "LONG_BINGET"})
_NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"})
_BUILDERS = frozenset({"MARK", "EMPTY_DICT", "EMPTY_LIST", "APPEND", "APPENDS", "SETITEM", "SETITEMS"})
_ADMITTED = _STRINGS | _PUTS | _GETS | _NUMBERS | _BUILDERS | {"PROTO", "FRAME", "STOP"}


class UnsafePickle(ValueError):
    """The bytes hold something other than a tree of plain builtins; the message says what."""


def plain(value: Any) -> Any:
    """A deep copy of `value` made of exact builtins: dict (str keys), list, str, int, float, bool, None.

    Tuples become lists; subclasses of int, float and str (enums, NumPy floats) become what they extend.
    TypeError for anything else. `plain({"a": (1, True)}) == {"a": [1, True]}`.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a dict with keys that are not strings")
        return {str.__str__(key): plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is not a plain builtin")


def dumps(value: Any) -> bytes:
    """Pickles `plain(value)`; TypeError if it is not made of plain builtins."""
    return pickle.dumps(plain(value), protocol=PROTOCOL)


def loads(data: bytes) -> Any:
    """The value of a pickle made by `dumps`. Nothing in `data` is imported, called or executed.

    UnsafePickle (a ValueError) for anything else: damaged, truncated, foreign, too big, built to eat memory.
    """
    if len(data) > MAX_BYTES:
        raise UnsafePickle(f"larger than {MAX_BYTES // 2**20} MiB")
    try:
        _check_opcodes(data)
        return _BuiltinsOnly(io.BytesIO(data)).load()
    except UnsafePickle:
        raise
    except Exception as error:  # a damaged pickle raises nearly every type there is (MemoryError too)
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UnsafePickle(f"damaged or truncated: {reason}") from None


class _BuiltinsOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise UnsafePickle("refers to program code")

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickle("refers to an object outside the file")


def _check_opcodes(data: bytes) -> None:
    """Refuses, before anything is built, what the unpickler alone would not survive.

    Three such things are known: an opcode that calls code, a memo index of 2**32 (allocates 64 GB), and
    containers that are shared (2**60 paths through 60 lists): only strings may be taken from the memo.
    """
    memo_is_string: dict[int, bool] = {}
    previous = ""
    for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if name not in _ADMITTED:
            raise UnsafePickle(f"holds more than plain data (opcode {name} at byte {position})")
        if count > MAX_OPCODES:
            raise UnsafePickle("holds too many values")
        if name in _PUTS:
            index = len(memo_is_string) if argument is None else argument
            if index > count:
                raise UnsafePickle(f"has an impossible memo index at byte {position}")
            memo_is_string[index] = previous in _STRINGS
        elif name in _GETS and not (argument is not None and memo_is_string.get(argument)):
            raise UnsafePickle(f"shares a container at byte {position}")
        previous = name
    if position is None or position + 1 != len(data):
        raise UnsafePickle("has bytes after its end")


def read_bytes(path: Path) -> bytes:
    """The first MAX_BYTES + 1 bytes of a regular file: enough to see that it is too large."""
    if not path.is_file():
        raise OSError("not a regular file")
    with open(path, "rb") as file:
        return file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)


def seems_whole(path: Path) -> bool:
    """Whether a file begins and ends as a pickle of `dumps` does: a look that takes no time, not a check of content."""
    try:
        with open(path, "rb") as file:
            head = file.read(2)
            file.seek(-1, os.SEEK_END)
            return head == pickle.PROTO + bytes([PROTOCOL]) and file.read(1) == pickle.STOP
    except OSError:
        return False


def write_atomic(path: Path, data: bytes) -> None:
    """Puts `data` at `path` so that a reader, or a crash at any moment, sees the old file or the new one.

    The temporary file is in the same folder, hidden, unique per process, gone after any exception; what killed
    writers of the same file have left goes as well. OSError as usual.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        _remove_left_overs(path)
    _sync_folder(path.parent)


def _remove_left_overs(path: Path) -> None:
    """Temporary files much older than `path`, which has just been written, by the clock of the disk's own machine."""
    written_s = path.stat().st_mtime
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if temporary.stat().st_mtime < written_s - LEFT_OVER_S:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # Some file systems refuse to sync a folder; the file itself is in place by now.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
