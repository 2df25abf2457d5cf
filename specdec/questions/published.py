"""The published program's prompts, word for word with their blanks, so that runs of both see the same tokens.

Beside them what else it asks differently: other rows, another order of options. References and grading are ours. The
instructions are facts of its format (arXiv 2512.20573); nothing else here is taken from it.
"""

from specdec.errors import UserError
from specdec.questions.rows import text, texts

SPLITS = {"mmlu": "validation"}  # where it is not ours
FIRST_ROWS = {"mt_bench": 60}  # what its question 0 is
GPQA_OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")  # A to D

_BLANKS = " " * 8  # before every line, as its source is indented


def _indented(*lines: str) -> str:
    return "\n" + "".join(f"{_BLANKS}{line}\n" for line in lines) + _BLANKS


def _boxed(what: str) -> str:
    return _indented(
        f"Solve the following {what} efficiently and clearly. Please reason step by step, ",
        "separate logical reasoning steps with two newline characters (\n\n), "
        "and put your final answer within \\boxed{{}}.",
        "Problem: {problem}",
    )


_MATH, _ANY = _boxed("math problem"), _boxed("problem")
_CHOICE = _indented(
    "What is the correct answer to the following problem? Please reason step by step. ",
    "Separate logical reasoning steps with two newline characters (\n\n).",
    "Put the final answer **strictly** in the format \\boxed{{X}}, where X is a single letter (A, B, C, or D).\n",
    "**Example output:** \\boxed{{A}}\n",
    "Problem: {problem}.",
    "Choices: ",
    *(f"({letter}) {{{letter}}}" for letter in "ABCD"),
)
_STATED_CHOICE = _indented(
    "The following is multiple choice question (with answers) about {category}.",
    'Think step by step and then finish your answer with "the answer is (X)" where X is the correct letter choice.',
    "",
    "Question: {problem}",
    "Choices: {options}",
)
_CODE = _indented(
    "Think step by step and then please provide an efficient and self-contained Python script that solves the "
    "following problem in a markdown code block:",
    "```",
    "{problem}",
    "```",
)
# Data set -> its prompt, and the field that holds the question.
_SIMPLE = {
    "aime": (_MATH, "problem"),
    "math": (_MATH, "problem"),
    "gsm8k": (_MATH, "question"),
    "humaneval": (_CODE, "prompt"),
}
# It does not know the bundled questions: each kind is asked as the data set of its kind.
_BUNDLED = {"word_problem": _MATH, "algebra": _MATH, "code": _CODE, "explanation": _ANY}


def published_prompt(dataset: str, row: dict) -> str:
    """The user turn of a data set's row. Raises UserError for a lacking field, or a data set that it has no prompt
    for."""
    if dataset in _SIMPLE:
        prompt, field = _SIMPLE[dataset]
        return prompt.format(problem=text(row, field))
    if dataset == "gpqa":
        options = zip("ABCD", GPQA_OPTIONS, strict=True)
        return _CHOICE.format(problem=text(row, "Question"), **{letter: text(row, name) for letter, name in options})
    if dataset == "mmlu":
        known = {"category": text(row, "category"), "options": texts(row, "options")}
        return _STATED_CHOICE.format(problem=text(row, "question"), **known)
    if dataset == "mt_bench":
        return _ANY.format(problem=texts(row, "turns")[0])
    if dataset == "bundled":
        return _BUNDLED[text(row, "category")].format(problem=text(row, "question"))
    raise UserError("has no published prompt: leave out --prompt_style")
