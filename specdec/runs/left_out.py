"""Left out: questions that do not fit the models' context, said when they are met, in run.json and at the end."""

import logging
from collections.abc import Mapping, Sequence

from specdec.questions.problem import Problem
from specdec.records.turns import row_of
from specdec.runs.run_file import RunFile
from specdec.text import ranges

log = logging.getLogger("failfast")


def leave_out(run_file: RunFile, reasons: Mapping[int, str]) -> None:
    """Say at once, and in run.json, that questions are not asked, and why."""
    for question_id, reason in reasons.items():
        log.warning("Left out: %s", reason)
        run_file.left_out[question_id] = reason


def leave_out_later(run_file: RunFile, turns: Sequence[Problem], reason: str) -> None:
    """The same of turns that follow one which does not fit any more: said once."""
    log.warning("Left out: %s", reason)
    run_file.left_out.update({turn.question_id: reason for turn in turns})


def left_out_line(left_out: Mapping[int, str], num_asked: int) -> str:
    """How many questions were left out, for the end of a run; "" for none."""
    if not left_out:
        return ""
    rows = {row_of(number) for number in left_out}
    which = (
        f"(number {ranges(rows)}) is left out, or its later turns: it does"
        if len(rows) == 1
        else (f"(numbers {ranges(rows)}) are left out, or their later turns: they do")
    )
    return (
        f"Careful: {len(rows)} of {num_asked} questions {which} not fit the models' context. "
        "A lower --max_new_tokens leaves more room for prompts that are shorter than it.\n"
    )


def planned_left_out(left_out: Mapping[int, str], num_asked: int) -> list[str]:
    """What a run would leave out, as it would say it: a line a question, and how many; [] for none."""
    return [*(f"Left out: {reason}" for reason in left_out.values()), *left_out_line(left_out, num_asked).splitlines()]
