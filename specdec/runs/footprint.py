"""Footprint: what a drafter's model takes in memory and where it is from, by the run.json of its run. Loads no model.

A run.json of before says no sizes: then nothing is known, and nothing is guessed from folders that may have changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specdec.drafters.families import known_spec
from specdec.models.card import KEYS
from specdec.models.checkpoints import BUNDLED, SMOLLM2
from specdec.records.fields import is_count
from specdec.records.record import Record
from specdec.runs.run_file import SIZES

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # of a number


@dataclass(frozen=True)
class Footprint:
    """A model that drafted: its name, its numbers (None: not said), and the type of each in the run; the positions of a
    block that it fills in a pass (None: none, or not said); what its card says, if the run looked."""

    name: str
    dtype: str
    num_parameters: int | None = None
    kv_values_per_token: int | None = None
    block_size: int | None = None
    has_card: bool = False
    datasets: str | None = None
    base_model: str | None = None

    @property
    def weight_bytes(self) -> int | None:
        return None if self.num_parameters is None else self.num_parameters * _BYTES[self.dtype]

    @property
    def kv_bytes_per_token(self) -> int | None:
        return None if self.kv_values_per_token is None else self.kv_values_per_token * _BYTES[self.dtype]


def footprints(records: Sequence[Record], runs: Sequence[Mapping[str, Any]]) -> dict[str, Footprint]:
    """By drafter, of those whose model is known, which is one for all its records.

    Records and runs are matched by the SHA-256 of the model's files.
    """
    known = {key: one for run in runs for key, one in _models_of(run).items()}
    found: dict[str, set[Footprint | None]] = {}
    for record in records:
        spec, settings = known_spec(record.drafter_name), record.identity.settings
        if spec is not None and spec.model_role is not None:
            key = str(settings.get("drafter_sha256")), str(settings.get("dtype"))
            found.setdefault(record.drafter_name, set()).add(known.get(key))
    alone = {name: next(iter(ones)) for name, ones in found.items() if len(ones) == 1}
    return {name: one for name, one in alone.items() if one is not None}


def _models_of(run: Mapping[str, Any]) -> dict[tuple[str, str], Footprint]:
    """By SHA-256 and dtype, as far as the run.json says; it may be of any version, or damaged."""
    generation, models = run.get("generation"), run.get("models")
    dtype = generation.get("dtype") if isinstance(generation, dict) else None
    if not isinstance(dtype, str) or dtype not in _BYTES or not isinstance(models, dict):
        return {}
    found = {}
    for model in models.values():
        if isinstance(model, dict) and isinstance(model.get("sha256"), str):
            sizes = {size: model[size] for size in (*SIZES, "block_size") if is_count(model.get(size))}
            found[model["sha256"], dtype] = Footprint(_served_name(model), dtype, **sizes, **_card(model.get("card")))
    return found


def _card(card: object) -> dict[str, Any]:
    said = {key: card[key] for key in KEYS if isinstance(card.get(key), str)} if isinstance(card, dict) else {}
    return {"has_card": isinstance(card, dict), **said}


def _served_name(model: Mapping[str, Any]) -> str:
    """What a server can load: a folder in place of our own words for models."""
    name = str(model.get("name"))
    return str(model.get("folder")) if name in (BUNDLED, SMOLLM2) else name
