"""Run description: everything about a run that decides or explains its results, as run.json holds it.

`runs.py` writes it; what one record needs to be used again is its identity (`jobs.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from specdec.config import RunConfig
from specdec.pickles import plain
from specdec.problems import Problem
from specdec.provenance import provenance
from specdec.sources import stamp
from specdec.sweeps.runs import slurm_ids
from specdec.sweeps.shards import Shard

if TYPE_CHECKING:
    import torch

    from specdec.jobs import Job
    from specdec.session import Session


def describe_run(session: Session, problems: Sequence[Problem], shard: Shard, jobs: Sequence[Job]) -> dict[str, Any]:
    """Plain builtins. `problems` are those of the shard, `jobs` those of the problems, question by question; none
    when traces are recorded."""
    config = session.config
    specs = [] if config.record else config.drafter_specs  # a run that records traces leaves no records
    return plain(
        {
            "target": config.target_name,
            "dataset": config.dataset_name,
            "max_new_tokens": config.max_new_tokens,
            "drafters": [spec.name for spec in specs],
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
                role.title: {"name": source.name, "sha256": session.fingerprints.get(role), **stamp(source)}
                for role, source in session.sources.items()
            },
            "chat_template_sha256": _sha256(getattr(session.tokenizer, "chat_template", None)),
            # With these a later run sees that its records are there already (`repeated.py`).
            "questions": {
                str(job.problem.question_id): {
                    "sha256": question_sha256(job.problem),
                    "prompt_sha256": job.identity["prompt_sha256"],
                }
                for job in jobs
            },
            "identities": {
                job.spec.name: session.results_identity(job.spec) for job in jobs[: len(config.drafter_specs)]
            },
            **this_run(problems, shard, session.device),
        }
    )


def this_run(problems: Sequence[Problem], shard: Shard, device: torch.device | None) -> dict[str, Any]:
    """What two runs with the same settings need not share. `device` None: nothing is computed."""
    return {
        "question_ids": [problem.question_id for problem in problems],
        "questions_sha256": _sha256([[problem.prompt, problem.row] for problem in problems]),
        "shard": dict(vars(shard)),
        "provenance": provenance(device),
        "host": platform.node(),
        "slurm": slurm_ids(os.environ),
    }


def question_sha256(problem: Problem) -> str:
    return _sha256([problem.prompt, problem.row])


def _decoding(config: RunConfig) -> str:
    if not config.is_sampled:
        return "greedy: plain argmax, no logits processor"
    warp = f"temperature {config.temperature}, then top_k {config.top_k}, then top_p {config.top_p}"
    return f"sampled: {warp}, no other logits processor; drafts: {config.draft_sampling}"


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
