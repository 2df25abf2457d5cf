"""Prospects: recorded chains as what a policy that knows the load decides by (`latency/scheduling.py`).

A question's confidences are read by a curve, and its passes by gains, that the other half of the questions taught: no
question is judged by what it taught itself.
"""

from collections.abc import Sequence

import numpy as np

from specdec.decoding.chains import Chain, Chains
from specdec.errors import UserError
from specdec.latency.scheduling import Prospects
from specdec.traces.calibration import fit_curve
from specdec.traces.trace import Trace

PASSES_AHEAD = 6
PRIOR_WEIGHT = 20.0  # observations that the mean over all passes counts for in each


def prospects(traces: Sequence[Trace], name: str, halves: Sequence[int], longest: int | None = None) -> Prospects:
    """Of the chains `name` of some questions, whose `halves` are 0 or 1, as drafts of at most `longest` tokens.
    UserError where a trace lacks them."""
    for trace in traces:
        if name not in trace.chains:
            raise UserError(
                f"the trace of question {trace.question_id} has no chains {name}: record all with one command"
            )
    lengths = [len(trace.output_tokens) for trace in traces]
    half_F = np.repeat(halves, lengths)
    limit_F, match_F = (
        np.concatenate(part) for part in zip(*(_limits(one, name, longest) for one in traces), strict=True)
    )
    known_FJ, commits_FJ = (np.minimum(_padded(rows), limit) for rows, limit in _by_pass(traces, name, limit_F))
    sure_FL = _padded([one.confidences for trace in traces for one in _chains(trace, name)], float("nan"))
    survival_FL = np.zeros((len(half_F), max(1, int(limit_F.max()))))
    gains = []
    for half in (0, 1):
        taught = half_F != half if len(set(halves)) > 1 else half_F == half_F
        own, width = half_F == half, survival_FL.shape[1]
        survival_FL[own] = _survival(sure_FL[:, :width], (limit_F, match_F), taught)[own]
        gains.append(_gains(known_FJ[taught], match_F[taught]))
    survival_FL[np.arange(survival_FL.shape[1]) >= limit_F[:, None]] = 0.0
    ends = np.cumsum(lengths)
    left_F = np.concatenate([np.arange(length, 0, -1) for length in lengths])
    whole_F, held_FJ = _cache(traces, name, match_F, commits_FJ)
    gain_2JM, growth_2JM = (np.stack(part) for part in zip(*gains, strict=True))
    return Prospects(
        begins_Q=ends - lengths,
        ends_Q=ends,
        known_FJ=known_FJ,
        survival_FL=survival_FL,
        match_F=match_F,
        left_F=left_F,
        gain_2JM=gain_2JM,
        growth_2JM=growth_2JM,
        half_F=half_F,
        whole_F=whole_F,
        committed_FJ=held_FJ,
    )


NOTHING = Chain([], [], [], [], [], [])


def _chains(trace: Trace, name: str) -> list[Chain]:
    """One a place; none where nothing can be drafted."""
    found = trace.chains[name].chains
    return [*found, *[NOTHING] * (len(trace.output_tokens) - len(found))]


def _limits(trace: Trace, name: str, longest: int | None) -> tuple[list[int], list[int]]:
    """How many tokens of each chain may be drafted, and how many of those the text has too."""
    limits, matches = [], []
    for at, chain in enumerate(_chains(trace, name)):
        tokens = trace.draftable(at, chain.tokens)[:longest]
        limits.append(len(tokens))
        matches.append(trace.match(at, tokens))
    return limits, matches


def _by_pass(traces: Sequence[Trace], name: str, limit_F: np.ndarray) -> list[tuple[list[list[int]], np.ndarray]]:
    """By place and pass: tokens known in a row, and blocks committed; with what bounds them."""
    chains = [chain for trace in traces for chain in _chains(trace, name)]
    commits = [[0, *np.cumsum(chain.is_commit, dtype=int).tolist()] for chain in chains]
    return [([chain.known for chain in chains], limit_F[:, None]), (commits, np.array(2**30))]


def _padded(rows: Sequence[Sequence[float]], fill: float | None = None) -> np.ndarray:
    """Rows of one length: the last value goes on, or `fill`."""
    width = max(1, *map(len, rows))
    if fill is not None:
        return np.array([[*row, *[fill] * (width - len(row))] for row in rows], float)
    return np.array([[*row, *[row[-1] if row else 0] * (width - len(row))] for row in rows], int)


def _survival(sure_FL: np.ndarray, ends: tuple[np.ndarray, np.ndarray], taught_F: np.ndarray) -> np.ndarray:
    """[F, L] products of what confidences mean, by the places `taught_F`."""
    limit_F, match_F = ends
    places_L = np.arange(sure_FL.shape[1])
    seen = taught_F[:, None] & (places_L < limit_F[:, None]) & (places_L <= match_F[:, None])
    pairs = zip(sure_FL[seen].tolist(), (places_L < match_F[:, None])[seen].tolist(), strict=True)
    taught = list(pairs)
    if not taught:
        raise UserError("the traces hold no draft to learn from: record more questions")
    curve = fit_curve(taught)
    return np.cumprod(np.interp(np.nan_to_num(sure_FL), curve.confidences, curve.acceptance), 1)


def _gains(known_FJ: np.ndarray, match_F: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[J, M] mean tokens accepted, and known, that 1, 2, ... more passes bring where all so far are accepted.

    Chains at their end count as well, as bringing nothing, though none of theirs is asked about: over those that go on
    alone means are higher, and drafts by them went on for longer than paid.
    """
    num_passes = known_FJ.shape[1]
    is_right_FJ = known_FJ <= match_F[:, None]
    sums, counts = np.zeros((2, num_passes, PASSES_AHEAD)), is_right_FJ.sum(0)[:, None]
    for ahead in range(1, PASSES_AHEAD + 1):
        then_FJ = known_FJ[:, np.minimum(np.arange(num_passes) + ahead, num_passes - 1)]
        for row, value_FJ in enumerate((np.minimum(then_FJ, match_F[:, None]) - known_FJ, then_FJ - known_FJ)):
            sums[row, :, ahead - 1] = (value_FJ * is_right_FJ).sum(0)
    overall = sums.sum(1, keepdims=True) / max(counts.sum(), 1)
    gain_JM, growth_JM = (sums + PRIOR_WEIGHT * overall) / (counts + PRIOR_WEIGHT)
    return gain_JM, growth_JM


def _cache(
    traces: Sequence[Trace], name: str, match_F: np.ndarray, commits_FJ: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in whole blocks at every place, and those that the cache holds after 0, 1, ... passes of a draft."""
    chains: Chains = traces[0].chains[name]
    if not chains.has_blocks:
        return np.zeros(len(match_F), int), np.zeros_like(commits_FJ)
    size = int(chains.identity["block_size"])
    position_F = np.concatenate([len(one.prompt_ids) + np.arange(len(one.output_tokens)) for one in traces])
    whole_F = position_F // size * size
    return whole_F, np.minimum(whole_F[:, None] + size * commits_FJ, (position_F + match_F)[:, None])
