"""In process: models that answer problems here, alone, and the time of their passes.

A Speaker is an AR model: a pass, a token. A Filler is a block-diffusion model: a pass fills a part of a block. Both
answer greedily and time with a clock that waits for the device.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from profiling.serving.trials import Answer, InvalidTrial, spread
from specdec.decoding.denoising import LiveBlocks
from specdec.decoding.stopping import FixedWindow, finish_draft
from specdec.decoding.target import Target
from specdec.drafters.block_diffusion import BlockSettings
from specdec.drafters.plain import Plain
from specdec.models.lm import CachedLM
from specdec.questions.sets import Problem
from specdec.session import Session

COUNTED_BY = "the model itself"


def lm_of(part: object) -> CachedLM | None:
    """The model of a target or drafter; None for a drafter that runs none."""
    lm = getattr(part, "lm", None)
    return lm if isinstance(lm, CachedLM) else None


@dataclass
class Timed:
    """A model of a session, and what its passes took."""

    session: Session
    lm: CachedLM
    _pass_ms: list[float] = field(default_factory=list, init=False)
    _verify_ms: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list), init=False)

    def forget(self) -> None:
        """Drop the times of passes so far."""
        self._verify_ms.clear()
        self._pass_ms.clear()

    def pass_times(self) -> dict[str, Any]:
        """Spreads in ms: of a pass (an answer's mean), and of each verification by its number of tokens."""
        tables = {str(count): spread(times) for count, times in self._verify_ms.items()}
        return {"ms_per_pass": spread(self._pass_ms), **({"verify_ms": tables} if tables else {})}


@dataclass
class Speaker(Timed):
    """An AR model that answers by plain decoding.

    `verify_counts`: passes of these numbers of tokens are timed as well, as verifications in the middle of each answer.
    """

    verify_counts: Sequence[int] = ()

    def ask(self, problem: Problem) -> Answer:
        """Raises InvalidTrial for an answer of a single token."""
        prompt_ids = self.session.encode(problem.messages, problem.title)
        target = Target(self.lm)
        rounds = self.session.decode(Plain(), prompt_ids, target=target)
        if len(rounds) < 2:
            raise InvalidTrial(f"{problem.dataset} question {problem.question_id}: the answer is one token")
        first, *others = (turn.draft_ms + turn.verify_ms for turn in rounds)
        self._pass_ms.append(sum(others) / len(others))
        self._verify(len(prompt_ids))
        is_stopped = rounds[-1].next_token in self.session.stop_ids
        return Answer(
            num_tokens=len(rounds),
            num_timed=len(others),
            ttft_ms=target.prefill_ms + first,
            decode_ms=sum(others),
            counted_by=COUNTED_BY,
            finish_reason="stop" if is_stopped else "length",
        )

    def _verify(self, prompt_len: int) -> None:
        """Time passes over the second half of the answer, or its beginning; nothing of them is kept."""
        if not self.verify_counts:
            return
        middle = (prompt_len + self.lm.length) // 2
        draft = self.lm.tokens[middle:]
        self.lm.rollback(middle)
        for count in self.verify_counts:
            tokens = (draft * count)[:count]
            begin = self.lm.clock()
            self.lm.predict(tokens)
            self._verify_ms[count].append(1e3 * (self.lm.clock() - begin))


@dataclass
class Filler(Timed):
    """A block-diffusion model that answers alone."""

    settings: BlockSettings
    unmask_threshold: float

    def ask(self, problem: Problem) -> Answer:
        """The first token's time is that of an answer of one token; the whole answer then starts on its cache.

        Raises InvalidTrial for an empty answer.
        """
        config = self.session.config
        prompt_ids = self.session.encode(problem.messages, problem.title)
        how = self.settings.denoising(self.unmask_threshold)
        self.lm.rollback(0)
        begin = self.lm.clock()
        finish_draft(LiveBlocks(self.lm, prompt_ids, how), FixedWindow(1))
        first = self.lm.clock()
        draft = finish_draft(LiveBlocks(self.lm, prompt_ids, how), FixedWindow(config.decoding.max_new_tokens))
        decode_ms = 1e3 * (self.lm.clock() - first)
        if not draft.passes.total or not draft.tokens:
            raise InvalidTrial(f"{problem.dataset} question {problem.question_id}: the answer is empty")
        self._pass_ms.append(decode_ms / draft.passes.total)
        num_tokens = len(draft.tokens)
        return Answer(num_tokens, num_tokens, 1e3 * (first - begin), decode_ms, COUNTED_BY, draft.stop_reason)
