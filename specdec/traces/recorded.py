"""Recorded: a target and drafters that answer from a trace, so that the loop runs without any model.

They follow the rules of `drafting.py` and `windows.py`, as live drafters do. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specdec.decoding.chains import Chain, Chains
from specdec.decoding.cost_aware import Advice
from specdec.decoding.stopping import Draft, Passes
from specdec.decoding.target import Verdict, count_accepted
from specdec.drafters.rules import BlockDrafter, BlockSettings, Drafter, NoDrafter, TokenDrafter
from specdec.drafters.specs import ArDynamic, ArStatic, DrafterSpec, Plain
from specdec.errors import UserError
from specdec.traces.trace import Trace


class RecordedTarget:
    """Verifies drafts against a recorded text. Asks no model, takes no time to speak of."""

    prefill_ms = 0.0

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._num_emitted = 0

    def start(self, prompt_ids: Sequence[int]) -> None:
        """Raises UserError for another prompt than the trace's."""
        if list(prompt_ids) != self.trace.prompt_ids:
            raise UserError(f"the trace of question {self.trace.question_id} has another prompt: record it again")
        self._num_emitted = 0

    def verify(self, draft: Draft) -> Verdict:
        begin, text = self._num_emitted, self.trace.output_tokens
        accepted_len = count_accepted(draft.tokens, text[begin : begin + len(draft.tokens)])
        # After the text's end the bonus is cut off by the loop, whatever it is.
        next_token = text[min(begin + accepted_len, len(text) - 1)]
        self._num_emitted = begin + accepted_len + 1
        return Verdict(accepted_len, next_token)


class RecordedAr(TokenDrafter):
    """An AR drafter read back from its chains."""

    def __init__(self, trace: Trace, spec: ArStatic | ArDynamic) -> None:
        super().__init__(spec, trace.stop_ids)
        self.trace, self.chains = trace, trace.chains_of(spec)
        self._chain, self._at = None, 0

    def _begin(self, prefix_ids: Sequence[int]) -> None:
        self._chain, self._at = self.chains.chains[len(prefix_ids) - len(self.trace.prompt_ids)], 0

    def _next(self) -> tuple[int, float]:
        if self._at == len(self._chain.tokens):
            raise too_short(self.trace, self.chains, self.spec)
        self._at += 1
        return self._chain.tokens[self._at - 1], self._chain.confidences[self._at - 1]


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

    def __init__(self, trace: Trace, spec: DrafterSpec, settings: BlockSettings) -> None:
        super().__init__(spec, settings)
        self.trace, self.chains = trace, trace.chains_of(spec)
        self._cache = _Cache()
        self._run: RecordedRun | None = None

    def start(self, prompt_ids: Sequence[int]) -> None:
        super().start(prompt_ids)
        self._cache, self._run = _Cache(), None

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        try:
            return super().propose(prefix_ids, budget)
        except ChainEnd:
            raise too_short(self.trace, self.chains, self.spec) from None

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


def recorded_drafter(
    trace: Trace,
    spec: DrafterSpec,
    *,
    reuse_kvs: bool = True,
    reuse_drafts: bool = False,
    advice: Advice | None = None,
) -> Drafter:
    """A drafter of `spec` over a trace; the rest is as in `BlockSettings`. Raises UserError if its chains were not
    recorded."""
    if isinstance(spec, Plain):
        return NoDrafter()
    if isinstance(spec, ArStatic | ArDynamic):
        return RecordedAr(trace, spec)
    blocks = {key: trace.chains_of(spec).identity[key] for key in ("mask_id", "block_size", "small_block_size")}
    settings = BlockSettings(
        stop_ids=trace.stop_ids, reuse_kvs=reuse_kvs, reuse_drafts=reuse_drafts, advice=advice, **blocks
    )
    return RecordedDllm(trace, spec, settings)


def too_short(trace: Trace, chains: Chains, spec: DrafterSpec) -> UserError:
    return UserError(
        f"{spec.name} needs longer drafts than were recorded: the chains {chains.name} of question "
        f"{trace.question_id} are {chains.chain_len} tokens long; record more with failfast.py --record --chain_len N"
    )
