"""Drafter facts: what must be known of two drafters before their acceptance lengths are compared, by their records and
the run.json of their runs. No measure is among them, and no model is loaded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specdec.drafters.families import known_spec
from specdec.drafters.plain import PLAIN
from specdec.records.fields import is_count
from specdec.records.record import Record
from specdec.runs.footprint import Footprint, footprints


@dataclass(frozen=True)
class DrafterFacts:
    """Of one configuration. `has_model`: whether it drafts with one (None: not one of ours); `model`: what is known of
    it, a hybrid's last part's. `block_size`: positions of a block that it fills; None: none, or not known."""

    drafter_name: str
    has_model: bool | None
    model: Footprint | None = None
    block_size: int | None = None


def drafter_facts(records: Sequence[Record], runs: Sequence[Mapping[str, Any]]) -> list[DrafterFacts]:
    """Of every drafter of the records but plain decoding, by name."""
    models = footprints(records, runs)
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record.drafter_name != PLAIN:
            by_name.setdefault(record.drafter_name, []).append(record.identity.settings)
    return [facts_of(name, settings, models.get(name)) for name, settings in sorted(by_name.items())]


def facts_of(name: str, settings: Sequence[Mapping[str, Any]] = (), model: Footprint | None = None) -> DrafterFacts:
    """Of a drafter by what is known of it, if only its name; `settings`: of its records."""
    spec = known_spec(name)
    sizes = {one["block_size"] for one in settings if is_count(one.get("block_size"))}  # as it ran, not as it is made
    block_size = sizes.pop() if len(sizes) == 1 else getattr(model, "block_size", None)
    has_model = None if spec is None else spec.model_role is not None
    return DrafterFacts(name, has_model, model, block_size)


def united(facts: Iterable[DrafterFacts]) -> list[DrafterFacts]:
    """Each once, by name; a drafter that several folders say different things of has several."""
    return sorted(dict.fromkeys(facts), key=lambda one: one.drafter_name)
