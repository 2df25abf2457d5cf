"""Reading: records of a results folder as entries of a ranking, priced, graded, and set against the ceiling."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specdec.config import add_flags
from specdec.errors import UserError
from specdec.latency import LatencyProfile
from specdec.rankings.judges import Judges
from specdec.rankings.ranking import QuestionStats, model_prices, stats_of
from specdec.records import Record, find_records, load_record


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """How records are priced and graded, and whether they must be of the same questions; flags as in failfast.py."""
    add_flags(parser, ("latency_profile", "latency_target", "run_code"))
    parser.add_argument(
        "--allow_unequal",
        action="store_true",
        help="rank configurations that were run on different questions, over those that all of them have",
    )


@dataclass(frozen=True)
class Reading:
    """How records become entries: what prices them, what says how near they come to the ceiling, what grades them."""

    profiles: Sequence[LatencyProfile]
    latency_target: str | None = None
    judges: Judges | None = None
    run_code: bool = False

    def entry(self, record: Record) -> QuestionStats:
        prices = model_prices(record, self.profiles, self.latency_target)
        ceilings = None if self.judges is None else self.judges.ceilings(record)
        return stats_of(record, prices, ceilings, run_code=self.run_code)


def records_of(folder: str | Path) -> list[Record]:
    """All records of a results folder, or of a folder in it. Raises UserError if there is none, or a damaged one."""
    paths = find_records(folder)
    if not paths:
        raise UserError(f"{folder} holds no records: give the --output_dir of a finished run")
    return [load_record(path) for path in paths]
