"""Calibration: from recorded questions, how a drafter's confidences translate into acceptance, and what more passes
bring. Learnt on some questions, used on others (`cost_aware.py`); kept as JSON in the trace folder. No torch.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specdec.errors import UserError
from specdec.pickles import write_atomic
from specdec.traces.chains import Chain
from specdec.traces.trace import Trace
from specdec.verdict import count_accepted

VERSION = 1
FILE_NAME = "calibration.json"
PASSES_AHEAD = 6
EASE_EDGES = (0.4, 0.6, 0.75, 0.85, 0.93, 0.97)  # between classes of the least probable token's acceptance
PRIOR_WEIGHT = 20.0  # what the mean over all classes of ease counts for in each, in observations
NUM_BINS = 10


@dataclass(frozen=True)
class Curve:
    """A confidence's probability of acceptance, never falling: linear between its points, flat beyond them."""

    confidences: list[float]
    acceptance: list[float]

    def __call__(self, confidence: float) -> float:
        """Example: `Curve([0.2, 0.6], [0.1, 0.9])(0.4) == 0.5`."""
        right = bisect_right(self.confidences, confidence)
        if right == 0:
            return self.acceptance[0]
        if right == len(self.confidences):
            return self.acceptance[-1]
        low, high = self.confidences[right - 1], self.confidences[right]
        weight = (confidence - low) / (high - low)
        return self.acceptance[right - 1] + weight * (self.acceptance[right] - self.acceptance[right - 1])


@dataclass(frozen=True)
class Calibration:
    """What was learnt of a drafter. `gains[left][ease][m - 1]`: accepted tokens that m more passes bring while all so
    far are accepted; `growth` likewise: tokens that become known. `left` and `ease`: see `place_of` and `ease_of`.
    `rates`: tokens per ms that the cost-aware policy reaches, by "TARGET@PROFILE".
    """

    name: str
    identity: dict[str, Any]
    question_ids: list[int]
    reliability: list[dict[str, float]]
    curve: Curve
    gains: list[list[list[float]]]
    growth: list[list[list[float]]]
    rates: dict[str, float]

    def to_builtins(self) -> dict[str, Any]:
        return vars(self) | {"version": VERSION, "curve": vars(self.curve)}

    @classmethod
    def from_builtins(cls, data: Any) -> Calibration:
        """The inverse. Raises TypeError, KeyError or ValueError for anything else."""
        if data.pop("version") != VERSION:
            raise ValueError("made by another version")
        made = cls(**data | {"curve": Curve(**data["curve"])})
        sub_block = made.identity["small_block_size"]
        for table in (made.gains, made.growth):
            if [[len(row) for row in rows] for rows in table] != [[PASSES_AHEAD] * (len(EASE_EDGES) + 1)] * (
                sub_block + 1
            ):
                raise ValueError("a table of another size")
        if not 0 < len(made.curve.confidences) == len(made.curve.acceptance):
            raise ValueError("a curve without points")
        return made


def place_of(position: int, block_size: int, small_block_size: int) -> int:
    """Where the first unknown position stands: how many are left in its sub-block; 0: a block begins with it, so that
    the block before is committed next. Example: `place_of(33, 32, 8) == 7`."""
    return small_block_size - position % small_block_size if position % block_size else 0


def ease_of(least_acceptance: float) -> int:
    """The class of how easy a draft has been, from its token least likely to be accepted."""
    return bisect_right(EASE_EDGES, least_acceptance)


def calibrate(traces: Sequence[Trace], name: str) -> Calibration:
    """Learn the chains `name` of some questions. `rates` are left to `cost_aware.with_rates`."""
    seen = [pair for trace in traces for pair in tokens_seen(trace, name)]
    if not seen:
        raise UserError(f"the traces hold no chain of {name} to learn from: record more questions")
    curve = fit_curve(seen)
    identity = traces[0].chains[name].identity
    gains, growth = _gain_tables(traces, name, curve)
    question_ids = [trace.question_id for trace in traces]
    return Calibration(name, identity, question_ids, reliability_table(seen, curve), curve, gains, growth, {})


def tokens_seen(trace: Trace, name: str) -> Iterator[tuple[float, bool]]:
    """(confidence, was accepted) of every drafted token up to the first that is rejected."""
    for chain, match in _chains_with_match(trace, name):
        yield from ((confidence, index < match) for index, confidence in enumerate(chain.confidences[: match + 1]))


