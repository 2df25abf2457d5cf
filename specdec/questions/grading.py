"""Grading: whether an answer is right, by its data set's own rule.

Math by the last box (`mathtext.py`), multiple choice by its letter, code by its tests (`sandbox.py`) and only where
the user allows it. It never asks a model, and says None where no rule decides.
"""

import ast
import re
from functools import lru_cache
from typing import Any

from specdec.errors import UserError
from specdec.questions import sandbox
from specdec.questions.answers.unicode import as_tex
from specdec.questions.mathtext import is_same_answer, last_boxed
from specdec.questions.own import is_own
from specdec.questions.references import agrees
from specdec.questions.sets import PUBLISHED, SHORT, make_problem
from specdec.records.record import Record

_MATH = ("math", "aime", "aime25", "gsm8k")
_CODE = ("humaneval", "mbpp")
_CHOICE = ("gpqa", "mmlu")
_BOXED_CATEGORIES = ("word_problem", "algebra")  # of the bundled questions
# What the published prompt of mmlu asks for in the place of a box.
_STATED = re.compile(r"answer is:?\s*\**\s*(\(?[A-Z]\)?)(?![A-Za-z])", re.IGNORECASE)
_TYPESET = re.compile(
    r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:text|math)[a-z]*|\\(?:[fm]?box|boxed|underline|left|right|bf|rm|quad)(?![a-z])"
    r"|\\(?i:large|huge)(?![a-z])|\\[,;!()]|[{}$*]"
)
_LETTER = re.compile(
    r"\s*(?:the\s+)?(?:(?:correct|right|best|final)\s+)?(?:(?:option|choice|answer|letter)\b(?:\s+is)?:?\s*)*"
    r"(?:\(([A-Z])\)|\[([A-Z])\]|([A-Z])(?:\)|\s?[.:](?=\s|$)|\s*$|(?=\s+(?:-\s+\S|\(.{2,}\)\s*$))))(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_MORE_LETTERS = re.compile(r"\s*(?:[,;/&]|and\b|or\b)\s*\(?[A-Z]\)?(?![A-Za-z])", re.IGNORECASE)


def is_correct(record: Record, *, run_code: bool = False) -> bool | None:
    """Whether the record's answer is right; None where its data set has no rule or the question no reference.

    An answer without a box (or the letter that it was to state; in gsm8k the data set's own "#### 18" is one), or cut
    before it, is wrong. The tests of humaneval and mbpp run only with `run_code`. Questions of one's own: see
    `references.py`.
    """
    dataset, row = record.identity.dataset, record.raw_data
    if dataset in _CODE:
        return _passes_tests(row, record.output_text, dataset) if run_code else None
    kind = _kind(dataset, row)
    reference = _reference(record) if kind else None
    if reference is None:
        return None
    if kind == "own":
        return agrees(record.output_text, reference)
    given = _given(record)
    if given is None:
        return False
    return _letter(given) == reference if kind == "choice" else is_same_answer(given, reference)


def check_can_run_code(dataset: str) -> None:
    """For `run_code`: raise UserError before any work where a data set of code is asked and there is no sandbox."""
    if dataset in _CODE:
        sandbox.passes("")


def _kind(dataset: str, row: dict[str, Any]) -> str | None:
    if is_own(dataset):
        return "own"
    if dataset in _CHOICE:
        return "choice"
    is_boxed = dataset in _MATH or (dataset == "bundled" and row.get("category") in _BOXED_CATEGORIES)
    return "boxed" if is_boxed else None


def _reference(record: Record) -> str | None:
    """The right answer, from the row that the record keeps."""
    seed, dataset = record.identity.settings.get("seed", 0), record.identity.dataset
    try:
        return make_problem(dataset, record.raw_data, record.question_id, seed, _style(record)).reference
    except UserError:  # a row of another shape: nothing to grade by
        return None


def _given(record: Record) -> str | None:
    """What the record's answer says: its last box, or what its data set has for one."""
    text, dataset = record.output_text, record.identity.dataset
    if dataset == "mmlu" and _style(record) == PUBLISHED and (stated := _STATED.findall(text)):
        return str(stated[-1]).upper()
    boxed = last_boxed(text)
    return _after_marks(text) if boxed is None and dataset == "gsm8k" else boxed


def _style(record: Record) -> str:
    """How it was asked; records that do not say are older than the choice."""
    return str(record.identity.settings.get("prompt_style", SHORT))


def _after_marks(text: str) -> str | None:
    """What gsm8k's own solutions end with: the line after the last ####."""
    _, found, rest = text.rpartition("####")
    return (rest.strip().splitlines() or [""])[0].strip() or None if found else None


def _letter(answer: str) -> str | None:
    r"""The letter of an option: "B" of "B", "b", "(B)", "\text{B}", "Option B" and "B) the second"; None for two."""
    found = _LETTER.match(_TYPESET.sub("", as_tex(answer[:1000]).replace("\\ ", " ").replace("~", " ")))
    letter = "" if found is None else found[1] or found[2] or found[3]
    if found is None or _MORE_LETTERS.match(found["rest"]) or (letter.islower() and found["rest"].strip()):
        return None
    return str(letter).upper()


def _passes_tests(row: dict[str, Any], text: str, dataset: str = "humaneval") -> bool | None:
    """Whether an answer's program passes the tests of its row; None for a row without tests."""
    task = _task(dataset, row, text)
    return None if task is None else _run(task)


def _task(dataset: str, row: dict[str, Any], text: str) -> sandbox.Task | None:
    """What is run to grade an answer; None for a row without tests."""
    if dataset == "mbpp":
        return _mbpp_task(row, text)
    stub, tests, function = (row.get(name) for name in ("prompt", "test", "entry_point"))
    if not (isinstance(stub, str) and isinstance(tests, str) and isinstance(function, str)):
        return None
    return sandbox.Task(text, stub, tests, function)


def _mbpp_task(row: dict[str, Any], text: str) -> sandbox.Task | None:
    """mbpp's tests are lines that call a function of the solution's by its name."""
    code, lines, imports = (row.get(name) for name in ("code", "test_list", "test_imports"))
    if not (isinstance(code, str) and isinstance(lines, list) and all(isinstance(one, str) for one in lines)):
        return None
    try:
        defined = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    function = next((name for name in reversed(defined) if re.search(rf"\b{name}\(", "\n".join(lines))), None)
    if function is None:
        return None
    body = [f"{function} = candidate", *(line for one in lines for line in one.splitlines())]
    before = [one for one in imports or () if isinstance(one, str)]
    return sandbox.Task(
        text, "", "\n".join([*before, "def check(candidate):", *(f"    {one}" for one in body)]), function
    )


@lru_cache(maxsize=4096)
def _run(task: sandbox.Task) -> bool:
    """One run for all drafters that wrote the same."""
    return sandbox.passes(task)
