"""`--run_code` over HumanEval: right answers in many shapes, which must all pass, and wrong ones, which must all fail.

    python -m experiments.code_table --data_dir DIR
    python -m experiments.code_table --data_dir DIR --num_questions 10

Right answers are the data set's canonical solutions, as models write them down. Wrong ones do what a program may not,
most of them before a right solution, on the first question. What they could reach is looked at afterwards.
"""

import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from profiling.common import parser_of, run_command
from specdec.questions.sandbox import TIMEOUT_S, Task, passes
from specdec.questions.sets import load_problems
from specdec.records.provenance import provenance

FENCE, WRONG_TIMEOUT_S = "```", 2
Shape = Callable[[dict[str, str]], str]


def whole(row: dict[str, str]) -> str:
    return row["prompt"] + row["canonical_solution"]


def bare(row: dict[str, str]) -> str:
    """The function asked for alone, without the imports and helpers that stand before it in the stub."""
    lines = whole(row).split("\n")
    start = max(n for n, line in enumerate(lines) if line.startswith(f"def {row['entry_point']}("))
    return "\n".join(lines[start:])


def fenced(code: str, info: str = "python", fence: str = FENCE) -> str:
    return f"Here it is:\n\n{fence}{info}\n{code.rstrip()}\n{fence}\n\nIt does what was asked.\n"


def guarded(code: str, *lines: str) -> str:
    return f'{code}\n\nif __name__ == "__main__":\n' + textwrap.indent("\n".join(lines), "    ")


def tested(name: str) -> str:
    return f"def test_it():\n    assert {name} is None\n\n\ntest_it()\n"


def renamed(row: dict[str, str]) -> tuple[str, str]:
    """A helper that does all the work, and the function that calls it."""
    name = row["entry_point"]
    helper = bare(row).replace(f"def {name}(", "def the_helper(", 1)
    # What calls itself by its name calls the function, which calls the helper.
    return helper, f"def {name}(*arguments):\n    return the_helper(*arguments)\n"


def quoting(code: str) -> str:
    """A function whose docstring shows its use in a fenced block."""
    head, mark, rest = code.partition('"""')
    if not mark:
        head, mark, rest = code.partition("'''")
    return f"{head}{mark}\n    {FENCE}python\n    use(it)\n    {FENCE}\n    {rest}"


def right_shapes(row: dict[str, str]) -> dict[str, str]:
    """One right answer, written down in each shape."""
    name, code, all_code = row["entry_point"], bare(row), whole(row)
    return {
        "the body alone": row["canonical_solution"],
        "the whole program, no fence": all_code,
        "the function, no fence, words around it": f"Sure:\n\n{code}\nThat is all.\nNote: it is tested.",
        "python": fenced(all_code),
        "the function without its imports": fenced(code),
        "Python": fenced(code, "Python"),
        "python3": fenced(code, "python3"),
        "py": fenced(code, "py"),
        "no language": fenced(code, ""),
        "a blank before the language": fenced(code, " python"),
        "attributes": fenced(code, "python {.numberLines}"),
        "a title": fenced(code, 'python title="answer.py"'),
        "tildes": fenced(code, fence="~~~"),
        "a longer fence": fenced(code, fence=FENCE + "`"),
        "a list item": "1. So:\n\n" + textwrap.indent(fenced(code), "   "),
        "a quotation": textwrap.indent(fenced(code), "> ", lambda line: True),
        "Windows line ends": fenced(code).replace("\n", "\r\n"),
        "the body in a block": fenced(row["canonical_solution"]),
        "tests in a block of their own": fenced(code) + fenced(tested(name)),
        "a helper in a block of its own": "".join(map(fenced, renamed(row))),
        "the helper last": "".join(map(fenced, reversed(renamed(row)))),
        "a wrong draft first": fenced(f"def {name}(*_):\n    return None") + fenced(code),
        "an example with its output": (fenced(code) + fenced(f">>> {name}()\n1") + fenced("1", "text")),
        "a guarded part that reads input": fenced(guarded(code, "print(int(input()))")),
        "a guarded part that leaves": fenced(guarded(code, "import sys", "sys.exit(0)")),
        "a guarded unittest": fenced(guarded(code, "import unittest", "unittest.main()")),
        "annotations from the future": fenced(f"from __future__ import annotations\n\n{code}"),
        "never closed": fenced(code).rpartition(FENCE)[0],
        "cut in what follows": f"{FENCE}python\n{code}\n\ndef test_it():\n    assert (1 ==",
        "a fence in the docstring": fenced(quoting(code)),
    }


def before(action: str) -> Shape:
    """A right solution after something that may not be done."""
    return lambda row: fenced(f"{textwrap.dedent(action).strip()}\n\n\n{bare(row)}")


def instead(body: str, above: str = "") -> Shape:
    """A function of another body."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return lambda row: fenced(f"{textwrap.dedent(above).strip()}\n\n\ndef {row['entry_point']}(*given):\n{lines}\n")


def broken(row: dict[str, str]) -> str:
    return fenced(bare(row).replace(":", "", 1))


def no_code(row: dict[str, str]) -> str:
    return "I do not know."


FORGE = """
import os
for number in range(64):
    for word in (b"passed", b'"passed"\\n', b"ready"):
        try:
            os.write(number, word)
        except OSError:
            pass
