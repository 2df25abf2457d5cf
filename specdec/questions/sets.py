"""Questions: the table of data sets, and which of their rows are asked.

How a row becomes a prompt and a reference is in `formats.py`, or in `own.py` for files of one's own. It neither
tokenises nor applies a chat template (a Problem is text), never grades an answer, and leaves files and the hub to
`rows.py`.
"""

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import specdec
from specdec.errors import UserError
from specdec.questions import formats, own, published, rows
from specdec.questions.formats import Asked, Reading
from specdec.questions.problem import Problem
from specdec.questions.published import published_prompt
from specdec.records.turns import row_of, turn_of

SHORT, PUBLISHED = STYLES = ("short", "published")  # of prompts: ours, and the published program's
FIRST, ALL = TURNS = ("first", "all")
MAX_DEPTH = 50
BUNDLED_FILE = specdec.HOME / "assets" / "questions" / "bundled.jsonl"


@dataclass(frozen=True)
class Dataset:
    """Where a data set lives (`hub_name` is None when the questions come with the program), and how a row of it is
    read.

    In --data_dir its rows are in DIR/NAME/SPLIT.jsonl, or, as a list of turns each, in DIR/NAME/turns.jsonl.
    `turns`: which of them are asked unless the user says otherwise. `hub_files`: of a repository that is read file by
    file, for its loading is a program. `left_out`: fields of a row that are too large for a record.
    """

    hub_name: str | None
    hub_config: str | None
    split: str
    read: Reading
    turns: str = ALL
    hub_files: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


_LIVECODEBENCH = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl")

DATASETS: dict[str, Dataset] = {
    "aime": Dataset("HuggingFaceH4/aime_2024", None, "train", formats.aime),
    "math": Dataset("HuggingFaceH4/MATH-500", None, "test", formats.math),
    "gsm8k": Dataset("openai/gsm8k", "main", "test", formats.gsm8k),
    "gpqa": Dataset("Idavidrein/gpqa", "gpqa_diamond", "train", formats.gpqa),
    "humaneval": Dataset("openai/openai_humaneval", None, "test", formats.humaneval),
    "mt_bench": Dataset("philschmid/mt-bench", None, "train", formats.mt_bench, FIRST),
    "mmlu": Dataset("TIGER-Lab/MMLU-Pro", None, "test", formats.mmlu),
    "mbpp": Dataset("google-research-datasets/mbpp", "sanitized", "test", formats.mbpp),
    "aime25": Dataset("MathArena/aime_2025", None, "train", formats.aime),
    "livecodebench": Dataset(
        "livecodebench/code_generation_lite",
        None,
        "test",
        formats.livecodebench,
        hub_files=_LIVECODEBENCH,
        left_out=("private_test_cases",),
    ),
    "spec_bench": Dataset("hemingkx/Spec-Bench", None, "question", formats.turns),
    "speed_bench": Dataset("nvidia/SPEED-Bench", "qualitative", "test", formats.turns),
    "alpaca": Dataset("tatsu-lab/alpaca", None, "train", formats.alpaca),
    "swe_bench": Dataset("princeton-nlp/SWE-bench_Lite", None, "test", formats.swe_bench),
    "bundled": Dataset(None, None, "test", formats.bundled),
}


def dataset_name(given: str) -> str:
    """What a data set is called in paths, identities and tables: a name of the table, or the name of a file or folder
    of one's own. Raises UserError for one that is neither."""
    if given in DATASETS:
        return given
    name = own.name_of(given)
    if name is not None:
        return name
    near = difflib.get_close_matches(given, DATASETS, 1)
    advice = f"did you mean {near[0]}? " if near else ""
    known = f"known: {', '.join(DATASETS)}; or give a .jsonl file, or a folder of them"
    raise UserError(f"unknown data set {given!r} ({advice}{known})")


