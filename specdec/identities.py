"""Identities: the part of a record's identity that no model decides. The whole is put together in `jobs.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from specdec.config import RunConfig
from specdec.problems import Problem


def question_identity(config: RunConfig, problem: Problem, prompt: str, drafter_name: str) -> dict[str, object]:
    """Which question, under which drafter; `prompt` is the `prompt_sha256` of its ids."""
    return {
        "target": config.target_name,
        "dataset": problem.dataset,
        "question_id": problem.question_id,
        "drafter": drafter_name,
        "max_new_tokens": config.max_new_tokens,
        "prompt_sha256": prompt,
    }


def prompt_sha256(prompt_ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(prompt_ids).encode()).hexdigest()
