"""New profile: a latency profile of the user's own (latency/NAME.json), from what profilers measured.

`specdec/latency/profile.py` has the format. A profile grows: each target measured under the same name, engine and
hardware adds its entry.
"""

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specdec.commands.flags import StrictParser
from specdec.errors import UserError
from specdec.latency.profile import LatencyProfile, check_own_name, known_profiles, load_profile, save_profile
from specdec.records.fields import is_ms, parse_json


@dataclass(frozen=True)
class DraftCost:
    """What a drafter's pass costs, in ms, and where that is from. `ar_draft_pass_ms`: if an AR drafter's differs;
    `family`: whose pass it is, where no other drafter is priced by it (`Spec.priced_as`)."""

    draft_pass_ms: float
    source: dict[str, Any]
    ar_draft_pass_ms: float | None = None
    family: str | None = None


@dataclass(frozen=True)
class TargetCost:
    """What a target costs: its entry's name, ms per token, ms of a verification by tokens ({}: flat), the evidence."""

    entry: str
    ms_per_token: float
    evidence: dict[str, Any]
    verify_ms: dict[str, float] = field(default_factory=dict)


def add_profile_flags(parser: StrictParser) -> None:
    profile = parser.group("profile")
    profile.add_argument(
        "--write_profile", metavar="NAME", help="make, or add this target to, the latency profile ./latency/NAME.json"
    )
    profile.add_argument("--hardware", help="the GPU (or CPU) that was measured, for the profile: NVIDIA H100 SXM")
    profile.add_argument(
        "--drafter", help="for a profile: what a profiler printed of the drafter (a file), or a profile"
    )


def check_profile(flags: argparse.Namespace, engine: str, has_draft: bool) -> None:
    """What can be known before anything is measured. `has_draft`: a drafter's cost is given or will be measured.

    Raises UserError for a profile of another engine or other hardware, for one that comes with the program, and for a
    new one that no drafter's cost is known of.
    """
    if not flags.write_profile:
        return
    if not flags.hardware:
        raise UserError("--write_profile needs --hardware: prices mean nothing without the name of the machine")
    if not re.fullmatch(r"[\w.+-]+", flags.write_profile):
        raise UserError(f"--write_profile {flags.write_profile!r} is not a name (letters, digits and . + - _ only)")
    check_own_name(flags.write_profile)
    earlier = _earlier(flags.write_profile)
    if earlier is None and not has_draft:
        raise UserError(
            "a latency profile needs what a drafter's pass costs: give --drafter FILE, with what a profiler printed of "
            "the drafter, or the name of a profile to take the figure from"
        )
    known = {} if earlier is None else earlier.provenance
    for key, value in _origin(flags, engine).items():
        if earlier is not None and known.get(key) != value:
            raise UserError(
                f"the latency profile {earlier.name} is there already, with {key} {known.get(key)!r} and not "
                f"{value!r}: write another --write_profile"
            )


def write_profile(flags: argparse.Namespace, engine: str, target: TargetCost, draft: DraftCost | None) -> None:
    """Make or extend the profile `flags.write_profile`; `draft` None: as it was (`check_profile`). Raises UserError."""
    earlier = _earlier(flags.write_profile)
    path = save_profile(_fields(flags.write_profile, _origin(flags, engine), target, draft, earlier))
    print(f"latency profile: {path}", file=sys.stderr)


def _earlier(name: str) -> LatencyProfile | None:
    return load_profile(name) if name in known_profiles() else None


def _origin(flags: argparse.Namespace, engine: str) -> dict[str, Any]:
    """What all targets of a profile have in common."""
    return {"measured_by_this_project": True, "engine": engine, "hardware": flags.hardware}


def _fields(
    name: str, origin: dict[str, Any], target: TargetCost, draft: DraftCost | None, earlier: LatencyProfile | None
) -> dict[str, Any]:
    """The file's contents: what was known earlier, with this target's entry new."""
    provenance: dict[str, Any] = {} if earlier is None else earlier.provenance
    tokens = {} if earlier is None else earlier.target_ms_per_token
    measured = {} if earlier is None else earlier.verify_ms
    tables = {name: {str(k): ms for k, ms in table.items()} for name, table in measured.items() if name != target.entry}
    if draft is None:
        assert earlier is not None, "check_profile lets no new profile begin without a drafter's cost"
        draft = DraftCost(earlier.draft_pass_ms, provenance.get("draft", {}), earlier.ar_draft_pass_ms)
    if target.verify_ms:
        tables[target.entry] = target.verify_ms
    fields = {
        "name": name,
        "draft_pass_ms": draft.draft_pass_ms,
        "target_ms_per_token": {**tokens, target.entry: target.ms_per_token},
        "verify_ms": tables,
        "provenance": {
            **origin,
            "remark": "medians over trials; batch 1; a target without verify_ms is flat: a verification, one token",
            "draft": draft.source,
            "targets": {**provenance.get("targets", {}), target.entry: target.evidence},
        },
    }
    families = {} if earlier is None else dict(earlier.family_pass_ms)
    if draft.family is not None:
        families[draft.family] = draft.draft_pass_ms
    more = {"ar_draft_pass_ms": draft.ar_draft_pass_ms, "family_pass_ms": families or None}
    fields |= {key: value for key, value in more.items() if value is not None}
    if earlier is not None and earlier.rows:  # what others wrote into it stays
        fields |= earlier.rows.to_builtins(tables)
    if earlier is not None and earlier.trees:
        fields["trees"] = {entry: costs.to_builtins() for entry, costs in earlier.trees.items()}
    return fields


def read_draft_cost(name: str) -> DraftCost:
    """The cost of a drafter's pass from what a profiler printed (a file), or from a latency profile (a name or file).

    A drafter that a server runs is an AR model; its pass is one of its tokens. Raises UserError.
    """
    if name in known_profiles():
        return _of_profile(load_profile(name))
    found = read_result(name, "--drafter")
    if is_profile(found):
        return _of_profile(load_profile(name))
    keys = ("engine", "model", "base_url", "ms_per_token", "num_valid", "provenance")
    return DraftCost(found["ms_per_token"]["median"], {key: found.get(key) for key in keys})


def _of_profile(profile: LatencyProfile) -> DraftCost:
    return DraftCost(profile.draft_pass_ms, {"latency_profile": profile.name}, profile.ar_draft_pass_ms)


def read_result(name: str, flag: str) -> dict[str, Any]:
    """What a profiler printed: a file whose last line is its JSON. Raises UserError that names the flag."""
    try:
        text = Path(name).read_text(encoding="utf-8")
        try:
            found = parse_json(text)
        except ValueError:
            found = parse_json(text.strip().rpartition("\n")[2])
    except OSError as error:
        raise UserError(f"{flag}: cannot read {name}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{flag}: {name} does not end with the JSON that a profiler prints") from error
    times = found.get("ms_per_token") if isinstance(found, dict) else None
    is_time = isinstance(times, dict) and is_ms(times.get("median")) and times["median"] > 0
    if not is_time and not is_profile(found):
        raise UserError(f"{flag}: {name} is not what a profiler prints: it has no ms_per_token")
    return found


def is_profile(found: object) -> bool:
    """Whether a JSON document looks like a latency profile, and not like what a profiler prints."""
    return isinstance(found, dict) and "draft_pass_ms" in found
