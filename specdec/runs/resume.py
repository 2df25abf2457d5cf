"""Resume: a run whose every record is there already, seen without importing any library of models.

An earlier run with the same settings, model files and questions says in its run.json what identity each record must
have; the records themselves are compared with that. Where anything is missing or different, or only a loaded model
could tell, the ordinary way through `jobs.py` decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from specdec.config import DecodingConfig, RunConfig
from specdec.drafters.families import parse_name
from specdec.drafters.plain import PLAIN
from specdec.errors import MALFORMED, UserError
from specdec.models.checkpoints import TARGET, stamp
from specdec.models.heads import find_models
from specdec.questions.asked import QuestionConfig
from specdec.questions.problem import Problem
from specdec.questions.sets import load_problems
from specdec.records.fields import is_same
from specdec.records.identity import Identity
from specdec.records.pickles import plain
from specdec.records.places import load_finished, load_records, place_of
from specdec.records.record import Record, identity_path, record_path
from specdec.records.turns import natural, row_of, turn_of
from specdec.runs.run_file import find_runs, question_sha256, read_run, this_run
from specdec.runs.shards import Shard
from specdec.text import ranges, visible
from specdec.traces.trace import trace_path

# Settings that decide no record: where it is, which part of the questions, what is printed.
_FREE = (
    *("output_dir", "shard", "question_ids", "num_questions"),
    *("log_level", "show_trajectory", "figures", "run_code", "allow_seen", "num_threads"),
    *("wide", "top", "format", "no_report", "with_traces"),
    *("latency_profile", "latency_target", "pass_accounting"),
)
_STAMP = ("folder", "files")


@dataclass(frozen=True)
class Repeated:
    """All records of a run, question by question, and the run's own description for run.json."""

    records: list[Record]
    description: dict[str, Any]
    num_parameters: int  # of the target


def repeated_run(config: RunConfig, problems: Sequence[Problem], shard: Shard) -> Repeated | None:
    """None where there is work to do, or may be. A --device auto is what it was for the earlier run.

    Raises UserError for a model that cannot be found.
    """
    output, problems = config.output, [turn for problem in problems for turn in problem.turns]
    is_afresh = output.overwrite or output.dry_run or config.recording.record
    can_be = not is_afresh and config.decoding.verify == "target"
    if (
        not can_be
        or config.drafters.needs_costs
        or any(spec.reads_earlier for spec in config.drafters.specs())
        or (config.recording.with_traces and not all(path.is_file() for path in trace_paths(config, problems)))
        or not all(path.is_file() or place_of(path) for path in _paths(config, problems))
    ):
        return None
    sources = find_models(config.model_names)
    questions: dict[str, Any] = {}
    expected: dict[int, list[Identity]] = {}
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
    alone = [problem.alone() for problem in problems]
    own = {"settings": config.settings(), "questions": questions, **this_run(alone, shard, None)}
    return Repeated(records, plain(kept | own), sources[TARGET].num_parameters)