def fit_curve(seen: Sequence[tuple[float, bool]]) -> Curve:
    """The isotonic fit (pool adjacent violators) of (confidence, was accepted), each pool smoothed as if one more of
    either kind had been seen."""
    by_confidence: dict[float, list[bool]] = {}
    for confidence, was_accepted in sorted(seen):
        by_confidence.setdefault(confidence, []).append(was_accepted)
    pools: list[list[float]] = []  # number, accepted, sum of confidences
    for confidence, accepted in by_confidence.items():
        pools.append([len(accepted), sum(accepted), confidence * len(accepted)])
        while len(pools) > 1 and pools[-2][1] * pools[-1][0] >= pools[-1][1] * pools[-2][0]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    points: dict[float, float] = {}
    highest = 0.0
    for number, accepted, total in pools:
        # Smoothing may pull a small pool below the one before.
        highest = points[total / number] = max(highest, (accepted + 1) / (number + 2))
    return Curve(list(points), list(points.values()))


def reliability_table(seen: Sequence[tuple[float, bool]], curve: Curve) -> list[dict[str, float]]:
    """Per tenth of the confidences: how many tokens, their mean confidence, how many were accepted, and what the
    curve says."""
    rows = []
    for index in range(NUM_BINS):
        low, high = index / NUM_BINS, (index + 1) / NUM_BINS
        inside = [(c, a) for c, a in seen if low <= c < high or (c == high == 1.0)]
        if inside:
            confidences, accepted = zip(*inside, strict=True)
            mean, fitted = (sum(values) / len(inside) for values in (confidences, map(curve, confidences)))
            rate = sum(accepted) / len(inside)
            row = {"low": low, "high": high, "num_tokens": len(inside), "mean_confidence": mean}
            rows.append(row | {"acceptance_rate": rate, "calibrated": fitted})
    return rows


def expected_calibration_error(reliability: Sequence[dict[str, float]]) -> float:
    """How far confidences are from acceptance: the mean distance of the tenths, each weighted by its tokens.

    Guo et al., ICML 2017. Example: one tenth of mean confidence 0.9 of which 70 % were accepted gives 0.2.
    """
    total = sum(row["num_tokens"] for row in reliability)
    return sum(row["num_tokens"] * abs(row["mean_confidence"] - row["acceptance_rate"]) for row in reliability) / total


def save_calibration(path: Path, calibrations: Sequence[Calibration]) -> None:
    """One file for all drafters. Raises UserError where it cannot be written."""
    text = json.dumps({one.name: one.to_builtins() for one in calibrations}, indent=1)
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def load_calibration(path: Path, name: str) -> Calibration:
    """A drafter's calibration. Raises UserError for a missing, damaged or foreign file, or another drafter's."""
    how = "make it with: python -m specdec.calibrate TRACE_DIR"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the calibration {path} ({error.strerror or error}); {how}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a calibration ({error}); {how}") from None
    if not isinstance(found, dict) or name not in found:
        raise UserError(f"{path} has no calibration of {name}; {how}")
    try:
        return Calibration.from_builtins(found[name])
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a calibration of this version ({error}); {how}") from None


def _chains_with_match(trace: Trace, name: str) -> Iterator[tuple[Chain, int]]:
    """Every chain and how many of its tokens the text has too."""
    for at, chain in enumerate(trace.chains[name].chains):
        yield chain, count_accepted(chain.tokens, trace.output_tokens[at : at + len(chain.tokens)])


def _gain_tables(traces: Sequence[Trace], name: str, curve: Curve) -> tuple[list, list]:
    """`Calibration.gains` and `.growth`: means per class, drawn to the mean over all ease where little was seen."""
    num_places = traces[0].chains[name].identity["small_block_size"] + 1
    sums = np.zeros((2, num_places, len(EASE_EDGES) + 1, PASSES_AHEAD))
    counts = np.zeros((num_places, len(EASE_EDGES) + 1, 1))
    for trace in traces:
        for left, ease, ahead in _sights(trace, name, curve):
            counts[left, ease] += 1
            sums[:, left, ease] += ahead
    overall = sums.sum(2, keepdims=True) / np.maximum(counts.sum(1, keepdims=True), 1)
    gains, growth = (sums + PRIOR_WEIGHT * overall) / (counts + PRIOR_WEIGHT)
    return gains.tolist(), growth.tolist()


def _sights(trace: Trace, name: str, curve: Curve) -> Iterator[tuple[int, int, list[list[int]]]]:
    """(left, ease, [tokens accepted, tokens known] with 1, 2, ... more passes) of every pass of every chain up to which
    all tokens are accepted."""
    blocks = trace.chains[name].identity
    for at, (chain, match) in enumerate(_chains_with_match(trace, name)):
        for num_passes, known in enumerate(chain.known):
            if not 0 < known <= match:
                continue
            position = len(trace.prompt_ids) + at + known
            left = place_of(position, blocks["block_size"], blocks["small_block_size"])
            ease = ease_of(min(map(curve, chain.confidences[:known])))
            then = [chain.known[min(num_passes + m, chain.num_passes)] for m in range(1, PASSES_AHEAD + 1)]
            yield left, ease, [[min(match, k) - known for k in then], [k - known for k in then]]
