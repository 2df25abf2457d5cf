"""Drafting over blocks: the drafter that a block-diffusion spec makes of a model, and what all its kinds share.

`block_diffusion.py` has the specs, `block_chains.py` the drafter that reads chains back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from specdec.decoding.cost_aware import Advice
from specdec.decoding.denoising import BlockLM, Denoising, LiveBlocks
from specdec.decoding.stopping import Draft, Run, Window, finish_draft
from specdec.decoding.target import Verification


class BlockRule(Protocol):
    """What drafting asks of a spec."""

    @property
    def name(self) -> str: ...
    @property
    def unmask_threshold(self) -> float: ...
    def window(self, budget: int, advice: Advice | None = None) -> Window:
        """The rule that ends a draft of which at most `budget` tokens are of use."""


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

    def denoising(self, unmask_threshold: float) -> Denoising:
        return Denoising(
            threshold=unmask_threshold,
            block_size=self.block_size,
            small_block_size=self.small_block_size,
            mask_id=self.mask_id,
            stop_ids=frozenset(self.stop_ids),
        )


class BlockDrafter(ABC):
    """The rules of drafting over blocks, whoever fills them."""

    def __init__(self, spec: BlockRule, settings: BlockSettings) -> None:
        self.spec, self.settings = spec, settings
        self._draft_tokens: list[int] = []
        self._rejected: list[int] = []

    @abstractmethod
    def _open(self, prefix_ids: Sequence[int]) -> Run:
        """A new draft after `prefix_ids`, before its first pass but for a prefill."""

    def reset(self) -> None:
        self._draft_tokens, self._rejected = [], []

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        if budget < 1:
            return Draft()
        run, window = self._open(prefix_ids), self.spec.window(budget, self.settings.advice)
        tail = self._rejected if self.settings.reuse_drafts else ()
        draft = finish_draft(run, window, last_round_rejected=tail, stop_ids=self.settings.stop_ids)
        del draft.tokens[budget:]
        self._draft_tokens = draft.tokens
        return draft

    def observe(self, verification: Verification) -> None:
        """Remember what stood after the rejected token, for draft reuse."""
        self._rejected = self._draft_tokens[verification.accepted_len + 1 :]


class DllmDrafter(BlockDrafter):
    """A block-diffusion model fills them."""

    def __init__(self, lm: BlockLM, spec: BlockRule, settings: BlockSettings) -> None:
        super().__init__(spec, settings)
        self.lm = lm

    def reset(self) -> None:
        super().reset()
        self.lm.rollback(0)

    def _open(self, prefix_ids: Sequence[int]) -> Run:
        if not self.settings.reuse_kvs:
            self.lm.rollback(0)
        return LiveBlocks(self.lm, prefix_ids, self.settings.denoising(self.spec.unmask_threshold))
