"""Run description: everything about a run that decides or explains its results, as run.json holds it.

Writing it is `runs.py`'s; what one record needs to be used again is its identity (`jobs.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from typing import Any

from specdec.config import RunConfig
from specdec.pickles import plain
from specdec.problems import Problem
from specdec.provenance import provenance
from specdec.runs import slurm_ids
from specdec.session import Session
from specdec.shards import Shard


def describe_run(session: Session, problems: Sequence[Problem], shard: Shard) -> dict[str, Any]:
    """Plain builtins. `problems` are the shard's own."""
    config = session.config
    return plain(
        {
            "target": config.target_name,
            "dataset": config.dataset_name,
            "max_new_tokens": config.max_new_tokens,
            "question_ids": [problem.question_id for problem in problems],
            "questions_sha256": _sha256([[problem.prompt, problem.row] for problem in problems]),
            "shard": vars(shard),
            # Whose records the run is to leave; one that records traces leaves none.
            "drafters": [] if config.record else [spec.name for spec in config.drafter_specs],
            "settings": vars(config),
            "generation": {
                "decoding": _decoding(config),
                "stop_ids": sorted(session.stop_ids),
                "mask_id": session.mask_id,
                "dtype": str(session.dtype).removeprefix("torch."),
                "device": str(session.device),
                "engine": session.engine,
                "context_len": session.context_len,
            },
            "models": {
                role.title: {"name": source.name, "sha256": session.fingerprints.get(role)}
                for role, source in session.sources.items()
            },
            "chat_template_sha256": _sha256(getattr(session.tokenizer, "chat_template", None)),
            "provenance": provenance(session.device),
            "host": platform.node(),
            "slurm": slurm_ids(os.environ),
        }
    )


def _decoding(config: RunConfig) -> str:
    if not config.is_sampled:
        return "greedy: plain argmax, no logits processor"
    warp = f"temperature {config.temperature}, then top_k {config.top_k}, then top_p {config.top_p}"
    return f"sampled: {warp}, no other logits processor; drafts: {config.draft_sampling}"


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
