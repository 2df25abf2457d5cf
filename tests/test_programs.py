"""Programs: which code of an answer is taken, in whatever shape it was written. They are run here: they are our own."""

from __future__ import annotations

from contextlib import suppress

import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st

from specdec.questions.programs import blocks, code_of, complete, is_whole, whole_statements

STUB = '''from typing import List


def halved(x: float) -> float:
    """Half of x."""
    return x / 2


def total(numbers: List[float]) -> float:
    """The sum of the halves.
    >>> total([2, 4])
    3.0
    """
'''
SOLUTION = "def total(numbers: List[float]) -> float:\n    return sum(map(halved, numbers))\n"
BODY = "    result = 0.0\n    for number in numbers:\n        result += halved(number)\n    return result\n"
WRONG = "def total(numbers):\n    return -1\n"
F = "`" * 3


def fenced(code: str, info: str = "python", fence: str = F, indent: str = "") -> str:
    lines = f"{fence}{info}\n{code.rstrip()}\n{fence}".split("\n")
    return "Here:\n\n" + "\n".join(indent + line for line in lines) + "\n\nThat is it.\n"


def guarded(demo: str) -> str:
    return f'{SOLUTION}\n\nif __name__ == "__main__":\n    {demo}\n'


HELPER = "import functools\n\nSTART = 0\n\n\n@functools.cache\ndef half(x):\n    return x / 2\n"
USER = "def total(numbers):\n    return sum((half(x) for x in numbers), START)\n"
QUOTING = (
    f'def total(numbers):\n    """Use:\n    {F}python\n    total([1])\n    {F}\n    """\n    return sum(numbers) / 2\n'
)
FLAT = f'def total(numbers):\n    """Use:\n{F}\ntotal([1])\n{F}\n"""\n    return sum(numbers) / 2\n'
ANSWERS = {
    "python": fenced(SOLUTION),
    **{info: fenced(SOLUTION, info) for info in ("Python", "python3", "py3", "py", "", " python", "PYTHON", "text")},
    "attributes": fenced(SOLUTION, "python {.numberLines startFrom=1}"),
    "title": fenced(SOLUTION, 'python title="a.py"'),
    "braces": fenced(SOLUTION, "{.python}"),
    "tildes": fenced(SOLUTION, fence="~~~"),
    "tildes with backticks in the info": fenced(SOLUTION, "python `x`", fence="~~~~"),
    "longer fence": fenced(SOLUTION, fence=F + "``"),
    "longer closing fence": fenced(SOLUTION).replace(f"\n{F}\n", f"\n{F}`  \n"),
    "list item": fenced(SOLUTION, indent="   "),
    "deep list item": fenced(SOLUTION, indent="        "),
    "tab": fenced(SOLUTION, indent="\t"),
    "after the mark of a list item": fenced(SOLUTION, indent="   ").replace(f"   {F}python", f"1. {F}python"),
    "quotation": fenced(SOLUTION, indent="> "),
    "fence in the margin, code indented": f"{F}python\n    " + SOLUTION.replace("\n", "\n    ") + f"\n{F}",
    "Windows line ends": fenced(SOLUTION).replace("\n", "\r\n"),
    "no fence": SOLUTION,
    "no fence, the whole stub": STUB + BODY,
    "no fence, words around it": f"Sure. I add them up:\n\n{SOLUTION}\nThis adds them.\nDone\nNote: it is short.\n",
    "a closing fence alone": f"{SOLUTION}{F}\n\nThis adds them.",
    "body": BODY,
    "body, then a closing fence": f"{BODY}{F}\nThis adds them.",
    "body, then words": f"{BODY}\n\nThis adds them, one by one.",
    "body that lost its first blanks": BODY.strip(),
    "body in a block": fenced(BODY),
    "body in a block, at the margin": fenced("result = sum(map(halved, numbers))\nreturn result"),
    "body, then tests": fenced(BODY) + fenced("assert total([2]) == 2"),
    "tests": fenced(SOLUTION) + fenced("def test_total():\n    assert total([]) == 1\n\n\ntest_total()"),
    "tests that use unittest": fenced(SOLUTION) + fenced("import unittest\n\nunittest.main()"),
    "helper first": fenced(HELPER) + fenced(USER),
    "helper last": fenced(USER) + fenced(HELPER),
    "helpers of helpers": fenced("K = 2\n\n\ndef twice(x):\n    return x * K")
    + fenced("def half(x):\n    return x / twice(1)")
    + fenced(USER.replace("START", "0")),
    "imports in a block": fenced("from math import *\nimport os.path, math as m") + fenced(
        "def total(numbers):\n    return m.fsum(x / floor(2.5) for x in numbers)"
    ),
    "a tried import": fenced("try:\n    from fast import half\nexcept ImportError:\n    half = lambda x: x / 2")
    + fenced(USER.replace("START", "0")),
    "a class in a block": fenced("class Half:\n    def of(self, x):\n        return x / 2") + fenced(
        "def total(numbers):\n    return sum(Half().of(x) for x in numbers)"
    ),
    "a local name": fenced("def total(numbers):\n    given = [x / 2 for x in numbers]\n    return sum(given)\n")
    + fenced("given = [float(x) for x in input().split()]\nprint(total(given))"),
    "wrong draft first": fenced(WRONG) + "No, wait.\n" + fenced(SOLUTION),
    "a draft with a helper": fenced(HELPER + WRONG) + fenced(USER),
    "call after the function": fenced(SOLUTION) + fenced("total([1, 2])") + fenced("1.5", "text"),
    "shell before it": fenced("pip install nothing", "bash") + fenced(SOLUTION),
    "doctest after it": fenced(SOLUTION) + fenced(">>> total([2, 4])\n3.0"),
    "doctest in words": f"{fenced(SOLUTION)}\n>>> total([2, 4])\n3.0\n",
    "main that reads": fenced(guarded("print(total([float(input())]))")),
    "main that leaves": fenced(guarded("import sys; sys.exit(0)")),
    "main that fails": fenced(guarded("assert total([1]) == 7")),
    "from __future__": fenced(f"from __future__ import annotations\n\n{SOLUTION}"),
    "from __future__, many": fenced(f'"""Text."""\nfrom __future__ import (annotations,\n    division)\n{SOLUTION}'),
    "from __future__ in a helper's block": fenced(f"from __future__ import annotations\n{HELPER}") + fenced(USER),
    "never closed": fenced(SOLUTION).rpartition(F)[0].rpartition("\n")[0],
    "cut in a test": f"{F}python\n{SOLUTION}\n\ndef test_total():\n    assert total([1, 2]) == (1 +",
    "cut in a string": f'{F}python\n{SOLUTION}\n\nprint("""The sum is',
    "cut in the same again": f"{fenced(SOLUTION)}All in one:\n{F}python\n{HELPER}\n\ndef total(numbers):\n    return (",
    "no fence, cut": f"{SOLUTION}\n\ndef test_total():\n    assert (total(",
    "a fence in the docstring": fenced(QUOTING),
    "fences at the margin of a docstring": fenced(FLAT),
    "a fence in the docstring, never closed": fenced(QUOTING).rpartition(F)[0] + "\ntotal(",
    "a fence in a longer one": f"````markdown\n{fenced(SOLUTION)}\n````",
    "a stray fence before": f"{F}\nSome words.\n{fenced(SOLUTION)}",
    "a function by another name first": fenced("def total_of_all(x):\n    return 0") + fenced(SOLUTION),
    "lambda": fenced("total = lambda numbers: sum(numbers) / 2"),
    "typed value": fenced("from typing import Callable\ntotal: Callable = lambda numbers: sum(numbers) / 2"),
    "decorated": fenced(f"def same(f):\n    return f\n\n\n@same\n{SOLUTION}"),
    "no fence, a call that it needs": "known = {}\n\ndef total(numbers):\n    return sum(x / known[2] for x in numbers)"
    "\n\nknown.update({2: 2})\n\nDone",
    "indented, no fence": "Here:\n\n    " + SOLUTION.replace("\n", "\n    ") + "\n\nThat is it.",
    "indented, no fence, no words": "    " + SOLUTION.replace("\n", "\n    "),
    "a fence after words": f"The code: {fenced(SOLUTION)[7:]}",
    "fences after words and code": f"The code: {F}py\n{SOLUTION.rstrip()}{F}\nThat is it.",
    "thoughts first": f"<think>\nSay {F}python\n{WRONG}{F} but no.\n</think>\n{fenced(SOLUTION)}",
}  # fmt: skip


