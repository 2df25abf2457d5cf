"""The sandbox: what programs may not do, who decides whether an answer is right, and what crosses between the two."""

from __future__ import annotations

import math
import signal
from collections import Counter, deque
from decimal import Decimal
from fractions import Fraction

import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st

from specdec.commands.reporter import Reporter
from specdec.config import RunConfig
from specdec.errors import UserError
from specdec.latency.pricing import Pricing
from specdec.questions import lockdown, sandbox
from specdec.questions.plain_values import Other, from_text, to_text
from specdec.questions.sandbox import Task, passes

STUB = 'import math\n\n\ndef twice(x):\n    """Two of x."""\n'
TESTS = (
    "SECRET = 'known to the tests alone'\n\n\ndef check(candidate):\n    assert candidate(21) == 42 and twice(4) == 8\n"
)
RIGHT = "def twice(x):\n    return 2 * x\n"
needs_sandbox = pytest.mark.usefixtures("sandbox_here")
slow = pytest.mark.slow


def grade(text: str, tests: str = TESTS, stub: str = STUB, timeout_s: int = 60) -> bool:
    """What is refused or wrong has more time than it can need, so that nothing else ends it on a busy machine."""
    return passes(Task(text, stub, tests, "twice"), timeout_s=timeout_s)


# Each is refused with an exception of this kind, which shows that nothing else made it fail.
REFUSED = {
    "a socket": ("socket.socket()", OSError),
    "a pair of sockets": ("socket.socketpair()", OSError),
    "looking up a name": ("socket.getaddrinfo('localhost', 9)", (OSError, LookupError)),
    "a fork": ("os.fork()", OSError),
    "another program": ("subprocess.run(['true'])", OSError),
    "becoming another program": ("os.execv('/bin/true', ['true'])", OSError),
    "a thread": ("threading.Thread(target=print).start()", RuntimeError),
    "a pipe": ("os.pipe()", OSError),
    "reading a file": ("open({old!r}).read()", OSError),
    "reading the machine's users": ("open('/etc/passwd').read()", OSError),
    "reading its own memory": ("open('/proc/self/mem', 'rb')", OSError),
    "listing a folder": ("os.listdir({folder!r})", OSError),
    "asking about a file": ("os.stat({old!r})", OSError),
    "a new file": ("open('file', 'w')", OSError),
    "a file in memory": ("os.memfd_create('x')", OSError),
    "changing a file": ("open({old!r}, 'r+').write('x')", OSError),
    "cutting a file": ("os.truncate({old!r}, 0)", OSError),
    "deleting": ("os.remove({old!r})", OSError),
    "renaming": ("os.rename({old!r}, {old!r} + '2')", OSError),
    "linking": ("os.symlink({old!r}, {old!r} + '2')", OSError),
    "rights": ("os.chmod({old!r}, 0)", OSError),
    "a folder": ("os.mkdir('new')", OSError),
    "a temporary file": ("tempfile.NamedTemporaryFile()", OSError),
    "signals to itself": ("os.kill(os.getpid(), 0)", OSError),
    "signals to its parent": ("os.kill(os.getppid(), 0)", OSError),
    "signals to all": ("os.kill(-1, 0)", OSError),
    "leaving its group": ("os.setsid()", OSError),
    "ptrace": ("assert C.ptrace(0, 0, 0, 0) == 0", AssertionError),
    "staying when its parent ends": ("assert C.prctl(1, 0, 0, 0, 0) == 0", AssertionError),
    "instructions in memory": ("mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)", OSError),
    "more time": ("resource.setrlimit(resource.RLIMIT_CPU, (99, 99))", (OSError, ValueError)),
    "priority": ("os.nice(-1)", OSError),
    "10 GB of memory": ("bytearray(10 * 2**30)", MemoryError),
    "the project": ("import specdec.cli", ImportError),
    "a module that does things": ("import antigravity", ImportError),
}
IMPORTS = "import ctypes, mmap, os, resource, socket, subprocess, tempfile, threading\n\nC = ctypes.CDLL(None)\n"


