"""Chunks: what specs share whose drafts grow by whole chunks under FailFast's stopping rule. Of no family."""

from __future__ import annotations

from dataclasses import dataclass

from specdec.drafters.base import Spec
from specdec.drafters.flags import DRAFT_STEP, MAX_DRAFT_LEN, TAU


@dataclass(frozen=True)
class InChunks(Spec):
    """Chunks of `draft_step` tokens, up to the first with a confidence below `tau`, at most `max_draft_len` tokens."""

    tau: float
    max_draft_len: int
    draft_step: int

    swept = (TAU, MAX_DRAFT_LEN, DRAFT_STEP)

    @property
    def first_asked(self) -> int:
        return min(self.draft_step, self.max_draft_len)

    def whole_chunks(self, draft_len: int) -> int:
        """The window of a draft. Example: with chunks of 4, at most 10, drafts of 3, 5 and 9 have 4, 8 and 10."""
        return min(-(-draft_len // self.draft_step) * self.draft_step, self.max_draft_len)
