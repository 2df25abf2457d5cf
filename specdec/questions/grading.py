"""Grading: whether an answer is right, by its data set's own rule.

Math by the last box (`mathtext.py`), multiple choice by its letter, code by its tests (`sandbox.py`) and only where
the user allows it. It never asks a model, and says None where no rule decides.
"""

import re
from functools import lru_cache
from typing import Any

from specdec.errors import UserError
from specdec.questions import sandbox
from specdec.questions.mathtext import is_same_answer, last_boxed
from specdec.questions.sets import make_problem
from specdec.records.record import Record

_MATH = ("math", "aime", "gsm8k")
_CHOICE = ("gpqa", "mmlu")
_BOXED_CATEGORIES = ("word_problem", "algebra")  # of the bundled questions
_LETTER = re.compile(r"\(?([A-Z])\)?(?![A-Za-z])")


def is_correct(record: Record, *, run_code: bool = False) -> bool | None:
    """Whether the record's answer is right; None where its data set has no rule or the question no reference.

    An answer without a box, or cut before it, is wrong. humaneval's tests run only with `run_code`.
    """
    dataset, row = record.identity.dataset, record.raw_data
    if dataset == "humaneval":
        return _passes_tests(row, record.output_text) if run_code else None
    kind = _kind(dataset, row)
    reference = _reference(record) if kind else None
    if reference is None:
        return None
    given = last_boxed(record.output_text)
    if given is None:
        return False
    return _letter(given) == reference if kind == "choice" else is_same_answer(given, reference)


def check_can_run_code(dataset: str) -> None:
    """For `run_code`: raise UserError before any work where a data set of code is asked and there is no sandbox."""
    if dataset == "humaneval":
        sandbox.passes("")


def _kind(dataset: str, row: dict[str, Any]) -> str | None:
    if dataset in _CHOICE:
        return "choice"
    is_boxed = dataset in _MATH or (dataset == "bundled" and row.get("category") in _BOXED_CATEGORIES)
    return "boxed" if is_boxed else None


def _reference(record: Record) -> str | None:
    """The right answer, from the row that the record keeps."""
    seed = record.identity.settings.get("seed", 0)
    try:
        return make_problem(record.identity.dataset, record.raw_data, record.question_id, seed).reference
    except UserError:  # a row of another shape: nothing to grade by
        return None


def _letter(answer: str) -> str | None:
    r"""The letter of an option: "B" of "B", "(B)", "\text{B}" and "B) the second"."""
    found = _LETTER.match(re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{|[{}$\s.]", "", answer))
    return found[1] if found else None


def _passes_tests(row: dict[str, Any], text: str) -> bool | None:
    stub, tests, function = (row.get(name) for name in ("prompt", "test", "entry_point"))
    if not (isinstance(stub, str) and isinstance(tests, str) and isinstance(function, str)):
        return None
    return _run(sandbox.Task(text, stub, tests, function))


@lru_cache(maxsize=4096)
def _run(task: sandbox.Task) -> bool:
    """One run for all drafters that wrote the same."""
    return sandbox.passes(task)
