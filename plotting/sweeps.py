"""Sweeps: settings that differ in one number alone, as series along it. No matplotlib."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from specdec.drafters.base import Spec, number_text
from specdec.errors import UserError
from specdec.ranking.table import Row
from specdec.views.palette import Look, family_look

# Shorter words in a legend, for fields that have any.
_WORDS = {
    **{"unmask_threshold": "unmask", "draft_len": "static", "tau": "τ", "max_draft_len": "N_max", "draft_step": "N"},
    **{"tree_floor": "floor", "tree_depth": "depth", "tree_top_k": "top", "pricing": "as if for"},
}


@dataclass(frozen=True)
class Series:
    """Settings of the same kind in the order of the number that varies. `fixed` are the others, by field."""

    kind: type[Spec]
    fixed: dict[str, Any]
    xs: list[float]
    rows: list[Row]

    @property
    def label(self) -> str:
        """What is fixed, in words: "τ 0.45, N 10"; without what is as published."""
        usual = {one.name: one.default for one in dataclasses.fields(self.kind)}
        said = [(name, value) for name, value in self.fixed.items() if value != usual[name]]
        return ", ".join(
            f"{_WORDS.get(name, name.replace('_', ' '))} {value if isinstance(value, str) else number_text(value)}"
            for name, value in said
        )

    @property
    def look(self) -> Look:
        """That of its kind, as far as what is fixed decides it."""
        return family_look(self.kind, self.fixed)

    def having(self, *quantities: str) -> "Series":
        """Of its settings those of which these quantities are known."""
        kept = [(x, one) for x, one in zip(self.xs, self.rows, strict=True) if one.has(*quantities)]
        return dataclasses.replace(self, xs=[x for x, _ in kept], rows=[one for _, one in kept])


def sweeps(rows: Sequence[Row], kind: type[Spec], axis: str, *quantities: str) -> list[Series]:
    """The series of `kind` along its field `axis`, longest first; two settings at least, with all `quantities`.

    Example: of `dllm_0.05_sf_4`, `dllm_0.05_sf_8`, `dllm_0.9_sf_8` one series along draft_len, at threshold 0.05.
    """
    groups: dict[tuple, list[tuple[float, Row]]] = {}
    for row in rows:
        spec = row.spec
        if isinstance(spec, kind) and row.has(*quantities):
            fixed = tuple((name, value) for name, value in vars(spec).items() if name != axis)
            groups.setdefault(fixed, []).append((getattr(spec, axis), row))
    made = []
    for fixed, members in groups.items():
        members.sort(key=lambda member: member[0])
        if len(members) > 1:
            made.append(Series(kind, dict(fixed), [x for x, _ in members], [one for _, one in members]))
    return sorted(made, key=lambda series: -len(series.xs))


def require_sweep(series: Sequence[Series], what: str, flag: str) -> None:
    """UserError unless something varies."""
    if not series:
        raise UserError(
            f"the input holds no two settings of {what} alike but for one number: sweep it with {flag}, or record once "
            "(failfast.py --record --grid paper) and replay (specdec.replay --grid paper)"
        )
