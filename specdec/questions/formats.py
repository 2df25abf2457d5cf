"""Formats: how a row of each data set is asked, in its own fields, and what its right answer is.

Which rows, from where, is in `sets.py`; questions of one's own are in `own.py`. Of any data set a row may also be
as benchmarks of speculative decoding hand it on: a list of `turns` as they are asked, and nothing else.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from specdec.errors import UserError
from specdec.questions.problem import Message
from specdec.questions.published import GPQA_OPTIONS
from specdec.questions.rows import text, texts

# One wording for every data set of a kind: the bundled models are trained on exactly these sentences.
BOXED = "Think step by step and put the final answer in \\boxed{}."
LETTER = "Think step by step and put the letter of the right option in \\boxed{}."
CODE = "Think step by step and give the final code in a code block."
# What SPEED-Bench has in the place of a text whose licence forbids to hand it on.
_PLACEHOLDER = "FULL BENCHMARK DATA SHOULD BE FETCHED"


@dataclass(frozen=True)
class Asked:
    """What a row asks, turn by turn: prompts with their references, and what was said `before` them."""

    turns: tuple[tuple[str, str | None], ...]
    before: tuple[Message, ...] = ()


Reading = Callable[[dict[str, Any]], Asked]


def single(prompt: str, reference: str | None) -> Asked:
    """A question of one turn."""
    return Asked(((prompt, reference),))


def turns(row: dict) -> Asked:
    """All of `turns` as they are, without an answer."""
    prompts = texts(row, "turns")
    if any(one.startswith(_PLACEHOLDER) for one in prompts):
        raise UserError("is a placeholder: let the data set's own prepare_data.py fetch its text, and give --data_dir")
    return Asked(tuple((prompt, None) for prompt in prompts))


RIGHT_FIRST = [0, 1, 2, 3]  # an order of gpqa's options: as in the row
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def option_order(seed: int, question_id: int) -> list[int]:
    """The order of gpqa's options: entry i is what stands at the i-th letter, 0 the correct answer,
    1 to 3 the incorrect ones. Depends on nothing but the arguments, so a subset of questions, asked in
    any order, shows the same options.
    """
    order = list(RIGHT_FIRST)
    random.Random(f"gpqa {seed} {question_id}").shuffle(order)
    return order


def aime(row: dict) -> Asked:
    return single(_ask(text(row, "problem"), BOXED), _plain_number(text(row, "answer")))


def math(row: dict) -> Asked:
    return single(_ask(text(row, "problem"), BOXED), text(row, "answer").strip() or None)


def gsm8k(row: dict) -> Asked:
    _, found, result = text(row, "answer").rpartition("####")
    return single(_ask(text(row, "question"), BOXED), _plain_number(result) if found else None)


def gpqa(row: dict) -> Asked:
    options = [text(row, GPQA_OPTIONS[i]) for i in row["option_order"]]
    return single(_ask_choice(text(row, "Question"), options), _LETTERS[row["option_order"].index(0)])


def mmlu(row: dict) -> Asked:
    options = texts(row, "options")
    letter = text(row, "answer").strip()
    if letter not in _LETTERS[: len(options)] or len(letter) != 1:
        raise UserError(f"has the answer {letter!r}, which is not a letter of its {len(options)} options")
    return single(_ask_choice(text(row, "question"), options), letter)


def humaneval(row: dict) -> Asked:
    stub = text(row, "prompt").strip()
    question = f"Complete this Python function.\n```python\n{stub}\n```"
    return single(_ask(question, CODE), row.get("canonical_solution"))


def mt_bench(row: dict) -> Asked:
    answers = texts(row, "reference") if row.get("reference") else []
    return Asked(tuple(zip_longest(texts(row, "turns"), answers[: len(row["turns"])])))


def bundled(row: dict) -> Asked:
    instructions = {"word_problem": BOXED, "algebra": BOXED, "code": CODE, "explanation": None}
    category, question = text(row, "category"), text(row, "question")
    if category not in instructions:
        raise UserError(f"has the unknown category {category!r} (known: {', '.join(instructions)})")
    return single(_ask(question, instructions[category]), row.get("answer"))


def mbpp(row: dict) -> Asked:
    """Its tests say what the function is called, so they are shown."""
    tests = "\n".join(texts(row, "test_list"))
    task = text(row, "prompt" if "prompt" in row else "text").strip()
    return single(_ask(f"{task}\nThe code must pass these tests:\n```python\n{tests}\n```", CODE), row.get("code"))


def livecodebench(row: dict) -> Asked:
    stub = row.get("starter_code")
    how = f"Start with this code:\n```python\n{stub.strip()}\n```" if stub else "Read from stdin and write to stdout."
    return single(_ask(f"{text(row, 'question_content').strip()}\n\n{how}", CODE), None)


def alpaca(row: dict) -> Asked:
    more = row.get("input")
    return single("\n\n".join(filter(None, [text(row, "instruction").strip(), (more or "").strip()])), None)


def swe_bench(row: dict) -> Asked:
    task = f"An issue of the repository {text(row, 'repo')}:\n\n{text(row, 'problem_statement').strip()}"
    return single(f"{task}\n\nFind the cause, and give a patch that mends it.", None)


def _ask(question: str, instruction: str | None) -> str:
    return f"{question.strip()}\n{instruction}" if instruction else question.strip()


def _ask_choice(question: str, options: list[str]) -> str:
    lines = [f"{letter}) {option.strip()}" for letter, option in zip(_LETTERS, options, strict=False)]
    return _ask("\n".join([question.strip(), *lines]), LETTER)


def _plain_number(answer: str) -> str | None:
    """1,080 becomes 1080, 025 becomes 25, nothing becomes None; anything but a whole number stays."""
    answer = answer.strip()
    digits = answer.replace(",", "")
    if digits.isascii() and digits.isdigit():
        return str(int(digits))
    return answer or None
