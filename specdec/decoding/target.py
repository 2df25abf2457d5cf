"""Target: the model whose text must come out, checking drafts greedily.

Not the loop: it answers one draft at a time. `sampled.py` has the one that samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from specdec.decoding.stopping import Draft
from specdec.decoding.trees import ROOT, walk

if TYPE_CHECKING:
    from torch import Tensor

    from specdec.models.lm import CachedLM

    Features = Tensor  # taps of rows, [L, F]: on the device, and never looked at but by the drafter that reads them


@dataclass(frozen=True)
class Verification:
    """The target's answer to a draft: which tokens of it the target keeps, one after the other, and its own next one.

    `accepted_path`: indices into the draft, from the first token on; of a chain 0, 1, 2, ... `next_token` is the
    correction of the first rejected token or, where nothing was drafted for its place, the bonus. `probabilities`: what
    a target that samples gives each drafted token, given those before it in the draft, accepted or not.
    `greedy`: of a chain, its most probable token at every drafted position, given the draft; None where nobody asked.
    `features`: the taps of the last known token and the accepted ones, [1 + accepted_len, F], on the device; None where
    none are read.
    """

    accepted_path: Sequence[int]
    next_token: int
    probabilities: list[float] | None = None
    greedy: list[int] | None = None
    features: Features | None = None

    @property
    def accepted_len(self) -> int:
        return len(self.accepted_path)


def count_accepted(draft_tokens: Sequence[int], greedy: Sequence[int]) -> int:
    """How many tokens of a draft equal the target's own. Example: `count_accepted([5, 6, 9], [5, 6, 7]) == 2`."""
    accepted_len, limit = 0, min(len(draft_tokens), len(greedy))
    while accepted_len < limit and draft_tokens[accepted_len] == greedy[accepted_len]:
        accepted_len += 1
    return accepted_len


def accepted_path(draft: Draft, own: Sequence[int]) -> Sequence[int]:
    """What a target keeps of a draft. `own`: its own token after the last known one, then after each of the draft."""
    if draft.parents is None:
        return range(count_accepted(draft.tokens, own))
    return walk(draft.tokens, draft.parents, lambda node: own[node + 1])


def own_next(path: Sequence[int], own: Sequence[int]) -> int:
    """The target's own token after an accepted path; `own` as in `accepted_path`."""
    return own[path[-1] + 1 if path else 0]


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
        """Check a draft (possibly empty: plain decoding) in one pass over [last token] + draft. Raises UserError for a
        tree that does not fit into a pass."""
        found = self._judge([self._last_token, *draft.tokens], draft)
        self.lm.commit(1 + found.accepted_len if draft.parents is None else [0, *_rows(found.accepted_path)])
        self._last_token = found.next_token
        return replace(found, features=self.lm.features) if self.taps else found

    def _judge(self, tokens: list[int], draft: Draft) -> Verification:
        """One pass over `tokens`, the last known token and the draft, and what it says of the draft."""
        greedy, _ = self.lm.predict(tokens, parents=parents_of_rows(draft), taps=self.taps)
        path = accepted_path(draft, greedy)
        known = greedy[: len(draft.tokens)] if draft.parents is None else None
        return Verification(path, own_next(path, greedy), greedy=known)


def parents_of_rows(draft: Draft) -> list[int] | None:
    """The same tree with the last known token as its root, as a pass runs it; None: a chain."""
    return None if draft.parents is None else [ROOT, *_rows(draft.parents)]


def _rows(nodes: Sequence[int]) -> list[int]:
    """Where these nodes of a draft, or its root, stand in a pass."""
    return [1 + node for node in nodes]
