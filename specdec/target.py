"""Target: the model whose text must come out, checking drafts greedily.

Not a sampler and not the loop: it answers one draft at a time.
"""

from collections.abc import Sequence

from specdec.lm import CachedLM
from specdec.verdict import Verdict, count_accepted


class Target:
    """Greedy verification with plain argmax: no logits processor of a generation config applies.

    Attributes:
        prefill_ms: what the last `start` took.
    """

    def __init__(self, lm: CachedLM) -> None:
        self.lm = lm
        self.prefill_ms = 0.0
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
        greedy = self._greedy([self._last_token, *draft_tokens])
        accepted_len = count_accepted(draft_tokens, greedy)
        self.lm.commit(1 + accepted_len)
        self._last_token = greedy[accepted_len]
        return Verdict(accepted_len, self._last_token)

    def _greedy(self, tokens: list[int]) -> list[int]:
        """One pass: the most probable token behind each of `tokens`."""
        return self.lm.predict(tokens)[0]
