"""Target: the model whose text must come out, checking drafts greedily.

Not a sampler and not the loop: it answers one draft at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from specdec.lm import CachedLM


@dataclass(frozen=True)
class Verdict:
    """The target's answer to a draft: how many tokens it keeps, and its own next one.

    `next_token` is the correction of the first rejected token or, if all were accepted, the bonus.
    """

    accepted_len: int
    next_token: int


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
        greedy, _ = self.lm.predict([self._last_token, *draft_tokens])
        accepted_len = 0
        while accepted_len < len(draft_tokens) and draft_tokens[accepted_len] == greedy[accepted_len]:
            accepted_len += 1
        self.lm.commit(1 + accepted_len)
        self._last_token = greedy[accepted_len]
        return Verdict(accepted_len, self._last_token)
