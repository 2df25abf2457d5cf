"""Oracle: the least time that any choice of draft lengths could take on a recorded question, and where a record's
time goes beyond it.

The clairvoyant knows the target's text. In every round it drafts nothing, or with one of the drafters as many tokens
as cost it least; it is found by dynamic programming from the text's end. No drafting policy over the same chains can
beat it: prefill passes are in its accounts, and for policies with draft reuse it may reuse at least as much as they.
No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from specdec.ceiling import Ceiling
from specdec.chains import Chain, Chains
from specdec.latency import LatencyProfile, verification_ms
from specdec.records import Record
from specdec.rounds import Round
from specdec.specs import Plain, parse_drafter_name
from specdec.trace import Trace, chains_name
from specdec.verdict import count_accepted


@dataclass(frozen=True)
class Costs:
    """What a round costs: `draft_pass_ms` per drafter pass, and `verify_ms[n]` to verify a draft of n tokens."""

    draft_pass_ms: float
    verify_ms: list[float]

    @classmethod
    def of(cls, profile: LatencyProfile, entry: str, longest: int) -> Costs:
        """A profile's costs, for drafts up to `longest` tokens; `entry` is one of its targets."""
        return cls(profile.draft_pass_ms, [verification_ms(profile, entry, n + 1) for n in range(longest + 1)])

    @cached_property
    def is_monotone(self) -> bool:
        """Whether a longer draft never costs less to verify."""
        return all(a <= b for a, b in zip(self.verify_ms, self.verify_ms[1:], strict=False))

    @cached_property
    def cheapest_from(self) -> list[float]:
        """The least cost to verify a draft of n tokens or more."""
        least, values = float("inf"), []
        for cost in reversed(self.verify_ms):
            least = min(least, cost)
            values.append(least)
        return values[::-1]


@dataclass(frozen=True)
class Move:
    """One choice for a round: a draft of `draft_len` tokens by `drafter` (None: nothing) in `num_passes` passes.

    `cost_ms` is without a prefill. `next_at`: output tokens behind it. `is_cached`: whether the block drafter's
    cache then holds all whole blocks of the prefix; None: only if it did before and no block has been filled since.
    """

    drafter: str | None
    draft_len: int
    num_passes: int
    cost_ms: float
    next_at: int
    is_cached: bool | None


class Oracle:
    """The clairvoyant over one trace under one latency profile, which may use the drafters `names`.

    `reuse_drafts`: it may also continue a draft at no pass, wherever three tokens in a row stand in any chain before:
    at least what FailFast's draft reuse can do, whose every three tokens in a row come from one recorded chain.
    """

    def __init__(self, trace: Trace, costs: Costs, names: tuple[str, ...], *, reuse_drafts: bool = False) -> None:
        self.trace, self.costs, self.names, self.reuse_drafts = trace, costs, names, reuse_drafts
        self._prompt_len, self._end = len(trace.prompt_ids), len(trace.output_tokens)
        blocks = [trace.chains[name].identity["block_size"] for name in names if not trace.chains[name].is_ar]
        self.block_size = blocks[0] if blocks else self._prompt_len + self._end + 1

    @cached_property
    def best_ms(self) -> float:
        return self.values[0][0]

    @cached_property
    def values(self) -> list[tuple[float, float]]:
        """By output tokens so far: the least time for the rest, with the block drafter's cache behind or kept."""
        return [(cold, warm) for (cold, _), (warm, _) in self._solved]

    def best_move(self, at: int, is_cached: bool) -> Move:
        """What the clairvoyant does behind `at` output tokens."""
        return self._solved[at][is_cached][1]

    @cached_property
    def _solved(self) -> list[tuple[tuple[float, Move | None], tuple[float, Move | None]]]:
        solved: list = [None] * self._end + [((0.0, None), (0.0, None))]
        moves_by_drafter = [self._moves_of(self.trace.chains[name]) for name in self.names]
        for at in range(self._end - 1, -1, -1):
            stay = Move(None, 0, 0, self.costs.verify_ms[0], min(at + 1, self._end), None)
            moves = [stay, *(move for by_place in moves_by_drafter if at < len(by_place) for move in by_place[at])]
            solved[at] = tuple(
                min(((self._price(move, at, is_cached, solved), move) for move in moves), key=lambda pair: pair[0])
                for is_cached in (False, True)
            )
        return solved

    def _price(self, move: Move, at: int, is_cached: bool, solved: list) -> float:
        """The move and the best that can follow it."""
        needs_prefill = move.is_cached is not None and not is_cached and self.whole(at) > 0
        prefill_ms = self.costs.draft_pass_ms if needs_prefill else 0.0
        return prefill_ms + move.cost_ms + solved[move.next_at][self.cached_after(move, at, is_cached)][0]

    def cached_after(self, move: Move, at: int, is_cached: bool) -> bool:
        """Whether the block drafter's cache holds all whole blocks once `move` has been made."""
        if move.is_cached is not None:
            return move.is_cached
        whole = self.whole(move.next_at)
        return whole == 0 or (is_cached and whole == self.whole(at))

    def whole(self, at: int) -> int:
        """Positions in whole blocks behind `at` output tokens."""
        return (self._prompt_len + at) // self.block_size * self.block_size

    def _moves_of(self, chains: Chains) -> list[list[Move]]:
        """Per place the drafts of a drafter that may be best; a shorter draft never costs more passes."""
        seen: set[tuple[int, ...]] = set()
        made = []
        for at, chain in enumerate(chains.chains):
            made.append(list(self._moves_at(at, chain, chains, seen)))
            if self.reuse_drafts and not chains.is_ar:
                seen.update(zip(chain.tokens, chain.tokens[1:], chain.tokens[2:], strict=False))
        return made

    def _moves_at(self, at: int, chain: Chain, chains: Chains, seen: set[tuple[int, ...]]) -> Iterator[Move]:
        budget, match = self.trace.identity["max_new_tokens"] - at - 1, self._match(at, chain)
        longest = min(budget, match if self.costs.is_monotone else len(chain.tokens))
        for draft_len in range(1, longest + 1):
            num_passes, accepted_len = chain.passes_for[draft_len], min(draft_len, match)
            verify_ms = self.costs.verify_ms[draft_len]
            if seen and 2 <= draft_len <= match:
                accepted_len += _num_reused(self.trace.output_tokens, at + draft_len, budget - draft_len, seen)
                verify_ms = self.costs.cheapest_from[accepted_len]
            next_at = min(at + accepted_len + 1, self._end)
            is_cached = None if chains.is_ar else self.cached_behind(at, chain, num_passes, next_at)
            cost_ms = self.costs.draft_pass_ms * num_passes + verify_ms
            yield Move(chains.name, draft_len, num_passes, cost_ms, next_at, is_cached)
            if chain.tokens[draft_len - 1] in self.trace.stop_ids:
                return

    def cached_behind(self, at: int, chain: Chain, num_passes: int, next_at: int) -> bool:
        """Whether the cache holds all whole blocks after a draft of so many passes: those that were committed while
        drafting, if they were right."""
        begin, whole = self.whole(at), self.whole(next_at)
        if whole <= begin:
            return True
        committed = begin + self.block_size * sum(chain.is_commit[:num_passes])
        return whole <= min(committed, self._prompt_len + at + self._match(at, chain))

    def _match(self, at: int, chain: Chain) -> int:
        """How many tokens of a chain are the text's own."""
        return count_accepted(chain.tokens, self.trace.output_tokens[at : at + len(chain.tokens)])


