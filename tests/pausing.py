"""Runs a program of the project that pauses in the middle of its work, until a signal comes: no moment is guessed.

    python tests/pausing.py FILE failfast.py [ARGUMENT ...]

It pauses when its second record is whole but not yet in its place, and makes FILE to say so. Not a test.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PAUSE_AT = 2
STOPPING = (signal.SIGINT, signal.SIGTERM)


def pausing_python(folder: Path) -> tuple[Path, Path]:
    """A stand-in for python, for the scripts, that runs a program so; and the file that it makes when it waits."""
    python, file = folder / "python", folder / "paused"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "{file}" "$@"\n')
    python.chmod(0o755)
    return python, file


def wait_until_paused(running: subprocess.Popen[bytes], file: Path) -> None:
    """As long as it takes; AssertionError if the program ends instead."""
    while not file.exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)


def pause_in_the_middle(file: Path) -> None:
    """From now on: before the second record of this process is renamed to its name."""
    renamed: list[Any] = []

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(arguments[1]).endswith(".pickle"):
            renamed.append(arguments[1])
            if len(renamed) == PAUSE_AT:
                _wait_for_signal(file)

    sys.addaudithook(look)


def _wait_for_signal(file: Path) -> None:
    """Until SIGINT or SIGTERM has come and the program's own handler has seen it."""
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in STOPPING}
    seen: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        seen.append(number)
        handlers[number](number, frame)

    for stopping in STOPPING:
        signal.signal(stopping, pass_on)
    file.touch()
    while not seen:
        time.sleep(0.01)
    for stopping in STOPPING:
        signal.signal(stopping, handlers[stopping])


if __name__ == "__main__":
    file, program = Path(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    sys.path[0] = os.getcwd()  # as if the program itself had been started
    pause_in_the_middle(file)
    runpy.run_path(program, run_name="__main__")
