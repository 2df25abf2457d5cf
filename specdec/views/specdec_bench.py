"""specdec_bench: a drafter's records in the shape of the files of NVIDIA/Model-Optimizer's examples/specdec_bench.

Their keys, their formulas, so that what reads theirs reads ours; docs/measures.md says where the two programs' rounds
differ. Our own measures are not here (`ranking/acceptance.py`).
"""

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from statistics import mean
from typing import Any

import numpy as np

from specdec.ranking.acceptance import RoundCounts
from specdec.ranking.entries import category_of
from specdec.ranking.source import Source
from specdec.records.record import Record
from specdec.records.turns import natural, row_of, turn_of

FILES = ("acceptance_rate.json", "timing.json")
_QUANTILES = (0.25, 0.5, 0.75)
_UNSAFE = re.compile(r"[^\w.=+-]+")


def runs_of(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """(sweep, run) -> its records, questions in order: names of folders, of what was asked and of the drafter.

    Records without a round are left out: theirs have a step at least.
    """
    found: dict[tuple[str, str], list[Record]] = {}
    ordered = sorted((one for one in records if one.rounds), key=lambda one: natural(one.question_id))
    sweeps = _folders(Source.of(record).title for record in ordered)
    runs = _folders(record.drafter_name for record in ordered)
    for record in ordered:
        found.setdefault((sweeps[Source.of(record).title], runs[record.drafter_name]), []).append(record)
    return found


def _folders(names: Iterable[str]) -> dict[str, str]:
    """Name -> a folder's name that is one on every system, and never one above; of two names never the same, whatever
    a system thinks of capitals: the second of two that are alike ends in "-2"."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(set(names)):
        plain = folder = _UNSAFE.sub("_", name).lstrip(".") or "_"
        number = 1
        while folder.casefold() in taken:
            number += 1
            folder = f"{plain}-{number}"
        taken.add(folder.casefold())
        found[name] = folder
    return found


def acceptance_rate(records: Sequence[Record]) -> list[dict[str, Any]]:
    """`acceptance_rate.json` of one run: lengths are tokens that a round emitted, bonus included.

    `Category_AL`, which they write for sets that have categories, is the mean of the requests' means over all turns.
    """
    requests: dict[int, dict[int, float]] = {}
    for record in records:
        requests.setdefault(row_of(record.question_id), {})[turn_of(record.question_id)] = record.acceptance_len
    lengths = [record.acceptance_len for record in records]
    by_category = _by_category(records)
    return [
        {
            "Request_AL": requests,
            **({"Category_AL": by_category} if by_category else {}),
            "Average_AL": sum(lengths) / len(lengths),
            **_by_length(RoundCounts.united(map(RoundCounts.of, records)).emitted_histogram),
        }
    ]


def _by_category(records: Sequence[Record]) -> dict[str, float]:
    """The mean acceptance length of each category's requests; {} where questions have none."""
    requests: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        requests.setdefault((category_of(record), row_of(record.question_id)), []).append(record)
    found: dict[str, list[float]] = {}
    for (category, _), turns in requests.items():
        rounds = RoundCounts.united(map(RoundCounts.of, turns))
        found.setdefault(category, []).append(sum(one.num_output_tokens for one in turns) / rounds.num_rounds)
    return {} if set(found) == {""} else {category: mean(values) for category, values in found.items()}


def _by_length(histogram: Sequence[int]) -> dict[str, dict[int, float]]:
    """The rates of every length that occurs: of emitting it or more, of all rounds (joint), and of those that emitted
    the length before it or more (conditional)."""
    counts = {length: count for length, count in enumerate(histogram) if count}
    total = sum(counts.values())
    reached = dict(zip(counts, accumulate([total, *(-count for count in counts.values())]), strict=False))
    joint = {length: count / total for length, count in reached.items()}
    before = dict(zip(joint, [1.0, *joint.values()], strict=False))
    return {
        "Acceptance_Length_Histogram": dict(counts),
        "Conditional_Acceptance_Rate": {length: rate / before[length] for length, rate in joint.items()},
        "Joint_Acceptance_Rate": joint,
    }


def timing(records: Sequence[Record]) -> list[dict[str, Any]] | None:
    """`timing.json` of one run, in seconds, of one device; None unless all of its records were timed.

    Requests were run one after another, and what lies between them is not counted.
    """
    if not all(record.is_timed for record in records):
        return None
    times = [_times(record) for record in records]
    tokens = [record.num_output_tokens for record in records]
    found: dict[str, Any] = {"Output TPS": sum(tokens) / sum(one[-1] for one in times)}
    found["Output TPS/gpu"] = found["Output TPS"]
    found["E2E Request Time"] = _statistics([one[-1] for one in times])
    found["TTFT Time"] = _statistics([one[1] for one in times])
    longer = [(one, count) for one, count in zip(times, tokens, strict=True) if len(one) > 2]
    if longer:
        steps = [later - earlier for one, _ in longer for earlier, later in pairwise(one)]
        found["Request Generation Step Time"] = _statistics(steps)
        rates = [(count - 1) / (one[-1] - one[1]) for one, count in longer]
        found["Request Generation Tokens Per Second"] = _statistics(rates)
    return [found | {"Number of Output Tokens": _statistics(tokens)}]


def _times(record: Record) -> list[float]:
    """When the request began (0) and when each round's tokens were there, in seconds."""
    steps = [turn.draft_ms + turn.verify_ms for turn in record.rounds]
    return [0.0, *(1e-3 * (record.prefill_ms + passed) for passed in accumulate(steps))]


def _statistics(values: Sequence[float]) -> dict[str, Any]:
    """As they spell them: texts of four decimals."""
    found = {"min": np.min(values), "max": np.max(values), "mean": np.mean(values), "std": np.std(values)}
    quantiles = {str(share): f"{np.quantile(values, share):.4f}" for share in _QUANTILES}
    return {name: f"{value:.4f}" for name, value in found.items()} | {"quantiles": quantiles}
