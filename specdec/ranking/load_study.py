"""Load study: drafters and policies at several loads, simulated over records and traces by a profile with rows.

Every drafter sees the same requests in the same order. Beside the questions themselves each load is run for others that
are drawn from them with replacement, whole conversations at a time, each in an order of its own: their spread is the
interval, over questions and seeds. `latency/load.py` is the server, `load_table.py` what comes of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from specdec.drafters.families import kind_of_chains
from specdec.drafters.plain import PLAIN
from specdec.errors import UserError
from specdec.latency.batch_costs import BatchCosts, beyond, pass_rows, verify_rows
from specdec.latency.load import serve
from specdec.latency.pricing import Pricing
from specdec.latency.profile import DEFAULT_PROFILES, LatencyProfile
from specdec.latency.scheduling import Scheduled
from specdec.latency.serving import CHUNK, Plan, Policy, Served
from specdec.ranking.load_bound import Boards, bound_ms
from specdec.ranking.load_table import (
    CLAIRVOYANT,
    CONCURRENCY,
    FIXED,
    OFF,
    REQUEST_RATE,
    SCHEDULED,
    TAILS,
    Load,
    LoadRow,
    LoadTable,
    table_of,
    value_of,
)
from specdec.ranking.requests import NEVER, Requests
from specdec.ranking.statistics import MIN_QUESTIONS
from specdec.traces.prospects import prospects
from specdec.traces.trace import Trace

LEAST_REQUESTS = 200  # that come at a rate
PROFILE = ("H100_bound",)  # where nobody asks for one: the default of rankings has no rows


@dataclass(frozen=True)
class Asked:
    """What is simulated: that many requests at a time, or coming in a second (then at most `max_batch` are served at a
    time); `seeds` draws of the questions beside these, from `seed` on; the rest as `Plan` has it. `extrapolate`: also
    beyond the profile's rows."""

    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    request_rate: tuple[float, ...] = ()
    policies: tuple[str, ...] = (FIXED,)
    seeds: int = 8
    seed: int = 0
    max_batch: int = 256
    chunk: int = CHUNK
    context: int | None = None
    extrapolate: bool = False

    @property
    def loads(self) -> list[Load]:
        return [
            *(Load(CONCURRENCY, one) for one in dict.fromkeys(self.concurrency)),
            *(Load(REQUEST_RATE, r) for r in dict.fromkeys(self.request_rate)),
        ]

    @property
    def most(self) -> int:
        """Requests at a time, over all loads."""
        return max([1, *self.concurrency, *([self.max_batch] if self.request_rate else [])])


def priced_by(names: Sequence[str], as_if: str | None, target: str) -> tuple[LatencyProfile, str]:
    """The profile of these names, and its entry that `target` is priced as. Raises UserError unless it is one."""
    pricing = Pricing.load(PROFILE if names is DEFAULT_PROFILES else names, as_if)
    if len(pricing.profiles) != 1:
        raise UserError("--latency_profile: a server has one profile, and needs one")
    return next(iter(pricing.entries(target).values()))


