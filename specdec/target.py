"""Target: the model whose text must come out, checking drafts greedily.

Not a sampler and not the loop: it answers one draft at a time. Shape suffixes: L positions, V vocabulary.
"""

from collections.abc import Sequence

import torch

from specdec.lm import CachedLM
from specdec.verdict import Verdict, count_accepted


class Target:
    """Greedy verification with plain argmax: no logits processor of a generation config applies.

    Attributes:
        prefill_ms: what the last `start` took.
        logits_LV: the last verification's, one row per drafted token and one for the token behind them.
    """

    def __init__(self, lm: CachedLM) -> None:
        self.lm = lm
        self.prefill_ms = 0.0
        self.logits_LV: torch.Tensor | None = None
        self._last_token: int | None = None

    def start(self, prompt_ids: Sequence[int]) -> None:
        """Run the prompt (at least one token) but for its last token, which the first draft follows."""
        begin = self.lm.clock()
        self.lm.rollback(0)
        *head, self._last_token = prompt_ids
        if head:
            self.lm.forward(head, keep=[])
            self.lm.commit(len(head))
        self.prefill_ms = 1e3 * (self.lm.clock() - begin)

    def verify(self, draft_tokens: Sequence[int]) -> Verdict:
        """Check a draft (possibly empty: plain decoding) in one pass over [last token] + draft."""
        self.logits_LV = self.lm.forward([self._last_token, *draft_tokens])
        greedy = self.logits_LV.argmax(-1).tolist()
        accepted_len = count_accepted(draft_tokens, greedy)
        self.lm.commit(1 + accepted_len)
        self._last_token = greedy[accepted_len]
        return Verdict(accepted_len, self._last_token)
