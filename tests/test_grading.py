"""Grading: boxes, equal and unequal answers, letters, records of every data set. Programs: test_sandbox.py."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from samples import make_record

from specdec.questions.grading import is_correct
from specdec.questions.mathtext import is_same_answer, last_boxed, number

ADD = {
    "prompt": 'import math\n\n\ndef add(a, b):\n    """The sum."""\n',
    "test": "def check(candidate):\n    assert candidate(2, 3) == 5\n",
    "entry_point": "add",
}


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}} is it", r"\frac{1}{\sqrt{2}}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {7 }", "7"),
        (r"\boxed{never closed", None),
        (r"\boxed 7", None),
        ("no box", None),
        ("", None),
    ],
)
def test_the_last_box(text, box):
    assert last_boxed(text) == box


SAME = [
    ("18", "18.0"), ("1,080", "1080"), ("$1{,}080$", "1080"), (r"\dfrac{1}{2}", "0.5"), (r"\frac12", "1/2"),
    ("$5.00", "5"), ("50\\%", "50"), (r"2\pi", r"\pi \cdot 2"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"\sqrt[3]{27}", "3"),
    ("x=5", "5"), (r"\left(3, \frac{\pi}{2}\right)", r"(3,\pi/2)"), ("1,-2", "-2, 1"), (r"90^\circ", "90"),
    (r"\text{Evelyn}", "Evelyn"), (r"\text{east}", "east"), ("p - q", "p-q"), ("-7", "- 7"), ("2^{10}", "1024"),
    ("5 \\text{ cm}", "5"), (r"\%", r" \%"), ("$", "$"),
    ("025", "25"), (r"-\frac{3}{4}", "-0.75"), ("42.", "42"), (r"\{1, 2\}", r"\{1,2\}"),
]  # fmt: skip
DIFFERENT = [
    ("18", "19"), ("(1,2)", "(2,1)"), ("(0,1)", "[0,1]"), ("x+1", "x+2"), ("", "0"), ("1,2", "1,2,3"), ("0.333", "1/3"),
    ("1/0", "0"), ("10^{10^{10}}", "1"), ("12", "1 2 x"), ("-5", "5"), ("Evelyn", "Evelin"), ("9" * 5000, "1"),
]  # fmt: skip


@pytest.mark.parametrize(("given_", "reference"), SAME)
def test_equal_answers(given_, reference):
    assert is_same_answer(given_, reference) and is_same_answer(reference, given_)


@pytest.mark.parametrize(("given_", "reference"), DIFFERENT)
def test_different_answers(given_, reference):
    assert not is_same_answer(given_, reference) and not is_same_answer(reference, given_)


@given(st.text(alphabet="0123456789+-*/^(){}[],.\\fracsqrtpi $%x", max_size=40), st.text(max_size=10))
@example(r"\%", "")
@settings(max_examples=300, deadline=None)
def test_any_text_can_be_compared(text, other):
    is_same_answer(text, other)
    number(text)
    assert is_same_answer(text, text) or not text.strip()  # nothing is not an answer
    last_boxed(text)


@given(st.integers(-(10**6), 10**6), st.integers(1, 999))
@settings(max_examples=100, deadline=None)
def test_fractions_have_their_value(above, below):
    sign = "-" if above < 0 else ""
    assert number(rf"{sign}\frac{{{abs(above)}}}{{{below}}}") == pytest.approx(above / below)


def graded(dataset: str, row: dict, text: str, **options: bool) -> bool | None:
    record = make_record(raw_data=row, output_text=text)
    identity = dataclasses.replace(record.identity, dataset=dataset)
    return is_correct(dataclasses.replace(record, identity=identity), **options)


def test_each_data_set_has_its_rule():
    gsm8k = {"question": "q", "answer": "It is\n#### 1,080"}
    assert graded("gsm8k", gsm8k, r"so \boxed{1080}") is True
    assert graded("gsm8k", gsm8k, "so 1080") is False
    assert graded("math", {"problem": "p", "answer": r"\frac{1}{2}"}, r"\boxed{0.5}") is True
    assert graded("aime", {"problem": "p", "answer": "025"}, r"\boxed{25}") is True
    mmlu = {"question": "q", "options": ["a", "b"], "answer": "B"}
    for box, right in {"B": True, r"\text{B}": True, "(B)": True, "B) b": True, "A": False, "Both": False}.items():
        assert graded("mmlu", mmlu, rf"\boxed{{{box}}}") is right, box
    gpqa = {"Question": "q", "Correct Answer": "yes"} | {f"Incorrect Answer {n}": f"no {n}" for n in (1, 2, 3)}
    assert [graded("gpqa", gpqa, rf"\boxed{{{letter}}}") for letter in "ABCD"].count(True) == 1
    assert graded("bundled", {"category": "algebra", "question": "q", "answer": "8"}, r"\boxed{8}") is True
    assert graded("bundled", {"category": "explanation", "question": "q"}, "words") is None
    assert graded("mt_bench", {"turns": ["q"]}, "words") is None
    assert graded("gsm8k", {"question": "q", "answer": None}, r"\boxed{1}") is None


@pytest.mark.slow
@pytest.mark.usefixtures("sandbox_here")
def test_programs_run_only_when_asked():
    answer = "Here:\n```python\ndef add(a, b):\n    return a + b\n```\n"
    assert graded("humaneval", ADD, answer) is None
    assert graded("humaneval", ADD, answer, run_code=True) is True
    assert graded("humaneval", ADD, "```python\ndef add(a, b):\n    return a - b\n```", run_code=True) is False
    assert graded("humaneval", ADD, "    return math.floor(a) + b\n", run_code=True) is True  # a bare body
    assert graded("humaneval", ADD, "I do not know.", run_code=True) is False
    assert graded("humaneval", {"prompt": "def f():\n"}, answer, run_code=True) is None
