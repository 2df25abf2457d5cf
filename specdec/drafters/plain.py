"""Plain decoding, as a drafter that proposes nothing: every round is one token of the target. The measured baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specdec.decoding.stopping import Draft
from specdec.decoding.target import Verification
from specdec.drafters.base import Drafter, Family, Recorded, Setup, Spec
from specdec.drafters.flags import Options

PLAIN = "plain"


class NoDrafter:
    """Proposes nothing."""

    def reset(self) -> None:
        pass

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        return Draft()

    def observe(self, verification: Verification) -> None:
        pass


@dataclass(frozen=True)
class Plain(Spec):
    """Nothing is drafted."""

    kind = PLAIN
    title = "plain decoding"
    hue = "#000000"
    marker = "x"

    @property
    def name(self) -> str:
        return PLAIN

    @property
    def label(self) -> str:
        return self.title

    @classmethod
    def sweep(cls, options: Options) -> list[Spec]:
        return [cls()]

    def drafter(self, setup: Setup) -> Drafter:
        return NoDrafter()

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        return NoDrafter()


def _parse(words: Sequence[str]) -> Spec | None:
    return Plain() if list(words) == [PLAIN] else None


FAMILY = Family("plain", (Plain,), _parse)
