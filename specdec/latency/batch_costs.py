"""Batch costs: what the passes of a step cost for as many requests as it runs, by a latency profile that has rows.

One request costs what the profile says for one (`pricing.py`); its rows say how that grows. Not here: who runs in a
step (`load.py`).

Shape suffixes: B servers, D kinds of passes, K numbers of tokens, R requests of a batch from 0 on, X contexts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from specdec.errors import UserError
from specdec.latency.profile import LatencyProfile, verification_ms
from specdec.latency.rows import Rows

FIRST = "make one with rows (docs/load.md), or take one that has them: A100_bound, H100_bound, H200_bound, ..."


@dataclass(frozen=True)
class BatchCosts:
    """Ms of a pass over 0, 1, ... requests; `passes_DRX` by the place of its kind in `kinds`."""

    kinds: tuple[str, ...]
    tokens_K: np.ndarray
    contexts_X: np.ndarray
    verify_RKX: np.ndarray
    passes_DRX: np.ndarray

    @classmethod
    def of(cls, profile: LatencyProfile, entry: str, kinds: Sequence[str], most: int) -> "BatchCosts":
        """Of batches up to `most` requests. Raises UserError for a profile without rows of all these."""
        verify, own = verify_rows(profile, entry), {kind: pass_rows(profile, entry, kind) for kind in kinds}
        at = profile.rows.context if profile.rows else 0
        tokens = sorted({*verify.tokens, *profile.verify_ms[entry]})
        contexts = sorted({at, *(context for one in (verify, *own.values()) for context in one.contexts)})
        requests = range(most + 1)
        of_one_K = verify.at([1], tokens, [at])[0, :, 0]
        ends = min(profile.verify_ms[entry]), max(profile.verify_ms[entry])
        # Between its own points alone does a profile say what one request costs.
        known = np.clip(tokens, *ends)
        told_K = np.array([verification_ms(profile, entry, int(count)) for count in known])
        anchor_K = told_K / np.interp(known, tokens, of_one_K)
        verify_RKX = verify.at(requests, tokens, contexts) * anchor_K[:, None]
        passes = [_passes_RX(own[kind], profile.pass_ms(kind, entry), at, (requests, contexts)) for kind in kinds]
        verify_RKX[0] = 0.0
        none = [np.zeros((most + 1, len(contexts)))]  # where nobody's drafter makes a pass
        points = np.array(tokens, float), np.array(contexts, float)
        return cls(tuple(kinds), *points, verify_RKX, np.stack(passes or none))

    def at(self, context: float) -> "BatchCosts":
        """The same where every context is of that length."""
        x, share = _between(self.contexts_X, np.array([float(context)]))
        x_next = np.minimum(x + 1, self._last[1])
        verify_RKX, passes_DRX = (
            table[..., x] + share * (table[..., x_next] - table[..., x]) for table in (self.verify_RKX, self.passes_DRX)
        )
        return BatchCosts(self.kinds, self.tokens_K, np.array([float(context)]), verify_RKX, passes_DRX)

    def verify_ms(self, requests: np.ndarray, tokens: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        """A pass of the target over `requests` requests, whose mean number of tokens and mean context these are, of
        one shape together. A profile's table, linear in both, its last slope beyond it."""
        k, k_share = _between(self.tokens_K, tokens)
        table, k_next = self.verify_RKX, np.minimum(k + 1, self._last[0])
        if len(self.contexts_X) == 1:
            short = table[requests, k, 0]
            return np.asarray(short + k_share * (table[requests, k_next, 0] - short))
        x, x_share = _between(self.contexts_X, contexts)
        x_next = np.minimum(x + 1, self._last[1])
        short = table[requests, k, x] + x_share * (table[requests, k, x_next] - table[requests, k, x])
        far = table[requests, k_next, x] + x_share * (table[requests, k_next, x_next] - table[requests, k_next, x])
        return np.asarray(short + k_share * (far - short))

    def pass_ms(self, kinds_B: np.ndarray, contexts_B: np.ndarray) -> np.ndarray:
        """[B, R] a drafter's pass over 0, 1, ... requests of these mean contexts."""
        if len(self.contexts_X) == 1:
            return np.asarray(self.passes_DRX[kinds_B, :, 0])
        x_B, share_B = _between(self.contexts_X, contexts_B)
        low_BR = self.passes_DRX[kinds_B, :, x_B]
        high_BR = self.passes_DRX[kinds_B, :, np.minimum(x_B + 1, self._last[1])]
        return np.asarray(low_BR + share_B[:, None] * (high_BR - low_BR))

    @property
    def _last(self) -> tuple[int, int]:
        return len(self.tokens_K) - 1, len(self.contexts_X) - 1


def verify_rows(profile: LatencyProfile, entry: str) -> Rows:
    """The profile's rows of a target. Raises UserError where it has none."""
    if profile.rows is None or entry not in profile.rows.verify:
        what = "of batches" if profile.rows is None else f"of batches of {entry}"
        raise UserError(f"latency profile {profile.name} does not say what passes {what} cost: {FIRST}")
    return profile.rows.verify[entry]


def pass_rows(profile: LatencyProfile, entry: str, kind: str) -> Rows:
    """The same of a drafter's passes; those of an AR drafter cost what blocks do where the profile tells no other."""
    known = {} if profile.rows is None else profile.rows.passes
    found = known.get(kind, known.get("block") if kind == "ar" and profile.ar_draft_pass_ms is None else None)
    if found is None or not profile.knows(kind, entry):
        raise UserError(
            f"latency profile {profile.name} does not say what a pass of {kind} over several requests costs: "
            "take one that does (of bounds: failfast profile roofline --heads)"
        )
    return found


def _passes_RX(rows: Rows, one_ms: float, at: int, wanted: tuple[Sequence[int], Sequence[int]]) -> np.ndarray:
    requests, contexts = wanted
    growth_RX = rows.at(requests, rows.tokens, contexts)[:, 0] / rows.at([1], rows.tokens, [at])[0, 0, 0]
    growth_RX[0] = 0.0
    return one_ms * growth_RX


def _between(points: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The point before each value, and how far on the way to the next one it is: beyond the last one more than 1."""
    if len(points) == 1:
        return np.zeros(np.shape(values), int), np.zeros(np.shape(values))
    left = np.minimum(np.maximum(np.searchsorted(points, values, "right") - 1, 0), len(points) - 2)  # np.clip is slow
    return left, np.maximum((values - points[left]) / (points[left + 1] - points[left]), 0.0)


def beyond(rows: Rows, requests: int, tokens: float, context: float) -> list[str]:
    """What of these is beyond the last point of rows, in words: so much is extrapolated."""
    asked = {"requests": (requests, rows.requests), "tokens each": (tokens, rows.tokens)}
    asked["tokens of context"] = (context, rows.contexts)
    return [
        f"{value:,.0f} {what} (it has {max(known):,})" for what, (value, known) in asked.items() if value > max(known)
    ]
