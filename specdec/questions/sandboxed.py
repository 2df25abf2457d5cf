"""Runs inside the sandbox: two processes that lock themselves in, one for the answer, one for its tests.

The answer's process has its code and gives values when its function is called. It never sees the tests, nor the pipe
on which the verdict leaves: nothing that an answer does makes it right, but giving the right values. Started by
`sandbox.py` in a fresh interpreter; standard library only.
"""

import ast
import builtins
import importlib
import json
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, NoReturn

from specdec.questions.lockdown import end_with_parent, limit, lock_in
from specdec.questions.plain_values import from_text, to_text
from specdec.questions.programs import code_of, complete, is_whole

NO_SANDBOX, FAILED, PASSED = 97, b"failed", b"passed"
MAX_VALUE_BYTES = 2**24  # of what one call gives, written down
# A program's imports are loaded before the lock, as no file can be opened after it: those of the standard library, but
# for what does things when it is imported, and what the data set's own harness requires.
NOT_LOADED = {"antigravity", "idlelib", "this", "tkinter", "turtle", "turtledemo"}
REQUIRED = {"numpy": ("numpy.fft", "numpy.linalg", "numpy.polynomial", "numpy.random")}
# What modules load when they are first used.
LATER = {
    "codecs": ("encodings.base64_codec", "encodings.hex_codec", "encodings.rot_13"),
    "datetime": ("_strptime",),
    "time": ("_strptime",),
    "unittest": ("unittest.async_case",),
    **REQUIRED,
}
ENCODINGS = ("encodings.ascii", "encodings.latin_1", "encodings.utf_16", "encodings.utf_32")
IMPORTERS = ("__import__", "import_module")


def main() -> NoReturn:
    """Read the answer, start its process, then read the tests and run them. The verdict goes to standard output."""
    seconds, mebibytes, wait_s = map(int, sys.argv[1:])
    del sys.argv[1:]  # some answers look there for what to work on
    sys.dont_write_bytecode = True  # of the modules of an answer; those of this program are loaded already
    sys.set_int_max_str_digits(0)
    task = read_part()
    calls, values = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        for end in (calls[1], values[0]):
            os.close(end)
        _silence()
        _confine(seconds, mebibytes)
        _be_the_answer(task, calls[0], values[1])
    for end in (calls[0], values[1]):
        os.close(end)
    tests, verdicts = read_part(), os.dup(1)
    _silence()
    _confine(seconds, mebibytes)
    _judge(tests, Answer(child, calls[1], values[0], verdicts), wait_s)


def read_part() -> dict[str, str]:
    """One part of standard input, and no byte more: the answer's process must not find the rest in a buffer."""
    return dict(json.loads(_read(int(_read(12)))))


def _read(count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        new = os.read(0, count - len(parts))
        if not new:
            raise EOFError("standard input ended early")
        parts += new
    return parts


def _silence() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def _confine(seconds: int, mebibytes: int) -> None:
    end_with_parent()
    limit(seconds, mebibytes)


def load_imports(program: str) -> None:
    for name in (*ENCODINGS, *imported(program)):
        with suppress(Exception):  # the program's own import of it fails then, as it must
            importlib.import_module(name)


def imported(program: str) -> Iterator[str]:
    """The modules that a program names and may have, with what they load later."""
    for node in ast.walk(ast.parse(program)) if is_whole(program) else ():
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in IMPORTERS:
            names = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        for name in names:
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names.union(REQUIRED) - NOT_LOADED and not name.endswith("__main__"):
                yield from (name, *LATER.get(top, ()))


def _run(program: str, name: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Execute it as a module of that name, which some decorators look up; not as "__main__"."""
    module = sys.modules.setdefault(name, types.ModuleType(name))
    module.__dict__.update(given or {})
    exec(compile(program, f"<{name}>", "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def _be_the_answer(task: dict[str, str], calls: int, values: int) -> NoReturn:
    """Run the answer's program, say that it came to its end, then call its function as often as asked."""
    function = task["function"]
    program = code_of(task["text"], task["stub"], function) if function else task["text"]
    load_imports(program)
    if lock_in():
        names = _run(program, "answer")
        with os.fdopen(calls, "rb") as asked, os.fdopen(values, "wb") as given:
            _send(given, to_text("ended"))
            for line in asked:
                _send(given, _called(names[function], *from_text(line)))
    os._exit(NO_SANDBOX)


def _called(function: Callable[..., Any], positional: list[Any], named: dict[str, Any]) -> str:
    """What a call gave or raised, and its arguments, which it may have changed."""
    try:
        return to_text(("gave", function(*positional, **named), positional))
    except Exception as error:
        kinds = (kind.__name__ for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind)
        return to_text(("raised", next(kinds), positional))


def _send(stream: BinaryIO, line: str) -> None:
    stream.write(line.encode() + b"\n")
    stream.flush()


class Answer:
    """The answer's process as the tests see it: a function to call."""

    def __init__(self, pid: int, calls: int, values: int, verdicts: int) -> None:
        self.pid, self._verdicts = pid, verdicts
        self._calls, self._values = os.fdopen(calls, "wb"), os.fdopen(values, "rb")

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """What the function gives. Its exceptions are raised here, as the built-in kinds that they are of."""
        line = to_text((positional, named))
        try:
            _send(self._calls, line)
            how, value, after = self.read()
            for mine, changed in zip(positional, after, strict=True):
                _change(mine, changed)
        except (OSError, TypeError, ValueError):
            self.leave(FAILED)
        if how == "raised":
            raise getattr(builtins, value, Exception)
        return value

    def read(self) -> Any:
        """The next value of the process; the end of everything where it is gone or sends no value."""
        try:
            return from_text(self._values.readline(MAX_VALUE_BYTES))
        except Exception:
            self.leave(FAILED)

    def leave(self, verdict: bytes) -> NoReturn:
        """End both processes at once, so that tests cannot go on after an answer that is none."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.write(self._verdicts, verdict)
        os._exit(0)


def _change(mine: Any, changed: Any) -> None:
    """Do to an argument what the call did to its copy."""
    if type(changed) is not type(mine):
        return
    if isinstance(mine, list | bytearray):
        mine[:] = changed
    elif isinstance(mine, dict | set):
        mine.clear()
        mine.update(changed)


def _judge(tests: dict[str, str], answer: Answer, wait_s: int) -> NoReturn:
    """Run the data set's tests on the stub, whose function is the answer's."""
    stub = complete(tests["stub"])
    signal.signal(signal.SIGALRM, lambda *_: answer.leave(FAILED))
    signal.alarm(wait_s)
    load_imports(f"{stub}\n{tests['tests']}")
    if not lock_in(answer.pid):
        os.kill(answer.pid, signal.SIGKILL)
        os._exit(NO_SANDBOX)
    try:
        answer.read()
        if tests["function"]:
            _run(stub, "tests")
            _run(tests["tests"], "tests", {tests["function"]: answer})["check"](answer)
    except BaseException:
        answer.leave(FAILED)
    answer.leave(PASSED)
