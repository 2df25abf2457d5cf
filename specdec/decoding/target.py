"""Target: the model whose text must come out, checking drafts greedily.

Not the loop: it answers one draft at a time. `sampled.py` has the one that samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from specdec.decoding.stopping import Draft

if TYPE_CHECKING:
    from torch import Tensor

    from specdec.models.lm import CachedLM

    Features = Tensor  # taps of rows, [L, F]: on the device, and never looked at but by the drafter that reads them


@dataclass(frozen=True)
class Verification:
    """The target's answer to a draft: how many tokens of a draft the target keeps, and its own next one.

    `next_token` is the correction of the first rejected token or, if all were accepted, the bonus. `probabilities`:
    what a target that samples gives each drafted token (after the first rejected one: given the rejected tokens).
    `greedy`: its most probable token at every drafted position, given the draft; None where nobody asked for it.
    `features`: the taps of the last known token and the accepted ones, [1 + accepted_len, F], on the device; None where
    none are read.
    """

    accepted_len: int
    next_token: int
    probabilities: list[float] | None = None
    greedy: list[int] | None = None
    features: Features | None = None


def count_accepted(draft_tokens: Sequence[int], greedy: Sequence[int]) -> int:
    """How many tokens of a draft equal the target's own. Example: `count_accepted([5, 6, 9], [5, 6, 7]) == 2`."""
    accepted_len, limit = 0, min(len(draft_tokens), len(greedy))
    while accepted_len < limit and draft_tokens[accepted_len] == greedy[accepted_len]:
        accepted_len += 1
    return accepted_len


class Target:
    """Greedy verification with plain argmax: no logits processor of a generation config applies.

    Attributes:
        prefill_ms: what the last `start` took.
    """

    def __init__(self, lm: CachedLM) -> None:
        self.lm = lm
        self.prefill_ms = 0.0
        self.taps: tuple[int, ...] = ()
        self._last_token = -1  # of no question yet

    def start(self, prompt_ids: Sequence[int], taps: Sequence[int] = ()) -> Features | None:
        """Run the prompt (at least one token) but for its last token, which the first draft follows.

        Returns the outputs of the layers `taps` for what was run, [L, F], and gives those of later rows with each
        verification; without taps None. Raises UserError for a layer that is not there.
        """
        begin = self.lm.clock()
        self.lm.rollback(0)
        self.taps = tuple(taps)
        *head, self._last_token = prompt_ids
        features = self.lm.no_features(taps) if taps else None
        if head:
            self.lm.forward(head, keep=[], taps=self.taps)
            self.lm.commit(len(head))
            features = self.lm.features
        self.prefill_ms = 1e3 * (self.lm.clock() - begin)
        return features

    def verify(self, draft: Draft) -> Verification:
        """Check a draft (possibly empty: plain decoding) in one pass over [last token] + draft."""
        found = self._judge([self._last_token, *draft.tokens], draft)
        self.lm.commit(1 + found.accepted_len)
        self._last_token = found.next_token
        return replace(found, features=self.lm.features) if self.taps else found

    def _judge(self, tokens: list[int], draft: Draft) -> Verification:
        """One pass over `tokens`, the last known token and the draft, and what it says of the draft."""
        greedy, _ = self.lm.predict(tokens, taps=self.taps)
        accepted_len = count_accepted(draft.tokens, greedy)
        return Verification(accepted_len, greedy[accepted_len], greedy=greedy[: len(draft.tokens)])