def load_problems(
    dataset: str,
    *,
    question_ids: Sequence[int] | None = None,
    num_questions: int | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    prompt_style: str = SHORT,
) -> list[Problem]:
    """The asked questions of a data set, or of a file or folder of one's own, in the asked order: their first turns,
    with those that follow (`Problem.later`).

    `question_ids` are indices from 0 and win over `num_questions`, which takes that many from the first on; with
    neither, all. Rows come from DATA_DIR/NAME/SPLIT.jsonl, or from the Hugging Face hub without `data_dir`;
    `bundled` always comes with the program. `seed` shuffles gpqa's options.
    `prompt_style`: PUBLISHED asks with the published program's words, of its rows, gpqa's right answer first.
    Raises UserError: unknown data set, index out of range or given twice, hub unreachable, file missing or
    corrupt, row without a field that the prompt needs.
    """
    name = dataset_name(dataset)
    if own.is_own(name):
        return _own_problems(name, Path(dataset).expanduser(), question_ids, num_questions, prompt_style)
    source, all_rows = _read_rows(dataset, data_dir, prompt_style)
    ids = _choose_ids(source, len(all_rows), question_ids, num_questions)
    try:
        return [make_problem(dataset, all_rows[i], i, seed, prompt_style) for i in ids]
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def make_problem(
    dataset: str, row: dict, question_id: int, seed: int = 0, prompt_style: str = SHORT, place: str = ""
) -> Problem:
    """Turns a data set's row into a Problem; any split with the same fields will do. The row is not changed.

    `make_problem("gsm8k", {"question": "1+1?", "answer": "It is 2.\\n#### 2"}, 0)` has the reference "2".
    Raises UserError that names the field a row lacks. Of a later turn's `question_id` it is that turn, as if the
    answers before it were empty.
    """
    try:
        row = _as_builtins(row)
        asked = _read(dataset, row, row_of(question_id), seed, prompt_style)
    except UserError as error:
        raise UserError(f"{place}: {error}" if place else f"question {question_id} of {dataset} {error}") from error
    (prompt, reference), *later = asked.turns
    first = Problem(dataset, row_of(question_id), prompt, reference, row, asked.before, tuple(later), place)
    if turn_of(question_id) >= len(asked.turns):
        raise UserError(f"question {question_id} of {dataset} has {len(asked.turns)} turns")
    return first.turns[turn_of(question_id)]


def _read(dataset: str, row: dict, index: int, seed: int, prompt_style: str) -> Asked:
    if own.is_own(dataset):
        if prompt_style == PUBLISHED:
            raise UserError("has no published prompt: leave out --prompt_style")
        return own.read(row)
    if dataset == "gpqa":
        row["option_order"] = formats.option_order(seed, index) if prompt_style == SHORT else formats.RIGHT_FIRST
    asked = formats.turns(row) if row.keys() == {"turns"} else _known(dataset).read(row)
    if prompt_style == SHORT:
        return asked
    (_, reference), *later = asked.turns
    return Asked(((published_prompt(dataset, row), reference), *later))


def _known(dataset: str) -> Dataset:
    if dataset not in DATASETS:
        raise UserError(f"unknown data set {dataset!r} (known: {', '.join(DATASETS)})")
    return DATASETS[dataset]


# --- which rows ---


def _own_problems(
    name: str, path: Path, question_ids: Sequence[int] | None, num_questions: int | None, prompt_style: str
) -> list[Problem]:
    """Every row is read, whichever are asked: a mistake in one is likely to stand in others."""
    found = own.read_rows(path)
    problems = [
        make_problem(name, row, at, prompt_style=prompt_style, place=place) for at, (place, row) in enumerate(found)
    ]
    return [problems[i] for i in _choose_ids(str(path), len(problems), question_ids, num_questions)]


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
    folder = Path(data_dir or "") / dataset
    path, plain = folder / f"{split}.jsonl", folder / "turns.jsonl"
    if data_dir is None:
        where = rows.HubSplit(entry.hub_name, entry.hub_config, split, entry.hub_files)
        source, found = entry.hub_name, rows.read_hub(where, str(path))
    else:
        path = plain if plain.is_file() and not path.exists() else path
        source, found = str(path), rows.read_jsonl(path)
    found = [{key: value for key, value in row.items() if key not in entry.left_out} for row in found]
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
