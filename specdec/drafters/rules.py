"""Drafting without a network: what every drafter does, whether a model answers it (`drafters.py`) or a trace
(`recorded.py`).

A drafter is told a question (`start`), asked for drafts (`propose`) and told what became of each
(`observe`). It never sees the target.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from specdec.decoding.cost_aware import Advice, CostAwareWindow
from specdec.decoding.stopping import Draft, FailFastWindow, FixedWindow, Run, Window, finish_draft
from specdec.decoding.target import Verdict
from specdec.drafters.specs import ArDynamic, ArStatic, CostAware, DllmStatic, FailFast

BlockSpec = DllmStatic | FailFast | CostAware


class Drafter(Protocol):
    """One drafting strategy over one question at a time."""

    def start(self, prompt_ids: Sequence[int]) -> None:
        """Forget the last question."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        """Draft at most `budget` tokens to follow `prefix_ids` (the prompt and the output so far)."""

    def observe(self, verdict: Verdict) -> None:
        """Learn what the target made of the last draft."""


class NoDrafter:
    """Plain decoding: proposes nothing, so that every round is one token of the target."""

    def start(self, prompt_ids: Sequence[int]) -> None:
        pass

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        return Draft()

    def observe(self, verdict: Verdict) -> None:
        pass


class TokenDrafter(NoDrafter, ABC):
    """An AR drafter: one pass per token, each counted as a denoising pass, with a static length or FailFast's rule."""

    def __init__(self, spec: ArStatic | ArDynamic, stop_ids: Collection[int]) -> None:
        self.spec, self.stop_ids = spec, stop_ids

    @abstractmethod
    def _begin(self, prefix_ids: Sequence[int]) -> None:
        """A new draft after `prefix_ids`."""

    @abstractmethod
    def _next(self) -> tuple[int, float]:
        """One pass: the next token, the most probable or a drawn one, and its probability."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        is_dynamic = isinstance(self.spec, ArDynamic)
        limit = min(budget, self.spec.max_draft_len if is_dynamic else self.spec.draft_len)
        if limit < 1:
            return Draft()
        draft = Draft(stop_reason="max_len" if is_dynamic else "length")
        self._begin(prefix_ids)
        while len(draft.tokens) < limit:
            token, confidence = self._next()
            draft.tokens.append(token)
            draft.confidences.append(confidence)
            draft.passes.denoise += 1
            if token in self.stop_ids:
                draft.stop_reason = "stop_token"
                break
            if is_dynamic and self._is_unsure(draft):
                draft.stop_reason = "low_confidence"
                break
        draft.token_confidences = draft.confidences
        return draft

    def _is_unsure(self, draft: Draft) -> bool:
        """Whether a whole chunk has just ended and a confidence lies below tau."""
        at_chunk_end = len(draft.tokens) % self.spec.draft_step == 0
        return at_chunk_end and min(draft.confidences) < self.spec.confidence_threshold


@dataclass(frozen=True)
class BlockSettings:
    """How a dLLM drafter fills blocks, and what it keeps between rounds."""

    mask_id: int
    stop_ids: Collection[int]
    block_size: int = 32
    small_block_size: int = 8
    reuse_kvs: bool = True
    reuse_drafts: bool = False
    advice: Advice | None = None  # for the cost-aware policy


class BlockDrafter(ABC):
    """A block-diffusion drafter with a static draft length, FailFast's rule or the cost-aware policy."""

    def __init__(self, spec: BlockSpec, settings: BlockSettings) -> None:
        self.spec, self.settings = spec, settings
        self._draft_tokens: list[int] = []
        self._rejected: list[int] = []

    @abstractmethod
    def _open(self, prefix_ids: Sequence[int]) -> Run:
        """A new draft after `prefix_ids`, before its first pass but for a prefill."""

    def start(self, prompt_ids: Sequence[int]) -> None:
        self._draft_tokens, self._rejected = [], []

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        if budget < 1:
            return Draft()
        run, window = self._open(prefix_ids), window_of(self.spec, budget, self.settings.advice)
        tail = self._rejected if self.settings.reuse_drafts else ()
        draft = finish_draft(run, window, last_round_rejected=tail, stop_ids=self.settings.stop_ids)
        del draft.tokens[budget:]
        self._draft_tokens = draft.tokens
        return draft

    def observe(self, verdict: Verdict) -> None:
        """Remember what stood after the rejected token, for draft reuse."""
        self._rejected = self._draft_tokens[verdict.accepted_len + 1 :]


def window_of(spec: BlockSpec, budget: int, advice: Advice | None = None) -> Window:
    """The rule that ends a draft under `spec`, of which at most `budget` tokens are of use."""
    if isinstance(spec, DllmStatic):
        return FixedWindow(min(spec.draft_len, budget))
    if isinstance(spec, CostAware):
        return CostAwareWindow(advice, min(spec.max_draft_len, budget))
    return FailFastWindow(spec.first_window, spec.confidence_threshold, spec.draft_step, spec.max_draft_len, spec.rule)
