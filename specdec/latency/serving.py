"""Serving: what a simulated server is asked (`Plan`), holds (`State`), decides by (`Policy`) and gives (`Served`).

Many servers stand side by side, each with its own clock; `load.py` runs them. Shape suffixes: B servers, C places of a
server, F rounds of all questions one after the other, L requests until their order comes again, N measured requests, Q
questions, R requests of a batch from 0 on, W drafters.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np

from specdec.latency.batch_costs import BatchCosts

CHUNK = 2048  # prompt tokens that a step reads at most
EMPTY = -(2**40)  # the number of a place's request, where it has none


@dataclass(frozen=True)
class Plan:
    """Servers, and who asks them.

    `picks_BL`: the question of each request, over and over. `num_measured`: requests 0 .. N - 1 are measured.
    `arrivals_BN`: when they come, in ms, and no others do; None: there is always a next one, so that all places are
    taken, at first by requests that are already under way, `under_way_BC` (0 to 1) of their rounds done; the last place
    is the first measured one's. `chunk`: prompt tokens that a step reads at most. `context`: priced as if every
    request's were of this length; None: its own.
    """

    num_places: int
    num_measured: int
    picks_BL: np.ndarray
    kinds_B: np.ndarray
    prompt_lens_Q: np.ndarray
    arrivals_BN: np.ndarray | None = None
    under_way_BC: np.ndarray | None = None
    chunk: int = CHUNK
    context: int | None = None


@dataclass
class State:
    """What stands at the places of servers that run: [B, C] each, but for `servers_B`, their numbers in the plan.

    `places`: where a request is in its policy's tables, which ends at `ends`. `unread`: prompt tokens that are not read
    yet. `contexts`: tokens of it that were read or written. `is_cached`: what a policy keeps of a request between its
    rounds: whether the drafter's cache is whole.
    """

    servers_B: np.ndarray
    requests: np.ndarray
    places: np.ndarray
    ends: np.ndarray
    unread: np.ndarray
    contexts: np.ndarray
    is_fresh: np.ndarray
    is_cached: np.ndarray

    @property
    def is_running(self) -> np.ndarray:
        return self.requests != EMPTY

    def kept(self, is_kept_B: np.ndarray) -> "State":
        return State(**{one.name: getattr(self, one.name)[is_kept_B] for one in fields(self)})


@dataclass(frozen=True)
class Decision:
    """A round of each request, [B, C]: drafter passes, tokens verified (draft and one), accepted, emitted, how far
    its place moves on, and what a tree takes beside these passes, in ms. What does not decode has nothing in all of
    them."""

    passes: np.ndarray
    verified: np.ndarray
    accepted: np.ndarray
    emitted: np.ndarray
    moves: np.ndarray
    beside_ms: np.ndarray


@dataclass(frozen=True)
class Sight:
    """What a policy sees of a step before it drafts: `num_B` requests decode; `pass_ms_BR` over 0, 1, ... requests;
    `contexts_B` their mean; `reading_B` the prompts that are read in the same step, and `read_B` their tokens;
    `given_2B` and `busy_ms_2B`: the tokens that the server gave so far and in what time, without that of prompts, which
    no draft saves; and what it would have given without drafts in as many steps."""

    costs: BatchCosts
    is_decoding: np.ndarray
    num_B: np.ndarray
    pass_ms_BR: np.ndarray
    contexts_B: np.ndarray
    reading_B: np.ndarray
    read_B: np.ndarray
    given_2B: np.ndarray
    busy_ms_2B: np.ndarray

    @cached_property
    def rate_B(self) -> np.ndarray:
        """Tokens a ms so far; no less than without drafts, which is always there to be taken."""
        now_ms_B = np.maximum(self.alone_ms(self.num_B), 1e-9)
        return np.asarray(((self.given_2B + self.num_B) / (self.busy_ms_2B + now_ms_B)).max(0))

    def alone_ms(self, verified_B: np.ndarray) -> np.ndarray:
        """The target's pass over that many tokens of all requests together, without prompts."""
        return self.costs.verify_ms(self.num_B, verified_B / np.maximum(self.num_B, 1), self.contexts_B)

    def verify_ms(self, verified: np.ndarray) -> np.ndarray:
        """The target's pass that verifies these tokens of all requests together, [B, ...], and reads its prompts."""
        more = (slice(None), *[None] * (verified.ndim - 1))
        requests = (self.num_B + self.reading_B)[more]
        tokens = (verified + self.read_B[more]) / np.maximum(requests, 1)
        return self.costs.verify_ms(requests, tokens, self.contexts_B[more])