@slow
@needs_sandbox
def test_what_reaches_outside_is_refused(tmp_path):
    """All in one program, each with the exception that says so."""
    old = tmp_path / "old"
    old.write_text("kept")
    program = IMPORTS
    for action, error in REFUSED.values():
        action = action.replace("{old!r}", repr(str(old))).replace("{folder!r}", repr(str(tmp_path)))
        names = ", ".join(kind.__name__ for kind in (error if isinstance(error, tuple) else (error,)))
        program += f"try:\n    {action}\nexcept ({names}):\n    pass\nelse:\n    raise SystemExit({action!r})\n"
    assert passes(program, timeout_s=60)
    assert old.read_text() == "kept" and [path.name for path in tmp_path.iterdir()] == ["old"]


FAILING = {
    "an exception": "1 / 0",
    "leaving early": "import sys\nsys.exit(0)",
    "leaving at once": "import os\nos._exit(0)",
    "a fork bomb": "import os\nwhile True:\n    os.fork()",
    "an endless loop": "while True:\n    pass",
    "endless sleep": "import time\ntime.sleep(10**6)",
    "endless output": "while True:\n    print('x' * 4096)",
    "endless output to all that is open": "import os\nwhile True:\n    for n in range(9):\n        try:\n"
    "            os.write(n, b'x' * 4096)\n        except OSError:\n            pass",
    "too deep": "f = lambda: f()\nf()",
    "deeper than the stack": "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self):\n"
    "        return repr(self)\nrepr(A())",
    "a syntax error": "def",
    "nesting that ends a compiler": "(" * 10000,
}
NEVER_ENDING = ("an endless loop", "endless sleep", "endless output", "endless output to all that is open")