os._exit(0)
"""
EQUAL = """
class Equal(int):
    def __eq__(self, other):
        return True
    __ne__ = __lt__ = __gt__ = lambda self, other: False
    __hash__ = None
"""
PATCH = """
import builtins, sys
builtins.AssertionError = builtins.abs = builtins.isinstance = lambda *given: True
def check(candidate):
    return None
sys.modules["__main__"].check = check
sys.settrace(None)
"""
# What stands in braces is the folder, or the file in it, that must be as it was.
WRONG: dict[str, Shape] = {
    "a wrong value": instead("return 'nothing of the kind'"),
    "a syntax error": broken,
    "no code": no_code,
    "an endless loop": instead("while True:\n    pass"),
    "endless sleep": before("import time\ntime.sleep(10**6)"),
    "endless output": before("while True:\n    print('x' * 4096)"),
    "leaving early": before("import sys\nsys.exit(0)"),
    "leaving at once": before("import os\nos._exit(0)"),
    "leaving when called": instead("raise SystemExit(0)"),
    "a forged verdict": before(FORGE),
    "a forged verdict when called": instead(FORGE),
    "a value equal to all": instead("return Equal()", EQUAL),
    "patched tests": instead("return None", PATCH),
    "10 GB of memory": before("x = bytearray(10 * 2**30)"),
    "endless recursion": instead("return (lambda f: f(f))(lambda f: f(f))"),
    "reading a file": before("open({file!r}).read()"),
    "reading the system's files": before("import os\nos.listdir('/etc')"),
    "writing a file": before("open({folder!r} + '/new', 'w')"),
    "changing a file": before("open({file!r}, 'r+').write('x')"),
    "deleting a file": before("import os\nos.remove({file!r})"),
    "deleting a folder": before("import shutil\nshutil.rmtree({folder!r})"),
    "a temporary file": before("import tempfile\ntempfile.NamedTemporaryFile()"),
    "the network": before("import socket\nsocket.create_connection(('127.0.0.1', 9))"),
    "another program": before("import subprocess\nsubprocess.run(['true'])"),
    "a fork bomb": before("import os\nwhile True:\n    os.fork()"),
    "threads": before("import threading\nthreading.Thread(target=print).start()"),
    "killing its parent": before("import os\nos.kill(os.getppid(), 9)"),
    "killing all": before("import os\nos.kill(-1, 9)"),
    "ptrace": before("import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0"),
    "the parent's memory": before("import os\nopen(f'/proc/{os.getppid()}/mem', 'r+b')"),
    "more time": before("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (999, 999))"),
}


def is_passed(text: str, row: dict[str, str], timeout_s: int = TIMEOUT_S) -> bool:
    return passes(Task(text, row["prompt"], row["test"], row["entry_point"]), timeout_s=timeout_s)


def right_answers(rows: Sequence[dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Per shape: how many solutions passed, and which did not."""
    found = {}
    for name in right_shapes(rows[0]):
        missed = [number for number, row in enumerate(rows) if not is_passed(right_shapes(row)[name], row)]
        found[name] = {"passed": len(rows) - len(missed), "not_passed": missed}
        print(f"{found[name]['passed']:4} of {len(rows)}  {name}", flush=True)
    return found


def wrong_answers(row: dict[str, str]) -> dict[str, dict[str, bool]]:
    """Per kind: whether it failed, and whether the folder that it could reach, and its files, are as they were."""
    found = {}
    for name, shape in WRONG.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "file")
            file.write_text("kept")
            text = shape(row).replace("{folder!r}", repr(folder)).replace("{file!r}", repr(str(file)))
            passed = is_passed(text, row, WRONG_TIMEOUT_S)
            untouched = os.listdir(folder) == ["file"] and file.read_text() == "kept"
        found[name] = {"failed": not passed, "untouched": untouched}
        print(f"{'failed' if not passed else 'PASSED'}{'' if untouched else ', TOUCHED'}  {name}", flush=True)
    return found


def measure(data_dir: str, num_questions: int) -> dict[str, Any]:
    rows = [problem.row for problem in load_problems("humaneval", data_dir=data_dir)][:num_questions]
    begin = time.perf_counter()
    right, wrong = right_answers(rows), wrong_answers(rows[0])
    return {
        "what": "HumanEval's canonical solutions in shapes of answer, and wrong programs, graded by --run_code",
        "num_questions": len(rows),
        "num_right": sum(one["passed"] for one in right.values()),
        "num_right_asked": len(rows) * len(right),
        "num_wrong_failed": sum(one["failed"] for one in wrong.values()),
        "num_wrong_asked": len(wrong),
        "is_untouched": all(one["untouched"] for one in wrong.values()),
        "seconds": round(time.perf_counter() - begin, 1),
        "right": right,
        "wrong": wrong,
        "provenance": provenance(None),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.code_table", __doc__)
    parser.add_argument("--data_dir", required=True, help="folder with humaneval/test.jsonl")
    parser.add_argument("--num_questions", type=int, default=164, help="the first N (default: %(default)s)")
    return run_command(parser, lambda flags: measure(flags.data_dir, flags.num_questions), arguments)


if __name__ == "__main__":
    sys.exit(main())
