"""Labels: what configurations are called in words, in tables and in lines with little room.

Their names on disk are injective; these words are for people. Colours and legends: `palette.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields

from specdec.drafters.base import Spec, number_text
from specdec.drafters.families import known_spec
from specdec.ranking.table import Row
from specdec.text import visible
from specdec.views.palette import kind_of, short


def label(row: Row) -> str:
    """A row's drafter in words; the name of one that no family here knows."""
    spec = known_spec(row.drafter_name)
    return visible(row.own_label or (row.drafter_name if spec is None else spec.label))


def short_labels(names: Sequence[str]) -> dict[str, str]:
    """Name -> the fewest words that tell it from the others.

    `short_labels(["ar_None_sf_8", "dllm_0.05_sf_4", "dllm_0.05_sf_8"])` has the values "AR", "dLLM 4" and "dLLM 8".
    """
    specs = {name: spec for name in names if (spec := known_spec(name)) is not None}
    kinds: dict[type[Spec], None] = dict.fromkeys(type(spec) for spec in specs.values())
    heads = {kind: kind.title.replace(", ", " ") for kind in kinds}
    for kind in kinds:
        if sum(short(kind) == short(other) for other in kinds) == 1:
            heads[kind] = short(kind)
    found = {}
    for name, spec in specs.items():
        own = [other for other in specs.values() if type(other) is type(spec)]
        found[name] = " ".join([heads[type(spec)], *_differing(spec, own)])
    return {name: visible(found.get(name, name)) for name in names}


def _differing(spec: Spec, others: Iterable[Spec]) -> list[str]:
    """The settings in which specs of a kind differ, as words."""
    values = {one.name: {getattr(other, one.name) for other in others} for one in fields(spec)}
    own = [getattr(spec, name) for name, found in values.items() if len(found) > 1]
    return [number_text(value) if isinstance(value, float) else str(value) for value in own]


def title(row: Row) -> str:
    """What kind of drafter a row is, for a sentence; the name of one that no family here knows."""
    if known_spec(row.drafter_name) is None:
        return visible(row.drafter_name)
    return kind_of(row.drafter_name).title.replace(", ", " ")