def _like_runs(config: RunConfig, models: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The run.json of runs with the same settings and model files (`models`: title -> stamp), newest first."""
    settings = _binding(plain(config.settings()))
    for path in reversed(find_runs(config.output.output_dir)):
        try:
            document = read_run(path)
            stored = {title: {key: one.get(key) for key in _STAMP} for title, one in document["models"].items()}
            if is_same(_binding(document["settings"]), settings) and is_same(stored, models):
                yield document
        except (UserError, *MALFORMED):  # damaged, or older than what is asked of it here
            continue


def _binding(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _FREE}


def _identities(config: RunConfig, problem: Problem, document: dict[str, Any]) -> list[Identity] | None:
    """What the question's records must be, in the order of the drafters; None if the run did not have the question."""
    try:
        question = document["questions"][str(problem.question_id)]
        if question["sha256"] != question_sha256(problem):
            return None
        names, prompt = [spec.name for spec in config.drafters.specs()], question["prompt_sha256"]
        where, settings = (problem.dataset, problem.question_id), document["identities"]
        return [config.identity(*where, name, prompt, settings[name]) for name in names]
    except MALFORMED:  # another program's run.json
        return None


def _load(identities: Sequence[Identity], config: RunConfig) -> list[Record] | None:
    """The records; None if one is another than expected, or was never compared with plain decoding's."""
    records = []
    for identity in identities:
        path = identity_path(config.output.output_dir, identity)
        try:
            record = load_finished(path, identity)
        except UserError:
            return None
        if record is None:
            return None
        if record.divergence is None and record.drafter_name != PLAIN and not record.is_sampled:
            return None
        records.append(record)
    return records


def _paths(config: RunConfig, problems: Sequence[Problem]) -> Iterator[Path]:
    where, budget = (config.output.output_dir, config.models.target_name), config.decoding.max_new_tokens
    for problem, spec in product(problems, config.drafters.specs()):
        yield record_path(*where, problem.dataset, problem.question_id, spec.name, budget)


def trace_paths(config: RunConfig, problems: Sequence[Problem]) -> Iterator[Path]:
    target, budget = config.models.target_name, config.decoding.max_new_tokens
    for problem in problems:
        yield trace_path(
            config.output.output_dir, Identity(target, problem.dataset, problem.question_id, PLAIN, budget)
        )


def stored_records(config: RunConfig) -> list[Record]:
    """The finished records of the target, data set, budget, questions and kinds of drafter asked for; plain first.

    Their other settings are as stored. Raises UserError where none is, where a question of --question_ids has none, or
    where they are not sampled as asked.
    """
    there = load_records(config.output.output_dir)
    records = [record for record in there if _is_asked(record, config)]
    if not records:
        raise UserError(
            f"no stored record in {config.output.output_dir} fits ({_holds(there)}): check --output_dir, "
            "--target_model_name, --dataset_name and --max_new_tokens, or run without --read_pickle"
        )
    missing = set(config.questions.question_ids or ()) - {row_of(record.question_id) for record in records}
    if missing:
        raise UserError(f"no stored record of question {min(missing)} in {config.output.output_dir}: run it first")
    _check_sampled_alike(records, config.decoding)
    _check_asked_alike(records, config.questions)
    return sorted(records, key=lambda record: (natural(record.question_id), record.drafter_name != PLAIN))


def _check_sampled_alike(records: Sequence[Record], asked: DecodingConfig) -> None:
    """Raise UserError for sampling parameters that were given and are not those of the records."""
    for name in ("temperature", "top_k", "top_p"):
        value, usual = getattr(asked, name), getattr(DecodingConfig, name)
        stored = {record.identity.settings.get(name, usual) for record in records}
        if value != usual and stored != {value}:
            made = "greedily" if not any(record.is_sampled for record in records) else "otherwise"
            raise UserError(
                f"--read_pickle reads records as they were made, and these were decoded {made}: leave out "
                f"--{name}, or run without --read_pickle"
            )


def _check_asked_alike(records: Sequence[Record], asked: QuestionConfig) -> None:
    """Raise UserError for a prompt style, or a way of thinking, that was given and is not that of the records."""
    for name in ("prompt_style", "thinking"):
        value, usual = getattr(asked, name), getattr(QuestionConfig, name)
        if value != usual and {record.identity.settings.get(name, usual) for record in records} != {value}:
            raise UserError(
                f"--read_pickle reads records as they were made, and these were asked otherwise: leave out --{name}, "
                "or run without --read_pickle"
            )


def _holds(records: Sequence[Record]) -> str:
    """What a folder has, by what --read_pickle chooses: "it holds bundled gsm8k 64: questions 0-3, plain, ..."."""
    found: dict[str, tuple[set[int], set[str]]] = {}
    for record in records:
        where = f"{record.identity.target} {record.identity.dataset} {record.identity.max_new_tokens}"
        questions, drafters = found.setdefault(where, (set(), set()))
        questions.add(record.question_id)
        drafters.add(record.drafter_name)
    shown = [
        f"{where}: questions {ranges(questions)}, {', '.join(sorted(drafters)[:4])}{', ...' * (len(drafters) > 4)}"
        for where, (questions, drafters) in found.items()
    ]
    return visible(f"it holds {'; '.join(shown[:4])}{'; ...' * (len(shown) > 4)}" if shown else "it holds none")


def _is_asked(record: Record, config: RunConfig) -> bool:
    identity, spec = record.identity, parse_name(record.drafter_name)
    return (
        identity.target == config.models.target_name
        and identity.dataset == config.questions.dataset
        and identity.max_new_tokens == config.decoding.max_new_tokens
        and _is_asked_for(record.question_id, config.questions)
        and (spec.kind in config.drafters.swept_kinds or spec in config.drafters.named)
    )


def _is_asked_for(question_id: int, asked: QuestionConfig) -> bool:
    row, limit = row_of(question_id), asked.limit
    if turn_of(question_id) and not asked.asks_all_turns:
        return False
    return row in asked.question_ids if asked.question_ids else limit is None or row < limit


def asked_problems(config: RunConfig) -> list[Problem]:
    """The questions, before they are shared out. Raises UserError."""
    asked = config.questions
    found = load_problems(
        asked.dataset_name,
        question_ids=asked.question_ids,
        num_questions=asked.limit,
        data_dir=asked.data_dir,
        seed=asked.seed,
        prompt_style=asked.prompt_style,
    )
    return found if asked.asks_all_turns else [problem.alone() for problem in found]
