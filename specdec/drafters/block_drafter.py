"""Drafting over blocks: what all block-diffusion specs share, over a model, or read back from chains with what the live
drafter's cache would hold, or from a round's recorded confidences.

`block_diffusion.py` has the specs, `decoding/block_recorder.py` makes the chains. No torch.
"""

import math
from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from specdec.decoding.chains import Chain, Chains
from specdec.decoding.cost_aware import Advice
from specdec.decoding.denoising import Blocks, Denoising, DraftLM, LiveBlocks, masked_positions
from specdec.decoding.stopping import Draft, FailFastWindow, Passes, Run, Window, finish_draft
from specdec.decoding.target import Verification, count_accepted
from specdec.drafters.base import Drafter, Recorded
from specdec.records.rounds import Round


class BlockRules(Protocol):
    """What a block-diffusion spec says of a draft."""

    @property
    def name(self) -> str: ...
    @property
    def unmask_threshold(self) -> float: ...
    @property
    def first_asked(self) -> int: ...
    def window(self, budget: int, advice: Advice | None = None) -> Window: ...


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
    use_block_cache: bool = False

    def denoising(self, unmask_threshold: float) -> Denoising:
        sizes = self.block_size, self.small_block_size
        return Denoising(unmask_threshold, *sizes, self.mask_id, frozenset(self.stop_ids), self.use_block_cache)


class BlockDrafter(Drafter):
    """The rules of drafting over blocks, whoever fills them."""

    def __init__(self, spec: BlockRules, settings: BlockSettings) -> None:
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
            return Draft(asked_len=self.spec.first_asked)
        run, window = self._open(prefix_ids), self.spec.window(budget, self.settings.advice)
        tail = self._rejected if self.settings.reuse_drafts else ()
        draft = finish_draft(run, window, last_round_rejected=tail, stop_ids=self.settings.stop_ids)
        draft.asked_len = max(draft.asked_len, self.spec.first_asked)
        del draft.tokens[budget:]
        self._draft_tokens = draft.tokens
        return draft

    def observe(self, verification: Verification) -> None:
        """Remember what stood after the rejected token, for draft reuse; nothing of a round that another drafted."""
        self._rejected = self._draft_tokens[verification.accepted_len + 1 :]
        self._draft_tokens = []


class DllmDrafter(BlockDrafter):
    """A block-diffusion model fills them."""

    def __init__(self, lm: DraftLM, spec: BlockRules, settings: BlockSettings) -> None:
        super().__init__(spec, settings)
        self.lm = lm

    def reset(self) -> None:
        super().reset()
        self.lm.rollback(0)

    def _open(self, prefix_ids: Sequence[int]) -> Run:
        if not self.settings.reuse_kvs:
            self.lm.rollback(0)
        return LiveBlocks(self.lm, prefix_ids, self.settings.denoising(self.spec.unmask_threshold))


class ChainEnd(Exception):
    """A rule asks for more passes than were recorded."""


class RecordedRun:
    """A draft read back from a chain, pass by pass: `specdec.decoding.stopping.Run`."""

    def __init__(self, chain: Chain, prefix_len: int, stop_len: int | None, num_prefills: int) -> None:
        self.chain, self.prefix_len, self._chain_stop_len = chain, prefix_len, stop_len
        self.passes = Passes(prefill=num_prefills)
        self.num_passes = 0
        self.num_known = chain.known[0]

    @property
    def stop_len(self) -> int | None:
        is_known = self._chain_stop_len is not None and self._chain_stop_len <= self.num_known
        return self._chain_stop_len if is_known else None

    @property
    def pass_confidences(self) -> list[float]:
        return self.chain.recorded[: self.chain.recorded_ends[self.num_passes]]

    def tokens(self, count: int) -> list[int]:
        return self.chain.tokens[:count]

    def confidences(self, count: int) -> list[float]:
        return self.chain.confidences[:count]

    def step(self) -> None:
        """Raises ChainEnd after the chain's last pass."""
        if self.num_passes == self.chain.num_passes:
            raise ChainEnd
        if self.chain.is_commit[self.num_passes]:
            self.passes.commit += 1
        else:
            self.passes.denoise += 1
        self.num_passes += 1
        self.num_known = self.chain.known[self.num_passes]


