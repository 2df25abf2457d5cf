"""Targets, drafters and a clock that follow a script, for tests of the loop without any model (and without torch)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class FakePasses:
    prefill: int = 0
    denoise: int = 0
    commit: int = 0


@dataclass
class FakeDraft:
    tokens: list[int]
    confidences: list[float] = field(default_factory=list)
    passes: FakePasses = field(default_factory=FakePasses)
    stop_reason: str = "length"
    token_confidences: list[float] = field(default_factory=list)
    asked_len: int = 0
    parents: list[int] | None = None


@dataclass(frozen=True)
class FakeVerification:
    accepted_len: int
    next_token: int
    probabilities: list[float] | None = None
    greedy: list[int] | None = None

    @property
    def accepted_path(self) -> range:
        return range(self.accepted_len)


class FakeClock:
    """Seconds that pass only when somebody works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


class ScriptedTarget:
    """Writes `text`, whatever the prompt; verification takes `seconds` on `clock`."""

    def __init__(self, text: Sequence[int], clock: FakeClock | None = None, seconds: float = 0.0) -> None:
        self.text, self.clock, self.seconds = list(text), clock or FakeClock(), seconds
        self.calls: list[tuple[str, list[int]]] = []
        self.position = 0

    def start(self, prompt_ids: Sequence[int], taps: Sequence[int] = ()) -> None:
        self.calls.append(("start", list(prompt_ids)))
        self.position = 0
        self.clock.work(7.0)

    def verify(self, draft: FakeDraft) -> FakeVerification:
        draft_tokens = draft.tokens
        self.calls.append(("verify", list(draft_tokens)))
        self.clock.work(self.seconds)
        rest, accepted = self.text[self.position :], 0
        while accepted < len(draft_tokens) and draft_tokens[accepted] == rest[accepted]:
            accepted += 1
        self.position += accepted + 1
        return FakeVerification(accepted, rest[accepted])


class ScriptedDrafter:
    """Drafts what `script(prefix_ids, budget)` says; drafting takes `seconds` on `clock`."""

    def __init__(
        self,
        script: Callable[[list[int], int], FakeDraft],
        clock: FakeClock | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.script, self.clock, self.seconds = script, clock or FakeClock(), seconds
        self.num_resets = 0
        self.prefixes: list[list[int]] = []
        self.budgets: list[int] = []
        self.verifications: list[FakeVerification] = []

    taps = ()

    def reset(self, features: object = None) -> None:
        self.num_resets += 1
        self.clock.work(11.0)

    def propose(self, prefix_ids: Sequence[int], budget: int) -> FakeDraft:
        self.prefixes.append(list(prefix_ids))
        self.budgets.append(budget)
        self.clock.work(self.seconds)
        return self.script(list(prefix_ids), budget)

    def observe(self, verification: FakeVerification) -> None:
        self.verifications.append(verification)
        self.clock.work(13.0)
