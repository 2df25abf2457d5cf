"""Oracle: the least time that any choice of draft lengths could take on a recorded question, and where a record's
time goes beyond it.

The clairvoyant knows the target's text. In every round it drafts nothing, or with one of the drafters the number of
tokens that costs it least; it is found by dynamic programming from the text's end. No drafting policy over the same
chains can beat it: prefill passes are in its accounts, and for policies with draft reuse it may reuse at least as much
as they. Of a tree it drafts the text's own path alone, as far as that is on offer, so that no choice of nodes within
what was recorded can beat it either. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import accumulate
from math import inf
from pathlib import Path

from specdec.decoding.chains import Chain, Chains
from specdec.decoding.offers import Offers
from specdec.drafters.families import kind_of_chains, parse_name
from specdec.errors import UserError
from specdec.latency.pricing import Pricing, tree_extra_ms
from specdec.latency.profile import LatencyProfile, verifications_ms
from specdec.ranking.ceiling import Ceiling
from specdec.records.identity import first_difference
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.traces.trace import Trace, load_trace, trace_path


@dataclass(frozen=True)
class Costs:
    """What a round costs: `block_pass_ms` or `ar_pass_ms` per drafter pass, or that of a family which the profile
    knows of itself (by `Spec.priced_as`), `verify_ms[n]` for a draft of n tokens."""

    block_pass_ms: float
    ar_pass_ms: float
    verify_ms: list[float]
    family_pass_ms: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: LatencyProfile, entry: str, longest: int) -> "Costs":
        """A profile's costs, for drafts up to `longest` tokens and as far as its table goes, after which it is flat;
        `entry` is one of its targets."""
        longest = max(longest, *profile.verify_ms.get(entry, {0: 0.0}))
        verify_ms = verifications_ms(profile, entry, range(1, longest + 2))
        return cls(profile.pass_ms("block", entry), profile.pass_ms("ar", entry), verify_ms, profile.families(entry))

    def pass_ms(self, has_blocks: bool, priced_as: str = "") -> float:
        ours = self.block_pass_ms if has_blocks else self.ar_pass_ms
        return self.family_pass_ms.get(priced_as, ours)

    def of_chains(self, chains: Chains | None) -> float:
        """A pass of the drafter of some chains; None: of none."""
        return self.pass_ms(False) if chains is None else self.pass_ms(chains.has_blocks, family_of(chains.name))

    def verification(self, draft_len: int) -> float:
        """Of a draft of any length."""
        return self.verify_ms[min(draft_len, len(self.verify_ms) - 1)]

    @cached_property
    def is_monotone(self) -> bool:
        """Whether a longer draft never costs less to verify."""
        return all(a <= b for a, b in zip(self.verify_ms, self.verify_ms[1:], strict=False))

    @cached_property
    def cheapest_from(self) -> list[float]:
        """The least cost to verify a draft of n tokens or more."""
        return list(accumulate(reversed(self.verify_ms), min))[::-1]


@dataclass(frozen=True)
class Move:
    """One choice for a round: a draft of `draft_len` tokens by `drafter` (None: nothing) in `num_passes` passes.

    `cost_ms` is without a prefill. `next_at`: output tokens after it. `is_cached`: whether the block drafter's
    cache then holds all whole blocks of the prefix; None: only if it did before and no block has been filled since.
    """

    drafter: str | None
    draft_len: int
    num_passes: int
    cost_ms: float
    next_at: int
    is_cached: bool | None


class Board:
    """The moves that there are on one trace at some costs. See `Oracle` for `reuse_drafts`."""

    def __init__(self, trace: Trace, costs: Costs, *, reuse_drafts: bool = False) -> None:
        self.trace, self.costs, self.reuse_drafts = trace, costs, reuse_drafts
        self.stop_ids, self.end = trace.stop_ids, len(trace.output_tokens)
        sizes = [chains.identity["block_size"] for chains in trace.chains.values() if chains.has_blocks]
        self.block_size = sizes[0] if sizes else None
        self.chains = dict(trace.chains)
        self._offered: set[str] = set()  # of which trees are made
        self._moves: dict[str, list[list[Move]]] = {}
        for offers in trace.offers.values():
            self.add(offers)

    def add(self, recorded: Chains | Offers) -> None:
        """What a drafter that is not there yet drafts from: chains, or of what it makes trees of, the text's path."""
        if recorded.name not in self.chains:
            is_offer = isinstance(recorded, Offers)
            chains = recorded.true_chains(self.trace.output_tokens) if isinstance(recorded, Offers) else recorded
            self.add_chains(chains, of_tree=is_offer)

    def add_chains(self, chains: Chains, *, of_tree: bool) -> None:
        """Chains; `of_tree`: the text's own path through a tree, which may have other nodes too."""
        self.chains.setdefault(chains.name, chains)
        self._offered |= {chains.name} if of_tree else set()

    @cached_property
    def wholes(self) -> list[int]:
        """Positions in whole blocks of the block drafter, by output tokens so far."""
        prompt_len, size = len(self.trace.prompt_ids), self.block_size
        return [(prompt_len + at) // size * size if size else 0 for at in range(self.end + 1)]

    def stay(self, at: int) -> Move:
        """No draft: one token of the target."""
        return Move(None, 0, 0, self.costs.verify_ms[0], at + 1, None)

    def moves(self, name: str) -> list[list[Move]]:
        """Per place the drafts of a drafter that may be best; a shorter draft never costs more passes."""
        if name not in self._moves:
            chains, made = self.chains[name], []
            seen: set[tuple[int, ...]] = set()
            for at, chain in enumerate(chains.chains):
                made.append(self._moves_at(at, chain, chains, seen))
                if self.reuse_drafts and chains.has_blocks:
                    drafted = self.trace.draftable(at, chain.tokens)
                    seen.update(zip(drafted, drafted[1:], drafted[2:], strict=False))
            self._moves[name] = made
        return self._moves[name]

    def _moves_at(self, at: int, chain: Chain, chains: Chains, seen: set[tuple[int, ...]]) -> list[Move]:
        match, made, costs = self.match(at, chain), [], self.costs
        budget = self.trace.identity.max_new_tokens - at - 1
        longest = min(budget, match if costs.is_monotone else len(chain.tokens))
        passes_for = chain.passes_for
        for draft_len in range(1, longest + 1):
            num_passes, accepted_len = passes_for[draft_len], min(draft_len, match)
            # A tree may have other nodes too, where more of them are verified for less.
            verify_ms = (costs.cheapest_from if chains.name in self._offered else costs.verify_ms)[draft_len]
            if seen and 2 <= draft_len <= match:
                accepted_len += _num_reused(self.trace.output_tokens, at + draft_len, budget - draft_len, seen)
                verify_ms = costs.cheapest_from[accepted_len]
            next_at = min(at + accepted_len + 1, self.end)
            is_cached = self.cached_after(at, chain, num_passes, next_at) if chains.has_blocks else None
            cost_ms = costs.of_chains(chains) * num_passes + verify_ms
            made.append(Move(chains.name, draft_len, num_passes, cost_ms, next_at, is_cached))
            if chain.tokens[draft_len - 1] in self.stop_ids:
                break
        return made

    def cached_after(self, at: int, chain: Chain, num_passes: int, next_at: int) -> bool:
        """Whether the cache holds all whole blocks after a draft: those committed in `num_passes` passes, if right."""
        begin, whole = self.wholes[at], self.wholes[next_at]
        if whole <= begin:
            return True
        committed = begin + (self.block_size or 0) * sum(chain.is_commit[:num_passes])
        return whole <= min(committed, len(self.trace.prompt_ids) + at + self.match(at, chain))

    def cached_without(self, at: int, is_cached: bool, next_at: int) -> bool:
        """The same after a round without the block drafter: only if it did before and no block has been filled."""
        whole = self.wholes[next_at]
        return whole == 0 or (is_cached and whole == self.wholes[at])

    def match(self, at: int, chain: Chain) -> int:
        """How many tokens of a chain the text has too."""
        return self.trace.match(at, chain.tokens)


class Oracle:
    """The clairvoyant over one trace under one latency profile, which may use the drafters `names`.

    With the board's `reuse_drafts` it may also continue a draft at no pass, wherever three tokens in a row stand in
    any chain before: at least what FailFast's draft reuse can do, whose every three tokens in a row come from one
    recorded chain.

    `values[is_cached][at]`: the least time for the rest after `at` output tokens, with the block drafter's cache
    outdated (0) or kept (1); `best_moves` likewise.
    """

    def __init__(self, board: Board, names: Sequence[str]) -> None:
        self.board, self.names = board, tuple(names)
        self.values = ([0.0] * (board.end + 1), [0.0] * (board.end + 1))
        self.best_moves: tuple[list[Move | None], list[Move | None]] = ([None] * board.end, [None] * board.end)
        moves = [board.moves(name) for name in self.names]
        for at in range(board.end - 1, -1, -1):
            self._solve(at, [board.stay(at), *(move for made in moves if at < len(made) for move in made[at])])

    @property
    def best_ms(self) -> float:
        return self.values[0][0]

    def _solve(self, at: int, moves: list[Move]) -> None:
        board, (cold, warm) = self.board, self.values
        prefill_ms = board.costs.block_pass_ms if board.wholes[at] else 0.0
        best = [(inf, moves[0]), (inf, moves[0])]
        for move in moves:
            next_at = move.next_at
            if move.is_cached is None:
                after = [board.cached_without(at, kept, next_at) for kept in (False, True)]
                ms = [move.cost_ms + self.values[is_cached][next_at] for is_cached in after]
            else:
                least = move.cost_ms + (warm if move.is_cached else cold)[next_at]
                ms = [least + prefill_ms, least]
            for kept in (0, 1):
                if ms[kept] < best[kept][0]:
                    best[kept] = (ms[kept], move)
        for kept in (0, 1):
            self.values[kept][at], self.best_moves[kept][at] = best[kept]


@cache
def family_of(chains_name: str) -> str:
    """What a pass of the drafter of such chains is priced as; of a drafter that is not known here, as a block."""
    try:
        return kind_of_chains(chains_name).priced_as
    except UserError:
        return "block"


def _num_reused(text: list[int], at: int, limit: int, seen: set[tuple[int, ...]]) -> int:
    """How far `text` goes on from `at`, as long as each token and the two before it are in `seen`."""
    end = at
    while end < min(at + limit, len(text)) and tuple(text[end - 2 : end + 1]) in seen:
        end += 1
    return end - at


class Judge:
    """Ceilings of a trace's records under one latency profile; the oracles it needs are made once."""

    def __init__(self, trace: Trace, profile: LatencyProfile, entry: str) -> None:
        longest = max((len(chain.tokens) for chains in trace.chains.values() for chain in chains.chains), default=0)
        longest = max([longest, *(offers.depth for offers in trace.offers.values())])
        costs = Costs.of(profile, entry, longest + trace.identity.max_new_tokens)
        self.trace, self.profile, self.entry = trace, profile, entry
        self._boards = {reuse: Board(trace, costs, reuse_drafts=reuse) for reuse in (False, True)}
        self._oracles: dict[tuple[tuple[str, ...], bool], Oracle] = {}

    def knows(self, priced_as: str) -> bool:
        """Whether such a drafter's passes are priced."""
        return self.profile.knows(priced_as, self.entry)

    def oracle(self, names: tuple[str, ...], reuse_drafts: bool = False) -> Oracle:
        key = (names, reuse_drafts)
        if key not in self._oracles:
            self._oracles[key] = Oracle(self._boards[reuse_drafts], names)
        return self._oracles[key]

    def ceiling(self, record: Record) -> Ceiling:
        """Where the time of a record of this question goes. Raises UserError if its own drafter was not recorded."""
        spec, settings = parse_name(record.drafter_name), dict(record.identity.settings)
        reuse = bool(settings.get("reuse_drafts"))
        found = [(part, recorded) for part in spec.parts if (recorded := self.trace.recorded_of(part)) is not None]
        said = {key: value for _, recorded in found for key, value in recorded.identity.items()}
        known = {key: value for key, value in said.items() if key in settings}
        difference = first_difference(known, {key: settings[key] for key in known})
        if difference is not None:
            raise UserError(f"the trace of question {record.question_id} is of another drafter ({difference})")
        for part, recorded in found:
            if isinstance(recorded, Offers):
                recorded.require(part.chain_len(settings), record.drafter_name, record.question_id)
            self._boards[reuse].add(recorded)  # chains that follow from the text are in no older trace
        paths = [chains for part in spec.parts if (chains := part.true_chains(self.trace)) is not None]
        for chains in paths:
            self._boards[reuse].add_chains(chains, of_tree=True)
        names = tuple(one.name for one in [*paths, *(recorded for _, recorded in found)])  # the last one's passes
        everything = {*self.trace.chains, *self.trace.offers, *names}
        priced = (name for name in everything if self.knows(family_of(name)))
        own, best = self.oracle(names, reuse), self.oracle(tuple(sorted(priced)), reuse)
        lost = {"over_ms": 0.0, "under_ms": 0.0, "passes_ms": own.best_ms - best.best_ms}
        at, is_cached = 0, False
        for turn in record.rounds:
            more_ms = sum(tree_extra_ms(self.profile, self.entry, spec, turn))
            at, is_cached = _charge(own, turn, (at, is_cached), lost, more_ms)
        return Ceiling(best_ms=best.best_ms, **lost)


def _charge(
    own: Oracle, turn: Round, state: tuple[int, bool], lost: dict[str, float], more_ms: float
) -> tuple[int, bool]:
    """Add what a round loses against the clairvoyant's best move to the reason for it; returns the next state.
    `more_ms`: what it cost beyond a draft in a row, which the clairvoyant always drafts."""
    (at, is_cached), board, costs = state, own.board, own.board.costs
    num_passes = turn.num_denoise_passes + turn.num_commit_passes
    next_at = at + turn.accepted_len + (turn.next_token is not None)
    chains = next((board.chains[name] for name in own.names if board.chains[name].has_blocks), None)
    # A block draft without any pass, whose cache was kept, leaves the cache as a draft by others does.
    is_block_draft = turn.draft_len > 0 and turn.num_forward_passes > 0
    if chains is not None and is_block_draft:
        is_cached_after = board.cached_after(at, chains.chains[at], num_passes, next_at)
    else:
        is_cached_after = board.cached_without(at, is_cached, next_at)
    needs_prefill = chains is not None and is_block_draft and not is_cached and board.wholes[at] > 0
    pass_ms = costs.of_chains(chains or next((board.chains[name] for name in own.names[-1:]), None))
    needless_ms = pass_ms * (turn.num_prefill_passes - needs_prefill)
    spent_ms = pass_ms * turn.num_forward_passes + costs.verification(turn.draft_len) + more_ms
    regret_ms = spent_ms - needless_ms + own.values[is_cached_after][next_at] - own.values[is_cached][at]
    best = own.best_moves[is_cached][at] or board.stay(at)  # all are known once the oracle is made
    is_over = (num_passes, turn.draft_len) > (best.num_passes, best.draft_len)
    lost["over_ms" if is_over else "under_ms"] += regret_ms
    lost["passes_ms"] += needless_ms
    return next_at, is_cached_after


class TraceJudges:
    """The judges of one trace's records, one per engine."""

    def __init__(self, trace: Trace, pricing: Pricing) -> None:
        entries = pricing.entries(trace.identity.target)
        self.trace = trace
        self._judges = {engine: Judge(trace, profile, entry) for engine, (profile, entry) in entries.items()}

    def ceilings(self, record: Record) -> dict[str, Ceiling]:
        """By engine name, as `Pricing.prices`, of a record of the trace's text; none where its drafts come from other
        texts as well."""
        spec = parse_name(record.drafter_name)
        if spec.reads_earlier:
            return {}
        known = {engine: judge for engine, judge in self._judges.items() if judge.knows(spec.passes_priced_as)}
        return {engine: judge.ceiling(record) for engine, judge in known.items()}


class Judges:
    """Finds the trace of each record in a results folder; what a trace took to judge is done once."""

    def __init__(self, trace_dir: str | Path, pricing: Pricing) -> None:
        self.trace_dir, self.pricing = trace_dir, pricing
        self._judges: dict[Path, TraceJudges] = {}

    def ceilings(self, record: Record) -> dict[str, Ceiling]:
        """By engine name. Raises UserError for a sampled record, and where its question has no trace, or one of
        another text."""
        if record.is_sampled:
            raise UserError(f"{record.drafter_name} was sampled, and traces are of greedy runs: leave out --trace_dir")
        path = trace_path(self.trace_dir, record.identity)
        if path not in self._judges:
            self._judges[path] = TraceJudges(load_trace(path), self.pricing)
        trace = self._judges[path].trace
        if (trace.prompt_ids, trace.output_tokens) != (record.prompt_ids, record.output_tokens):
            raise UserError(f"{path} is the trace of another text than {record.drafter_name}'s: record it again")
        return self._judges[path].ceilings(record)
