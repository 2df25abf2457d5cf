"""EAGLE-3: a head of one layer that reads three or more of the target's hidden states and writes token by token, with a
static length, FailFast's rule in chunks or the cost-aware policy. Drafts are chains; their tokens are the most probable
ones, also where the target samples (then each is a point mass, which is lossless).

`models/eagle3.py` reads checkpoints, `models/eagle3_network.py` runs them. A pass of the first token takes in what the
target has confirmed since the last draft, the prompt included. Source: EAGLE-3 (arXiv 2503.01840).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdec.decoding.chains import Chain
from specdec.decoding.stopping import cut_after_stop
from specdec.drafters.base import Drafter, Family, Recorded, Recording, Setup
from specdec.drafters.head_reader import HeadReader
from specdec.drafters.token_drafter import (
    LENGTH_FLAGS,
    AdvisedTokens,
    DynamicTokens,
    RecordedTokens,
    StaticTokens,
    TokenDrafter,
    TokenSpec,
    chain_serving,
    token_chain,
)
from specdec.models.heads import Head, HeadRole, HeadSource

if TYPE_CHECKING:
    from specdec.decoding.cost_aware import Advice
    from specdec.models.eagle3_network import Eagle3Network

NAME = "eagle3"
LEAST_PREFIX = 2  # the first row is a token's features and the token after it


def _read(source: HeadSource) -> Head:
    from specdec.models.eagle3 import read_eagle3

    return read_eagle3(source)


EAGLE3_HEAD = HeadRole("EAGLE-3 head", "--eagle3_dir", "eagle3_head", read=_read)


class _Eagle3(TokenSpec):
    """What both have in common."""

    role = EAGLE3_HEAD
    priced_as = NAME
    chains_name = NAME
    is_default = False
    draws = False

    def drafter(self, setup: Setup) -> Drafter:
        return Eagle3Drafter(setup.lm, self, setup.stop_ids, setup.advice)

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        return RecordedTokens(trace, self, LEAST_PREFIX, setup.advice)


@dataclass(frozen=True)
class Eagle3Static(_Eagle3, StaticTokens):
    """A head that always drafts `draft_len` tokens."""

    name_pattern = "eagle3_sf_{draft_len}"
    label_pattern = "EAGLE-3, static {draft_len}"
    kind = "eagle3_sf"
    title = "EAGLE-3, static"
    hue = "#8C6D31"
    marker = "<"
    serving = chain_serving("eagle3", "EAGLE3")


@dataclass(frozen=True)
class Eagle3Dynamic(_Eagle3, DynamicTokens):
    """A head under FailFast's stopping rule."""

    name_pattern = "eagle3_df_{tau}_{max_draft_len}_{draft_step}"
    label_pattern = "EAGLE-3, dynamic τ {tau}, N_max {max_draft_len}, N {draft_step}"
    kind = "eagle3_df"
    title = "EAGLE-3, dynamic"
    hue = "#8B4A2B"
    marker = ">"
    not_served = "its EAGLE-3 heads write a fixed number of tokens"


@dataclass(frozen=True)
class Eagle3CostAware(_Eagle3, AdvisedTokens):
    """A head that goes on while it pays."""

    name_pattern = "eagle3_ca_{max_draft_len}_{pricing}"
    label_pattern = "EAGLE-3, cost-aware, N_max {max_draft_len}, {pricing}"
    kind = "eagle3_ca"
    title = "EAGLE-3, cost-aware"
    hue = "#4D6B3C"
    marker = "_"
    not_served = "its EAGLE-3 heads write a fixed number of tokens"


class Eagle3Drafter(HeadReader["Eagle3Network"], TokenDrafter):
    least_prefix = LEAST_PREFIX

    def __init__(
        self, network: Eagle3Network, spec: TokenSpec, stop_ids: Collection[int], advice: Advice | None = None
    ) -> None:
        super().__init__(spec, stop_ids, advice)
        self.attach(network)
        self._confirmed: list[int] | None = None  # tokens of the rows that wait; None: a draft has begun

    def _begin(self, prefix_ids: Sequence[int]) -> None:
        self._confirmed = list(prefix_ids[self.network.length + 1 :])

    def _next(self) -> tuple[int, float]:
        if self._confirmed is None:
            return self.network.step()
        import torch

        tokens, self._confirmed = self._confirmed, None
        return self.network.extend(torch.cat(self.taken()), tokens)


def record(recording: Recording, wanted: Mapping[str, int]) -> dict[str, list[Chain]]:
    """One chain per prefix, `batch` of them at a time. The target's features of a text are the same whoever drafted it.

    A chain ends after a stop token; after a prefix of one token there is none.
    """
    from specdec.models.pages import in_groups

    text, network, stop_ids = recording.text, recording.setup.lm, frozenset(recording.setup.stop_ids)
    rows = [at - LEAST_PREFIX for at in text.prefix_lens if at >= LEAST_PREFIX]
    if not rows:
        return {name: [token_chain([], []) for _ in text.prefix_lens] for name in wanted}
    tokens = text.ids[1 : rows[-1] + LEAST_PREFIX]
    network.read_text(recording.features_of(text.ids[: len(tokens)], network.taps), tokens)
    empty = [token_chain([], [])] * (text.num_prefixes - len(rows))
    made: dict[str, list[Chain]] = {}
    for name, length in wanted.items():
        made[name] = list(empty)
        for group in in_groups(rows, recording.batch):
            made[name] += [_chain(pairs, stop_ids) for pairs in network.write_on(group, length)]
    return made


def _chain(pairs: Sequence[tuple[float, float]], stop_ids: Collection[int]) -> Chain:
    """Of (token, probability), up to the first stop token."""
    tokens = cut_after_stop([int(token) for token, _ in pairs], stop_ids)
    return token_chain(tokens, [probability for _, probability in pairs[: len(tokens)]])


FAMILY = Family((Eagle3Static, Eagle3Dynamic, Eagle3CostAware), LENGTH_FLAGS, record)
