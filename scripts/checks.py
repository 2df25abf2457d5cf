"""Checks: the tables of what the program was tried with, graders, the sandbox, damaged files; what the demo prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scripts.cells import RESULTS, result, table

GRADERS = {
    "ours": "this program's reading alone",
    "math_verify": "math-verify alone",
    "either": "right where either says so",
    "composed": "this program's reading, then math-verify on what it does not understand: what the program does",
}


def grading() -> str:
    """Graders over rewritten reference answers."""
    stored = result("2026-11-28-grading")
    splits = {"test splits": stored["test_splits"], "with the training splits": stored["every_split"]}
    rows = []
    for split, one in splits.items():
        for grader, words in GRADERS.items():
            if grader in one["totals"]:
                rows.append([words, split, *_wrong(one["totals"][grader])])
    return table(("grader", "references", "right answers called wrong", "wrong answers called right"), rows)


def _wrong(total: Mapping[str, int]) -> list[str]:
    pairs = (("false_negatives", "kept"), ("false_positives", "changed"))
    return [f"{total[wrong]:,} of {total[all_of]:,}" for wrong, all_of in pairs]


def programs() -> str:
    """Right and wrong programs under --run_code, and damaged records."""
    code, fuzz = result("2026-11-28-run-code"), result("2026-11-28-fuzz")
    rows = [
        ["HumanEval's solutions in many shapes of answer that passed", _of(code, "num_right", "num_right_asked")],
        ["wrong or hostile programs that failed", _of(code, "num_wrong_failed", "num_wrong_asked")],
        ["damaged records that ended the process reading them", _of(fuzz, "num_ended", "num_cases")],
    ]
    return table(("tried", ""), rows)


def _of(stored: Mapping[str, Any], some: str, all_of: str) -> str:
    return f"{stored[some]:,} of {stored[all_of]:,}"


def demo() -> str:
    """What the demo prints, from its stored output: the first lines, then the ranking up to what it says of itself."""
    lines = (RESULTS / "2026-11-28-demo.txt").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("rank "))
    end = next(number for number, line in enumerate(lines) if line.startswith("Measured:"))
    report = [line for line in lines if line.startswith("Report:")]
    return "\n".join(["```", *lines[:3], "...", *lines[start:end], "...", *report, "```"])


TABLES: dict[str, Callable[[], str]] = {"grading": grading, "programs": programs, "demo": demo}
