"""Where training prompts come from: the training questions of GSM8K and MATH, and files of prompts.

It is not a tokenizer and knows nothing of models; prompts come from specdec.questions.sets, so that training and
benchmark ask in the same words.
"""

import argparse
import random
import re
from dataclasses import dataclass
from pathlib import Path

from specdec.errors import UserError
from specdec.questions.rows import read_jsonl
from specdec.questions.sets import make_problem

DATASETS = ("gsm8k", "math")
HELD_BACK = 100  # the last rows of each training split, never trained on: settings such as tau are chosen on them
_CALCULATION = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"\d+")
_SENTENCE_END = re.compile(r"(?<=[.?!]) ")
NEIGHBOURS = 500  # rows: questions this near are from the same data set, and mostly on the same subject


@dataclass(frozen=True)
class Example:
    """One training document as text: what the user asks and what the assistant should answer."""

    prompt: str
    answer: str


def gsm8k_answer(answer: str) -> str:
    r"""GSM8K's answer as a model should write it: no calculator marks, the result in \boxed{}.

    >>> gsm8k_answer("5+5 = <<5+5=10>>10\n#### 1,000")
    '5+5 = 10\nThe answer is \\boxed{1000}.'
    """
    reasoning, mark, result = _CALCULATION.sub("", answer).rpartition("####")
    if not mark:
        raise UserError("a GSM8K answer has no '####' line: use the data set's original rows")
    return f"{reasoning.strip()}\nThe answer is \\boxed{{{result.strip().replace(',', '')}}}."


def with_other_numbers(text: str, rng: random.Random) -> str:
    """`text` with every number replaced by a random one of as many digits, equal ones alike.

    New questions at no cost: drafters learn from the target's own answers, which need not be right.
    "7 of 30, then 7" may become "4 of 52, then 4".
    """
    drawn: dict[str, str] = {}

    def replacement(match: re.Match) -> str:
        number = match.group()
        lowest = 2 if len(number) == 1 else 10 ** (len(number) - 1)
        return drawn.setdefault(number, str(rng.randint(lowest, 10 ** len(number) - 1)))

    return _NUMBER.sub(replacement, text)


def with_other_sentence(text: str, other: str, rng: random.Random) -> str:
    """`text` with one sentence of its first paragraph from `other`'s; as it is when either has one sentence only.

    "Ann has 2 cats. Bob has 3. How many have both?" may become "Ann has 2 cats. He eats 5 pies. How many have both?".
    """
    paragraph, mark, rest = text.partition("\n")
    sentences, others = (_SENTENCE_END.split(part) for part in (paragraph, other.partition("\n")[0]))
    if min(len(sentences), len(others)) > 1:
        sentences[rng.randrange(len(sentences))] = rng.choice(others)
    return " ".join(sentences) + mark + rest


def read_rows(path: Path, flag: str = f"--data_dir needs NAME/train.jsonl for {' and '.join(DATASETS)}") -> list[dict]:
    """`read_jsonl`, but `flag` says what to give instead of a missing file."""
    if not path.is_file():
        raise UserError(f"no file {path}: {flag}")
    return read_jsonl(path)


def make_example(dataset: str, row: dict, question_id: int) -> Example:
    """One row of `dataset` (gsm8k or math) as an Example."""
    key = "answer" if dataset == "gsm8k" else "solution"
    if not isinstance(row.get(key), str):
        raise UserError(f"question {question_id} of {dataset} has no text {key!r}: use the data set's original rows")
    answer = gsm8k_answer(row[key]) if dataset == "gsm8k" else row[key].strip()
    return Example(make_problem(dataset, row, question_id).prompt, answer)


def load_examples(data_dir: Path, limit: int | None = None) -> list[Example]:
    """The examples of DATA_DIR/{gsm8k,math}/train.jsonl, at most `limit` of each, without the last HELD_BACK rows."""
    examples = []
    for dataset in DATASETS:
        rows = read_rows(Path(data_dir) / dataset / "train.jsonl")
        rows = rows[: max(1, len(rows) - HELD_BACK)][:limit]
        examples += [make_example(dataset, row, number) for number, row in enumerate(rows)]
    return examples


