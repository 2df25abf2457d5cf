"""Latency profiles: what a drafter pass and a target pass cost on some hardware, as data read from JSON.

Profiles are made by profiling/; what a record costs under one is `pricing.py`'s.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

import specdec
from specdec.errors import UserError, user_error
from specdec.latency.rows import BOUNDS_MS, MAX_PASS_MS, RowTables, parse_rows, rows_lines
from specdec.latency.tree_costs import TreeCosts
from specdec.records.fields import MIN_MS
from specdec.records.pickles import write_atomic
from specdec.records.record import target_name

PROFILE_DIR = specdec.HOME / "assets" / "latency"  # those that come with the program; only read
WRITTEN_DIR = Path("latency")  # those that users make: in the current folder
MEASURED = "measured"  # the engine name of wall-clock prices, so no profile may be called so
ROOFLINE = "roofline"  # the source, in its provenance, of a profile of lower bounds (profiling/roofline.py)
OWN_ENGINES = ("eager", "graph")  # what this program runs networks with
STAND_INS = {"bundled": "Qwen2.5-32B-Instruct"}  # what the bundled target is priced as
# The paper's; this very tuple where nobody asked for one: what somebody names is another object.
DEFAULT_PROFILES = ("vLLM_A6000",)
_OPTIONAL = ("ar_draft_pass_ms", "family_pass_ms", "verify_ms", "trees", "rows")
_FIELDS = ("name", "draft_pass_ms", "target_ms_per_token", "provenance", *_OPTIONAL)


@dataclass(frozen=True)
class LatencyProfile:
    """What one drafter pass and one target pass cost on some hardware, in milliseconds.

    `target_ms_per_token`: target name (without organisation) -> plain decoding, ms per token.
    `verify_ms`: target name -> {number of tokens in a verification pass (draft_len + 1): ms}; a target
    without a table is flat: every verification costs one plain decoding step.
    `ar_draft_pass_ms`: what a pass of an AR drafter costs, which runs one token and no block; None: no less.
    `family_pass_ms`: what a pass of drafters of other families costs, which none of these stands for: `Spec.priced_as`
    -> ms, or -> {target name: ms}, since a head is as wide as the target that it reads.
    `trees`: target name -> what drafts that branch cost beside it; without an entry as much as drafts in a row.
    `rows`: what passes over several requests cost; None: nobody knows.
    """

    name: str
    draft_pass_ms: float
    target_ms_per_token: dict[str, float]
    verify_ms: dict[str, dict[int, float]]
    provenance: dict
    ar_draft_pass_ms: float | None = None
    family_pass_ms: dict[str, float | dict[str, float]] = field(default_factory=dict)
    trees: dict[str, TreeCosts] = field(default_factory=dict)
    rows: RowTables | None = None

    @property
    def is_bound(self) -> bool:
        """Whether it was calculated and not measured."""
        return self.provenance.get("source") == ROOFLINE

    @property
    def title(self) -> str:
        """The name for tables, which says of a bound that it is one."""
        return f"{self.name} ({ROOFLINE})" if self.is_bound else self.name

    def families(self, entry: str) -> dict[str, float]:
        """`family_pass_ms` beside one of its targets: family -> ms."""
        found = {name: ms.get(entry) if isinstance(ms, dict) else ms for name, ms in self.family_pass_ms.items()}
        return {name: ms for name, ms in found.items() if ms is not None}

    def knows(self, priced_as: str, entry: str) -> bool:
        """Whether it says what a pass of such a drafter costs beside this target."""
        return priced_as in ("ar", "block", *self.families(entry))

    def pass_ms(self, priced_as: str, entry: str = "") -> float:
        """A pass of a drafter that is priced as "ar" (one token), as "block", or as its own family, which the profile
        must know beside the target `entry`."""
        families = self.families(entry)
        if priced_as in families:
            return families[priced_as]
        if not self.knows(priced_as, entry):
            beside = f" beside {entry}" if entry else ""
            raise UserError(f"latency profile {self.name} does not say what a pass of {priced_as} costs{beside}")
        own = self.ar_draft_pass_ms if priced_as == "ar" else None
        return self.draft_pass_ms if own is None else own

    def tree_ms(self, priced_as: str, entry: str, num_nodes: int) -> tuple[float, float]:
        """What a pass of such a drafter takes where it drafts a tree of that size, and what the rest of the round
        does: no less than a pass and a verification in a row."""
        in_a_row = self.pass_ms(priced_as, entry), verification_ms(self, entry, num_nodes + 1)
        if entry not in self.trees:
            return in_a_row
        known = self.trees[entry].at(priced_as, num_nodes, partial(verifications_ms, self, entry))
        return max(in_a_row[0], known[0]), max(in_a_row[1], known[1])


def shipped_profiles() -> list[str]:
    """Names of the profiles that come with the program."""
    return sorted(path.stem for path in PROFILE_DIR.glob("*.json"))


def known_profiles() -> list[str]:
    """Names of the profiles that come with the program, and of those that were made in this folder."""
    return sorted({*shipped_profiles(), *(path.stem for path in WRITTEN_DIR.glob("*.json"))})


@lru_cache
def engine_of(name: str) -> str:
    """The engine, not one of this program's, whose passes a profile that comes with the program holds; else ""."""
    if name not in shipped_profiles():
        return ""
    engine = load_profile(name).provenance.get("engine")
    return "" if engine is None or engine in OWN_ENGINES else str(engine)


