"""AR drafters: a small causal model, one pass per token, with a static length or FailFast's rule in chunks.

Greedy by plain argmax, or sampled (then the ratio rule applies). Its cache survives across rounds: what was accepted is
not run again. The rules are the live drafter's and the replayed one's alike.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdec.decoding.chains import Chain, Text
from specdec.decoding.denoising import DraftLM
from specdec.decoding.stopping import Draft
from specdec.drafters.base import Drafter, Family, Recorded, Recording, Setup
from specdec.drafters.token_drafter import (
    LENGTH_FLAGS,
    DynamicTokens,
    RecordedTokens,
    StaticTokens,
    TokenDrafter,
    TokenSpec,
    chain_serving,
    token_chain,
)
from specdec.models.checkpoints import Role
from specdec.records.rounds import Round

if TYPE_CHECKING:
    from torch import Tensor

    from specdec.decoding.sampled import SampledLM
    from specdec.models.pages import PagedLM

AR_DRAFTER = Role("AR drafter", "--ar_model_name", "ar_drafter", "Qwen/Qwen2.5-1.5B-Instruct")


class _Ar(TokenSpec):
    """What both have in common."""

    role = AR_DRAFTER
    priced_as = "ar"
    chains_name = "ar"

    def drafter(self, setup: Setup) -> Drafter:
        if setup.sampler is None:
            return ArDrafter(setup.lm, self, setup.stop_ids)
        from specdec.decoding.sampled import SampledLM

        return SampledArDrafter(SampledLM(setup.lm, setup.sampler), self, setup.stop_ids)

    def published_passes(self, rounds: Sequence[Round], settings: Mapping[str, Any]) -> list[int]:
        """One for every token that was asked for, whether or not it was drafted."""
        return [max(turn.asked_len, self.first_asked) for turn in rounds]

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        return RecordedTokens(trace, self)


@dataclass(frozen=True)
class ArStatic(_Ar, StaticTokens):
    """An AR drafter that always drafts `draft_len` tokens."""

    name_pattern = "ar_None_sf_{draft_len}"
    label_pattern = "AR, static {draft_len}"
    kind = "ar_sf"
    title = "AR, static"
    hue = "#E69F00"
    marker = "s"
    switch = "run_ar"
    is_static_baseline = True
    is_reference = True
    serving = chain_serving("draft_model", "STANDALONE")


@dataclass(frozen=True)
class ArDynamic(_Ar, DynamicTokens):
    """An AR drafter under FailFast's stopping rule."""

    name_pattern = "ar_None_df_{tau}_{max_draft_len}_{draft_step}"
    label_pattern = "AR, dynamic τ {tau}, N_max {max_draft_len}, N {draft_step}"
    kind = "ar_df"
    title = "AR, dynamic"
    hue = "#CC79A7"
    marker = "D"
    not_served = "its draft models write a fixed number of tokens"
    switch = "ar_dynamic"


class ArDrafter(TokenDrafter):
    """A model answers."""

    def __init__(self, lm: DraftLM, spec: TokenSpec, stop_ids: Collection[int]) -> None:
        super().__init__(spec, stop_ids)
        self.lm = lm
        self._new_tokens: list[int] = []

    def reset(self, features: Tensor | None = None) -> None:
        self.lm.rollback(0)

    def _begin(self, prefix_ids: Sequence[int]) -> None:
        self.lm.reuse(prefix_ids[:-1])
        self._new_tokens = list(prefix_ids[self.lm.length :])

    def _next(self) -> tuple[int, float]:
        (token,), (confidence,) = self.lm.predict(self._new_tokens, keep=[len(self._new_tokens) - 1])
        self.lm.commit(len(self._new_tokens))
        self._new_tokens = [token]
        return token, confidence


class SampledArDrafter(ArDrafter):
    """Over a SampledLM: its drafts say what each token was drawn from, so that the ratio rule applies."""

    lm: SampledLM

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        import torch

        self._rows: list[Tensor] = []
        draft = super().propose(prefix_ids, budget)
        if self._rows:
            draft.drawn_from = torch.cat(self._rows)
        return draft

    def _next(self) -> tuple[int, float]:
        found = super()._next()
        if self.lm.drawn_from is not None:
            self._rows.append(self.lm.drawn_from)
        return found


def record(recording: Recording, wanted: Mapping[str, int]) -> dict[str, list[Chain]]:
    """One chain per prefix, many rows at a time."""
    from specdec.models.pages import PagedLM

    setup = recording.setup
    paged = PagedLM(setup.lm, 1)
    return {
        name: record_ar(paged, recording.text, length, frozenset(setup.stop_ids), recording.batch)
        for name, length in wanted.items()
    }


def record_ar(paged: PagedLM, text: Text, chain_len: int, stop_ids: frozenset[int], batch: int) -> list[Chain]:
    """One chain per prefix: `chain_len` tokens, or fewer up to a stop token. `batch`: rows of one pass.

    Nothing is run twice: where the drafter is right about a token, its chain goes on as the next prefix's does.
    """
    from specdec.models.lm import most_probable

    paged.clear()
    if not text.num_prefixes:
        return []
    last = text.prefix_lens[-1]
    pages, logits_KV = paged.add_trunk(text.ids[:last], keep=range(text.prompt_len - 1, last))
    firsts = dict(zip(text.prefix_lens, zip(*paged.lm.on_host(most_probable(logits_KV)), strict=True), strict=True))
    own = {at: [first] for at, first in firsts.items() if at == last or first[0] != text.ids[at]}
    _write_on(paged, own, pages, (chain_len, batch), stop_ids)
    chains: dict[int, list[tuple[int, float]]] = {}
    for at in reversed(text.prefix_lens):
        # Right about the first token: the rest is the chain of the next prefix, if the text goes on.
        goes_on = at not in own and firsts[at][0] not in stop_ids
        chains[at] = own.get(at) or [firsts[at], *(chains[at + 1][: chain_len - 1] if goes_on else [])]
    return [
        token_chain([token for token, _ in chains[at]], [sure for _, sure in chains[at]]) for at in text.prefix_lens
    ]


def _write_on(
    paged: PagedLM,
    own: dict[int, list[tuple[int, float]]],
    pages: list[int],
    sizes: tuple[int, int],
    stop_ids: frozenset[int],
) -> None:
    """Extend every chain of `own` (prefix length -> tokens so far) token by token, all at once. `sizes`: tokens of a
    chain, rows of a pass."""
    from specdec.models.lm import most_probable
    from specdec.models.pages import Row, in_groups

    (chain_len, batch), paths = sizes, {at: tuple(pages[:at]) for at in own}
    for length in range(1, chain_len):
        alive = [at for at, chain in own.items() if len(chain) == length and chain[-1][0] not in stop_ids]
        for group in in_groups(alive, batch):
            logits_KV = paged.forward([Row(paths[at], (own[at][-1][0],), (0,)) for at in group])
            pages_of = paged.commit(range(len(group)))
            found = paged.lm.on_host(most_probable(logits_KV))
            for at, page, token, confidence in zip(group, pages_of, *found, strict=True):
                paths[at] += (page,)
                own[at].append((token, confidence))


FAMILY = Family((ArStatic, ArDynamic), LENGTH_FLAGS, record)
