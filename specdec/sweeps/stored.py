"""Stored: the finished records of a results folder that a command line asks for, read without any model.

`jobs.py` finds what is still to be computed.
"""

from __future__ import annotations

from specdec.config import RunConfig
from specdec.errors import UserError
from specdec.rankings.ranking import PLAIN
from specdec.records import Record, find_records, load_record
from specdec.specs import KINDS, parse_drafter_name


def stored_records(config: RunConfig) -> list[Record]:
    """The finished records of the target, data set, budget, questions and kinds of drafter asked for; plain first.

    Their other settings are as stored. Raises UserError where none is, or a question of --question_ids has none.
    """
    records = [record for path in find_records(config.output_dir) if _is_asked(record := load_record(path), config)]
    if not records:
        raise UserError(
            f"no stored record in {config.output_dir} fits: check --output_dir, --target_model_name, "
            "--dataset_name and --max_new_tokens, or run without --read_pickle"
        )
    missing = set(config.question_ids or ()) - {record.question_id for record in records}
    if missing:
        raise UserError(f"no stored record of question {min(missing)} in {config.output_dir}: run it first")
    return sorted(records, key=lambda record: (record.question_id, record.drafter_name != PLAIN))


def _is_asked(record: Record, config: RunConfig) -> bool:
    identity = record.identity
    return (
        identity["target"] == config.target_name
        and identity["dataset"] == config.dataset_name
        and identity["max_new_tokens"] == config.max_new_tokens
        and record.question_id in (config.question_ids or range(config.num_questions))
        and isinstance(parse_drafter_name(record.drafter_name), tuple(KINDS[kind] for kind in config.kinds))
    )
