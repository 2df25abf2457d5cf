"""Identity: everything that decides what a record holds, and what tells two of them apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from specdec.config import RunConfig
from specdec.questions.sets import Problem
from specdec.records import fields, pickles

GREEDY, SAMPLED = "greedy", "sampled"  # what an identity's "decoding" says of the target


IDENTITY_KEYS = ("target", "dataset", "question_id", "drafter", "max_new_tokens")


def identity_difference(stored: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """`"seed: stored 0, asked 1"` for the first key that differs, in the order of `asked`; else None."""
    stored, asked = pickles.plain(stored), pickles.plain(asked)
    for key in [*asked, *(key for key in stored if key not in asked)]:
        if key not in stored or key not in asked or not fields.is_same(stored[key], asked[key]):
            return f"{key}: stored {fields.shown(stored, key)}, asked {fields.shown(asked, key)}"
    return None


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