def _num_reused(text: list[int], at: int, limit: int, seen: set[tuple[int, ...]]) -> int:
    """How far `text` goes on from `at`, each token seen before behind the two in front of it."""
    end = at
    while end < min(at + limit, len(text)) and tuple(text[end - 2 : end + 1]) in seen:
        end += 1
    return end - at


class Judge:
    """Ceilings of a trace's records under one latency profile; the oracles it needs are made once."""

    def __init__(self, trace: Trace, profile: LatencyProfile, entry: str) -> None:
        longest = max((len(chain.tokens) for chains in trace.chains.values() for chain in chains.chains), default=0)
        self.trace = trace
        self.costs = Costs.of(profile, entry, longest + trace.identity["max_new_tokens"])
        self._oracles: dict[tuple[tuple[str, ...], bool], Oracle] = {}

    def oracle(self, names: tuple[str, ...], reuse_drafts: bool = False) -> Oracle:
        key = (names, reuse_drafts)
        if key not in self._oracles:
            self._oracles[key] = Oracle(self.trace, self.costs, names, reuse_drafts=reuse_drafts)
        return self._oracles[key]

    def ceiling(self, record: Record) -> Ceiling:
        """Where the time of a record of this question goes. Raises UserError if its drafter was not recorded."""
        spec, reuse = parse_drafter_name(record.drafter_name), bool(record.identity.get("reuse_drafts"))
        name = chains_name(spec)
        if not isinstance(spec, Plain):
            self.trace.chains_of(spec)
        own = self.oracle((name,) if name else (), reuse)
        best = self.oracle(tuple(sorted(self.trace.chains)), reuse)
        lost = {"over_ms": 0.0, "under_ms": 0.0, "passes_ms": own.best_ms - best.best_ms}
        at, is_cached = 0, False
        for turn in record.rounds:
            at, is_cached = _charge(own, turn, (at, is_cached), lost)
        return Ceiling(best_ms=best.best_ms, **lost)


def _charge(own: Oracle, turn: Round, state: tuple[int, bool], lost: dict[str, float]) -> tuple[int, bool]:
    """Add what a round loses against the clairvoyant's best move to the reason for it; returns the next state."""
    (at, is_cached), costs = state, own.costs
    num_passes = turn.num_denoise_passes + turn.num_commit_passes
    next_at = at + len(turn.emitted_tokens)
    is_block_draft = bool(own.names) and turn.draft_len > 0 and not own.trace.chains[own.names[0]].is_ar
    after = (
        own.cached_behind(at, own.trace.chains[own.names[0]].chains[at], num_passes, next_at)
        if is_block_draft
        else own.cached_after(Move(None, 0, 0, 0.0, next_at, None), at, is_cached)
    )
    needs_prefill = is_block_draft and not is_cached and own.whole(at) > 0
    needless_ms = costs.draft_pass_ms * (turn.num_prefill_passes - needs_prefill)
    spent_ms = costs.draft_pass_ms * turn.num_forward_passes + costs.verify_ms[turn.draft_len]
    regret_ms = spent_ms - needless_ms + own.values[next_at][after] - own.values[at][is_cached]
    best = own.best_move(at, is_cached)
    is_over = (num_passes, turn.draft_len) > (best.num_passes, best.draft_len)
    lost["over_ms" if is_over else "under_ms"] += regret_ms
    lost["passes_ms"] += needless_ms
    return next_at, after
