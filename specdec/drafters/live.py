"""Drafters over models: who proposes the tokens that the target checks.

Their rules are in `drafting.py`; here the model answers. Its cache survives across rounds: what was
accepted is not run again.
"""

from collections.abc import Collection, Sequence

from generate import Denoising, LiveBlocks
from specdec.drafters.rules import BlockDrafter, BlockSettings, BlockSpec, Drafter, NoDrafter, TokenDrafter
from specdec.drafters.specs import ArDynamic, ArStatic
from specdec.models.lm import CachedLM

__all__ = ["ArDrafter", "BlockSettings", "DllmDrafter", "Drafter", "NoDrafter"]


class ArDrafter(TokenDrafter):
    """A small AR model, greedy by plain argmax."""

    def __init__(self, lm: CachedLM, spec: ArStatic | ArDynamic, stop_ids: Collection[int]) -> None:
        super().__init__(spec, stop_ids)
        self.lm = lm
        self._new_tokens: list[int] = []

    def start(self, prompt_ids: Sequence[int]) -> None:
        self.lm.rollback(0)

    def _begin(self, prefix_ids: Sequence[int]) -> None:
        self.lm.reuse(prefix_ids[:-1])
        self._new_tokens = list(prefix_ids[self.lm.length :])

    def _next(self) -> tuple[int, float]:
        (token,), (confidence,) = self.lm.predict(self._new_tokens, keep=[len(self._new_tokens) - 1])
        self.lm.commit(len(self._new_tokens))
        self._new_tokens = [token]
        return token, confidence


class DllmDrafter(BlockDrafter):
    """A block-diffusion model."""

    def __init__(self, lm: CachedLM, spec: BlockSpec, settings: BlockSettings) -> None:
        super().__init__(spec, settings)
        self.lm = lm

    def start(self, prompt_ids: Sequence[int]) -> None:
        super().start(prompt_ids)
        self.lm.rollback(0)

    def _open(self, prefix_ids: Sequence[int]) -> LiveBlocks:
        if not self.settings.reuse_kvs:
            self.lm.rollback(0)
        return LiveBlocks(self.lm, prefix_ids, denoising(self.spec.unmask_threshold, self.settings))


def denoising(unmask_threshold: float, settings: BlockSettings) -> Denoising:
    """How a drafter of these settings fills blocks."""
    return Denoising(
        threshold=unmask_threshold,
        block_size=settings.block_size,
        small_block_size=settings.small_block_size,
        mask_id=settings.mask_id,
        stop_ids=frozenset(settings.stop_ids),
    )
