"""Block-diffusion decoding with Fast-dLLM v2 models: one denoising loop under three functions.

`generate` writes a whole answer, `generate_draft_tokens` a draft of fixed length and
`generate_draft_tokens_arbitrary_length` a draft whose length FailFast's rule decides. All run on
a `specdec.lm.CachedLM`, whose committed blocks they reuse and extend. This file does not verify
drafts and knows no tokenizer, model library or configuration.

Sources: Fast-dLLM v2 (arXiv 2509.26328) for the block mask, the token shift, sub-blocks and
threshold unmasking; FailFast (arXiv 2512.20573), Algorithm 1 and Appendix E, for the window rule
and draft reuse.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

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
    "length", "low_confidence", "max_len", "stop_token" or "none" (nothing was drafted).
    """

    tokens: list[int] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    stop_reason: str = "none"


class BlockLM(Protocol):
    """What the loop asks of a model, in the words of `specdec.lm.CachedLM`."""

    length: int
    predictions: dict[int, tuple[int, float]]

    def predict(
        self, tokens: Sequence[int], *, block_size: int, keep: Sequence[int], never: int
    ) -> tuple[list[int], list[float]]: ...
    def commit(self, num_tokens: int) -> None: ...
    def rollback(self, length: int) -> None: ...
    def reuse(self, prefix_ids: Sequence[int], block_size: int) -> int: ...


def generate(
    lm: BlockLM,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    threshold: float = 0.9,
    block_size: int = 32,
    small_block_size: int = 8,
    mask_id: int,
    stop_ids: Collection[int],
) -> Draft:
    """Write an answer with the dLLM alone: up to `max_new_tokens` tokens, cut behind a stop token.

    A position is unmasked when its probability exceeds `threshold` (0..1); the most probable one
    always is. Raises ValueError for an empty prompt, a threshold outside 0..1, lengths below 1 and
    a small_block_size that does not divide block_size (at least 2), as the other two do.
    """
    how = _Denoising(threshold, block_size, small_block_size, mask_id, frozenset(stop_ids))
    return _draft(_Blocks(lm, prompt_ids, how), _FixedWindow(max_new_tokens))


def generate_draft_tokens(
    lm: BlockLM,
    prefix_ids: Sequence[int],
    *,
    spec_len: int,
    threshold: float,
    block_size: int = 32,
    small_block_size: int = 8,
    mask_id: int,
    stop_ids: Collection[int],
) -> Draft:
    """Draft the `spec_len` tokens that follow `prefix_ids`; fewer if a stop token is among them."""
    how = _Denoising(threshold, block_size, small_block_size, mask_id, frozenset(stop_ids))
    return _draft(_Blocks(lm, prefix_ids, how), _FixedWindow(spec_len))


def generate_draft_tokens_arbitrary_length(
    lm: BlockLM,
    prefix_ids: Sequence[int],
    *,
    spec_len: int,
    threshold: float,
    lowconf_threshold: float,
    incr_len: int,
    max_spec_len: int,
    rule: Rule = "published",
    last_round_rejected: Sequence[int] | None = None,
    block_size: int = 32,
    small_block_size: int = 8,
    mask_id: int,
    stop_ids: Collection[int],
) -> Draft:
    """Draft by FailFast's rule: grow the window while the drafter is sure of itself.

    The window starts at `spec_len` tokens. After every pass: once it is all known, stop if a
    recorded confidence is below `lowconf_threshold` (tau) or `max_spec_len` (N_max) is reached,
    else grow by `incr_len` (N). `last_round_rejected`: last round's draft behind its rejected
    token; after a low-confidence stop a draft that ends like a part of it is continued from it at
    no pass (None: off).
    """
    how = _Denoising(threshold, block_size, small_block_size, mask_id, frozenset(stop_ids))
    window = _FailFastWindow(spec_len, lowconf_threshold, incr_len, max_spec_len, rule)
    return _draft(_Blocks(lm, prefix_ids, how), window, last_round_rejected or ())


