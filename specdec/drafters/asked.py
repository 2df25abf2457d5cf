"""Asked: which drafters a run is to have, as a small dataclass of settings with their flags."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from specdec.drafters.base import Spec
from specdec.drafters.families import (
    BASELINE_SWEEP,
    GRIDS,
    asked_spec,
    drafter_word,
    flags,
    kinds,
    switched_kinds,
    switches,
)
from specdec.drafters.flags import Flag, Options, setting
from specdec.models.checkpoints import BUNDLED, Role


@dataclass(frozen=True)
class DrafterConfig:
    """Which drafters. `options`: the flags of their families, by name, the names of their models among them."""

    drafters: tuple[str, ...] | None = setting(
        "exactly these, by kind or name (default: all that need no calibration, and plain decoding)",
        None,
        nargs="+",
        type=drafter_word,
        metavar=lambda: f"{{{','.join(kinds())},NAME}}",
    )
    policy: str = setting(
        "how the dynamic dLLM drafter decides on a draft's length: FailFast's rule, or by expected tokens per "
        "millisecond under the --latency_profile",
        "failfast",
        choices=lambda: [kind for kind, spec in kinds().items() if spec.is_headline or spec.is_policy],
    )
    calibration: str | None = setting("what the cost-aware policy has learnt (python -m specdec.calibrate)", None)
    grid: str | None = setting(
        "instead: a list of settings ('paper': the 64 of the paper's sweeps; 'trees': 64 of trees over a DFlash head)",
        None,
        choices=tuple(GRIDS),
    )
    options: Options = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of drafter asked for, plain decoding first."""
        if self.drafters is not None:
            return tuple(kind for kind in kinds() if kind in {*self.drafters, *(spec.kind for spec in self.named)})
        return switched_kinds(self.options, self.policy)

    @property
    def swept_kinds(self) -> tuple[str, ...]:
        """Those of them of which every combination of settings is asked for."""
        return tuple(kind for kind in self.kinds if self.drafters is None or kind in self.drafters)

    @property
    def named(self) -> list[Spec]:
        """Those that are asked for by name."""
        return [asked_spec(word) for word in self.drafters or () if word not in kinds()]

    @property
    def part_kinds(self) -> list[type[Spec]]:
        """The kinds asked for, and those that these draft with."""
        asked = [] if self.grid is not None else [kinds()[kind] for kind in self.kinds]
        return list(dict.fromkeys([*asked, *(type(part) for spec in self.specs() for part in spec.parts)]))

    @property
    def needs_advice(self) -> bool:
        return any(kind.needs_advice for kind in self.part_kinds)

    @property
    def needs_costs(self) -> bool:
        return any(kind.needs_costs for kind in self.part_kinds)

    @property
    def roles(self) -> list[Role]:
        return list(dict.fromkeys(kind.role for kind in self.part_kinds if kind.role is not None))

    def specs(self, pricings: Sequence[str] = ()) -> list[Spec]:
        """Every configuration to run, each once, in the order of `kinds`; or those of `grid`.

        `pricings`: what a policy by cost reckons with, "TARGET@PROFILE" for each profile of the run.
        """
        if self.grid is not None:
            return [*kinds()["plain"].sweep({}), *GRIDS[self.grid]()]
        options = {**self.options, "pricings": tuple(pricings)}
        found = [spec for kind in self.swept_kinds for spec in kinds()[kind].sweep(options)]
        return list(dict.fromkeys(sorted([*found, *self.named], key=lambda spec: self.kinds.index(spec.kind))))

    @property
    def swept_beside_grid(self) -> str:
        """A flag, as it is published, that chooses drafters or their settings where a grid does; "" without one."""
        if self.grid is None:
            return ""
        own_names = {flag.name for flag in flags()}
        own = {flag.name: flag for kind in kinds().values() for flag in kind.swept if flag.name in own_names}
        chosen = [*own.values(), *switches().values(), BASELINE_SWEEP]
        set_to = [flag for flag in chosen if _tuple_of(flag.of(self.options)) != _tuple_of(flag.default)]
        names = [(*flag.published, flag.name)[0] for flag in set_to]
        return next(iter([*(["drafters"] if self.drafters is not None else []), *names]), "")


def model_flags() -> list[Flag]:
    """Flags that name the drafters' models."""
    roles = dict.fromkeys(spec.role for spec in kinds().values() if spec.role is not None)
    return [Flag(role.setting, role.title + _default_of(role), None) for role in roles]


def _default_of(role: Role) -> str:
    return f" (default: {BUNDLED}, or {role.default})" if role.default else f" (default: none but {BUNDLED}'s own)"


def _tuple_of(value: Any) -> Any:
    """A list as a tuple, anything else as it is: parsers make lists, defaults are tuples."""
    return tuple(value) if isinstance(value, list) else value
