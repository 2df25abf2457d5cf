"""Served: a model on a server as something that answers problems, with what its metrics say of each answer."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace

from profiling.serving.chat import Chat
from profiling.serving.metrics import Metrics, Speculation, between, read_metrics
from profiling.serving.server import Refused
from profiling.serving.trials import Answer, InvalidTrial
from specdec.errors import UserError
from specdec.questions.sets import Problem

WARM_UP = "Count from one to one hundred in words."  # no question of any data set, so none is in the server's cache
SETTLE_S, SETTLE_STEP_S = 2.0, 0.02


@dataclass(frozen=True)
class Served:
    """`reads_metrics`: ask for them around every answer, which only makes sense for one question at a time."""

    chat: Chat
    reads_metrics: bool = True

    def warm_up(self, times: int) -> None:
        """Answers that do not count, whatever they are. Raises UserError for what every question would meet."""
        for _ in range(times):
            with suppress(InvalidTrial):
                self.chat.ask(WARM_UP)

    def ask(self, problem: Problem) -> Answer:
        """One question's answer, with its speculation where the server tells."""
        before = self.metrics() if self.reads_metrics else None
        answer = self.chat.ask(problem.prompt)
        return answer if before is None else replace(answer, speculation=self._speculation(before, answer))

    def metrics(self) -> Metrics | None:
        """A reading of the server's metrics; None if it has none that can be read."""
        try:
            text = self.chat.server.get(f"{self.chat.server.root_url}/metrics")
        except Refused:
            return None
        with suppress(UserError):  # plain decoding needs none; speculation without is refused later
            return read_metrics(text)
        return None

    def _speculation(self, before: Metrics, answer: Answer) -> Speculation | None:
        """What the metrics say of one answer; None where counters also hold somebody else's tokens.

        Counters may follow the answer by a moment, so they are read until they have all of its tokens.
        """
        after, deadline = self.metrics(), time.monotonic() + SETTLE_S
        while after is not None and _num_new(before, after) < answer.num_tokens and time.monotonic() < deadline:
            time.sleep(SETTLE_STEP_S)
            after = self.metrics()
        if after is None:
            return None
        is_alone = abs(_num_new(before, after) - answer.num_tokens) <= max(2, 0.02 * answer.num_tokens)
        found = between(before, after, answer.num_tokens)
        return found if found is None or found.is_derived or is_alone else None


def _num_new(before: Metrics, after: Metrics) -> float:
    """Tokens generated between two readings; without a counter of them, as many as anyone may wait for."""
    if before.num_generated is None or after.num_generated is None:
        return float("inf")
    return after.num_generated - before.num_generated
