"""Advice: what the cost-aware policy knows under a latency profile, from a calibration on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from specdec.decoding.cost_aware import Advice, load_calibration
from specdec.drafters.base import Spec
from specdec.drafters.block_diffusion import CostAware
from specdec.errors import UserError
from specdec.latency.profile import LatencyProfile, verification_ms
from specdec.records.identity import first_difference


def engine_costs(profile: LatencyProfile, entry: str, longest: int) -> tuple[float, list[float]]:
    """What a pass costs, and the verification of a draft of 0 .. `longest` tokens, in ms."""
    return profile.draft_pass_ms, [verification_ms(profile, entry, n + 1) for n in range(longest + 1)]


def advice_of(
    spec: Spec, calibration_file: str | Path | None, profiles: Iterable[LatencyProfile], drafter: Mapping[str, Any]
) -> Advice | None:
    """The advice for a drafter whose chains have the identity `drafter`; None for one that needs none, or has no file.

    Raises UserError for a calibration of another drafter, or one without the rate of the spec's engine.
    """
    if not isinstance(spec, CostAware) or calibration_file is None:
        return None
    entry, _, profile_name = spec.pricing.rpartition("@")
    profile = next((one for one in profiles if one.name == profile_name), None)
    if profile is None or entry not in profile.target_ms_per_token:
        raise UserError(f"{spec.name}: give the profile with --latency_profile, which has to hold the target {entry!r}")
    calibration = load_calibration(Path(calibration_file), spec.chains_name)
    difference = first_difference(calibration.identity, {key: drafter.get(key) for key in calibration.identity})
    if difference is not None:
        raise UserError(f"{calibration_file} was learnt from another drafter ({difference}): calibrate again")
    if spec.pricing not in calibration.rates:
        raise UserError(
            f"{calibration_file} has no rate for {spec.pricing}: calibrate again with this --latency_profile"
        )
    pass_ms, verify_ms = engine_costs(profile, entry, spec.max_draft_len)
    return Advice(calibration, pass_ms=pass_ms, verify_ms=verify_ms, rate=calibration.rates[spec.pricing])