@dataclass(frozen=True)
class Study:
    """`traces`: of all the questions, in their order, for policies that need them; empty where none does. `unpriced`:
    the drafters that are left out, as the profile does not say what a pass of theirs costs; of one that prices none of
    them a UserError."""

    requests: Requests
    profile: LatencyProfile
    entry: str
    asked: Asked
    traces: Sequence[Trace] = ()
    beyond: tuple[str, ...] = field(init=False)
    unpriced: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "unpriced", tuple(self._unpriced()))
        object.__setattr__(self, "requests", self.requests.without(self.unpriced))
        object.__setattr__(self, "beyond", tuple(self._beyond()))
        if self.beyond and not self.asked.extrapolate:
            what = f"latency profile {self.profile.name} does not reach {' or '.join(self.beyond)}"
            raise UserError(f"{what}: ask for less, or go on in a straight line with failfast load --extrapolate")
        if OFF in self.asked.policies and not self.asked.request_rate:
            raise UserError(
                "the policy off is for requests that come at a rate, some where more run: give --request_rate"
            )
        if {SCHEDULED, CLAIRVOYANT} & {*self.asked.policies} and not self.traces:
            raise UserError(
                "the policies scheduled and clairvoyant need traces of the questions: record them with "
                "failfast.py --record, or leave out --policies"
            )

    def tables(self) -> list[LoadTable]:
        """One a load, in the order asked for."""
        return [self.table(load) for load in self.asked.loads]

    def table(self, load: Load) -> LoadTable:
        """All rows at one load, and what batch 1's choice loses there."""
        if load.kind == REQUEST_RATE:
            return table_of(load, list(self._at_rate(load.value)), self.batch_1, self._notes(self.asked.max_batch))
        return table_of(load, self._at(int(load.value)), self.batch_1, self._notes(int(load.value)))

    @cached_property
    def batch_1(self) -> str:
        """The drafter that gives most for one request at a time, as it was recorded."""
        rows = table_of(Load(CONCURRENCY, 1), self._at(1)).rows
        return next((row.name for row in rows if row.policy == FIXED), "")

    def _at(self, places: int) -> list[LoadRow]:
        """All rows for `places` requests at a time; made once for each."""
        if places not in self._made:
            self._made[places] = [*self._fixed(places), *self._scheduled(places), *self._bounds(places)]
        return self._made[places]

    @cached_property
    def _made(self) -> dict[int, list[LoadRow]]:
        return {}

    def _fixed(self, places: int, rate: float | None = None) -> list[LoadRow]:
        drafters = np.arange(len(self.requests.drafters))
        each = np.repeat(drafters, self.num_draws)
        served = self._serve(places, self._recorded(each), self.requests.kinds_of(each, self.kinds), rate)
        lengths = map(self.requests.acceptance_len, self.requests.drafters)
        return [
            self._row(name, FIXED, draws, length)
            for name, draws, length in zip(self.requests.drafters, self._draws(served), lengths, strict=True)
        ]

    def _scheduled(self, places: int, rate: float | None = None) -> Iterator[LoadRow]:
        if SCHEDULED not in self.asked.policies:
            return
        for name, policy in self._policies.items():
            kinds = np.full(self.num_draws, self.kinds.index(kind_of_chains(name).priced_as))
            served = self._serve(places, policy, kinds, rate)
            yield self._row(name, SCHEDULED, self._draws(served)[0])

    @cached_property
    def _policies(self) -> dict[str, Policy]:
        halves = np.zeros(len(self.requests.questions), int)
        for place, group in enumerate(self.requests.groups):
            halves[group] = place % 2
        reach = max(verify_rows(self.profile, self.entry).tokens) - 1  # no longer drafts than the profile prices
        longest = None if self.asked.extrapolate else reach
        return {name: Scheduled(prospects(self.traces, name, halves.tolist(), longest)) for name in self.chains}

    @cached_property
    def chains(self) -> list[str]:
        """The recorded drafters of all traces whose passes the profile prices by rows."""
        names = set.intersection(*(set(trace.chains) for trace in self.traces)) if self.traces else set()
        return sorted(name for name in names if self._is_priced(kind_of_chains(name).priced_as))

    def _unpriced(self) -> list[str]:
        verify_rows(self.profile, self.entry)
        drafters = [name for name in self.requests.drafters if name != PLAIN]
        kinds = {name: self.requests.kind_of(name) for name in drafters}
        found = [name for name, kind in kinds.items() if kind and not self._is_priced(kind)]
        if found and len(found) == len(drafters):
            pass_rows(self.profile, self.entry, kinds[found[0]])
        return found

    def _is_priced(self, kind: str) -> bool:
        try:
            pass_rows(self.profile, self.entry, kind)
        except UserError:
            return False
        return True

    def _bounds(self, places: int) -> Iterator[LoadRow]:
        """What no policy over the recorded drafters can beat."""
        if CLAIRVOYANT not in self.asked.policies:
            return
        board = Boards(self.traces, self.chains, self.requests.has_reuse)
        ms = bound_ms(board, self._costs(places), self.asked.context)
        rate = 1e3 * float(self.requests.output_lens_Q.sum()) / ms
        draws = {"tokens_per_s": np.full(self.num_draws, rate)}
        yield self._row("all drafters", CLAIRVOYANT, draws)

    def _at_rate(self, rate: float) -> Iterator[LoadRow]:
        """Of requests that come at a rate. What serves less than that, however many wait, does not keep up."""
        most = self.asked.max_batch
        lens = self.requests.output_lens_Q.mean()
        full = {(row.name, row.policy): row.number("tokens_per_s") / lens for row in self._at(most)}
        for row in [*self._fixed(most, rate), *self._scheduled(most, rate), *self._off(rate)]:
            capacity = full.get((row.name, row.policy), max(full.get((row.name, FIXED), 0.0), full[PLAIN, FIXED]))
            keeps_up = rate < capacity
            yield row if keeps_up else LoadRow(row.name, row.policy, {}, row.acceptance_len, has_kept_up=False)

    def _off(self, rate: float) -> list[LoadRow]:
        """Drafters that new requests go without where more of them run than the drafter is of use for."""
        if OFF not in self.asked.policies:
            return []
        limits = self.break_even
        drafters = np.arange(1, len(self.requests.drafters))
        each = np.repeat(drafters, self.num_draws)
        above = np.array([limits[self.requests.drafters[at]] for at in each])
        kinds = self.requests.kinds_of(each, self.kinds)
        served = self._serve(self.asked.max_batch, self._recorded(each, above), kinds, rate)
        pairs = zip(self.requests.drafters[1:], self._draws(served), strict=True)
        return [self._row(name, OFF, draws) for name, draws in pairs]

    @cached_property
    def break_even(self) -> dict[str, int]:
        """By drafter the most requests at a time, among powers of two, up to which it beats plain decoding."""
        found = dict.fromkeys(self.requests.drafters, 0)
        beaten: set[str] = set()
        places = 1
        while places <= self.asked.max_batch:
            table = table_of(Load(CONCURRENCY, places), self._at(places))
            for row in (one for one in table.rows if one.policy == FIXED and one.name not in beaten):
                if row.number("speedup") > 1:
                    found[row.name] = places
                else:
                    beaten.add(row.name)
            places *= 2
        return found | {name: NEVER for name, most in found.items() if most * 2 > self.asked.max_batch}

    @property
    def num_draws(self) -> int:
        """The questions as they are and, of enough of them to say something of their spread, others drawn from them."""
        return 1 + self.asked.seeds if len(self.requests.groups) >= MIN_QUESTIONS else 1

    @property
    def has_intervals(self) -> bool:
        return self.num_draws - 1 >= MIN_QUESTIONS

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        own = {kind_of_chains(name).priced_as for name in self.chains}
        return tuple(sorted({*self.requests.kinds, *own}))

    def _recorded(self, drafters: np.ndarray, off_above: np.ndarray | None = None) -> Policy:
        return self.requests.policy(drafters, self.beside_ms_F, off_above)

    @cached_property
    def beside_ms_F(self) -> np.ndarray:
        """What every round's tree takes beside its passes, for a request alone."""
        return self.requests.beside_ms(self.profile, self.entry)

    def _costs(self, places: int) -> BatchCosts:
        return BatchCosts.of(self.profile, self.entry, self.kinds, places)

    def _serve(self, places: int, policy: Policy, kinds: np.ndarray, rate: float | None = None) -> Served:
        """All draws of the questions, for every drafter one after the other."""
        num_questions = len(self.requests.questions)
        least = max(num_questions, 2 * places if rate is None else LEAST_REQUESTS)
        num_measured = num_questions * -(-least // num_questions)
        picks, under_way, gaps = zip(
            *(self._draw(at, places, num_measured) for at in range(self.num_draws)), strict=True
        )
        num_drafters = len(kinds) // self.num_draws
        plan = Plan(
            num_places=places,
            num_measured=num_measured,
            picks_BL=np.tile(np.stack(picks), (num_drafters, 1)),
            kinds_B=kinds,
            prompt_lens_Q=self.requests.prompt_lens_Q,
            arrivals_BN=None if rate is None else np.tile(1e3 / rate * np.cumsum(gaps, 1), (num_drafters, 1)),
            under_way_BC=None if rate is not None else np.tile(np.stack(under_way), (num_drafters, 1)),
            chunk=self.asked.chunk,
            context=self.asked.context,
        )
        return serve(plan, policy, self._costs(places))

    def _draw(self, at: int, places: int, num_measured: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The questions of requests in order, how far those under way are, and the gaps between arrivals; draw 0 is of
        the questions themselves, each as often as the others."""
        rng = np.random.default_rng([self.asked.seed, at])
        groups, num_questions = self.requests.groups, len(self.requests.questions)
        drawn = groups if at == 0 else [groups[one] for one in rng.integers(len(groups), size=len(groups))]
        questions = np.resize(np.concatenate(drawn), num_questions)
        order = [rng.permutation(questions) for _ in range(num_measured // num_questions)]
        return np.concatenate(order), rng.random(places), rng.exponential(size=num_measured)

    def _draws(self, served: Served) -> list[dict[str, np.ndarray]]:
        """By drafter, every quantity of every draw."""
        tpot_BN = (served.finished_BN - served.read_BN) / served.emitted_BN
        times = {"tpot_ms": tpot_BN, "ttft_ms": served.first_BN - served.arrived_BN}
        per_s = 1e3 / served.time_ms_B
        found = {"tokens_per_s": served.tokens_B * per_s, "accepted_per_s": served.accepted_B * per_s}
        found["wasted_per_s"] = (served.drafted_B - served.accepted_B) * per_s
        for name, times_BN in times.items():
            tails = np.percentile(times_BN, TAILS, axis=1)
            found |= {f"{name}_p{share}": tail_B for share, tail_B in zip(TAILS, tails, strict=True)}
        by_drafter = {name: draws.reshape(-1, self.num_draws) for name, draws in found.items()}
        return [{name: draws[at] for name, draws in by_drafter.items()} for at in range(len(per_s) // self.num_draws)]

    def _row(self, name: str, policy: str, draws: Mapping[str, np.ndarray], length: float | None = None) -> LoadRow:
        values = {quantity: value_of(one, policy != CLAIRVOYANT) for quantity, one in draws.items()}
        return LoadRow(name, policy, values, length, draws=draws)

    def _beyond(self) -> list[str]:
        rows, asked = verify_rows(self.profile, self.entry), self.asked
        longest = self.requests.prompt_lens_Q + self.requests.output_lens_Q
        context = float(longest.max()) if asked.context is None else asked.context
        tokens = max(int(self.requests.tables[1].max()) + 1, min(asked.chunk, int(self.requests.prompt_lens_Q.max())))
        passes_of = {one: ["the target"] for one in beyond(rows, asked.most, tokens, context)}
        for kind in self.requests.kinds:
            for one in beyond(pass_rows(self.profile, self.entry, kind), asked.most, 0, context):
                passes_of.setdefault(one, []).append(kind)
        return [f"{one} for passes of {', '.join(kinds)}" for one, kinds in passes_of.items()]

    def _notes(self, places: int) -> list[str]:
        """What is not sure of a load: whether its contexts fit, what was extrapolated."""
        rows, notes = verify_rows(self.profile, self.entry), []
        mean = float((self.requests.prompt_lens_Q + self.requests.output_lens_Q / 2).mean())
        needed = places * (mean if self.asked.context is None else self.asked.context)
        if rows.kv_tokens is not None and needed > rows.kv_tokens:
            notes.append(
                f"its {needed:,.0f} tokens of context do not fit on one such GPU, which has room for {rows.kv_tokens:,}"
            )
        if places > max(rows.requests):
            notes.append(f"extrapolated: the profile ends at {max(rows.requests)} requests")
        return notes
