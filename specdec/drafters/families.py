"""The one table of drafter families: every file of this folder that has a FAMILY, how drafters' names are read, and the
grids: lists of drafters that one flag asks for, by name.

Nothing is listed by hand: a new family is in it as soon as its file is there.
"""

import pkgutil
from argparse import ArgumentTypeError
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from specdec.drafters.base import Family, Spec
from specdec.drafters.flags import Flag, Options
from specdec.errors import UserError
from specdec.models.checkpoints import Role

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


@cache
def parse_name(name: str) -> Spec:
    """The spec of a name on disk. Example: `parse_name("ar_None_sf_8").draft_len == 8`. Raises UserError."""
    for kind in kinds().values():
        try:
            spec = kind.parse(name)
        except ValueError:
            continue
        if spec is not None:
            return spec
    raise UserError(f"{name!r} does not name a drafter: expected for example ar_None_sf_8 or dllm_0.05_df_0.45_60_10")


def asked_spec(word: str) -> Spec:
    """The drafter that a word of --drafters names which is not a kind. Raises UserError."""
    spec = known_spec(word)
    if spec is None:
        raise UserError(
            f"no drafter is called {word!r}: give a kind ({', '.join(kinds())}) or a name, such as ar_None_sf_8"
        )
    for part in spec.parts:
        part.check_values()
    return spec


def drafter_word(word: str) -> str:
    """What argparse reads --drafters by."""
    try:
        return word if word in kinds() else asked_spec(word).name
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None


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
    if BASELINE_SWEEP.of(options):
        asked = asked or {kind for kind, spec in known.items() if spec.is_static_baseline}
    elif not asked:
        asked = {kind for kind, spec in known.items() if spec.is_default}
    else:
        asked |= headline
    if policy not in headline:
        asked = asked - headline | {policy}
    return tuple(kind for kind in known if kind == "plain" or kind in asked)


def stated_options(configs: Mapping[Role, Mapping[str, Any]]) -> dict[str, Any]:
    """The flags that the config.json of each role's model states itself. Raises UserError for nonsense."""
    found: dict[str, Any] = {}
    for spec in kinds().values():
        if spec.role is not None and spec.role in configs:
            found |= spec.stated(configs[spec.role])
    return found


def settled_options(asked: Options, configs: Mapping[Role, Mapping[str, Any]]) -> Options:
    """The families' flags as given; where they are not, as the config.json of each role's model states them.

    Raises UserError for what does not fit together.
    """
    stated = stated_options(configs)
    options = {**asked, **{name: value for name, value in stated.items() if asked.get(name) is None}}
    for family in families():
        family.check(options)
    return options


def filled_block(role: Role, options: Options) -> int | None:
    """Positions that a pass of a role's model fills together; None: it fills no block."""
    found = (spec.filled_block(options) for spec in kinds().values() if spec.role == role)
    return next((size for size in found if size is not None), None)


_THRESHOLDS = tuple(f"{percent / 100}" for percent in range(5, 100, 5))

# The sweeps of the FailFast paper (arXiv 2512.20573): 8 lengths of the AR drafter, 19 unmask thresholds at length 8 and
# 12 more lengths of the static dLLM drafter, 19 values of tau, 7 of N_max (of which 60 stands among the taus' already).
_PAPER = (
    *(f"ar_None_sf_{length}" for length in (3, 4, 5, 6, 8, 10, 12, 15)),
    *(f"dllm_{threshold}_sf_8" for threshold in _THRESHOLDS),
    *(f"dllm_0.05_sf_{length}" for length in (2, 3, 4, 5, 6, 7, 9, 10, 12, 15, 20, 25)),
    *(f"dllm_0.05_df_{tau}_60_10" for tau in _THRESHOLDS),
    *(f"dllm_0.05_df_0.45_{longest}_10" for longest in (10, 20, 30, 40, 50, 70)),
)

# Trees over a DFlash head: 19 numbers of nodes, and 9 floors at 5 bounds.
_NODES = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256)
_FLOORS, _BOUNDS = (0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2), (16, 32, 64, 128, 256)
_TREES = (
    *(f"dflash_tree_{nodes}" for nodes in _NODES),
    *(f"dflash_tree_df_{floor}_{bound}" for floor in _FLOORS for bound in _BOUNDS),
)


@cache
def paper() -> tuple[Spec, ...]:
    """The 64 settings of the paper's sweeps."""
    return tuple(map(parse_name, _PAPER))


@cache
def trees() -> tuple[Spec, ...]:
    """64 settings of trees: fixed numbers of nodes, and only sure ones."""
    return tuple(map(parse_name, _TREES))


GRIDS = {"paper": paper, "trees": trees}
