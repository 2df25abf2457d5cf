"""Sandbox: runs a program that a model wrote, and says whether it ran to its end.

A fresh interpreter with limits on time, memory and files, and a Linux system-call filter (`sandboxed.py`) that leaves
it reading and computing: no network, no other process, nothing written or deleted. For answers to be graded, not for
attacks on the kernel.
"""

import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from specdec.errors import UserError

TIMEOUT_S = 10  # of processor time
MAX_WAIT = 6  # times as long on the clock: a busy machine makes no right answer wrong, and one that sleeps still ends
MEMORY_MIB = 1024
_RUNNER = Path(__file__).resolve().parent / "sandboxed.py"
_NO_SANDBOX = 97  # what the runner exits with where it cannot lock itself in


def passes(program: str, *, timeout_s: int = TIMEOUT_S, memory_mib: int = MEMORY_MIB) -> bool:
    """Whether `program` ends without an exception, in time and memory.

    It must reach its last line: leaving early, by sys.exit(0) for example, is not a success. Raises UserError where no
    sandbox is available.
    """
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-B", _RUNNER, str(timeout_s), str(memory_mib)],
                input=f"{secret}\n{program}".encode("utf-8", "replace"),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                timeout=MAX_WAIT * timeout_s,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return False
    if done.returncode == _NO_SANDBOX:
        raise UserError("--run_code: no sandbox on this system (it needs Linux on x86-64 or ARM64): leave it out")
    return done.returncode == 0 and done.stdout == secret.encode()