@slow
@needs_sandbox
@pytest.mark.parametrize("name", FAILING)
def test_programs_that_do_not_come_to_their_end_fail(name, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_WAIT", 2)
    assert passes(FAILING[name], timeout_s=1 if name in NEVER_ENDING else 60) is False


FORGE = """
import os
for number in range(64):
    for word in (b"passed", b'"ended"\\n', b'["tuple", "gave", 42, ["list", 21]]\\n'):
        try:
            os.write(number, word)
        except OSError:
            pass
os._exit(0)
"""
SNOOP = """
import gc, sys
def twice(x):
    frame, found = sys._getframe(), []
    while frame:
        found += [repr(value) for value in {**frame.f_globals, **frame.f_locals}.values()]
        frame = frame.f_back
    found += [one for one in gc.get_objects() if isinstance(one, (dict, list, tuple))]
    return 2 * x if " ".join(["known", "to", "the", "tests", "alone"]) in repr(found) else None
"""
NOT_ANSWERS = {
    "a forged verdict": FORGE + RIGHT,
    "a forged verdict when called": RIGHT.replace("return", FORGE.strip().replace("\n", "\n    ") + "\n    return"),
    "a value that equals all": "class E(int):\n    __eq__ = lambda a, b: True\n\n\ndef twice(x):\n    return E()\n",
    "another that equals all": "class E:\n    __eq__ = lambda a, b: True\n\n\ndef twice(x):\n    return E()\n",
    "a number that equals all": "class E(int):\n    __repr__ = lambda self: '42'\n\n\ndef twice(x):\n    return E()\n",
    "the tests, found in memory": SNOOP,
    "the tests, replaced": "import builtins, sys\nbuiltins.AssertionError = None\nsys.modules['tests'] = sys\n"
    "def check(f): pass\nsys.modules['__main__'].check = check\nsys.exit = print\ndef twice(x): pass\n",
    "leaving when called": "def twice(x):\n    raise SystemExit(0)\n",
    "its own process": "import os\n" + RIGHT.replace("return", "os.kill(os.getppid(), 9)\n    return"),
    "once right": "n = []\n\n\ndef twice(x):\n    n.append(x)\n    return 2 * x if len(n) == 1 else 0\n",
    "a stub": STUB,
}


@slow
@needs_sandbox
@pytest.mark.parametrize("name", NOT_ANSWERS)
def test_nothing_but_right_values_makes_an_answer_right(name):
    """Tests that forgive every exception forgive none of these either."""
    assert grade(NOT_ANSWERS[name]) is False
    if "return 2 * x if" not in NOT_ANSWERS[name]:
        forgiving = "def check(candidate):\n    for _ in range(2):\n        try:\n            value = candidate(21)\n"
        forgiving += "        except Exception:\n            value = None\n        assert value == 42\n"
        assert grade(NOT_ANSWERS[name], forgiving) is False


@slow
@needs_sandbox
def test_right_answers_are_right():
    assert grade(RIGHT)
    assert grade("    return int(math.fsum([x, x]))\n")  # with the stub's imports
    assert not grade(RIGHT, "def check(candidate):") and not grade(RIGHT, "")  # no test: nothing is passed
    assert grade(RIGHT + "\nprint('x' * 10**6)\nx = '\ud800'\n")


WORKS = """
from __future__ import annotations
import asyncio.events, collections, copy, datetime, decimal, enum, functools, hashlib, heapq, itertools, json, math, os
import random, re, statistics, string, sys, time, typing
from dataclasses import dataclass

@dataclass
class Pair:
    left: int
    right: typing.Optional[int] = None

class Colour(enum.Enum):
    RED = 1

assert hashlib.md5(b"x").hexdigest() and hashlib.sha3_256(b"x").hexdigest() and random.random() < 1
assert datetime.datetime.strptime("2001-02-03", "%Y-%m-%d").day == 3 and time.strptime("3", "%d")
assert "x".encode("utf-16") and "x".encode("latin-1") and re.sub("(?i)X", "y", "x") == "y"
assert json.loads(json.dumps([1.5])) == [1.5] and decimal.Decimal("0.1") * 3 and Pair(1).left == 1
assert __name__ != "__main__" and sys.modules[Pair.__module__].Pair is Pair and os.cpu_count()
sys.setrecursionlimit(20000)
f = lambda n: n and f(n - 1)
f(15000)
time.sleep(0.01)
assert __import__("bisect").bisect([1], 2) == 1 and len(sys.argv) == 1 and "a".encode("ascii")
def shifted(text):
    import codecs
    return codecs.encode(text, "rot13")
assert shifted("a") == "n"
def lazily():
    import fractions
    return fractions.Fraction(1, 2)
lazily()
"""


@slow
@needs_sandbox
def test_what_answers_need_works():
    assert passes(WORKS)


@slow
@needs_sandbox
def test_the_package_that_the_harness_requires_works():
    pytest.importorskip("numpy")
    assert grade("import numpy as np\n\n\ndef twice(x):\n    return np.linalg.norm([2 * x]).astype(int)\n")


@slow
@needs_sandbox
def test_arguments_and_exceptions_are_as_in_one_process():
    stub = "def twice(x, *, by=2):\n    ...\n"
    tests = """
def check(candidate):
    numbers = [1, 2]
    assert candidate(numbers) is None and numbers == [2, 4]
    assert candidate(numbers, by=3) is None and numbers == [6, 12]
    for wrong, kind in (("", KeyError), (None, ZeroDivisionError)):
        try:
            candidate(wrong)
        except kind:
            pass
        else:
            raise AssertionError
"""
    answer = """
class Own(KeyError): ...
def twice(x, *, by=2):
    if x == "":
        raise Own("x")
    if x is None:
        1 / 0
    x[:] = [by * one for one in x]
"""
    assert grade(answer, tests, stub)


@slow
def test_without_a_sandbox_no_program_runs(monkeypatch):
    assert sandbox._NO_SANDBOX == pytest.importorskip("specdec.questions.sandboxed").NO_SANDBOX
    monkeypatch.setattr(sandbox.sys, "platform", "linux")
    monkeypatch.setattr(sandbox, "_START", f"raise SystemExit({sandbox._NO_SANDBOX})")
    with pytest.raises(UserError, match="--run_code: no sandbox"):
        passes("1")
    monkeypatch.setattr(sandbox, "_START", "raise OSError('too many processes')")
    with pytest.raises(UserError, match="did not start: .*too many processes"):
        passes("1")
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(UserError, match="--run_code: no sandbox"):
        passes("1")
    with pytest.raises(UserError, match="--run_code: no sandbox"):  # before any model is loaded
        Reporter(RunConfig.of(run_code=True, dataset_name="humaneval"), Pricing())
    Reporter(RunConfig.of(run_code=True, dataset_name="gsm8k"), Pricing())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
        | st.complex_numbers(allow_nan=False) | st.decimals(allow_nan=False) | st.fractions() | st.sets(st.integers())
        | st.frozensets(st.text()),
        lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=5,
    )
)  # fmt: skip
@many(50)
def test_plain_values_arrive_as_they_were(value):
    arrived = from_text(to_text(value))
    assert arrived == value and type(arrived) is type(value)


