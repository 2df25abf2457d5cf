"""Second opinion: math-verify on what our own reading does not understand, where it is installed.

It is never needed (requirements-grade.txt), it is imported by a process of its own (`verifying.py`), and it is asked
about formulas that it reads whole: of an answer with words it reads the part that it knows, and so takes "5 squared"
for 5, of an equation the last side ("5=6" is 6), and of a number no base ("19_8" is 19).
"""

import atexit
import json
import os
import re
import selectors
import subprocess
import sys
import threading
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

MAX_LENGTH = 200
WAIT_S = 120  # on the clock, however little processor time it uses
_RUNNER = Path(__file__).resolve().parent / "verifying.py"
_WORDS = re.compile(r"\\(?:text|math(?:rm|sf|tt)|mbox|hbox)|(?<![\\A-Za-z])[A-Za-z]{3,}")
_SUBSCRIPT = re.compile(r"_\{[^{}]*\}")  # k=1 under a sum has no sides
_BASE = re.compile(r"\d\s*_")


@lru_cache(maxsize=1)
def is_installed() -> bool:
    """Whether math-verify can be asked. It is not imported here."""
    return find_spec("math_verify") is not None


def version() -> str | None:
    return metadata.version("math-verify") if is_installed() else None


def is_same(given: str, reference: str) -> bool:
    """Whether math-verify calls two formulas the same; False where it is not installed, does not end, or fails."""
    texts = (given, reference)
    if not is_installed() or any(len(text) > MAX_LENGTH or _is_read_in_part(text) for text in texts):
        return False
    return VERIFIER.is_same(given, reference)


def _is_read_in_part(text: str) -> bool:
    return bool(_WORDS.search(text) or _BASE.search(text)) or "=" in _SUBSCRIPT.sub("", text)


class Verifier:
    """The process, started when it is first asked, and again after an answer that ended it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._is_broken = False

    def is_same(self, given: str, reference: str) -> bool:
        """One question at a time, whoever asks."""
        with self._lock:
            if not self._is_running() and not self._start():
                return False
            return self._ask(json.dumps([given, reference])) == b"1"

    def close(self) -> None:
        """End the process, if this one started it."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _is_running(self) -> bool:
        return self._process is not None and self._owner == os.getpid() and self._process.poll() is None

    def _start(self) -> bool:
        if self._is_broken:
            return False
        command = [sys.executable, "-I", "-B", str(_RUNNER)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
        if self._owner != os.getpid():
            self._owner = os.getpid()
            atexit.register(self.close)
        self._is_broken = self._answer() != b"ready"
        return not self._is_broken

    def _ask(self, line: str) -> bytes:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:  # it has ended
            self.close()
            return b""
        return self._answer()

    def _answer(self) -> bytes:
        """The next line; nothing where the process ends before it, and ended where it takes too long."""
        assert self._process is not None and self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(WAIT_S) else b""
        if not line:
            self.close()
        return line.strip()


VERIFIER = Verifier()
