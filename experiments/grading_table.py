"""Which grader calls right what is right and wrong what is wrong, over every reference answer of the math data sets.

    python -m experiments.grading_table --data_dir DIR [--splits NAME ...] [--graders NAME ...]

Each reference of the .jsonl files of `SPLITS` under DIR is rewritten in every way of `rewritings/`, put into a box, and
graded against itself. `ours` is the program's own reading, `composed` what the program does (ours, and math-verify on
what ours does not understand), `math_verify` math-verify alone, `either` what one of them takes. Equal references are
graded once and counted as often as they occur. The last line on stdout is JSON: per data set, rewriting and grader the
number graded, skipped (not defined for the reference) and wrong.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.rewritings import CHANGING, KEEPING, Rewriting, text_of
from profiling.common import parser_of, run_command
from specdec.errors import UserError
from specdec.questions import second_opinion
from specdec.questions.answers.readings import readings_of
from specdec.questions.answers.same import is_any_same
from specdec.questions.mathtext import is_same_answer, last_boxed
from specdec.questions.rows import read_jsonl
from specdec.questions.sets import make_problem

Grader = Callable[[str, str], bool]
SPLITS = {
    "MATH-500": ("math", "math/test.jsonl"),
    "MATH train": ("math", "math/train.jsonl"),
    "GSM8K test": ("gsm8k", "gsm8k/test.jsonl"),
    "GSM8K train": ("gsm8k", "gsm8k/train.jsonl"),
    "AIME 2024": ("aime", "aime/train.jsonl"),
}
NUM_EXAMPLES = 3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.grading_table", __doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with math/, gsm8k/, aime/")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="default: all")
    parser.add_argument("--graders", nargs="+", choices=sorted(GRADERS), help="default: all that are installed")
    return run_command(parser, measure, arguments)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """The whole table. UserError where no data set is found, or math-verify is asked for and not installed."""
    graders = flags.graders or [name for name in GRADERS if name == "ours" or second_opinion.is_installed()]
    if graders != ["ours"] and not second_opinion.is_installed():
        raise UserError("math-verify is not installed: pip install -r requirements-grade.txt, or --graders ours")
    references = {name: counted(flags.data_dir, *where) for name, where in SPLITS.items() if name in flags.splits}
    found = {name: counts for name, counts in references.items() if counts}
    if not found:
        raise UserError(f"{flags.data_dir} has none of {', '.join(path for _, path in SPLITS.values())}")
    tables = table_of(graders, found)
    return {
        "what": "answers graded wrongly, per data set, rewriting and grader",
        "num_references": {name: counts.total() for name, counts in found.items()},
        "not_found": sorted(references.keys() - found.keys()),
        "num_rewritings": {"keeping": len(KEEPING), "changing": len(CHANGING)},
        "totals": {grader: totals(tables, grader) for grader in graders},
        "data_sets": tables,
        "math_verify": second_opinion.version(),
    }


def counted(data_dir: Path, dataset: str, path: str) -> Counter[str]:
    """How often each reference occurs; nothing where the file is missing."""
    if not (data_dir / path).is_file():
        return Counter()
    rows = read_jsonl(data_dir / path)
    references = [make_problem(dataset, row, at).reference for at, row in enumerate(rows)]
    return Counter(reference for reference in references if reference)


def table_of(graders: Sequence[str], found: dict[str, Counter[str]]) -> dict[str, Any]:
    """Per data set and rewriting: graded, skipped, and how many each grader has wrong, with examples."""
    tables: dict[str, Any] = {name: {} for name in found}
    rewritings = [(one, keeps) for ones, keeps in ((KEEPING, True), (CHANGING, False)) for one in ones]
    for rewriting, keeps in tqdm(rewritings, desc="rewritings", disable=None):
        verdicts: dict[str, dict[str, bool]] = {}
        for name, counts in found.items():
            tables[name][rewriting.__name__] = row_of(rewriting, keeps, counts, graders, verdicts)
    return tables


def row_of(
    rewriting: Rewriting,
    keeps: bool,
    counts: Counter[str],
    graders: Sequence[str],
    verdicts: dict[str, dict[str, bool]],
) -> dict[str, Any]:
    """One line of the table: of wrong ones, those graders that have some. `verdicts` are those on references of other
    data sets, and are added to."""
    wrong: Counter[str] = Counter()
    examples: dict[str, list[list[str]]] = {}
    num_graded = 0
    for reference, times in counts.items():
        text = text_of(rewriting, reference)
        if text is None:
            continue
        num_graded += times
        if reference not in verdicts:
            given = last_boxed(text)
            verdicts[reference] = {one: given is not None and GRADERS[one](given, reference) for one in graders}
        for grader, verdict in verdicts[reference].items():
            if verdict != keeps:
                wrong[grader] += times
                examples.setdefault(grader, []).append([text, reference])
    return {
        "keeps": keeps,
        "graded": num_graded,
        "skipped": counts.total() - num_graded,
        "wrong": dict(wrong),
        "examples": {grader: found[:NUM_EXAMPLES] for grader, found in examples.items()},
    }


def totals(tables: dict[str, Any], grader: str) -> dict[str, int]:
    rows = [row for table in tables.values() for row in table.values()]
    return {
        "kept": sum(row["graded"] for row in rows if row["keeps"]),
        "false_negatives": sum(row["wrong"].get(grader, 0) for row in rows if row["keeps"]),
        "changed": sum(row["graded"] for row in rows if not row["keeps"]),
        "false_positives": sum(row["wrong"].get(grader, 0) for row in rows if not row["keeps"]),
    }


def ours(given: str, reference: str) -> bool:
    """The program's own reading, without a second opinion."""
    (text, one), (wanted, other) = readings_of(given), readings_of(reference)
    return (text == wanted and bool(text)) or is_any_same(one, other)


@lru_cache(maxsize=2)
def math_verify(given: str, reference: str) -> bool:
    """math-verify alone, on everything."""
    return second_opinion.VERIFIER.is_same(given, reference)


def either(given: str, reference: str) -> bool:
    return ours(given, reference) or math_verify(given, reference)


GRADERS: dict[str, Grader] = {"ours": ours, "composed": is_same_answer, "math_verify": math_verify, "either": either}

if __name__ == "__main__":
    sys.exit(main())
