"""Repeated: a run whose every record is there already, seen without importing any library of models.

An earlier run with the same settings, model files and questions says in its run.json what identity each record must
have; the records themselves are compared with that. Where anything is missing or different, or only a loaded model
could tell, the ordinary way through `jobs.py` decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from specdec.asked import question_identity
from specdec.config import RunConfig
from specdec.errors import UserError
from specdec.fields import is_same
from specdec.pickles import plain
from specdec.problems import Problem
from specdec.rankings.ranking import PLAIN
from specdec.records import IDENTITY_KEYS, Record, load_finished, record_path
from specdec.sources import find_sources, stamp
from specdec.sweeps.run_description import question_sha256, this_run
from specdec.sweeps.runs import find_runs, read_run
from specdec.sweeps.shards import Shard

# Settings that decide no record: where it is, which part of the questions, what is printed.
_FREE = (
    *("output_dir", "shard", "question_ids", "num_questions"),
    *("log_level", "show_trajectory", "figures", "run_code", "latency_profile", "latency_target"),
)
_STAMP = ("folder", "files")


@dataclass(frozen=True)
class Repeated:
    """All records of a run, question by question, and the run's own description for run.json."""

    records: list[Record]
    description: dict[str, Any]


def repeated_run(config: RunConfig, problems: Sequence[Problem], shard: Shard) -> Repeated | None:
    """None where there is work to do, or may be. A --device auto is what it was for the earlier run.

    Raises UserError for a model that cannot be found.
    """
    can_be = not (config.overwrite or config.dry_run or config.record) and config.verify == "target"
    if not can_be or "cost_aware" in config.kinds or not all(map(os.path.isfile, _paths(config, problems))):
        return None
    sources = find_sources(config)
    questions: dict[str, Any] = {}
    expected: dict[int, list[dict[str, object]]] = {}
    for document in _like_runs(config, {role.title: stamp(source) for role, source in sources.items()}):
        for problem in problems:
            if problem.question_id not in expected and (found := _identities(config, problem, document)):
                expected[problem.question_id] = found
                questions[str(problem.question_id)] = document["questions"][str(problem.question_id)]
        if len(expected) == len(problems):
            break
    else:
        return None
    records = _load([identity for problem in problems for identity in expected[problem.question_id]], config)
    if records is None:
        return None
    kept = {key: value for key, value in document.items() if key not in ("schema_version", "start", "end")}
    own = {"settings": vars(config), "questions": questions, **this_run(problems, shard, None)}
    return Repeated(records, plain(kept | own))


def _like_runs(config: RunConfig, models: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The run.json of runs with the same settings and model files (`models`: title -> stamp), newest first."""
    settings = _binding(plain(vars(config)))
    for path in reversed(find_runs(config.output_dir)):
        try:
            document = read_run(path)
            stored = {title: {key: one.get(key) for key in _STAMP} for title, one in document["models"].items()}
            if is_same(_binding(document["settings"]), settings) and is_same(stored, models):
                yield document
        except (UserError, KeyError, TypeError, AttributeError):  # damaged, or older than what is asked of it here
            continue


def _binding(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _FREE}


def _identities(config: RunConfig, problem: Problem, document: dict[str, Any]) -> list[dict[str, object]] | None:
    """What the question's records must be, in the order of the drafters; None if the run did not have the question."""
    try:
        question = document["questions"][str(problem.question_id)]
        if question["sha256"] != question_sha256(problem):
            return None
        return [
            question_identity(config, problem, question["prompt_sha256"], spec.name) | document["identities"][spec.name]
            for spec in config.drafter_specs
        ]
    except (KeyError, TypeError):  # another program's run.json
        return None


def _load(identities: Sequence[dict[str, object]], config: RunConfig) -> list[Record] | None:
    """The records; None if one is another than expected, or was never compared with plain decoding's."""
    records = []
    for identity in identities:
        path = record_path(config.output_dir, *(identity[key] for key in IDENTITY_KEYS))
        try:
            record = load_finished(path, identity)
        except UserError:
            return None
        if record is None or (record.divergence is None and _is_compared(record)):
            return None
        records.append(record)
    return records


def _is_compared(record: Record) -> bool:
    return record.drafter_name != PLAIN and not record.is_sampled


def _paths(config: RunConfig, problems: Sequence[Problem]) -> Iterator[os.PathLike[str]]:
    for problem in problems:
        for spec in config.drafter_specs:
            question = (config.target_name, problem.dataset, problem.question_id, spec.name)
            yield record_path(config.output_dir, *question, config.max_new_tokens)
