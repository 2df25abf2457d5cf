"""Drafters: who proposes the tokens that the target checks.

A drafter is told a question (`start`), asked for drafts (`propose`) and told what became of each
(`observe`). It never sees the target. Its cache survives across rounds: what was accepted is not
run again.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from generate import Draft, generate_draft_tokens, generate_draft_tokens_arbitrary_length
from specdec.lm import CachedLM
from specdec.specs import ArDynamic, ArStatic, DllmStatic, FailFast
from specdec.target import Verdict


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


class ArDrafter:
    """A small AR model, greedy by plain argmax: one pass per token, each counted as a denoising pass."""

    def __init__(self, lm: CachedLM, spec: ArStatic | ArDynamic, stop_ids: Collection[int]) -> None:
        self.lm, self.spec, self.stop_ids = lm, spec, stop_ids

    def start(self, prompt_ids: Sequence[int]) -> None:
        self.lm.rollback(0)

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        is_dynamic = isinstance(self.spec, ArDynamic)
        limit = min(budget, self.spec.max_draft_len if is_dynamic else self.spec.draft_len)
        if limit < 1:
            return Draft()
        draft = Draft(stop_reason="max_len" if is_dynamic else "length")
        self.lm.reuse(prefix_ids[:-1])
        new_tokens = list(prefix_ids[self.lm.length :])
        while len(draft.tokens) < limit:
            token = self._next(new_tokens, draft)
            if token in self.stop_ids:
                draft.stop_reason = "stop_token"
                break
            if is_dynamic and self._is_unsure(draft):
                draft.stop_reason = "low_confidence"
                break
            new_tokens = [token]
        return draft

    def observe(self, verdict: Verdict) -> None:
        pass

    def _next(self, new_tokens: list[int], draft: Draft) -> int:
        """One pass; its greedy token and confidence go to the draft."""
        tokens, confidences = self.lm.predict(new_tokens, keep=[len(new_tokens) - 1])
        self.lm.commit(len(new_tokens))
        draft.tokens += tokens
        draft.confidences += confidences
        draft.passes.denoise += 1
        return draft.tokens[-1]

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


class DllmDrafter:
    """A block-diffusion model with a static draft length or FailFast's rule."""

    def __init__(self, lm: CachedLM, spec: DllmStatic | FailFast, settings: BlockSettings) -> None:
        self.lm, self.spec, self.settings = lm, spec, settings
        self._draft_tokens: list[int] = []
        self._rejected: list[int] = []

    def start(self, prompt_ids: Sequence[int]) -> None:
        self.lm.rollback(0)
        self._draft_tokens, self._rejected = [], []

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        if budget < 1:
            return Draft()
        if not self.settings.reuse_kvs:
            self.lm.rollback(0)
        draft = self._generate(prefix_ids, budget)
        self._draft_tokens = draft.tokens
        return draft

    def observe(self, verdict: Verdict) -> None:
        """Remember what stood behind the rejected token, for draft reuse."""
        self._rejected = self._draft_tokens[verdict.accepted_len + 1 :]

    def _generate(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        spec, settings = self.spec, self.settings
        how = {
            "threshold": spec.unmask_threshold,
            "block_size": settings.block_size,
            "small_block_size": settings.small_block_size,
            "mask_id": settings.mask_id,
            "stop_ids": settings.stop_ids,
        }
        if isinstance(spec, DllmStatic):
            return generate_draft_tokens(self.lm, prefix_ids, spec_len=min(spec.draft_len, budget), **how)
        draft = generate_draft_tokens_arbitrary_length(
            self.lm,
            prefix_ids,
            spec_len=spec.first_window,
            lowconf_threshold=spec.confidence_threshold,
            incr_len=spec.draft_step,
            max_spec_len=spec.max_draft_len,
            rule=spec.rule,
            last_round_rejected=self._rejected if settings.reuse_drafts else None,
            **how,
        )
        return replace(draft, tokens=draft.tokens[:budget])
