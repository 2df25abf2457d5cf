"""Questions: the table of data sets, and how a row becomes a prompt and a reference answer.

It neither tokenises nor applies a chat template (a Problem is text), never grades an answer, and leaves
files and the hub to `rows.py`.
"""

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import specdec
from specdec.errors import UserError
from specdec.questions import published, rows
from specdec.questions.published import GPQA_OPTIONS, published_prompt
from specdec.questions.rows import text, texts

SHORT, PUBLISHED = STYLES = ("short", "published")  # of prompts: ours, and the published program's
MAX_DEPTH = 50
BUNDLED_FILE = specdec.HOME / "assets" / "questions" / "bundled.jsonl"

# One wording for every data set of a kind: the bundled models are trained on exactly these sentences.
BOXED = "Think step by step and put the final answer in \\boxed{}."
LETTER = "Think step by step and put the letter of the right option in \\boxed{}."
CODE = "Think step by step and give the final code in a code block."


@dataclass(frozen=True)
class Problem:
    """One question.

    `question_id` is the row's index in its split, from 0 (published mt_bench: from row 60). `prompt` is the user turn,
    without a chat template. `reference` is the answer as a model would box it (gsm8k and aime: a number without
    thousands separators or leading zeros; math: as the data set has it; gpqa and mmlu: a letter), the canonical
    solution for code, None where there is none.
    `row` is the data set's row as plain builtins (gpqa: plus "option_order").
    """

    dataset: str
    question_id: int
    prompt: str
    reference: str | None
    row: dict


def load_problems(
    dataset: str,
    *,
    question_ids: Sequence[int] | None = None,
    num_questions: int | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    prompt_style: str = SHORT,
) -> list[Problem]:
    """The asked questions of a data set, in the asked order.

    `question_ids` are indices from 0 and win over `num_questions`, which takes that many from the first on; with
    neither, all. Rows come from DATA_DIR/NAME/SPLIT.jsonl, or from the Hugging Face hub without `data_dir`;
    `bundled` always comes with the program. `seed` shuffles gpqa's options.
    `prompt_style`: PUBLISHED asks with the published program's words, of its rows, gpqa's right answer first.
    Raises UserError: unknown data set, index out of range or given twice, hub unreachable, file missing or
    corrupt, row without a field that the prompt needs.
    """
    source, all_rows = _read_rows(dataset, data_dir, prompt_style)
    ids = _choose_ids(source, len(all_rows), question_ids, num_questions)
    try:
        return [make_problem(dataset, all_rows[i], i, seed, prompt_style) for i in ids]
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def make_problem(dataset: str, row: dict, question_id: int, seed: int = 0, prompt_style: str = SHORT) -> Problem:
    """Turns a data set's row into a Problem; any split with the same fields will do. The row is not changed.

    `make_problem("gsm8k", {"question": "1+1?", "answer": "It is 2.\\n#### 2"}, 0)` has the reference "2".
    Raises UserError that names the field a row lacks.
    """
    _known(dataset)
    try:
        row = _as_builtins(row)
        if dataset == "gpqa":
            row["option_order"] = option_order(seed, question_id) if prompt_style == SHORT else _AS_IN_THE_ROW
        prompt, reference = DATASETS[dataset].read(row)
        if prompt_style == PUBLISHED:
            prompt = published_prompt(dataset, row)
    except UserError as error:
        raise UserError(f"question {question_id} of {dataset} {error}") from error
    return Problem(dataset, question_id, prompt, reference, row)


def option_order(seed: int, question_id: int) -> list[int]:
    """The order of gpqa's options: entry i is what stands at the i-th letter, 0 the correct answer,
    1 to 3 the incorrect ones. Depends on nothing but the arguments, so a subset of questions, asked in
    any order, shows the same options.
    """
    order = list(_AS_IN_THE_ROW)
    random.Random(f"gpqa {seed} {question_id}").shuffle(order)
    return order


# --- how a row becomes (prompt, reference) ---

_AS_IN_THE_ROW = [0, 1, 2, 3]  # the right answer first
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _format_aime(row: dict) -> tuple[str, str | None]:
    return _ask(text(row, "problem"), BOXED), _plain_number(text(row, "answer"))


def _format_math(row: dict) -> tuple[str, str | None]:
    return _ask(text(row, "problem"), BOXED), text(row, "answer").strip() or None


def _format_gsm8k(row: dict) -> tuple[str, str | None]:
    _, found, result = text(row, "answer").rpartition("####")
    return _ask(text(row, "question"), BOXED), _plain_number(result) if found else None


def _format_gpqa(row: dict) -> tuple[str, str | None]:
    options = [text(row, GPQA_OPTIONS[i]) for i in row["option_order"]]
    return _ask_choice(text(row, "Question"), options), _LETTERS[row["option_order"].index(0)]


