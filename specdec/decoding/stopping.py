"""Drafts, and the rules by which one ends: windows over a run of tokens that grows pass by pass.

No network and no torch here: `denoising.py` runs the passes of a live draft, and a recorded one is read back pass by
pass (`chains.py`). Both end by the rules of this file.

Sources: FailFast (arXiv 2512.20573), Algorithm 1 and Appendix E.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Rule = Literal["published", "strict"]


@dataclass
class Passes:
    """Forward passes of a drafter by kind; a kind's count is 1 per pass, however many tokens it runs."""

    prefill: int = 0
    denoise: int = 0
    commit: int = 0

    @property
    def total(self) -> int:
        return self.prefill + self.denoise + self.commit


@dataclass
class Draft:
    """Tokens a drafter offers, and how it came to them.

    `confidences` are those the rule in force records: one per token, or under FailFast's published
    rule every masked position of the current sub-block in every denoising pass. `stop_reason` is
    "length", "low_confidence", "max_len", "stop_token", "low_gain" (`specdec.decoding.cost_aware`) or "none"
    (nothing was drafted). `token_confidences`: each token's probability as it was chosen, None for one that cost no
    pass. `drawn_from`: rows [L, V] if the tokens were drawn left to right, each from its row alone; None if they are to
    be taken as fixed (`specdec.decoding.sampling` says what may be claimed). `asked_len`: the window that was asked
    for, before the budget, a stop token or a text without a match left less of it. `parents`: of a tree, each token's
    parent, as `trees.py` says, with at most as many levels as the budget, and a confidence each; None: a chain.
    """

    tokens: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    stop_reason: str = "none"
    token_confidences: list[float | None] = field(default_factory=list)
    drawn_from: Tensor | None = None
    asked_len: int = 0
    parents: list[int] | None = None


class Run(Protocol):
    """What is known after a prefix so far: `num_known` tokens in a row, more with every pass.

    `pass_confidences`: of every masked position of the current sub-block in every denoising pass. `stop_len`: how
    many tokens end with the first known stop token, None while there is none.
    """

    prefix_len: int
    passes: Passes

    @property
    def pass_confidences(self) -> list[float]: ...
    @property
    def num_known(self) -> int: ...
    @property
    def stop_len(self) -> int | None: ...
    def tokens(self, count: int) -> list[int]: ...
    def confidences(self, count: int) -> list[float]:
        """Each of the first `count` tokens' probability at the moment it was unmasked."""

    def step(self) -> None:
        """One more pass."""


class Window(Protocol):
    """A rule: the draft is the first `size` tokens of a run, once `test`, asked before the first pass and after every
    one, gives a reason to stop. Where it gives none, a known stop token ends the draft all the same."""

    size: int

    def test(self, run: Run) -> str | None: ...
    def recorded(self, run: Run, draft_len: int) -> list[float]:
        """The confidences that a record keeps: as a rule one per token."""
        return run.confidences(draft_len)


@dataclass
class FixedWindow(Window):
    """Static drafting: done as soon as `size` tokens are known, whatever kind of pass made them so."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a draft of {self.size} tokens is not a draft")

    def test(self, run: Run) -> str | None:
        return "length" if run.num_known >= self.size and not stops_within(run, self.size) else None


@dataclass
class FailFastWindow(Window):
    """FailFast's Algorithm 1: grows while all is sure.

    "published": every recorded confidence counts, and N_max bounds their number. "strict", as the
    paper's text reads: one confidence per drafted token, and N_max bounds the tokens. Both look after every denoising
    pass, and only then: what a commit pass makes known is looked at after the next one.
    """

    size: int
    tau: float
    draft_step: int
    max_draft_len: int
    rule: Rule
    _num_denoise: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.rule not in ("published", "strict"):
            raise ValueError(f"rule {self.rule!r} is neither 'published' nor 'strict'")
        if min(self.size, self.draft_step, self.max_draft_len) < 1:
            raise ValueError("the first window, draft_step and max_draft_len must be at least 1")
        self._resize(self.size)

    def test(self, run: Run) -> str | None:
        """The stop reason, or None, after growing the window if it was all known and sure."""
        has_denoised, self._num_denoise = run.passes.denoise > self._num_denoise, run.passes.denoise
        if not has_denoised or run.num_known < self.size:
            return None
        recorded = self.recorded(run, self.size)
        if min(recorded, default=inf) < self.tau:
            return "low_confidence"
        if len(recorded) >= self.max_draft_len:
            return "max_len"
        self._resize(self.size + self.draft_step)
        return None

    def recorded(self, run: Run, draft_len: int) -> list[float]:
        return list(run.pass_confidences) if self.rule == "published" else run.confidences(draft_len)

    def _resize(self, size: int) -> None:
        self.size = size if self.rule == "published" else min(size, self.max_draft_len)


def finish_draft(
    run: Run, window: Window, *, last_round_rejected: Sequence[int] = (), stop_ids: Collection[int] = ()
) -> Draft:
    """Passes until the window is done. `last_round_rejected`: see `continuation`; only on a low-confidence stop."""
    while (reason := window.test(run) or ("stop_token" if run.stop_len is not None else None)) is None:
        run.step()
    draft_len = min(window.size, run.stop_len or window.size)
    tokens = run.tokens(draft_len)
    if reason == "low_confidence" and last_round_rejected:
        tokens = cut_after_stop(tokens + continuation(tokens, last_round_rejected), stop_ids)
    confidences: list[float | None] = [*run.confidences(draft_len), *[None] * (len(tokens) - draft_len)]
    asked_len = max(window.size, len(tokens))
    return Draft(tokens, window.recorded(run, draft_len), run.passes, reason, confidences, asked_len=asked_len)


def stops_within(run: Run, window_size: int) -> bool:
    """Whether the known run has a stop token inside the window."""
    return run.stop_len is not None and run.stop_len <= window_size


def continuation(tokens: list[int], rejected: Sequence[int]) -> list[int]:
    """What followed, in `rejected`, the longest suffix (>= 2 tokens) of `tokens` that occurs there.

    Example: `continuation([4, 1, 2], [9, 1, 2, 3, 5])` is `[3, 5]`.
    """
    rejected = list(rejected)
    for size in range(min(len(tokens), len(rejected)), 1, -1):
        for end in range(size, len(rejected) + 1):
            if rejected[end - size : end] == tokens[-size:]:
                return rejected[end:]
    return []


def cut_after_stop(tokens: list[int], stop_ids: Collection[int]) -> list[int]:
    """The tokens up to the first stop token, with it."""
    end = next((i + 1 for i, token in enumerate(tokens) if token in stop_ids), len(tokens))
    return tokens[:end]
