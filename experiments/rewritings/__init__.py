r"""Rewritings of reference answers: those that keep the value, and those that change it.

Each is a function from a reference to another answer, None where it is not defined for it (an integer is not a mixed
number). They use nothing of the grader, so that they can show its faults. `grading_table.py` runs them over data sets,
`tests/test_rewritings.py` over references of its own.
"""

from collections.abc import Callable

from experiments.rewritings.changing import CHANGING
from experiments.rewritings.keeping import BARE, KEEPING

__all__ = ["CHANGING", "KEEPING", "Rewriting", "text_of"]
Rewriting = Callable[[str], str | None]


def text_of(rewriting: Rewriting, reference: str) -> str | None:
    """The end of a solution with the rewritten answer in its box; None where it is not defined."""
    made = rewriting(reference)
    return made if made is None or rewriting is BARE else f"so it is \\boxed{{{made}}}"
