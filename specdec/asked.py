"""Asked: the questions that a command line asks for, and what of a record's identity no model decides.

The whole identity is put together in `jobs.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from specdec.config import RunConfig
from specdec.problems import Problem, load_problems


def asked_problems(config: RunConfig) -> list[Problem]:
    """The questions, before they are shared out. Raises UserError."""
    return load_problems(
        config.dataset_name,
        question_ids=config.question_ids,
        num_questions=config.num_questions,
        data_dir=config.data_dir,
        seed=config.seed,
    )


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
