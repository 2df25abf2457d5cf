"""Load: many requests at once, as a server with continuous batching runs them, step by step.

In a step the drafter runs for the requests that decode: its first pass for all that want one, its second for those that
want two, and so on. Then one pass of the target verifies all drafts and reads chunks of the prompts that wait, the
oldest first. What trees take beside passes, each request adds to its steps. Who is finished leaves, and the next one
enters. What a round drafts and what is accepted of it comes from records or traces, what a step costs from
`batch_costs.py`; nothing is measured here, and no network is run.

Shape suffixes: B servers, C places of a server, N measured requests, R requests of a batch from 0 on.
"""

from dataclasses import dataclass, field, fields, replace

import numpy as np

from specdec.latency.batch_costs import BatchCosts
from specdec.latency.serving import EMPTY, Plan, Policy, Served, Sight, State

_SHRINK = 16  # servers that are done are put away once they are one in this many


def serve(plan: Plan, policy: Policy, costs: BatchCosts) -> Served:
    """Run every server until its measured requests are finished. `costs` go up to the plan's number of places."""
    costs = costs if plan.context is None else costs.at(plan.context)
    if plan.num_places == 1 and plan.arrivals_BN is None and not policy.asks_rate:
        return _one_by_one(plan, policy, costs)
    return _served(plan, policy, costs)


def _one_by_one(plan: Plan, policy: Policy, costs: BatchCosts) -> Served:
    """One request at a time, always: they never meet. Each has a server of its own, and begins when the one before it
    is finished: the same, in far fewer steps."""
    num_servers, num = len(plan.picks_BL), plan.num_measured
    picks_BN = np.take(plan.picks_BL, np.arange(num) % plan.picks_BL.shape[1], 1)
    each = replace(
        plan, num_measured=1, picks_BL=picks_BN.reshape(-1, 1), kinds_B=np.repeat(plan.kinds_B, num), under_way_BC=None
    )
    served = _served(each, policy.of_servers(np.repeat(np.arange(num_servers), num)), costs)
    parts = {name: one.reshape(num_servers, num) for name, one in vars(served).items()}
    ends_BN = np.cumsum(parts["time_ms_B"], 1)
    begins_BN = ends_BN - parts["time_ms_B"]
    times = {name: begins_BN + parts[name] for name in ("arrived_BN", "read_BN", "first_BN", "finished_BN")}
    totals = {name: parts[name].sum(1) for name in ("tokens_B", "accepted_B", "drafted_B")}
    return Served(time_ms_B=ends_BN[:, -1], **totals, **times, emitted_BN=parts["emitted_BN"])


def _served(plan: Plan, policy: Policy, costs: BatchCosts) -> Served:
    run = _Run(plan, policy, costs)
    while len(run.state.servers_B):
        run.step()
    return run.served