@dataclass
class _Cache:
    """What a live drafter's cache would hold: blocks up to `end`, of the text up to `prefix_len`, then of `tokens`."""

    end: int = 0
    prefix_len: int = 0
    tokens: Sequence[int] = ()

    def length_within(self, prefix_ids: Sequence[int], whole: int) -> int:
        """Positions of the whole blocks 0 .. `whole` of the prefix that need not be run again."""
        drafted = self.tokens[: max(self.end - self.prefix_len, 0)]
        kept = self.prefix_len + count_accepted(drafted, prefix_ids[self.prefix_len : whole])
        return min(self.end, kept, whole)


class RecordedDllm(BlockDrafter):
    """A block-diffusion drafter read back from its chains; what its cache would hold decides on prefill passes."""

    def __init__(self, trace: Recorded, chains: Chains, spec: BlockRules, settings: BlockSettings) -> None:
        super().__init__(spec, settings)
        self.trace, self.chains = trace, chains
        self._cache = _Cache()
        self._run: RecordedRun | None = None

    def reset(self) -> None:
        super().reset()
        self._cache, self._run = _Cache(), None

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        try:
            return super().propose(prefix_ids, budget)
        except ChainEnd:
            raise self.chains.too_short(self.trace.question_id, self.spec.name) from None

    def _open(self, prefix_ids: Sequence[int]) -> RecordedRun:
        index, size = len(prefix_ids) - len(self.trace.prompt_ids), self.settings.block_size
        whole = len(prefix_ids) // size * size
        chain = self.chains.chains[index]
        is_cached = self.settings.reuse_kvs and self._cached_len(prefix_ids, whole) == whole
        stop_len = next((i + 1 for i, token in enumerate(chain.tokens) if token in self.settings.stop_ids), None)
        self._cache = _Cache(whole, len(prefix_ids), chain.tokens)
        self._run = RecordedRun(chain, len(prefix_ids), stop_len, int(whole > 0 and not is_cached))
        return self._run

    def _cached_len(self, prefix_ids: Sequence[int], whole: int) -> int:
        """What is left of the cache after the last draft, which has committed blocks of its own, in whole blocks."""
        if self._run is not None:
            self._cache.end += self.settings.block_size * self._run.passes.commit
            self._run = None
        return self._cache.length_within(prefix_ids, whole) // self.settings.block_size * self.settings.block_size


_UNKNOWN = -1  # stands for tokens that do not matter: how sure the drafter was decides which positions become known


def confidences_again(turn: Round, window: FailFastWindow, how: Denoising) -> list[float | None]:
    """Of each drafted token, the confidence with which it was unmasked; None where the round does not tell.

    FailFast's published rule records every masked position of every pass. Which of them became tokens follows from
    them: the passes are gone through again. The first token of a block has none under that rule.
    """
    run = _Again(turn, how)
    for _ in range(turn.num_denoise_passes + turn.num_commit_passes):
        run.step()
        window.test(run)
    # After the window come tokens of the round before (draft reuse), which no pass was sure of.
    count = min(turn.draft_len, window.size) if turn.stop_reason == "low_confidence" else turn.draft_len
    known = [run.confidence.get(run.prefix_len + index, math.nan) for index in range(count)]
    return [*(None if math.isnan(one) else one for one in known), *[None] * (turn.draft_len - count)]


class _Again(Blocks):
    """A round's passes once more, by what it recorded of them. That of a block's first token, which is not recorded,
    is not a number."""

    def __init__(self, turn: Round, how: Denoising) -> None:
        start = turn.prefix_len // how.block_size * how.block_size
        super().__init__([_UNKNOWN] * turn.prefix_len, how, start, (_UNKNOWN, math.nan))
        self._left = list(turn.confidences)

    def step(self) -> None:
        masked = masked_positions(self.block, self.how.small_block_size)
        if not masked:
            self.committed(_UNKNOWN, math.nan)
            return
        confidences, self._left = self._left[: len(masked)], self._left[len(masked) :]
        if len(confidences) == len(masked):
            self.denoised(masked, [_UNKNOWN] * len(masked), confidences)