def load_profiles(names: Sequence[str]) -> list[LatencyProfile]:
    """The profiles asked for; ["none"] means no profile. Raises UserError, also for two of the same name."""
    if "none" in names:
        if len(names) > 1:
            raise UserError("--latency_profile none excludes other profiles")
        return []
    profiles = [load_profile(name) for name in names]
    if len({profile.name for profile in profiles}) < len(profiles):
        raise UserError("--latency_profile: two profiles have the same name")
    return profiles


def load_profile(name_or_path: str | Path) -> LatencyProfile:
    """A profile of `known_profiles`, by name, or any JSON file of the same layout, by path.

    Raises UserError: unknown name (the known ones are listed), unreadable or malformed file (named).
    """
    name = str(name_or_path)
    if name in known_profiles():
        ours = PROFILE_DIR / f"{name}.json"
        return _read_profile(ours if ours.is_file() else WRITTEN_DIR / f"{name}.json")
    path = Path(name)
    if path.suffix != ".json" and not path.is_file():
        known = ", ".join(known_profiles())
        raise UserError(f"unknown latency profile {name!r} (known: {known}; or give a path to a .json file)")
    return _read_profile(path)


def save_profile(fields: dict) -> Path:
    """Write a profile as latency/NAME.json in the current folder. Raises UserError for a bad one, or a taken name."""
    profile = _parse_profile(fields)
    check_own_name(profile.name)
    path = WRITTEN_DIR / f"{profile.name}.json"
    with user_error(f"write the latency profile {path}"):
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, profile_text(fields).encode())
    return path


def profile_text(fields: dict) -> str:
    """A profile as its file has it."""
    text = json.dumps({key: value for key, value in fields.items() if key != "rows"}, indent=1, allow_nan=False)
    return (f'{text[:-2]},\n "rows": {rows_lines(fields["rows"])}\n}}' if "rows" in fields else text) + "\n"


def has_target(profile: LatencyProfile, target: str) -> bool:
    return target_name(target) in profile.target_ms_per_token


def check_own_name(name: str) -> None:
    """Raise UserError for the name of a profile that comes with the program: what is installed is never written to."""
    if name in shipped_profiles():
        raise UserError(f"the latency profile {name} comes with the program: write another --write_profile")


def resolve_target(profile: LatencyProfile, target: str) -> str:
    """The profile's entry for a model name or folder: its `target_name`.

    "Qwen/Qwen2.5-7B-Instruct" and "some/folder/Qwen2.5-7B-Instruct/" are both "Qwen2.5-7B-Instruct".
    Raises UserError that lists the entries.
    """
    entry = target_name(target)
    if entry not in profile.target_ms_per_token:
        raise UserError(
            f"latency profile {profile.name} has no target {entry!r} (it has: "
            f"{', '.join(profile.target_ms_per_token)}); price as one of them with --latency_target NAME, "
            "or do without modelled prices with --latency_profile none"
        )
    return entry


def verification_ms(profile: LatencyProfile, target: str, num_tokens: int) -> float:
    """Cost in ms of one target pass over `num_tokens` tokens (draft_len + 1); `target` is an entry's name.

    Linear between the table's points, flat beyond both ends: {1: 10.0, 9: 18.0} gives 14.0 at 5, 18.0 at 64.
    """
    return verifications_ms(profile, target, range(num_tokens, num_tokens + 1))[0]


def verifications_ms(profile: LatencyProfile, target: str, counts: Sequence[int]) -> list[float]:
    """The same of many numbers of tokens."""
    table = profile.verify_ms.get(target)
    if table is None:
        return [profile.target_ms_per_token[target]] * len(counts)
    points = sorted(table)
    found: list[float] = np.interp(counts, points, [table[point] for point in points]).tolist()
    return found


def _read_profile(path: Path) -> LatencyProfile:
    try:
        with user_error(f"read the latency profile {path}"):
            raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"latency profile {path} is not valid JSON ({error})") from error
    try:
        return _parse_profile(raw)
    except UserError as error:
        raise UserError(f"latency profile {path}: {error}") from error