def _format_mmlu(row: dict) -> tuple[str, str | None]:
    options = texts(row, "options")
    letter = text(row, "answer").strip()
    if letter not in _LETTERS[: len(options)] or len(letter) != 1:
        raise UserError(f"has the answer {letter!r}, which is not a letter of its {len(options)} options")
    return _ask_choice(text(row, "question"), options), letter


def _format_humaneval(row: dict) -> tuple[str, str | None]:
    stub = text(row, "prompt").strip()
    question = f"Complete this Python function.\n```python\n{stub}\n```"
    return _ask(question, CODE), row.get("canonical_solution")


def _format_mt_bench(row: dict) -> tuple[str, str | None]:
    return texts(row, "turns")[0], texts(row, "reference")[0] if row.get("reference") else None


def _format_bundled(row: dict) -> tuple[str, str | None]:
    instructions = {"word_problem": BOXED, "algebra": BOXED, "code": CODE, "explanation": None}
    category, question = text(row, "category"), text(row, "question")
    if category not in instructions:
        raise UserError(f"has the unknown category {category!r} (known: {', '.join(instructions)})")
    return _ask(question, instructions[category]), row.get("answer")


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


@dataclass(frozen=True)
class Dataset:
    """Where a data set lives (`hub_name` is None when the questions come with the program), and how a row of it is
    read: (prompt, reference)."""

    hub_name: str | None
    hub_config: str | None
    split: str
    read: Callable[[dict], tuple[str, str | None]]


DATASETS: dict[str, Dataset] = {
    "aime": Dataset("HuggingFaceH4/aime_2024", None, "train", _format_aime),
    "math": Dataset("HuggingFaceH4/MATH-500", None, "test", _format_math),
    "gsm8k": Dataset("openai/gsm8k", "main", "test", _format_gsm8k),
    "gpqa": Dataset("Idavidrein/gpqa", "gpqa_diamond", "train", _format_gpqa),
    "humaneval": Dataset("openai/openai_humaneval", None, "test", _format_humaneval),
    "mt_bench": Dataset("philschmid/mt-bench", None, "train", _format_mt_bench),
    "mmlu": Dataset("TIGER-Lab/MMLU-Pro", None, "test", _format_mmlu),
    "bundled": Dataset(None, None, "test", _format_bundled),
}


# --- which rows ---


def _known(dataset: str) -> Dataset:
    if dataset not in DATASETS:
        raise UserError(f"unknown data set {dataset!r} (known: {', '.join(DATASETS)})")
    return DATASETS[dataset]


def _choose_ids(
    source: str, available: int, question_ids: Sequence[int] | None, num_questions: int | None
) -> Iterable[int]:
    if question_ids is not None:
        bad = [i for i in question_ids if not 0 <= i < available]
        if bad:
            raise UserError(f"{source} has {available} questions, 0 to {available - 1}: there is no question {bad[0]}")
        if len(set(question_ids)) < len(question_ids):
            raise UserError("the same question is asked twice: give every index of --question_ids once")
        return list(question_ids)
    if num_questions is None:
        return range(available)
    if not 1 <= num_questions <= available:
        raise UserError(f"{source} has {available} questions: --num_questions cannot be {num_questions}")
    return range(num_questions)


def _read_rows(dataset: str, data_dir: str | Path | None, prompt_style: str) -> tuple[str, list[dict]]:
    """(what to call the source in a message, its rows)."""
    entry, is_published = _known(dataset), prompt_style == PUBLISHED
    if entry.hub_name is None:
        return str(BUNDLED_FILE), rows.read_jsonl(BUNDLED_FILE)
    split = published.SPLITS.get(dataset, entry.split) if is_published else entry.split
    path = Path(data_dir or "") / dataset / f"{split}.jsonl"
    if data_dir is None:
        source, found = entry.hub_name, rows.read_hub(entry.hub_name, entry.hub_config, split, str(path))
    else:
        source, found = str(path), rows.read_jsonl(path)
    first = published.FIRST_ROWS.get(dataset, 0) if is_published else 0
    return (source if first == 0 else f"{source} from row {first} on"), found[first:]


def _as_builtins(row: dict) -> dict:
    """A deep copy of plain builtins: a record keeps the row, and records admit nothing else.

    Integers of more than 18 digits become text. Raises UserError for what no record could hold.
    """
    try:
        text = json.dumps(row, default=str, ensure_ascii=False)
        text.encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise UserError("has half a character or is nested too deep") from error
    if max(accumulate((c in "[{") - (c in "]}") for c in text)) > MAX_DEPTH:
        raise UserError("is nested too deep")
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 19 else digits)
