"""Drafting token by token: what specs of drafters that write one token a pass share, and the drafter itself, over a
network or read back from chains. Of no family: `ar.py` is one.

The rules are the live drafter's and the replayed one's alike.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from specdec.decoding.chains import Chain
from specdec.decoding.cost_aware import Advice, Outlook
from specdec.decoding.stopping import Draft
from specdec.drafters.advised import Advised
from specdec.drafters.base import Drafter, Recorded, Spec
from specdec.drafters.chunks import InChunks
from specdec.drafters.flags import DRAFT_LEN, DRAFT_STEP, MAX_DRAFT_LEN, TAU

# Of one draft, asked after every token with the confidences so far: why it ends, and how many of its tokens stay; None:
# it goes on.
Ending = Callable[[Sequence[float]], tuple[str, int] | None]
LENGTH_FLAGS = (DRAFT_LEN, TAU, MAX_DRAFT_LEN, DRAFT_STEP)


def chain_serving(method: str, algorithm: str) -> Mapping[str, Mapping[str, str]]:
    """`Spec.serving` of chains of `draft_len` tokens: vLLM's method, SGLang's algorithm."""
    return {
        "vLLM": {"method": method, "model": "{model}", "num_speculative_tokens": "{draft_len}"},
        "SGLang": {
            "algorithm": algorithm,
            "draft-model-path": "{model}",
            "num-steps": "{draft_len}",
            "eagle-topk": "1",
            "num-draft-tokens": "{num_verified}",
        },
    }


class TokenSpec(Spec):
    """A spec that says after every token whether the draft goes on."""

    full_reason = "length"  # why a draft of the greatest length ends

    def ending(self, prefix_len: int, advice: Advice | None) -> Ending:
        """The rule of a draft after `prefix_len` tokens."""
        return lambda confidences: None

    def asked_len(self, draft: Draft) -> int:
        """The window that was asked for."""
        return self.first_asked


@dataclass(frozen=True)
class StaticTokens(TokenSpec):
    """Always `draft_len` tokens."""

    draft_len: int

    swept = (DRAFT_LEN,)


@dataclass(frozen=True)
class DynamicTokens(InChunks, TokenSpec):
    """FailFast's stopping rule."""

    full_reason = "max_len"

    def ending(self, prefix_len: int, advice: Advice | None) -> Ending:
        return lambda confidences: ("low_confidence", len(confidences)) if self.is_unsure(confidences) else None

    def is_unsure(self, confidences: Sequence[float]) -> bool:
        return len(confidences) % self.draft_step == 0 and min(confidences) < self.tau

    def asked_len(self, draft: Draft) -> int:
        """Whole chunks, where no stop token ended the draft."""
        if draft.stop_reason == "stop_token":
            return len(draft.tokens)
        return self.whole_chunks(len(draft.tokens))


@dataclass(frozen=True)
class AdvisedTokens(Advised, TokenSpec):
    """The cost-aware policy: after every token go on or have the draft verified, and of the draft what is worth it."""

    full_reason = "max_len"

    def ending(self, prefix_len: int, advice: Advice | None) -> Ending:
        outlook = Outlook(self.required(advice))

        def ends(confidences: Sequence[float]) -> tuple[str, int] | None:
            outlook.read(confidences)
            return None if outlook.pays(prefix_len) else ("low_gain", outlook.best_len)

        return ends

    def asked_len(self, draft: Draft) -> int:
        return len(draft.tokens)


class TokenDrafter(Drafter):
    """Drafts token by token, each pass counted as a denoising pass; what became of a draft shows in the next prefix.

    `least_prefix`: tokens of a prefix after which it can draft at all.
    """

    least_prefix = 1

    def __init__(self, spec: TokenSpec, stop_ids: Collection[int], advice: Advice | None = None) -> None:
        self.spec, self.stop_ids, self.advice = spec, stop_ids, advice

    @abstractmethod
    def _begin(self, prefix_ids: Sequence[int]) -> None:
        """A new draft after `prefix_ids`."""

    @abstractmethod
    def _next(self) -> tuple[int, float]:
        """One pass: the next token, the most probable or a drawn one, and its probability."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        spec = self.spec
        limit = min(budget, spec.chain_len({}))
        if limit < 1 or len(prefix_ids) < self.least_prefix:
            return Draft(asked_len=spec.first_asked)
        draft, ending = Draft(stop_reason=spec.full_reason), spec.ending(len(prefix_ids), self.advice)
        self._begin(prefix_ids)
        while len(draft.tokens) < limit:
            token, confidence = self._next()
            draft.tokens.append(token)
            draft.confidences.append(confidence)
            draft.passes.denoise += 1
            if token in self.stop_ids:
                draft.stop_reason = "stop_token"
                break
            if (found := ending(draft.confidences)) is not None:
                draft.stop_reason, draft_len = found
                del draft.tokens[draft_len:], draft.confidences[draft_len:]
                break
        draft.token_confidences = list(draft.confidences)
        draft.asked_len = spec.asked_len(draft)
        return draft


class RecordedTokens(TokenDrafter):
    """Read back from chains."""

    def __init__(self, trace: Recorded, spec: TokenSpec, least_prefix: int = 1, advice: Advice | None = None) -> None:
        super().__init__(spec, trace.stop_ids, advice)
        self.least_prefix = least_prefix
        self.trace, self.chains = trace, trace.chains_of(spec)
        self._left: Iterator[tuple[int, float]] = iter(())

    def _begin(self, prefix_ids: Sequence[int]) -> None:
        chain = self.chains.chains[len(prefix_ids) - len(self.trace.prompt_ids)]
        self._left = zip(chain.tokens, chain.confidences, strict=True)

    def _next(self) -> tuple[int, float]:
        found = next(self._left, None)
        if found is None:
            raise self.chains.too_short(self.trace.question_id, self.spec.name)
        return found


def token_chain(tokens: list[int], confidences: list[float]) -> Chain:
    """A chain of a token per pass. Its confidences stand once, not again under `recorded`."""
    passes = len(tokens)
    return Chain(tokens, confidences, list(range(1, passes + 1)), [0] * passes, [0] * passes, [])
