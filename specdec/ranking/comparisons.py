"""Comparisons: which configurations of a ranking can be told apart, by their speedups over the same questions.

Between `table.py` (what was measured) and `statistics.py` (what it is worth). The best configuration is found on the
very questions that it is compared on, which flatters it a little: a close call is worth fresh questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from specdec.drafters.families import known_spec
from specdec.ranking.statistics import LEVEL, Estimate, PairedBootstrap, holm, more_questions


@dataclass(frozen=True)
class Difference:
    """A configuration's speedup less the reference's.

    `p_holm` is corrected for all configurations compared with this reference. `num_more_questions`: about how many
    further ones would make the difference clear; None if nothing would.
    """

    estimate: Estimate
    p_holm: float
    num_more_questions: int | None

    @property
    def is_clear(self) -> bool:
        return self.p_holm <= 1 - LEVEL


def ar_baseline(names: Sequence[str]) -> int | None:
    """Which of the configurations, best first, is the AR baseline: the first static AR drafter; None without one."""
    specs = [known_spec(name) for name in names]
    return next((index for index, spec in enumerate(specs) if spec is not None and spec.is_reference), None)


def differences(bootstrap: PairedBootstrap, reference: int) -> dict[int, Difference]:
    """Every other configuration against configuration `reference`, corrected together."""
    estimates = bootstrap.differences(reference)
    others = [index for index in range(len(estimates)) if index != reference]
    adjusted = holm([estimates[index].p_value for index in others])
    return {
        index: Difference(
            estimates[index], p_holm, more_questions(estimates[index], bootstrap.num_questions, len(others))
        )
        for index, p_holm in zip(others, adjusted, strict=True)
    }
