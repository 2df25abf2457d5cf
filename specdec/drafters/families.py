"""The one table of drafter families: every file of this folder that has a FAMILY, and how drafters' names are read.

Nothing is listed by hand: a new family is in it as soon as its file is there.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from specdec.drafters.base import Family, Spec
from specdec.drafters.flags import Flag, Options, values
from specdec.errors import UserError

BASELINE_SWEEP = Flag("baseline_sweep", "leave FailFast out (alone: both static drafters)")


@cache
def families() -> tuple[Family, ...]:
    """All of them, by the names of their files."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    modules = [import_module(f"{__package__}.{name}") for name in names]
    return tuple(module.FAMILY for module in modules if hasattr(module, "FAMILY"))


@cache
def kinds() -> Mapping[str, type[Spec]]:
    """Every kind of drafter by its word for --drafters; plain decoding, the baseline of all others, first."""
    found = [spec for family in families() for spec in family.specs]
    return MappingProxyType({spec.kind: spec for spec in sorted(found, key=lambda spec: spec.kind != "plain")})


def family_of(spec: Spec | type[Spec]) -> Family:
    kind = spec if isinstance(spec, type) else type(spec)
    return next(family for family in families() if kind in family.specs)


@cache
def parse_name(name: str) -> Spec:
    """The spec of a name on disk. Example: `parse_name("ar_None_sf_8").draft_len == 8`. Raises UserError."""
    words = name.split("_")
    for family in families():
        try:
            spec = family.parse(words)
        except ValueError:
            continue
        if spec is not None:
            return spec
    raise UserError(f"{name!r} does not name a drafter: expected for example ar_None_sf_8 or dllm_0.05_df_0.45_60_10")


def known_spec(name: str) -> Spec | None:
    """The spec of a name; None for what no drafter here is called, such as a server's own drafting."""
    try:
        return parse_name(name)
    except UserError:
        return None


def kind_of_chains(name: str) -> type[Spec]:
    """The first kind that drafts from chains of this name, or of its like. UserError for chains of no drafter here.

    Example: `kind_of_chains("dllm_0.9").kind == "dllm_sf"`.
    """
    for kind in kinds().values():
        used = {str(spec.chains_name).partition("_")[0] for spec in kind.sweep({}) if spec.chains_name}
        if name.partition("_")[0] in used:
            return kind
    raise UserError(f"no drafter here writes chains called {name!r}")


@cache
def flags() -> tuple[Flag, ...]:
    """The flags of all families, each once, then the choice among their kinds."""
    own = {flag.name: flag for family in families() for flag in family.flags}
    return (*own.values(), *switches().values(), BASELINE_SWEEP)


@cache
def switches() -> Mapping[str, Flag]:
    """The published switches that ask for one kind of drafter, by kind."""
    return {
        kind: Flag(spec.switch, f"with FailFast and plain decoding: {spec.title}")
        for kind, spec in kinds().items()
        if spec.switch is not None
    }


def switched_kinds(options: Options, policy: str) -> tuple[str, ...]:
    """The kinds that the published switches ask for, plain decoding first; `policy` takes the headline's place."""
    known = kinds()
    headline = {kind for kind, spec in known.items() if spec.is_headline}
    asked = {kind for kind, flag in switches().items() if options.get(flag.name)}
    (without_headline,) = values(options, BASELINE_SWEEP)
    if without_headline:
        asked = asked or {kind for kind, spec in known.items() if spec.is_static_baseline}
    elif not asked:
        asked = {kind for kind, spec in known.items() if spec.is_default}
    else:
        asked |= headline
    if policy not in headline:
        asked = asked - headline | {policy}
    return tuple(kind for kind in known if kind == "plain" or kind in asked)