def with_variants(prompts: list[str], num_variants: int, seed: int, num_mixed: int = 0) -> list[str]:
    """The prompts, copies of them with other numbers, and `num_mixed` copies with a neighbour's sentence as well."""
    rng = random.Random(seed)
    found = [*prompts, *(with_other_numbers(prompt, rng) for _ in range(num_variants) for prompt in prompts)]
    for number, prompt in list(enumerate(prompts)) * num_mixed:
        other = prompts[(number + rng.randint(-NEIGHBOURS, NEIGHBOURS)) % len(prompts)]
        found.append(with_other_numbers(with_other_sentence(prompt, other, rng), rng))
    return found


def add_prompt_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which prompts a target is asked; see read_prompts."""
    parser.add_argument("--data_dir", type=Path, help="prompts from the GSM8K and MATH training questions here")
    parser.add_argument("--prompt_file", type=Path, nargs="+", help='JSON lines, each {"prompt": "..."}')

    parser.add_argument("--num_variants", type=int, default=0, help="copies of all of them with other numbers")
    parser.add_argument("--num_mixed", type=int, default=0, help="copies with another prompt's sentence as well")


def split_prompts(arguments: argparse.Namespace, num_held: int) -> tuple[list[str], list[str]]:
    """All prompts asked for, and `num_held` that are not among them: of the data sets the last rows, which are never
    trained on, else the last prompts of the files. UserError where that leaves too few."""
    if num_held < 1:
        raise UserError(f"--held_back {num_held}: give at least 1")
    if arguments.data_dir:
        each = -(-num_held // len(DATASETS))
        held = [text for dataset in DATASETS for text in held_back_prompts(arguments.data_dir, dataset)[:each]]
        if len(held) < num_held:
            raise UserError(f"{arguments.data_dir} has {len(held)} rows to hold back, not {num_held}: give more rows")
        return read_prompts(arguments), held[:num_held]
    own = _own_prompts(arguments)
    if len(own) < 2 * num_held:
        raise UserError(
            f"{len(own)} prompts are too few to hold {num_held} back: give more, or --held_back {len(own) // 2}"
        )
    return _with_copies(arguments, own[:-num_held]), own[-num_held:]


def prompts_beside(arguments: argparse.Namespace, num_held: int) -> list[str]:
    """What `split_prompts` asks, and nothing of what it holds back; all of a file that is too short to hold any back.
    Drafters that hold nothing back are made of it, so that heads can be made of the same answers."""
    own = _own_prompts(arguments)
    has_held = not arguments.data_dir and num_held > 0 and len(own) >= 2 * num_held
    return _with_copies(arguments, own[:-num_held] if has_held else own)


def held_back_prompts(data_dir: Path, dataset: str) -> list[str]:
    """The prompts of a data set's last training rows, which nothing is trained on."""
    rows = read_rows(Path(data_dir) / dataset / "train.jsonl")
    first = max(1, len(rows) - HELD_BACK)
    return [make_problem(dataset, row, first + number).prompt for number, row in enumerate(rows[first:])]


def read_prompts(arguments: argparse.Namespace) -> list[str]:
    """All prompts asked for on the command line. UserError for none, an empty or a damaged file."""
    return _with_copies(arguments, _own_prompts(arguments))


def _with_copies(arguments: argparse.Namespace, prompts: list[str]) -> list[str]:
    for name in ("num_variants", "num_mixed"):
        if getattr(arguments, name) < 0:
            raise UserError(f"--{name} {getattr(arguments, name)}: give 0 or more")
    return with_variants(prompts, arguments.num_variants, arguments.seed, arguments.num_mixed)


def _own_prompts(arguments: argparse.Namespace) -> list[str]:
    if not arguments.data_dir and not arguments.prompt_file:
        raise UserError("no prompts: give --data_dir or --prompt_file, or both")
    examples = load_examples(arguments.data_dir) if arguments.data_dir else []
    prompts = [example.prompt for example in examples]
    for path in arguments.prompt_file or ():
        rows = read_rows(path, "--prompt_file needs JSON lines")
        if any(not isinstance(row.get("prompt"), str) or not row["prompt"].strip() for row in rows):
            raise UserError(f'{path}: every line must be {{"prompt": "..."}}, and not empty')
        prompts += [row["prompt"] for row in rows]
    return prompts