def _parse_profile(raw: object) -> LatencyProfile:
    fields = _object(raw, "the file")
    unknown = [key for key in fields if key not in _FIELDS]
    if unknown:
        raise UserError(f"unknown field {unknown[0]!r} (known: {', '.join(_FIELDS)})")
    missing = [key for key in _FIELDS if key not in fields and key not in _OPTIONAL]
    if missing:
        raise UserError(f"lacks the field {missing[0]!r}")
    targets = _milliseconds(fields["target_ms_per_token"], "target_ms_per_token")
    tables = _verify_tables(fields.get("verify_ms", {}), targets)
    return LatencyProfile(
        name=_name(fields["name"], "name"),
        draft_pass_ms=_number(fields["draft_pass_ms"], "draft_pass_ms"),
        target_ms_per_token={_name(target, "target_ms_per_token"): ms for target, ms in targets.items()},
        verify_ms=tables,
        provenance=_provenance(fields["provenance"]),
        **{key: _number(fields[key], key) for key in ("ar_draft_pass_ms",) if key in fields},
        family_pass_ms=_families(fields["family_pass_ms"], targets) if "family_pass_ms" in fields else {},
        trees=_trees(fields.get("trees", {}), targets, fields.get("family_pass_ms", {})),
        rows=parse_rows(fields["rows"], tables) if "rows" in fields else None,
    )


def _provenance(raw: object) -> dict:
    """What a profile says of itself, which goes into those that grow from it. Raises UserError."""
    found = _object(raw, "provenance")
    try:
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError):
        raise UserError("provenance holds NaN or infinity, which no JSON has, or is nested too deep") from None
    return found


def _families(raw: object, targets: dict[str, float]) -> dict[str, float | dict[str, float]]:
    found: dict[str, float | dict[str, float]] = {}
    for family, ms in _object(raw, "family_pass_ms").items():
        where = f"family_pass_ms[{family!r}]"
        found[family] = _milliseconds(ms, where) if isinstance(ms, dict) else _number(ms, where)
        if foreign := (ms.keys() if isinstance(ms, dict) else set()) - targets.keys():
            raise UserError(f"{where} has {min(foreign)!r}, which has no entry in target_ms_per_token")
    if not found:
        raise UserError("family_pass_ms is empty")
    return found


def _verify_tables(raw: object, targets: dict[str, float]) -> dict[str, dict[int, float]]:
    tables = {}
    for target, table in _object(raw, "verify_ms").items():
        where = f"verify_ms[{target!r}]"
        if target not in targets:
            raise UserError(f"{where} has no entry in target_ms_per_token")
        tables[target] = _by_count(table, where)
    return tables


def _trees(raw: object, targets: dict[str, float], families: Collection[str]) -> dict[str, TreeCosts]:
    found = {}
    for target, parts in _object(raw, "trees").items():
        where = f"trees[{target!r}]"
        if target not in targets or set(_object(parts, where)) != {"round_ms", "pass_ms"}:
            raise UserError(f"{where} is not round_ms and pass_ms of a target of target_ms_per_token")
        passes = _object(parts["pass_ms"], f"{where}['pass_ms']")
        if unknown := passes.keys() - set(families):
            raise UserError(f"{where}['pass_ms'] has {min(unknown)!r}, which has no entry in family_pass_ms")
        of_families = {family: _by_count(table, f"{where}['pass_ms'][{family!r}]") for family, table in passes.items()}
        found[target] = TreeCosts(_by_count(parts["round_ms"], f"{where}['round_ms']"), of_families)
    return found


def _by_count(value: object, where: str) -> dict[int, float]:
    points = _milliseconds(value, where)
    if bad := [key for key in points if not re.fullmatch("[1-9][0-9]{0,8}", key)]:
        raise UserError(f"{where} has the key {bad[0]!r}; it must be a number of tokens, 1 or more")
    return {int(key): ms for key, ms in points.items()}


def _object(value: object, where: str) -> dict:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a JSON object")
    return value


def _milliseconds(value: object, where: str) -> dict[str, float]:
    table = _object(value, where)
    if not table:
        raise UserError(f"{where} is empty")
    return {key: _number(ms, f"{where}[{key!r}]") for key, ms in table.items()}


def _number(value: object, where: str) -> float:
    # the bounds also keep out nan, infinity, integers too long for a float and what nothing can be divided by
    if not isinstance(value, int | float) or isinstance(value, bool) or not MIN_MS <= value < MAX_PASS_MS:
        raise UserError(f"{where} must be a positive number of milliseconds ({BOUNDS_MS}), not {value!r:.40}")
    return float(value)


def _name(value: object, where: str) -> str:
    # Names end up in log lines between brackets, which are read back.
    if not isinstance(value, str) or not re.fullmatch(r"[\w.+-]+", value) or value in (MEASURED, "none"):
        raise UserError(f"{where} has the unusable name {value!r:.80} (letters, digits and . + - _ only)")
    return value


def engine_name(profile_title: str, entry: str, target: str) -> str:
    """`("P", "Q-7B", "org/Q-7B")` gives "P"; `("P", "Q-7B", "bundled")` gives "P as if Q-7B"."""
    return profile_title if target_name(target) == entry else f"{profile_title} as if {entry}"
