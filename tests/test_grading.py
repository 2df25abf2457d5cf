"""Grading: boxes, equal and unequal answers, letters, records of every data set. Programs: test_sandbox.py."""

from __future__ import annotations

import ast
import dataclasses

import pytest
from answer_pairs import DIFFERENT, SAME
from examples import many
from hypothesis import example, given
from hypothesis import strategies as st
from samples import make_record
from sources import ROOT

from specdec.questions import second_opinion
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
        (r"\boxed 7", "7"),
        (r"hence $\boxed 96.$", "96"),
        (r"hence $\boxed -4$ is it.", "-4"),
        (r"hence $\boxed\frac38$", r"\frac38"),
        (r"so \boxed 12 apples are left", "12"),
        (r"\(\boxed x^2\)", "x^2"),
        (r"\boxed{\boxed{11}}", "11"),
        (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right."),
        (r"\framebox{3}", "3"),
        (r"\boxedness{3}", None),
        ("\\boxed{" + "9" * 10**6 + "}", None),
        ("no box", None),
        ("", None),
    ],
)
def test_the_last_box(text, box):
    assert last_boxed(text) == box


def pairs(table: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    return [pair for of_a_kind in table.values() for pair in of_a_kind]


@pytest.mark.parametrize(("given_", "reference"), pairs(SAME))
def test_equal_answers(given_, reference):
    assert is_same_answer(given_, reference) and is_same_answer(reference, given_)


@pytest.mark.parametrize(("given_", "reference"), pairs(DIFFERENT))
def test_different_answers(given_, reference):
    assert not is_same_answer(given_, reference) and not is_same_answer(reference, given_)


@given(st.text(alphabet="0123456789+-*/^(){}[],.\\fracsqrtpi $%x", max_size=40), st.text(max_size=10))
@example(r"\%", "")
@many(300)
def test_any_text_can_be_compared(text, other):
    is_same_answer(text, other)
    number(text)
    assert is_same_answer(text, text) or not text.strip()  # nothing is not an answer
    last_boxed(text)


HOSTILE_ANSWERS = (
    "9^{9^{9^9}}", "9^9^9^9^9", "((((9!)!)!)!)!", "1e999999999", "10^{-10^{10}}", "(" * 900, "{" * 900,
    r"\frac" * 150, r"\sqrt{" * 160, "\\", "\x00", "\ud800", "^", "_", "&", r"\begin{pmatrix}", r"\end{pmatrix}",
    "1" * 999, "7" * 10**7, "x^" * 499, "1,2," * 240, "+-" * 400, r"\pm1" * 200, "|" * 900, r"\log" * 200,
    "2^{2^{2^{2^{2^{2}}}}}", "1/0", "0^{-1}", "\u0663", "\u2460", r"\binom{999}{500}^{999}", "(x+1)^{999999}",
    "__import__('os').getpid()", "().__class__",
)  # fmt: skip


@pytest.fixture(scope="module")
def hurried(tmp_path_factory):
    """The second opinion with a third of its time, which some of these answers use up several times."""
    patient = second_opinion._RUNNER.read_text("utf-8")
    runner = tmp_path_factory.mktemp("hurried") / "verifying.py"
    assert patient.count("\nCPU_S = 3 ") == 1
    runner.write_text(patient.replace("\nCPU_S = 3 ", "\nCPU_S = 1 "), "utf-8")
    verifier = second_opinion.Verifier()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(second_opinion, "_RUNNER", runner)
        patch.setattr(second_opinion, "VERIFIER", verifier)
        yield
    verifier.close()


@pytest.mark.parametrize("number_", range(len(HOSTILE_ANSWERS)))
def test_hostile_answers_are_wrong_and_cost_nothing(number_, hurried):
    """They end: nothing is worked out that has more than some thousands of digits."""
    answer = HOSTILE_ANSWERS[number_]
    assert not is_same_answer(answer, "5") and not is_same_answer("5", answer)
    assert not is_same_answer(answer, answer + "0")
    number(answer)
    last_boxed(f"\\boxed{answer}")
    last_boxed("\\boxed{" * 1000 + answer)


def test_no_text_is_run():
    """The files that read answers neither call nor name what runs a text as code."""
    files = [*(ROOT / "specdec/questions/answers").glob("*.py"), *(ROOT / "specdec/questions").glob("*math*.py")]
    for path in files:
        names = {node.id for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Name)}
        assert not names & {"eval", "exec", "compile", "sympify", "parse_expr", "__import__", "getattr"}, path


@given(st.integers(-(10**6), 10**6), st.integers(1, 999))
@many(100)
def test_fractions_have_their_value(above, below):
    sign = "-" if above < 0 else ""
    assert number(rf"{sign}\frac{{{abs(above)}}}{{{below}}}") == pytest.approx(above / below)


def graded(dataset: str, row: dict, text: str, **options: bool) -> bool | None:
    record = make_record(raw_data=row, output_text=text)
    identity = dataclasses.replace(record.identity, dataset=dataset)
    return is_correct(dataclasses.replace(record, identity=identity), **options)


OTHER_LETTERS = {
    "b": True, "B. b": True, r"\textbf{(B) }4": True, "Option B": True, "The answer is B": True, r"\(B\)": True,
    "\uff22": True, "A, B": False, "B, C": False, "B or C": False, "B and C": False, "(B),(C)": False, "Bob": False,
    "b a": False, "": False, r"\text{The correct answer is (B)}": True, "Final answer: option B": True, "[B]": True,
    r"\text{B}\text{ (4 eV)}": True, "B (4 eV)": True, "B - the second": True, r"B\text{: }4": True, r"\boxed{B}": True,
    r"\color{red}{B}": True, r"\textcolor{blue}{B}": True, r"\underline{\text{B}}": True, r"\Large B": True,
    "B large": False, "b (small) one": False, "B (C)": False, "A (4 eV)": False, "The answer is not B": False,
}  # fmt: skip


def test_each_data_set_has_its_rule():
    gsm8k = {"question": "q", "answer": "It is\n#### 1,080"}
    assert graded("gsm8k", gsm8k, r"so \boxed{1080}") is True
    assert graded("gsm8k", gsm8k, "so 1080") is False
    assert graded("gsm8k", gsm8k, "It is\n#### $1,080\nDone.") is True  # as its own solutions end
    assert graded("gsm8k", gsm8k, "#### 1080, so \\boxed{1081}") is False
    assert graded("math", {"problem": "p", "answer": "5"}, "#### 5") is False
    assert graded("math", {"problem": "p", "answer": r"\frac{1}{2}"}, r"\boxed{0.5}") is True
    assert graded("aime", {"problem": "p", "answer": "025"}, r"\boxed{25}") is True
    mmlu = {"question": "q", "options": ["a", "b"], "answer": "B"}
    for box, right in (
        {
            "B": True,
            r"\text{B}": True,
            "(B)": True,
            "B) b": True,
            "A": False,
            "Both": False,
        }
        | OTHER_LETTERS
    ).items():
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
