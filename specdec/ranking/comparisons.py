"""Comparisons: which configurations of a ranking can be told apart, by their speedups over the same questions.

Between `ranking.py` (what was measured) and `statistics.py` (what it is worth). The best configuration is found on the
very questions that it is compared on, which flatters it a little: a close call is worth fresh questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from specdec.ranking.entries import QuestionStats
from specdec.ranking.question_sets import question_key
from specdec.ranking.ranking import by_drafter, priced_under, rank
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS, Estimate, PairedBootstrap, holm, more_questions

AR_BASELINE = "ar_None_sf_"  # how the names of static AR drafters begin


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


@dataclass(frozen=True)
class Comparison:
    """One configuration: how far its two averages can be believed, and the mean against two references.

    `to_best` and `to_ar` compare means of questions, which rankings go by; `ratio_to_best` and `ratio_to_ar` ratios of
    sums. None for the reference itself, and where there is no AR baseline.
    """

    mean: Estimate
    ratio: Estimate
    to_best: Difference | None
    to_ar: Difference | None
    ratio_to_best: Difference | None
    ratio_to_ar: Difference | None


@dataclass(frozen=True)
class Comparisons:
    """All configurations under one engine. `ar_baseline` is the best static AR drafter, None without one."""

    best: str
    ar_baseline: str | None
    num_questions: int
    by_drafter: dict[str, Comparison]


def compare(stats: Sequence[QuestionStats], engine: str) -> Comparisons | None:
    """Compare what `rank` ranks under `engine`; configurations without any price take no part.

    None where nothing can be said: fewer than MIN_QUESTIONS questions, or not the same ones everywhere.
    """
    names = [row.drafter_name for row in rank(stats, engine) if row.rank is not None]
    totals = _paired_totals(stats, engine, names)
    if totals is None:
        return None
    baselines_QC, totals_QC = totals
    bootstraps = PairedBootstrap(baselines_QC / totals_QC), PairedBootstrap(baselines_QC, totals_QC)
    baseline = next((index for index, name in enumerate(names) if name.startswith(AR_BASELINE)), None)
    columns = [bootstrap.ratios() for bootstrap in bootstraps]
    columns += [_differences(bootstrap, reference) for bootstrap in bootstraps for reference in (0, baseline)]
    return Comparisons(
        best=names[0],
        ar_baseline=None if baseline is None else names[baseline],
        num_questions=len(totals_QC),
        by_drafter={name: Comparison(*row) for name, *row in zip(names, *columns, strict=True)},
    )


def _paired_totals(
    stats: Sequence[QuestionStats], engine: str, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Plain decoding's and each configuration's ms per question, [Q, C] each; None if they cannot be paired."""
    key, found = question_key(stats), by_drafter(stats)
    columns = [sorted(priced_under(engine, found[name]), key=key) for name in names]
    questions = [[key(entry) for entry in column] for column in columns]
    if not columns or any(other != questions[0] for other in questions):
        return None
    if not MIN_QUESTIONS <= len(set(questions[0])) == len(questions[0]):
        return None
    prices = [[entry.prices[engine] for entry in column] for column in columns]
    baselines_CQ = np.array([[one.baseline_ms for one in column] for column in prices])
    return baselines_CQ.T, np.array([[one.total_ms for one in column] for column in prices]).T


def _differences(bootstrap: PairedBootstrap, reference: int | None) -> list[Difference | None]:
    """Every configuration against configuration `reference`, corrected together; None for itself, or without one."""
    if reference is None:
        return [None] * len(bootstrap.ratios_C)
    estimates = bootstrap.differences(reference)
    others = [index for index in range(len(estimates)) if index != reference]
    adjusted = dict(zip(others, holm([estimates[index].p_value for index in others]), strict=True))
    return [
        Difference(one, adjusted[index], more_questions(one, bootstrap.num_questions, len(others)))
        if index in adjusted
        else None
        for index, one in enumerate(estimates)
    ]
