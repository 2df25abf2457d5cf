"""A results folder as one JSON document: rankings with and without degenerate answers, and every record in short.

    python -m experiments.summarise_records RESULTS [--latency_target NAME] > FILE

A question is degenerate when most of plain decoding's answer repeats itself (specdec.questions.repetition). It
has no texts: of each record it keeps the sums over its rounds and a hash of the output.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.kept_records import kept_records
from profiling.common import parser_of, run_command
from specdec.errors import UserError
from specdec.latency.pricing import Pricing
from specdec.ranking.entries import PLAIN, Entry, entry_of, merge, records_of
from specdec.ranking.lossless import count_grades
from specdec.ranking.source import Source
from specdec.records.record import Record
from specdec.views import table_data

MODEL_KEYS = ("target_sha256", "drafter_sha256", "dtype", "device", "backend", "max_new_tokens")


def degenerate_questions(stats: Sequence[Entry]) -> set[tuple[Source, int]]:
    """(source, question) of those that plain decoding answers by repeating itself. UserError without such a run."""
    plain = [entry for entry in stats if entry.drafter_name == PLAIN]
    if not plain:
        raise UserError("no record of plain decoding: run failfast.py with --drafters plain first")
    return {(entry.source, entry.question_id) for entry in plain if entry.is_degenerate}


def summary(records: Sequence[Record], pricing: Pricing) -> dict[str, Any]:
    stats = merge(entry_of(record, pricing) for record in records)
    left_out = degenerate_questions(stats)
    good = [entry for entry in stats if (entry.source, entry.question_id) not in left_out]
    known = {record.drafter_name: record.identity.to_builtins() for record in records}
    models = {name: {key: identity.get(key) for key in MODEL_KEYS} for name, identity in known.items()}
    return {
        "num_questions": len({(entry.source, entry.question_id) for entry in stats}),
        "num_degenerate": dict(Counter(source.title for source, _ in sorted(left_out))),
        "losslessness": count_grades(stats),
        "models": models,
        "provenance": records[0].provenance,
        "ranking": json.loads(table_data.ranking_json(stats)),
        "ranking_without_degenerate": json.loads(table_data.ranking_json(good)) if good and left_out else None,
        **kept_records(records),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.summarise_records", __doc__, ("latency_profile", "latency_target"))
    parser.add_argument("results", nargs="+", type=Path, help="results folders of one target")
    return run_command(parser, document, arguments)


def document(flags: argparse.Namespace) -> dict[str, Any]:
    records = [record for folder in flags.results for record in records_of(folder)]
    return summary(records, Pricing.load(flags.latency_profile, flags.latency_target))


if __name__ == "__main__":
    sys.exit(main())
