"""Asked: what a run's tokens and passes are to cost, as a small dataclass of settings with their flags."""

from dataclasses import dataclass

from specdec.drafters.flags import setting
from specdec.latency.accounting import ACCOUNTINGS, OURS
from specdec.latency.profile import DEFAULT_PROFILES


@dataclass(frozen=True)
class PricingConfig:
    """What tokens and passes cost."""

    latency_profile: tuple[str, ...] = setting(
        "price with these profiles: names, JSON files, or 'none'", DEFAULT_PROFILES
    )
    latency_target: str | None = setting("price as if the target were this entry of the profile", None)
    pass_accounting: str = setting(
        "count the passes that were made and the tokens that were drafted, or what the published program counts for "
        "the same drafts (docs/fidelity.md)",
        OURS,
        choices=ACCOUNTINGS,
    )
