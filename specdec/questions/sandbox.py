"""Sandbox: runs a program that a model wrote, and says whether it passes its tests.

A fresh interpreter of two processes (`sandboxed.py`) with limits on time and memory, which the kernel lets do nothing
but compute (`lockdown.py`): no file, no network, no other process, no thread. For answers to be graded, not for attacks
on the kernel.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from specdec.errors import UserError

TIMEOUT_S = 10  # of processor time
MAX_WAIT = 6  # times as long on the clock: a busy machine makes no right answer wrong, and one that sleeps still ends
MEMORY_MIB = 1024
_ROOT = Path(__file__).resolve().parent.parent.parent
_START = "import sys; sys.path.insert(0, {!r}); from specdec.questions.sandboxed import main; del sys.path[0]; main()"
_NO_SANDBOX = 97  # what the runner exits with where it cannot lock itself in
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Task:
    """An answer to a stub of code, and what decides whether it is right: `check(function)` of the tests."""

    text: str
    stub: str = ""
    tests: str = ""
    function: str = ""  # "": the text is a program by itself, and no more is asked than that it come to its end


def passes(task: Task | str, *, timeout_s: int = TIMEOUT_S, memory_mib: int = MEMORY_MIB) -> bool:
    """Whether an answer passes its tests, or a program ends without an exception, in time and memory.

    Leaving early, by sys.exit(0) for example, is not a success. Raises UserError where no sandbox is available.
    """
    task = Task(task) if isinstance(task, str) else task
    wait_s = MAX_WAIT * timeout_s
    if sys.platform != "linux":
        raise _no_sandbox()
    command = [
        sys.executable,
        "-s",
        "-P",
        "-c",
        _START.format(str(_ROOT)),
        str(timeout_s),
        str(memory_mib),
        str(wait_s),
    ]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=_ENVIRONMENT | {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
            start_new_session=True,
        )
        try:
            verdict, complaint = process.communicate(_parts(task), timeout=2 * wait_s)
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(process)
    if process.returncode == _NO_SANDBOX:
        raise _no_sandbox()
    if process.returncode > 0:
        last_line = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise UserError(f"--run_code: the sandbox did not start: {last_line}")
    return verdict == b"passed"


def _no_sandbox() -> UserError:
    return UserError("--run_code: no sandbox on this system (it needs Linux on x86-64 or ARM64): leave it out")


def _parts(task: Task) -> bytes:
    """What the answer's process reads, then what only the process of the tests reads; each after its length."""
    answer = {"text": task.text, "stub": task.stub, "function": task.function}
    tests = {"stub": task.stub, "tests": task.tests, "function": task.function}
    return b"".join(b"%12d" % len(part) + part for part in map(_packed, (answer, tests)))


def _packed(part: dict[str, str]) -> bytes:
    return json.dumps({name: text.encode("utf-8", "replace").decode() for name, text in part.items()}).encode()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the processes: they cannot leave their group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
