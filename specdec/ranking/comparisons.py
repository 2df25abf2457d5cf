"""Comparisons: which configurations of a ranking can be told apart, by their speedups over the same questions.

Between `table.py` (what was measured) and `statistics.py` (what it is worth). The best configuration is found on the
very questions that it is compared on, which flatters it a little: a close call is worth fresh questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from specdec.drafters.families import known_spec
from specdec.ranking.statistics import LEVEL, Estimate, PairedBootstrap, Value, holm, more_questions

MARGIN = 0.05  # of the best one's speedup: a difference that matters to nobody
BEST, EQUAL, BEHIND, UNDECIDED = "best", "level", "behind", "undecided"  # standings, as every view spells them


@dataclass(frozen=True)
class Difference:
    """A configuration's speedup less the reference's.

    `p_holm` is corrected for all configurations compared with this reference, `p_equivalence` (the difference is MARGIN
    of the reference's speedup or more) likewise. `num_more_questions`: about how many further ones would make the
    difference clear, at the same corrected level: 1 or more where it is not; None if nothing would.
    """

    estimate: Estimate
    p_holm: float
    num_more_questions: int | None
    p_equivalence: float = 1.0

    @property
    def is_clear(self) -> bool:
        return self.p_holm <= 1 - LEVEL

    @property
    def is_equivalent(self) -> bool:
        """Not told apart, and surely closer than MARGIN."""
        return not self.is_clear and self.p_equivalence <= 1 - LEVEL

    @property
    def standing(self) -> str:
        """Against the best. What is clearly slower is behind, however little."""
        return BEHIND if self.is_clear else EQUAL if self.is_equivalent else UNDECIDED


def ar_baseline(names: Sequence[str]) -> int | None:
    """Which of the configurations, best first, is the AR baseline: the first static AR drafter; None without one."""
    specs = [known_spec(name) for name in names]
    return next((index for index, spec in enumerate(specs) if spec is not None and spec.is_reference), None)


def differences(bootstrap: PairedBootstrap, reference: int) -> dict[int, Difference]:
    """Every other configuration against configuration `reference`, corrected together."""
    estimates = bootstrap.differences(reference, MARGIN * float(bootstrap.ratios_C[reference]))
    others = [index for index in range(len(estimates)) if index != reference]
    adjusted = holm([estimates[index].p_value for index in others])
    equivalent = holm([estimates[index].p_equivalence for index in others])
    made = {}
    for index, p_holm, p_equivalence in zip(others, adjusted, equivalent, strict=True):
        found = Difference(estimates[index], p_holm, None, p_equivalence)
        more = more_questions(found.estimate, bootstrap.num_questions, len(others))
        # What the test on these questions did not separate needs more of them, whatever a formula says.
        made[index] = replace(found, num_more_questions=more if found.is_clear or more is None else max(1, more))
    return made


def standing_of_first(speedup: Value) -> str:
    """Of the highest speedup: nothing is best that does not beat plain decoding, whose speedup is 1."""
    low, high = (speedup.value if end is None else end for end in (speedup.low, speedup.high))
    return BEST if low > 1 else BEHIND if high < 1 else UNDECIDED


def questions_needed(to_best: Mapping[str, Difference], best: float, num_questions: int) -> int | None:
    """About how many questions would show a difference of MARGIN of the best speedup between any two of a ranking.

    By the spread of the middle one of those that are undecided, at the level that all comparisons share. None where
    nothing is undecided.
    """
    spreads = [one.estimate.standard_error for one in to_best.values() if one.standing == UNDECIDED]
    if not spreads:
        return None
    spread = median(spreads)
    example = Estimate(MARGIN * best, spread, 0.0, 0.0, 1.0)
    more = more_questions(example, num_questions, len(to_best))
    return num_questions + more if more else None