class Policy(Protocol):
    """How requests are served. `asks_rate`: whether it decides by what the server gives (`Sight.rate_B`)."""

    asks_rate: ClassVar[bool]

    def begin(self, servers: np.ndarray, questions: np.ndarray, num_running: np.ndarray) -> tuple[np.ndarray, ...]:
        """Places and ends of requests that enter, by their servers' numbers; `num_running` counts them in."""

    def written(self, places: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """The tokens that requests have, that went on from the beginning at `places` by `moves`."""

    def decide(self, state: State, sight: Sight) -> Decision: ...

    def of_servers(self, servers: np.ndarray) -> "Policy":
        """The same for other servers, which are like these ones."""


@dataclass(frozen=True)
class Recorded:
    """The policy that rounds were recorded under: they come as they did, whatever the load.

    `beside_ms_F`: as `Decision` has it. `begins_WQ`, `ends_WQ`: a question's rounds under a drafter. `drafters_B`:
    whose rounds a server takes, and `plain_B` instead for requests that enter where more than `off_above_B` run.
    """

    passes_F: np.ndarray
    drafted_F: np.ndarray
    accepted_F: np.ndarray
    emitted_F: np.ndarray
    beside_ms_F: np.ndarray
    begins_WQ: np.ndarray
    ends_WQ: np.ndarray
    drafters_B: np.ndarray
    plain_B: np.ndarray
    off_above_B: np.ndarray
    asks_rate: ClassVar[bool] = False

    def begin(self, servers: np.ndarray, questions: np.ndarray, num_running: np.ndarray) -> tuple[np.ndarray, ...]:
        is_off = num_running > self.off_above_B[servers]
        drafters = np.where(is_off, self.plain_B[servers], self.drafters_B[servers])
        return self.begins_WQ[drafters, questions], self.ends_WQ[drafters, questions]

    def of_servers(self, servers: np.ndarray) -> "Recorded":
        names = "drafters_B", "plain_B", "off_above_B"
        return replace(self, **{name: getattr(self, name)[servers] for name in names})

    @cached_property
    def _turns_5F(self) -> np.ndarray:
        """Every round as a `Decision` has it, but for its ms; the last one is of what does not decode."""
        one_F = np.ones_like(self.passes_F)
        turns_5F = np.stack([self.passes_F, self.drafted_F + 1, self.accepted_F, self.emitted_F, one_F])
        return np.pad(turns_5F, ((0, 0), (0, 1)))

    @cached_property
    def _ms_F(self) -> np.ndarray:
        return np.pad(self.beside_ms_F, (0, 1))

    def written(self, places: np.ndarray, moves: np.ndarray) -> np.ndarray:
        before_F = np.concatenate([[0], np.cumsum(self.emitted_F)])
        return np.asarray(before_F[places + moves] - before_F[places])

    def decide(self, state: State, sight: Sight) -> Decision:
        at = np.where(sight.is_decoding, state.places, -1)
        passes, verified, accepted, emitted, moves = self._turns_5F.take(at, 1)
        return Decision(passes, verified, accepted, emitted, moves, self._ms_F.take(at))


@dataclass(frozen=True)
class Served:
    """What came of it, by server, until its last measured request was finished. Times in ms; of the measured requests
    when they came, when their prompts were read, when their first and last tokens came, and how many tokens."""

    time_ms_B: np.ndarray
    tokens_B: np.ndarray
    accepted_B: np.ndarray
    drafted_B: np.ndarray
    arrived_BN: np.ndarray
    read_BN: np.ndarray
    first_BN: np.ndarray
    finished_BN: np.ndarray
    emitted_BN: np.ndarray

    @classmethod
    def nothing(cls, num_servers: int, num_measured: int) -> "Served":
        names = [one.name for one in fields(cls)]
        sizes = {"B": (num_servers,), "BN": (num_servers, num_measured)}
        return cls(**{name: np.full(sizes[name.rpartition("_")[2]], np.nan) for name in names})
