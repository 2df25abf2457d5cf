"""Load bound: the least time that any policy could take for some questions under load, over recorded drafters.

The clairvoyant of `oracle.py` for one request at a time decides all requests' rounds at prices that are never more than
what they cost in any batch: so much a round and so much a token of the target's pass, so much a drafter's pass. Prices
on a straight line under the profile's own are such; of several lines the one that tells most is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from specdec.latency.batch_costs import BatchCosts
from specdec.ranking.oracle import Board, Costs, Oracle
from specdec.traces.trace import Trace

SLOPES = (0.0, 0.5, 1.0)  # of the profile's last slope: what a token of a full batch costs


@dataclass(frozen=True)
class Boards:
    """What the clairvoyant chooses from: the chains `names` of some traces; `has_reuse`: see `Oracle`."""

    traces: Sequence[Trace]
    names: Sequence[str]
    has_reuse: bool = False

    def total_ms(self, costs: Costs, token_ms: float) -> float:
        """Of all questions, each prompt token at `token_ms`."""
        boards = (Board(trace, costs, reuse_drafts=self.has_reuse) for trace in self.traces)
        return sum(token_ms * len(one.trace.prompt_ids) + Oracle(one, self.names).best_ms for one in boards)


def bound_ms(boards: Boards, costs: BatchCosts, context: int | None) -> float:
    """Of all the questions, once each, on a server with as many places as `costs` go to."""
    place = 0 if context is None else int(np.searchsorted(costs.contexts_X, context))
    has_point = context is None or (place < len(costs.contexts_X) and costs.contexts_X[place] == context)
    at = place if has_point else max(0, place - 1)  # a shorter context never costs more
    verify_RK, passes_DR = costs.verify_RKX[1:, :, at], costs.passes_DRX[:, 1:, at]
    requests_R = np.arange(1, len(verify_RK) + 1)
    shares_DR = passes_DR / requests_R
    pass_ms = dict(zip(costs.kinds, shares_DR.min(1).tolist(), strict=True)) if costs.kinds else {}
    longest = max(trace.identity.max_new_tokens for trace in boards.traces)
    lines = _lines(verify_RK / requests_R[:, None], costs.tokens_K, longest)
    if len(requests_R) == 1:
        counts = np.arange(1, longest + 2)
        own_K = np.interp(counts, costs.tokens_K, verify_RK[0])
        lines.append((0.0, own_K.tolist()))  # alone, a request pays just what the profile says
    block_ms = pass_ms.get("block", 0.0)
    priced = (Costs(block_ms, pass_ms.get("ar", block_ms), verify_ms, pass_ms) for _, verify_ms in lines)
    return max(boards.total_ms(one, token_ms) for one, (token_ms, _) in zip(priced, lines, strict=True))


Line = tuple[float, list[float]]  # what a token of a prompt costs, and a pass over a draft of 0, 1, ... tokens


def _lines(share_RK: np.ndarray, tokens_K: np.ndarray, longest: int) -> list[Line]:
    """Straight lines that no batch's share of a pass, a request, lies under."""
    found = []
    if len(tokens_K) == 1:
        return [(0.0, [float(share_RK.min())] * (longest + 1))]
    last = (share_RK[:, -1] - share_RK[:, -2]) / (tokens_K[-1] - tokens_K[-2])
    for share in SLOPES:
        slope = max(0.0, share * float(last.min()))
        base = float((share_RK - slope * tokens_K).min())
        if base >= 0:
            found.append((slope, [base + slope * count for count in range(1, longest + 2)]))
    return found