@dataclass
class _Run:
    plan: Plan
    policy: Policy
    costs: BatchCosts
    served: Served = field(init=False)
    state: State = field(init=False)

    def __post_init__(self) -> None:
        num_servers, num_places = len(self.plan.picks_BL), self.plan.num_places
        self.served = Served.nothing(num_servers, self.plan.num_measured)
        empty = {one.name: np.zeros((num_servers, num_places), int) for one in fields(State)}
        self.state = State(**empty | {"servers_B": np.arange(num_servers)})
        self.state.requests[:] = EMPTY
        self.state.is_fresh, self.state.is_cached = (self.state.requests > 0 for _ in range(2))
        self.clock_B, self.busy_ms_2B = np.zeros(num_servers), np.zeros((2, num_servers))
        if self.plan.arrivals_BN is not None:
            self.served.arrived_BN[:] = self.plan.arrivals_BN
        self.next_B = np.zeros(num_servers, int)  # the number of the request that enters next
        self.left_B = np.full(num_servers, self.plan.num_measured)
        self.totals_3B = np.zeros((3, num_servers), int)  # tokens, accepted, drafted
        self.given_2B = np.zeros((2, num_servers), int)
        if self.plan.under_way_BC is not None and num_places > 1:
            numbers = np.arange(1 - num_places, 1) + np.zeros((num_servers, 1), int)
            self._enter(numbers, np.arange(num_places) < num_places - 1)
            self._advance(self.plan.under_way_BC)

    def step(self) -> None:
        """One step of every server."""
        self._admit()
        state = self.state
        is_reading = bool(state.unread.any())
        took = self._chunks() if is_reading else np.zeros_like(state.unread)
        is_decoding = state.is_running & (state.unread == 0) if is_reading else state.is_running
        sight = self._sight(is_decoding, took if is_reading else None)
        decision = self.policy.decide(state, sight)
        verified_B, emitted_B = decision.verified.sum(1), decision.emitted.sum(1)
        # What trees take beside passes is measured for one request: what of it a batch would share is not known.
        drafting_ms_B = draft_ms(decision.passes, sight.pass_ms_BR) + decision.beside_ms.sum(1)
        self.clock_B += drafting_ms_B + sight.verify_ms(verified_B)
        if self.policy.asks_rate:  # what the step gave and what time that took, and the same without drafts
            self.given_2B += [emitted_B, sight.num_B]
            self.busy_ms_2B += [drafting_ms_B + sight.alone_ms(verified_B), sight.alone_ms(sight.num_B)]
        if is_reading:
            self._note(self.served.read_BN, (took > 0) & (took == state.unread))
            state.unread -= took
            state.contexts += took
        is_first = is_decoding & state.is_fresh
        if is_first.any():
            self._note(self.served.first_BN, is_first)
            state.is_fresh ^= is_first
        state.contexts += decision.emitted
        state.places += decision.moves
        self.totals_3B += [emitted_B, decision.accepted.sum(1), verified_B - sight.num_B]
        is_over = is_decoding & (state.places >= state.ends)
        if is_over.any():
            self._leave(is_over)

    def _admit(self) -> None:
        """The next requests take the free places."""
        is_running = self.state.is_running
        if is_running.all():
            return
        is_free = ~is_running
        numbers = self.next_B[:, None] + np.cumsum(is_free, 1) - 1
        if self.plan.arrivals_BN is not None:
            last = self.plan.num_measured - 1
            arrivals = self.plan.arrivals_BN[self.state.servers_B[:, None], np.minimum(numbers, last)]
            arrivals = np.where(is_free & (numbers <= last), arrivals, np.inf)
            soonest_B = arrivals.min(1)
            is_idle = is_free.all(1) & (soonest_B > self.clock_B) & np.isfinite(soonest_B)
            self.clock_B = np.where(is_idle, soonest_B, self.clock_B)
            is_free &= arrivals <= self.clock_B[:, None]
        self._enter(numbers, is_free)

    def _enter(self, numbers: np.ndarray, is_entering: np.ndarray) -> None:
        state, picks = self.state, self.plan.picks_BL
        is_entering = np.broadcast_to(is_entering, state.requests.shape)
        rows, columns = np.nonzero(is_entering)
        if not len(rows):
            return
        servers, requests = state.servers_B[rows], numbers[rows, columns]
        questions = picks[servers, requests % picks.shape[1]]
        num_running = (state.is_running | is_entering).sum(1)
        where = rows, columns
        state.requests[where] = requests
        state.places[where], state.ends[where] = self.policy.begin(servers, questions, num_running[rows])
        state.unread[where] = self.plan.prompt_lens_Q[questions]
        state.contexts[where], state.is_fresh[where], state.is_cached[where] = 0, True, False
        self.next_B += (is_entering & (state.requests >= 0)).sum(1)
        if self.plan.arrivals_BN is None:
            self._note(self.served.arrived_BN, is_entering)

    def _advance(self, shares_BC: np.ndarray) -> None:
        """Requests under way have read their prompts and written a part of their texts."""
        state = self.state
        is_under_way = state.is_running
        moves = (shares_BC * (state.ends - state.places)).astype(int) * is_under_way
        state.contexts += (state.unread + self.policy.written(state.places, moves)) * is_under_way
        state.places += moves
        state.unread[is_under_way] = 0
        state.is_fresh &= ~is_under_way

    def _chunks(self) -> np.ndarray:
        """[B, C] prompt tokens that this step reads: the oldest prompts first, a chunk in all."""
        unread = self.state.unread
        took = np.zeros_like(unread)
        room_B, servers = np.full(len(unread), self.plan.chunk), np.arange(len(unread))
        waiting = np.where(unread > 0, self.state.requests, -EMPTY)
        while True:
            oldest_B = waiting.argmin(1)
            is_some = (waiting[servers, oldest_B] != -EMPTY) & (room_B > 0)
            if not is_some.any():
                return took
            amount_B = np.where(is_some, np.minimum(unread[servers, oldest_B], room_B), 0)
            took[servers, oldest_B] += amount_B
            room_B -= amount_B
            waiting[servers[is_some], oldest_B[is_some]] = -EMPTY

    def _sight(self, is_decoding: np.ndarray, took: np.ndarray | None) -> Sight:
        """`took`: what is read of prompts; None where no prompt waits."""
        num_B, is_there = is_decoding.sum(1), is_decoding
        reading_B = read_B = np.zeros_like(num_B)
        if took is not None:
            is_read = took > 0
            is_there, reading_B, read_B = is_decoding | is_read, is_read.sum(1), took.sum(1)
        if self.plan.context is None:
            contexts_B = (self.state.contexts * is_there).sum(1) / np.maximum(num_B + reading_B, 1)
        else:
            contexts_B = np.full(len(num_B), float(self.plan.context))
        pass_ms_BR = self.costs.pass_ms(self.plan.kinds_B[self.state.servers_B], contexts_B)
        so_far = self.given_2B, self.busy_ms_2B
        return Sight(self.costs, is_decoding, num_B, pass_ms_BR, contexts_B, reading_B, read_B, *so_far)

    def _note(self, times_BN: np.ndarray, is_now: np.ndarray) -> None:
        """The clock, of the measured requests that something happens to."""
        rows, columns = np.nonzero(is_now)
        requests = self.state.requests[rows, columns]
        is_measured = (requests >= 0) & (requests < self.plan.num_measured)
        rows, requests = rows[is_measured], requests[is_measured]
        times_BN[self.state.servers_B[rows], requests] = self.clock_B[rows]

    def _leave(self, is_over: np.ndarray) -> None:
        state, last = self.state, self.plan.num_measured
        self._note(self.served.finished_BN, is_over)
        is_measured = is_over & (state.requests >= 0) & (state.requests < last)
        rows, columns = np.nonzero(is_measured)
        servers, requests = state.servers_B[rows], state.requests[rows, columns]
        questions = self.plan.picks_BL[servers, requests % self.plan.picks_BL.shape[1]]
        self.served.emitted_BN[servers, requests] = state.contexts[rows, columns] - self.plan.prompt_lens_Q[questions]
        state.requests[is_over] = EMPTY
        had_B, self.left_B = self.left_B, self.left_B - is_measured.sum(1)
        is_done_B = self.left_B == 0
        now_B = is_done_B & (had_B > 0)
        if now_B.any():
            self._count(now_B)
        if is_done_B.sum() * _SHRINK >= len(is_done_B):
            self._keep(~is_done_B)

    def _count(self, is_now_B: np.ndarray) -> None:
        servers, served = self.state.servers_B[is_now_B], self.served
        served.time_ms_B[servers] = self.clock_B[is_now_B]
        for table, total_B in zip((served.tokens_B, served.accepted_B, served.drafted_B), self.totals_3B, strict=True):
            table[servers] = total_B[is_now_B]

    def _keep(self, is_kept_B: np.ndarray) -> None:
        self.state = self.state.kept(is_kept_B)
        self.clock_B, self.next_B, self.left_B = (one[is_kept_B] for one in (self.clock_B, self.next_B, self.left_B))
        self.totals_3B, self.given_2B = self.totals_3B[:, is_kept_B], self.given_2B[:, is_kept_B]
        self.busy_ms_2B = self.busy_ms_2B[:, is_kept_B]


def draft_ms(passes_BC: np.ndarray, pass_ms_BR: np.ndarray) -> np.ndarray:
    """[B] what drafting costs: pass j runs for those that want j passes or more.

    Example: for passes [[2, 1, 0]] and 3 ms for one request, 4 for two it is 4 + 3.
    """
    most_B = passes_BC.max(1)
    if not most_B.any():
        return np.zeros(len(passes_BC))
    falling_BC = -np.sort(-passes_BC, 1)
    last_BC = np.concatenate([falling_BC[:, 1:], np.zeros((len(passes_BC), 1), int)], 1)
    return np.asarray(((falling_BC - last_BC) * pass_ms_BR[:, 1 : passes_BC.shape[1] + 1]).sum(1))
