"""Plain decoding, as a drafter that proposes nothing: every round is one token of the target. The measured baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

from specdec.decoding.stopping import Draft
from specdec.drafters.base import Drafter, Family, Recorded, Setup, Spec

PLAIN = "plain"


class NoDrafter(Drafter):
    """Proposes nothing."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        return Draft()


@dataclass(frozen=True)
class Plain(Spec):
    """Nothing is drafted."""

    name_pattern = kind = PLAIN
    label_pattern = title = "plain decoding"
    hue = "#000000"
    marker = "x"

    def drafter(self, setup: Setup) -> Drafter:
        return NoDrafter()

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        return NoDrafter()


FAMILY = Family((Plain,))
