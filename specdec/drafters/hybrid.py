"""Hybrids: a drafter that needs no model first, another where it finds nothing.

Each round is drafted by the first of them that has a token. Drafting without a model costs nothing but a longer
verification, so a hybrid spends passes only where the text does not say again what it has said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from specdec.decoding.chains import Chains
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Verification
from specdec.drafters.base import Drafter, Family, Recorded, Setup, Spec
from specdec.drafters.families import parse_name
from specdec.drafters.flags import Options
from specdec.drafters.plain import PLAIN
from specdec.errors import UserError
from specdec.records.rounds import Round

if TYPE_CHECKING:
    from torch import Tensor

ELSE = "_else_"


@dataclass(frozen=True)
class Hybrid(Spec):
    """`first` drafts, and `second` where it finds nothing: names of drafters. The second may be a hybrid too.

    Raises UserError for a first that needs a model, or is made of others.
    """

    first: str = "lookup_3_sf_10"
    second: str = "dllm_0.05_df_0.45_60_10"

    name_pattern = "{first}" + ELSE + "{second}"
    kind = "hybrid"
    title = "hybrid"
    hue = "#882255"
    marker = "*"
    not_served = "it drafts by one drafter alone"
    is_default = False

    def __post_init__(self) -> None:
        first, second = parse_name(self.first), parse_name(self.second)
        if first.role is not None or len(first.parts) > 1 or PLAIN in (first.kind, second.kind):
            raise UserError(f"{self.name} is not a hybrid: first comes a drafter without a model, then any other")

    @classmethod
    def parse(cls, name: str) -> Self | None:
        first, found, second = name.partition(ELSE)
        try:
            return cls(first, second) if found else None
        except UserError:
            return None

    @property
    def label(self) -> str:
        return f"{parse_name(self.first).label}, else {self._last.label}"

    @property
    def parts(self) -> tuple[Spec, ...]:
        return (parse_name(self.first), *self._last.parts)

    @property
    def _last(self) -> Spec:
        return parse_name(self.second)

    def drafter(self, setup: Setup) -> Drafter:
        *others, last = self.parts
        without = replace(setup, lm=None, mask_id=None, sampler=None, advice=None)
        return HybridDrafter([*(part.drafter(without) for part in others), last.drafter(setup)])

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        return HybridDrafter([part.replayed(trace, setup) for part in self.parts])

    @property
    def most_nodes(self) -> int:
        return max(part.most_nodes for part in self.parts)

    @property
    def reads_earlier(self) -> bool:
        return any(part.reads_earlier for part in self.parts)

    # What a trace must hold is what its last part drafts from: the others' drafts follow from the text.

    @property
    def chains_name(self) -> str | None:
        return self._last.chains_name

    def chain_len(self, options: Options) -> int:
        return self._last.chain_len(options)

    def derived_chains(self, trace: Recorded) -> Chains | None:
        return self._last.derived_chains(trace)

    def chain_settings(self, setup: Setup) -> dict[str, Any]:
        return self._last.chain_settings(setup)

    def kept_settings(self, setup: Setup) -> dict[str, Any]:
        return {key: value for part in self.parts for key, value in part.kept_settings(setup).items()}

    def check_context(self, options: Options, context_len: int) -> None:
        for part in self.parts:
            part.check_context(options, context_len)

    def token_confidences(self, turn: Round, settings: Mapping[str, Any]) -> list[float | None]:
        """A draft of passes is the last part's."""
        part = self.parts[-1 if turn.num_forward_passes else 0]
        return part.token_confidences(turn, settings)


class HybridDrafter(Drafter):
    """Drafters in the order in which they are asked. All of them see how every round ended."""

    def __init__(self, drafters: Sequence[Drafter]) -> None:
        self.drafters = drafters
        self.taps = drafters[-1].taps  # the only one that may read any

    def reset(self, features: Tensor | None = None) -> None:
        for drafter in self.drafters:
            drafter.reset(features)

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        for drafter in self.drafters:
            draft = drafter.propose(prefix_ids, budget)
            if draft.tokens:
                break
        return draft

    def observe(self, verification: Verification) -> None:
        for drafter in self.drafters:
            drafter.observe(verification)


FAMILY = Family((Hybrid,))