def test_other_values_arrive_as_what_they_are_made_of_or_equal_nothing():
    def there(value: object) -> object:
        return from_text(to_text(value))

    assert there(Counter("aab")) == {"a": 2, "b": 1} and there(deque([1])) == deque([1]) and there(range(3)) == range(3)
    assert list(there(map(str, [1, 2]))) == ["1", "2"] and there({1: 2}.keys()) == {1} and math.isnan(there(math.nan))
    assert there(Fraction(1, 2)) == 0.5 and there(Decimal("0.5")) == 0.5 and there(-0.0) == 0
    numpy = pytest.importorskip("numpy")
    assert there(numpy.int64(3)) == 3 and list(there(numpy.arange(3))) == [0, 1, 2] and there(numpy.arange(2)) != [0, 1]
    assert isinstance(there(object()), Other) and there(object()) != there(object()) and there([len])[0] != len


def verdict(code: list[tuple[int, int, int, int]], words: dict[int, int]) -> int:
    """What the kernel would answer: classic BPF over the fields of a system call, by their place."""
    at = value = 0
    while True:
        operation, if_true, if_false, operand = code[at]
        if operation == lockdown.RETURN:
            return operand
        if operation == lockdown.LOAD:
            value = words.get(operand, 0)
        else:
            holds = {
                lockdown.EQUAL: value == operand,
                lockdown.AT_LEAST: value >= operand,
                lockdown.ANY_BIT: bool(value & operand),
            }[operation]
            at += if_true if holds else if_false
        at += 1


@pytest.mark.parametrize("machine", lockdown.MACHINES)
def test_the_filter_allows_what_is_listed_and_nothing_else(machine):
    column, architecture = lockdown.MACHINES[machine]
    alone, judge = (lockdown.instructions(column, architecture, child) for child in (0, 77))

    def asked(code: list, number: int, first: int = 0, second: int = 0, third: int = 0, on: int = architecture) -> int:
        return verdict(code, {0: number, 4: on, 16: first, 24: second, 32: third})

    listed = {numbers[column] for numbers in lockdown.ALLOWED.values()} - {-1}
    mappers = {numbers[column] for numbers in lockdown.MAPPERS.values()}
    for number in range(lockdown.FIRST_NEW):
        expected = lockdown.ALLOW if number in listed | mappers else lockdown.EPERM
        assert asked(alone, number) == expected, number
    assert all(asked(alone, number, third=7) == lockdown.EPERM for number in mappers)
    assert asked(alone, 435) == lockdown.ENOSYS
    assert asked(alone, 0x40000001) == asked(alone, min(listed), on=architecture ^ 1) == lockdown.KILL
    wait, kill = lockdown.WAIT[column], lockdown.KILL_CALL[column]
    assert asked(judge, wait) == asked(judge, kill, 77, signal.SIGKILL) == lockdown.ALLOW
    assert asked(judge, kill, 78, signal.SIGKILL) == asked(judge, kill, 77, signal.SIGTERM) == lockdown.EPERM
    assert len(judge) < 4096 and all(jump < 256 for one in judge for jump in one[1:3])
