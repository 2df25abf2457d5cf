"""Scheduling: a policy that knows the load: which drafts go on, and which of their tokens are verified, by what the
batch's own passes cost now.

After every pass, the drafts go on that bring more accepted tokens than the pass and their verification are worth; then
of all drafted tokens of all requests the most probable ones are verified, prefix by prefix, as far as that pays. A
millisecond is worth what the server gives in one on average: the marginal-value rule that `decoding/cost_aware.py` has
for a single request. Sources: DSpark (arXiv 2607.05147), whose scheduler takes the best running products over a batch.

What the drafter would write, and how sure it is, stands in `Prospects`, made of traces (`traces/prospects.py`).
Shape suffixes: B servers, C places of a server, F places of all texts, J passes of a drafter, L drafted tokens,
M passes ahead.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from specdec.latency.serving import Decision, Sight, State


@dataclass(frozen=True)
class Prospects:
    """What one drafter would write after every prefix of every text.

    `begins_Q`, `ends_Q`: a question's places. `known_FJ`: tokens known after 0, 1, ... passes, of those that may be
    drafted. `survival_FL`: how probable it is, by other questions, that the first 1, 2, ... are all accepted; 0 beyond.
    `match_F`: how many are. `left_F`: tokens until the text's end. `gain_2JM`, `growth_2JM`: tokens accepted, and
    known, that 1, 2, ... more passes bring on average while all so far are accepted, by one half of the
    questions; `half_F`: which of the two holds at a place, the other one. `whole_F`: positions in whole blocks;
    `committed_FJ`: those that the drafter's cache then holds; all 0 for drafters without blocks.
    """

    begins_Q: np.ndarray
    ends_Q: np.ndarray
    known_FJ: np.ndarray
    survival_FL: np.ndarray
    match_F: np.ndarray
    left_F: np.ndarray
    gain_2JM: np.ndarray
    growth_2JM: np.ndarray
    half_F: np.ndarray
    whole_F: np.ndarray
    committed_FJ: np.ndarray


@dataclass
class Scheduled:
    """The policy, over one drafter's prospects."""

    prospects: Prospects
    asks_rate: ClassVar[bool] = True

    def begin(self, servers: np.ndarray, questions: np.ndarray, num_running: np.ndarray) -> tuple[np.ndarray, ...]:
        return self.prospects.begins_Q[questions], self.prospects.ends_Q[questions]

    def of_servers(self, servers: np.ndarray) -> "Scheduled":
        return self

    def written(self, places: np.ndarray, moves: np.ndarray) -> np.ndarray:
        return moves

    def decide(self, state: State, sight: Sight) -> Decision:
        known, at, on = self.prospects, np.where(sight.is_decoding, state.places, 0), sight.is_decoding
        needs_prefill = on & (known.whole_F[at] > 0) & ~state.is_cached
        passes, drafted = self._drafted(at, sight, needs_prefill)
        draft_len = self._chosen(at, drafted, sight)
        accepted = np.minimum(draft_len, known.match_F[at])
        emitted = np.minimum(accepted + 1, known.left_F[at]) * on
        after = np.minimum(at + emitted, len(known.whole_F) - 1)
        state.is_cached = self._is_cached_after(at, after, passes, state.is_cached)
        passes_made, no_tree_ms = passes + needs_prefill * (passes > 0), np.zeros(at.shape)
        return Decision(passes_made, draft_len + on, np.minimum(accepted, emitted), emitted, emitted, no_tree_ms)

    def _drafted(self, at: np.ndarray, sight: Sight, needs_prefill: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[B, C] passes and known tokens of each request, once no further pass pays for any."""
        known, on = self.prospects, sight.is_decoding
        passes = np.zeros_like(at)
        drafted = known.known_FJ[at, 0] * on
        goes_on = on & (known.known_FJ[at, -1] > 0)
        for j in range(known.known_FJ.shape[1] - 1):
            goes_on = goes_on & (known.known_FJ[at, -1] > drafted)
            if not goes_on.any():
                break
            goes_on = self._worth(at, j, drafted, goes_on, sight, needs_prefill)
            passes += goes_on
            drafted = np.where(goes_on, known.known_FJ[at, j + 1], drafted)
        return passes, drafted

    def _worth(
        self, at: np.ndarray, j: int, drafted: np.ndarray, may_go_on: np.ndarray, sight: Sight, needs: np.ndarray
    ) -> np.ndarray:
        """[B, C] whose next pass pays: the most promising ones, as many as together bring most above their price."""
        known, rate_B = self.prospects, sight.rate_B
        survival = np.where(drafted > 0, known.survival_FL[at, np.maximum(drafted - 1, 0)], 1.0)
        ahead = np.arange(1, known.gain_2JM.shape[2] + 1)
        gain = np.where(may_go_on[..., None], survival[..., None] * known.gain_2JM[known.half_F[at], j], -1.0)
        order = np.argsort(-gain, 1, kind="stable")
        sorted_gain = np.take_along_axis(gain, order, 1)
        growth = np.cumsum(np.take_along_axis(known.growth_2JM[known.half_F[at], j], order, 1), 1)
        is_real = sorted_gain >= 0
        pass_ms = sight.pass_ms_BR[:, 1 : at.shape[1] + 1, None] * ahead
        if j == 0 and needs.any():
            first = np.cumsum(np.take_along_axis(np.repeat(needs[..., None], len(ahead), 2), order, 1), 1)
            pass_ms = pass_ms + np.take_along_axis(sight.pass_ms_BR[..., None], first, 1)
        verified_B = sight.num_B + drafted.sum(1)
        more_ms = sight.verify_ms(verified_B[:, None, None] + growth) - sight.verify_ms(verified_B)[:, None, None]
        profit = np.cumsum(sorted_gain, 1) - rate_B[:, None, None] * (pass_ms + more_ms)
        profit = np.where(is_real, profit, -np.inf)
        best_B = profit.reshape(len(at), -1).argmax(1)
        num_B, m_B = best_B // len(ahead), best_B % len(ahead)
        servers = np.arange(len(at))
        rank = np.argsort(order[servers, :, m_B], 1, kind="stable")
        pays_B = profit[servers, num_B, m_B] > 0
        return np.asarray(may_go_on & (rank <= num_B[:, None]) & pays_B[:, None])

    def _chosen(self, at: np.ndarray, drafted: np.ndarray, sight: Sight) -> np.ndarray:
        """[B, C] how many of each draft's tokens are verified: of all, the most probable ones, as many as pay."""
        longest = int(drafted.max(initial=0))
        if longest == 0:
            return drafted
        survival = self.prospects.survival_FL[at, :longest]
        survival = np.where(np.arange(longest) < drafted[..., None], survival, -1.0)
        flat = survival.reshape(len(at), -1)
        order = np.argsort(-flat, 1, kind="stable")
        falling = np.take_along_axis(flat, order, 1)
        counts = np.arange(flat.shape[1] + 1)
        expected = np.concatenate([np.zeros((len(at), 1)), np.cumsum(falling, 1)], 1)
        value = expected - sight.rate_B[:, None] * sight.verify_ms(sight.num_B[:, None] + counts)
        value[:, 1:][falling < 0] = -np.inf
        best_B = value.shape[1] - 1 - value[:, ::-1].argmax(1)
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(counts[:-1], order.shape), 1)
        return np.asarray((rank < best_B[:, None]).reshape(survival.shape).sum(2))

    def _is_cached_after(
        self, at: np.ndarray, after: np.ndarray, passes: np.ndarray, is_cached: np.ndarray
    ) -> np.ndarray:
        """As `ranking/oracle.py` has it: with a draft, if what it committed was right and reaches so far; without one,
        if no block was filled."""
        known = self.prospects
        begin, whole = known.whole_F[at], known.whole_F[after]
        stays = (whole == 0) | (is_cached & (whole == begin))
        return np.asarray(np.where(passes > 0, (whole <= begin) | (whole <= known.committed_FJ[at, passes]), stays))
