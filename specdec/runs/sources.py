"""Sources: which checkpoints a run needs, found before any library of models is imported.

`checkpoints.py` finds one, `session.py` loads them.
"""

from __future__ import annotations

from typing import Any

from specdec.config import RunConfig
from specdec.drafters.specs import ArDynamic, ArStatic, DrafterSpec, Plain
from specdec.models.checkpoints import AR_DRAFTER, DLLM_DRAFTER, SMALL_FILES, TARGET, ModelSource, Role, find_model


def role_of(spec: DrafterSpec) -> Role | None:
    """The part that a drafter's model plays; None for plain decoding."""
    if isinstance(spec, Plain):
        return None
    return AR_DRAFTER if isinstance(spec, (ArStatic, ArDynamic)) else DLLM_DRAFTER


def needs_weights(config: RunConfig, role: Role) -> bool:
    """Whether a run loads the model: not in a dry run, and no target where drafts are verified against a trace."""
    return not config.dry_run and not (role is TARGET and config.verify == "trace")


def find_sources(config: RunConfig) -> dict[Role, ModelSource]:
    """The target and the drafters that a run needs.

    Weights that the run does without are not fetched from the hub. Raises UserError.
    """
    names = {TARGET: config.target_model_name, AR_DRAFTER: config.ar_name, DLLM_DRAFTER: config.dllm_name}
    needed = {role for spec in config.drafter_specs if (role := role_of(spec))} | {TARGET}
    return {
        role: find_model(role, name, with_weights=needs_weights(config, role))
        for role, name in names.items()
        if role in needed
    }


def stamp(source: ModelSource) -> dict[str, Any]:
    """The checkpoint's folder and, by name, size in bytes and time of change in ns of every file that is read.

    Two equal stamps, like git's, mean equal content without reading it.
    """
    found = (path for pattern in (*SMALL_FILES, "*.safetensors") for path in source.path.glob(pattern))
    states = ((path.name, path.stat()) for path in sorted(found))
    return {
        "folder": str(source.path.resolve()),
        "files": {name: [state.st_size, state.st_mtime_ns] for name, state in states},
    }
