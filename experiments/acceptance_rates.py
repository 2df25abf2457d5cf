"""Acceptance rates and lengths of results folders, with intervals over questions, as one JSON document.

    python -m experiments.acceptance_rates RESULTS [RESULTS ...] > FILE

Ratios of sums; intervals as everywhere (specdec.ranking.statistics). The last line on stdout is the document.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from profiling.common import parser_of, run_command
from specdec.errors import UserError
from specdec.questions.repetition import is_degenerate
from specdec.ranking.entries import PLAIN
from specdec.ranking.statistics import LEVEL, MIN_QUESTIONS, PairedBootstrap
from specdec.records.record import Record, find_records, load_record

SETTINGS = (
    *("decoding", "temperature", "top_k", "top_p", "draft_sampling"),
    *("seed", "dataset", "target", "dtype", "device"),
)


def rates(records: Sequence[Record]) -> dict[str, Any]:
    """What one configuration's records say. Raises UserError for too few of them."""
    if len(records) < MIN_QUESTIONS:
        raise UserError(f"{records[0].drafter_name}: {len(records)} questions, but intervals need {MIN_QUESTIONS}")
    return {
        "num_questions": len(records),
        "num_output_tokens": sum(record.num_output_tokens for record in records),
        "num_degenerate": sum(is_degenerate(record.output_tokens) for record in records),
        "num_drafted": sum(record.num_drafted for record in records),
        "num_accepted": sum(record.num_accepted for record in records),
        "acceptance_rate": interval([r.num_accepted for r in records], [r.num_drafted for r in records]),
        "acceptance_len": interval([r.num_output_tokens for r in records], [r.num_rounds for r in records]),
        "passes_per_round": interval([r.num_forward_passes for r in records], [r.num_rounds for r in records]),
    }


def interval(numerators: Sequence[int], denominators: Sequence[int]) -> dict[str, float]:
    """A ratio of sums over questions, with the ends of its interval."""
    (estimate,) = PairedBootstrap(np.array([numerators]).T, np.array([denominators]).T).ratios()
    return {"value": round(estimate.value, 4), "low": round(estimate.low, 4), "high": round(estimate.high, 4)}


def summary(folder: Path) -> dict[str, Any]:
    """One results folder: its settings, and every drafter but plain decoding."""
    by_drafter: dict[str, list[Record]] = {}
    for path in find_records(folder):
        record = load_record(path)
        by_drafter.setdefault(record.drafter_name, []).append(record)
    by_drafter.pop(PLAIN, None)
    if not by_drafter:
        raise UserError(f"{folder} holds no records of a drafter: give the --output_dir of a finished run")
    first = next(iter(by_drafter.values()))[0]
    known = first.identity.to_builtins()
    settings = {key: known[key] for key in SETTINGS if key in known}
    return {"settings": settings, "drafters": {name: rates(records) for name, records in by_drafter.items()}}


def document(flags: argparse.Namespace) -> dict[str, Any]:
    """All folders, and what the figures mean."""
    notes = {
        "acceptance_rate": "accepted / drafted tokens, ratio of sums",
        "acceptance_len": "tokens per round, bonus included",
        "intervals": f"symmetric bootstrap-t over questions, {LEVEL:.0%}",
    }
    return {"what": "acceptance", "notes": notes, "runs": [summary(folder) for folder in flags.results]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("acceptance_rates", __doc__)
    parser.add_argument("results", nargs="+", type=Path, help="results folders, one per setting")
    return run_command(parser, document, arguments)


if __name__ == "__main__":
    sys.exit(main())