def run(program: str) -> dict:
    names: dict = {"__name__": "answer"}
    exec(compile(program, "answer", "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answers_are_found(name):
    names = run(code_of(ANSWERS[name], STUB))
    assert names["total"]([2, 4]) == 3.0 and names["total"]([]) == 0


NOT_RIGHT = {
    "a wrong one last": fenced(SOLUTION) + fenced(WRONG),
    "a broken one last": fenced(SOLUTION) + fenced("def total(numbers)\n    return 1"),
    "a broken one": fenced("def total(numbers)\n    return 1"),
    "cut in the function": f"{F}python\ndef total(numbers):\n    result = sum(",
    "a helper alone": fenced(HELPER),
    "a method": fenced("class Solution:\n    def total(self, numbers):\n        return sum(numbers) / 2"),
    "a method, no fence": "class S:\n    @staticmethod\n    def total(numbers):\n        return sum(numbers) / 2",
    "another name": fenced(SOLUTION.replace("total", "sum_up")),
    "words": "I do not know.",
    "one word": "Done",
    "nothing": "",
}


@pytest.mark.parametrize("name", NOT_RIGHT)
def test_others_are_not(name):
    program = code_of(NOT_RIGHT[name], STUB)
    with suppress(NameError):
        assert not is_whole(program) or run(program)["total"]([2, 4]) != 3.0


def test_the_function_may_stand_anywhere_in_the_stub():
    stub = "def asked(x):\n    # no docstring\n\n\ndef other(x):\n    return x\n"
    assert run(code_of(fenced("def asked(x):\n    return 7"), stub, "asked"))["asked"](1) == 7
    assert complete("def f(x):\n  # no body\n").endswith("pass\n") and complete("def (") == ""


def test_statements_stay_in_one_piece():
    code = "@cache\ndef f(\n    x,\n):\n    return x\nif f:\n    y = 1\nelse:\n    y = 2\ntry:\n    z\nfinally:\n    f"
    assert whole_statements(f"Words, words.\n{code}\nMore: words") == code


@given(st.text(alphabet="`~> \n\t1.-*pydef x():=\"'#\\", max_size=120))
@many(300)
def test_any_text_has_a_program(text):
    assert isinstance(code_of(text, STUB), str)
    assert all(block.code.count("\n") <= text.count("\n") for block in blocks(text))
