"""Advised: what specs share whose drafts end by what more of them is worth. Of no family; the rule is
`decoding/cost_aware.py`, and what it knows is learnt from other questions and priced by a latency profile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from specdec.decoding.cost_aware import Advice
from specdec.drafters.base import Setup, Spec
from specdec.drafters.families import kinds
from specdec.drafters.flags import MAX_DRAFT_LEN, PRICINGS, Flag


@dataclass(frozen=True)
class Advised(Spec):
    """At most `max_draft_len` tokens are drafted; `pricing` ("TARGET@PROFILE") says what a pass and a verification
    cost."""

    max_draft_len: int
    pricing: str

    swept: ClassVar[tuple[Flag, ...]] = (MAX_DRAFT_LEN, PRICINGS)
    is_default = False
    needs_advice = needs_costs = True

    @classmethod
    def over(cls, chains_name: str, max_draft_len: int, pricing: str) -> Self | None:
        """The spec that drafts from chains of this name; None if it drafts from none such."""
        spec = cls(max_draft_len, pricing)
        return spec if spec.chains_name == chains_name else None

    def required(self, advice: Advice | None) -> Advice:
        """The advice that it cannot do without. Raises ValueError where a program forgot it."""
        if advice is None:
            raise ValueError(f"{self.name} without advice")
        return advice

    def kept_settings(self, setup: Setup) -> dict[str, Any]:
        learnt = {} if setup.advice is None else {"advice_sha256": setup.advice.digest}
        return {**super().kept_settings(setup), **learnt}


def policy_over(chains_name: str, max_draft_len: int, pricing: str) -> Advised | None:
    """The policy by cost that drafts from chains of this name; None where no family has one."""
    policies = [kind for kind in kinds().values() if issubclass(kind, Advised)]
    found = (kind.over(chains_name, max_draft_len, pricing) for kind in policies)
    return next((spec for spec in found if spec is not None), None)