@dataclass(frozen=True)
class _Denoising:
    """How blocks are filled."""

    threshold: float
    block_size: int
    small_block_size: int
    mask_id: int
    stop_ids: frozenset[int]

    def __post_init__(self) -> None:
        if self.block_size < 2 or self.small_block_size < 1 or self.block_size % self.small_block_size:
            raise ValueError(f"no blocks of {self.block_size} in sub-blocks of {self.small_block_size} positions")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold {self.threshold} is outside 0..1")


class _Blocks:
    """The text so far: the prefix and the masked block behind it, filled pass by pass.

    `ids` covers positions 0 .. the end of the current block, None where masked. The current block
    starts at `lm.length`; its first token is always known.
    """

    def __init__(self, lm: BlockLM, prefix_ids: Sequence[int], how: _Denoising) -> None:
        if not prefix_ids:
            raise ValueError("drafting needs a prefix of at least one token")
        self.lm, self.how = lm, how
        self.passes = Passes()
        self.pass_confidences: list[float] = []
        self.prefix_len = len(prefix_ids)
        self.ids: list[int | None] = list(prefix_ids)
        self.confidence: dict[int, float] = {}
        self.num_known = 0
        self.stop_len: int | None = None
        self._prefill()
        self._open_block()

    def tokens(self, count: int) -> list[int]:
        """The first `count` tokens behind the prefix; they must be known."""
        return self.ids[self.prefix_len : self.prefix_len + count]

    def confidences(self, count: int) -> list[float]:
        """Each token's probability at the moment it was unmasked."""
        return [self.confidence[self.prefix_len + i] for i in range(count)]

    def stops_within(self, window_size: int) -> bool:
        """Whether the known run behind the prefix has a stop token inside the window."""
        return self.stop_len is not None and self.stop_len <= window_size

    def step(self) -> None:
        """One pass: denoise the current sub-block or, when the block is all known, commit it."""
        if None in self.ids[self.lm.length :]:
            self._denoise()
        else:
            self._clean_pass(self.ids[self.lm.length :])
            self.passes.commit += 1
            self._open_block()

    def _prefill(self) -> None:
        """Bring the prefix's whole blocks into the cache, and what is predicted to follow them."""
        block_size = self.how.block_size
        whole = self.prefix_len // block_size * block_size
        self.lm.reuse(self.ids[:whole], block_size=block_size)
        if self.lm.length == self.prefix_len and whole not in self.lm.predictions:
            self.lm.rollback(whole - block_size)
        if self.lm.length < whole:
            self._clean_pass(self.ids[self.lm.length : whole])
            self.passes.prefill += 1

    def _clean_pass(self, tokens: Sequence[int]) -> None:
        """Commit whole known blocks; their last output predicts the token behind them."""
        how = self.how
        (token,), (confidence,) = self.lm.predict(
            tokens, block_size=how.block_size, keep=[len(tokens) - 1], never=how.mask_id
        )
        self.lm.commit(len(tokens))
        self.lm.predictions[self.lm.length] = (token, confidence)

    def _open_block(self) -> None:
        """Mask the rest of the block behind the cache; its first token needs no pass."""
        start = self.lm.length
        self.ids += [None] * (start + self.how.block_size - len(self.ids))
        if self.ids[start] is None:
            self._unmask(start, *self.lm.predictions[start])
        self._extend_known_run()

    def _denoise(self) -> None:
        start, how = self.lm.length, self.how
        block = self.ids[start:]
        first = block.index(None)
        end = (first // how.small_block_size + 1) * how.small_block_size
        masked = [i for i in range(first, end) if block[i] is None]
        noisy = [how.mask_id if token is None else token for token in block]
        # Token shift: position i is predicted by the output at i - 1.
        tokens, confidences = self.lm.predict(
            noisy, block_size=how.block_size, keep=[i - 1 for i in masked], never=how.mask_id
        )
        self.passes.denoise += 1
        self.pass_confidences += confidences
        must = confidences.index(max(confidences))
        for index, (token, confidence) in enumerate(zip(tokens, confidences, strict=True)):
            if confidence > how.threshold or index == must:
                self._unmask(start + masked[index], token, confidence)
        self._extend_known_run()

    def _unmask(self, position: int, token: int, confidence: float) -> None:
        self.ids[position] = token
        self.confidence[position] = confidence

    def _extend_known_run(self) -> None:
        for token in self.ids[self.prefix_len + self.num_known :]:
            if token is None:
                return
            self.num_known += 1
            if self.stop_len is None and token in self.how.stop_ids:
                self.stop_len = self.num_known


@dataclass
class _FixedWindow:
    """Static drafting: done as soon as `size` tokens are known."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a draft of {self.size} tokens is no draft")

    def test(self, blocks: _Blocks) -> str | None:
        return "length" if blocks.num_known >= self.size else None

    def recorded(self, blocks: _Blocks, draft_len: int) -> list[float]:
        return blocks.confidences(draft_len)


@dataclass
class _FailFastWindow:
    """FailFast's Algorithm 1: grows while all is sure.

    "published": every recorded confidence counts, and N_max bounds their number. "strict", as the
    paper's text reads: one confidence per drafted token, and N_max bounds the tokens.
    """

    size: int
    lowconf_threshold: float
    incr_len: int
    max_spec_len: int
    rule: Rule

    def __post_init__(self) -> None:
        if self.rule not in ("published", "strict"):
            raise ValueError(f"rule {self.rule!r} is neither 'published' nor 'strict'")
        if min(self.size, self.incr_len, self.max_spec_len) < 1:
            raise ValueError("spec_len, incr_len and max_spec_len must be at least 1")
        self._resize(self.size)

    def test(self, blocks: _Blocks) -> str | None:
        """The stop reason, or None, after growing the window if it was all known and sure."""
        has_tested_pass = blocks.passes.denoise + blocks.passes.commit > 0
        if not has_tested_pass or blocks.num_known < self.size:
            return None
        recorded = self.recorded(blocks, self.size)
        if min(recorded, default=math.inf) < self.lowconf_threshold:
            return "low_confidence"
        if len(recorded) >= self.max_spec_len:
            return "max_len"
        self._resize(self.size + self.incr_len)
        return None

    def recorded(self, blocks: _Blocks, draft_len: int) -> list[float]:
        return list(blocks.pass_confidences) if self.rule == "published" else blocks.confidences(draft_len)

    def _resize(self, size: int) -> None:
        self.size = size if self.rule == "published" else min(size, self.max_spec_len)


_Window = _FixedWindow | _FailFastWindow


def _draft(blocks: _Blocks, window: _Window, last_round_rejected: Sequence[int] = ()) -> Draft:
    """The denoising loop: passes until the window is done."""
    while (reason := _stop_reason(blocks, window)) is None:
        blocks.step()
    draft_len = blocks.stop_len if reason == "stop_token" else window.size
    tokens = blocks.tokens(draft_len)
    if reason == "low_confidence":
        tokens = _cut_behind_stop(tokens + _continuation(tokens, last_round_rejected), blocks.how.stop_ids)
    return Draft(tokens, window.recorded(blocks, draft_len), blocks.passes, reason)


def _stop_reason(blocks: _Blocks, window: _Window) -> str | None:
    if blocks.stops_within(window.size):
        return "stop_token"
    if reason := window.test(blocks):
        return reason
    # The test may have grown the window over a stop token that is known already.
    return "stop_token" if blocks.stops_within(window.size) else None


def _continuation(tokens: list[int], rejected: Sequence[int]) -> list[int]:
    """What followed, in `rejected`, the longest suffix (>= 2 tokens) of `tokens` that occurs there.

    Example: `_continuation([4, 1, 2], [9, 1, 2, 3, 5])` is `[3, 5]`.
    """
    rejected = list(rejected)
    for size in range(min(len(tokens), len(rejected)), 1, -1):
        for end in range(size, len(rejected) + 1):
            if rejected[end - size : end] == tokens[-size:]:
                return rejected[end:]
    return []


def _cut_behind_stop(tokens: list[int], stop_ids: frozenset[int]) -> list[int]:
    end = next((i + 1 for i, token in enumerate(tokens) if token in stop_ids), len(tokens))
    return tokens[:end]
