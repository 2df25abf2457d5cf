"""Calibration: from recorded questions, how a drafter's confidences translate into acceptance, and what more passes
bring; and what the cost-aware policy (`decoding/cost_aware.py`) knows with that, under a latency profile. Learnt on
some questions, used on others; kept as JSON in the trace folder. No torch.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specdec.decoding import cost_aware
from specdec.decoding.chains import Chain
from specdec.decoding.cost_aware import EASE_EDGES, PASSES_AHEAD, Advice, Calibration, Curve, RoundCosts
from specdec.drafters.advised import Advised
from specdec.drafters.base import Spec
from specdec.errors import UserError, user_error
from specdec.latency.profile import LatencyProfile, verification_ms, verifications_ms
from specdec.records.identity import first_difference
from specdec.records.pickles import write_atomic
from specdec.traces.trace import Trace

PRIOR_WEIGHT = 20.0  # what the mean over all classes of ease counts for in each, in observations
NUM_BINS = 10


def calibrate(traces: Sequence[Trace], name: str) -> Calibration:
    """Learn the chains `name` of some questions. `rates` are left to whoever knows prices."""
    seen = [pair for trace in traces for pair in tokens_seen(trace, name)]
    if not seen:
        raise UserError(f"the traces hold no chain of {name} to learn from: record more questions")
    curve = fit_curve(seen)
    identity = traces[0].chains[name].identity
    gains, growth = _gain_tables(traces, name, curve)
    question_ids = [trace.question_id for trace in traces]
    learnt_from = [
        [one.identity.dataset, one.question_id, str(one.identity.settings.get("prompt_sha256", ""))] for one in traces
    ]
    table = reliability_table(seen, curve)
    return Calibration(name, identity, question_ids, table, curve, gains, growth, {}, learnt_from)


def tokens_seen(trace: Trace, name: str) -> Iterator[tuple[float, bool]]:
    """(confidence, was accepted) of every drafted token up to the first that is rejected."""
    for chain, limit, match in _chains_with_match(trace, name):
        seen = chain.confidences[: min(match + 1, limit)]
        yield from ((confidence, index < match) for index, confidence in enumerate(seen))


def fit_curve(seen: Sequence[tuple[float, bool]]) -> Curve:
    """The isotonic fit (pool adjacent violators) of (confidence, was accepted), each pool smoothed as if one more of
    either kind had been seen."""
    by_confidence: dict[float, list[bool]] = {}
    for confidence, was_accepted in sorted(seen):
        by_confidence.setdefault(confidence, []).append(was_accepted)
    pools: list[list[float]] = []  # number, accepted, sum of confidences
    for confidence, was in by_confidence.items():
        pools.append([len(was), sum(was), confidence * len(was)])
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
    with user_error(f"write {path}"):
        write_atomic(path, text.encode())


def _chains_with_match(trace: Trace, name: str) -> Iterator[tuple[Chain, int, int]]:
    """Every chain, how many of its tokens can be drafted, and how many of those the text has too: what a pass writes
    after a stop token or the budget's end is neither right nor wrong."""
    for at, chain in enumerate(trace.chains[name].chains):
        tokens = trace.draftable(at, chain.tokens)
        yield chain, len(tokens), trace.match(at, tokens)


def _gain_tables(traces: Sequence[Trace], name: str, curve: Curve) -> tuple[list, list]:
    """`Calibration.gains` and `.growth`: means per class, drawn to the mean over all ease where little was seen."""
    num_places = cost_aware.num_places(traces[0].chains[name].identity)
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
    all tokens are accepted, and after which more can be drafted."""
    identity = trace.chains[name].identity
    for at, (chain, limit, match) in enumerate(_chains_with_match(trace, name)):
        for num_passes, known in enumerate(chain.known):
            if not 0 < known <= match or known >= limit:
                continue
            position = len(trace.prompt_ids) + at + known
            left = cost_aware.place_in(identity, position)
            ease = cost_aware.ease_of(min(map(curve, chain.confidences[:known])))
            later = (chain.known[min(num_passes + m, chain.num_passes)] for m in range(1, PASSES_AHEAD + 1))
            then = [min(limit, known_then) for known_then in later]
            yield left, ease, [[min(match, k) - known for k in then], [k - known for k in then]]


def costs_of(spec: Advised, profile: LatencyProfile) -> tuple[float, list[float]]:
    """What a pass costs, and the verification of a draft of 0, 1, ... tokens up to the longest, in ms, by the profile
    that the spec's pricing names. Raises UserError for one that does not know such passes."""
    entry = spec.pricing.rpartition("@")[0]
    verify_ms = verifications_ms(profile, entry, range(1, spec.max_draft_len + 2))
    return profile.pass_ms(spec.priced_as, entry), verify_ms


def tree_costs(spec: Spec, profiles: Iterable[LatencyProfile]) -> RoundCosts | None:
    """What a tree by cost, which learns nothing, reckons with: None for a spec that is none.

    Raises UserError for a profile that was not given, or does not know the spec's family or target.
    """
    spec = spec.parts[-1]
    if not spec.needs_costs or spec.needs_advice:
        return None
    profile, entry = _priced_by(spec, str(vars(spec)["pricing"]), profiles)
    by_nodes = [profile.tree_ms(spec.priced_as, entry, count) for count in range(1, spec.most_nodes + 1)]
    least_ms = by_nodes[0][0]  # what drafting more nodes takes stands beside their verification
    verify_ms = [round_ms + (pass_ms - least_ms) for pass_ms, round_ms in by_nodes]
    return RoundCosts(least_ms, [verification_ms(profile, entry, 1), *verify_ms])


def _priced_by(spec: Spec, pricing: str, profiles: Iterable[LatencyProfile]) -> tuple[LatencyProfile, str]:
    """The profile and its entry that "TARGET@PROFILE" says."""
    entry, _, profile_name = pricing.rpartition("@")
    profile = next((one for one in profiles if one.name == profile_name), None)
    if profile is None or entry not in profile.target_ms_per_token:
        raise UserError(f"{spec.name}: give the profile with --latency_profile, which has to hold the target {entry!r}")
    return profile, entry


def advice_of(
    spec: Spec, calibration_file: str | Path | None, profiles: Iterable[LatencyProfile], drafter: Mapping[str, Any]
) -> Advice | None:
    """The advice for a drafter whose chains have the identity `drafter`; None for one that needs none, or has no file.

    Raises UserError for a calibration of another drafter, or one without the rate of the spec's engine.
    """
    spec = spec.parts[-1]
    if not isinstance(spec, Advised) or calibration_file is None:
        return None
    profile, _ = _priced_by(spec, spec.pricing, profiles)
    pass_ms, verify_ms = costs_of(spec, profile)
    calibration = cost_aware.load_calibration(Path(calibration_file), str(spec.chains_name))
    difference = first_difference(calibration.identity, {key: drafter.get(key) for key in calibration.identity})
    if difference is not None:
        raise UserError(f"{calibration_file} was learnt from another drafter ({difference}): calibrate again")
    if spec.pricing not in calibration.rates:
        raise UserError(
            f"{calibration_file} has no rate for {spec.pricing}: calibrate again with this --latency_profile"
        )
    return Advice(calibration, pass_ms=pass_ms, verify_ms=verify_ms, rate=calibration.rates[spec.pricing])
