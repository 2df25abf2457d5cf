"""Drafters of one target by the clock, and each tree over the best draft in a row of its own family. Loads no model.

    python -m experiments.heads_measured WORK/live/bfloat16 WORK/live/float32

Every folder holds folders of runs (failfast.py): several, where heads of one kind take turns under the same flag. Of
each run the questions that all its drafters have are ranked by measured time, together and by data set. A tree's ratio
is of sums over the same questions, of ms a token, with its interval. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.heads_table import KEPT
from profiling.common import parser_of, rounded, run_command
from specdec.drafters.base import Spec
from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.latency.pricing import Pricing
from specdec.latency.profile import MEASURED
from specdec.ranking.entries import PLAIN, Entry, entry_of, merge
from specdec.ranking.lossless import count_grades
from specdec.ranking.question_sets import comparable
from specdec.ranking.ranking import by_drafter
from specdec.ranking.scopes import ALL, each
from specdec.ranking.statistics import ratio_values
from specdec.ranking.table import table_of
from specdec.records.record import find_records, load_record
from specdec.views.table_data import row_dict

SHORT = ("num_questions", "speedup_mean", "mean_low", "mean_high", "acceptance_len")  # told of one data set alone


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.heads_measured", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="of each dtype: folders of runs")
    return run_command(parser, measure, arguments)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """The document: of each folder, by its name, its runs."""
    found = {folder.name: runs_of(folder) for folder in flags.folders}
    if len(found) < len(flags.folders):
        raise UserError("two of the folders have one name: give each folder once")
    return {
        "what": "drafters of one target, measured",
        "folders": {name: rounded(runs) for name, runs in found.items()},
    }


def runs_of(folder: Path) -> dict[str, Any]:
    """The runs in a folder, by name; the folder itself where it holds records."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give one that holds folders of runs")
    runs = [folder] if (folder / "pickles").is_dir() else sorted(path for path in folder.iterdir() if path.is_dir())
    found = {run.name: run_of(run) for run in runs}
    if not found:
        raise UserError(f"{folder} holds no run: give a folder of runs of failfast.py")
    return found


def run_of(folder: Path) -> dict[str, Any]:
    """One run: its grades, plain decoding, rows by data set and together, and its trees over drafts in a row."""
    pricing = Pricing.load([], None)
    entries = merge(entry_of(load_record(path), pricing) for path in find_records(folder))
    entries, _ = comparable(entries, allow_unequal=True)
    if not any(MEASURED in entry.prices for entry in entries):
        raise UserError(f"{folder} holds no measured drafter beside plain decoding: run both")
    scopes = {group[0].source.dataset: list(group) for group in each(entries)} | {ALL: entries}
    tokens = sum(entry.num_output_tokens for entry in entries if entry.drafter_name == PLAIN)
    plain_ms = sum(total_ms(entry) for entry in entries if entry.drafter_name == PLAIN)
    return {
        "losslessness": count_grades(entries),
        "plain": {"num_output_tokens": tokens, "ms_per_token": plain_ms / tokens},
        "rows": {scope: rows(group, KEPT if scope == ALL else SHORT) for scope, group in scopes.items()},
        "trees": trees_over_rows(by_drafter(entries)),
    }


def rows(entries: Sequence[Entry], kept: Sequence[str]) -> list[dict[str, Any]]:
    """The ranked rows, fastest first, and of each what is kept."""
    known = [(row.drafter_name, row_dict(row)) for row in table_of(entries, MEASURED, ("acceptance_len",)).rows]
    return [{"drafter": name, **{key: row[key] for key in kept if key in row}} for name, row in known]


def trees_over_rows(found: Mapping[str, Sequence[Entry]]) -> list[dict[str, Any]]:
    """Each tree: how much faster than the fastest draft in a row of the same model, `over`."""
    specs = {name: parse_name(name) for name in found if name != PLAIN}
    made = []
    for name, spec in specs.items():
        beside = [other for other, one in specs.items() if not one.is_tree and same_model(one, spec)]
        if spec.is_tree and beside:
            chain = min(beside, key=lambda other: float(np.mean(ms_a_token(found[other]))))
            over = ratio_values(ms_a_token(found[chain])[:, None], ms_a_token(found[name])[:, None])[0]
            made.append({"tree": name, "in_a_row": chain, "over": over.value, "low": over.low, "high": over.high})
    return made


def same_model(one: Spec, other: Spec) -> bool:
    return one.model_role is not None and one.model_role == other.model_role


def ms_a_token(entries: Sequence[Entry]) -> np.ndarray:
    """Of each question, in one order."""
    ordered = sorted(entries, key=lambda entry: (entry.source.dataset, entry.question_id))
    return np.array([total_ms(entry) / entry.num_output_tokens for entry in ordered])


def total_ms(entry: Entry) -> float:
    """What drafting and verifying took."""
    assert entry.draft_ms is not None and entry.verify_ms is not None  # a run's records have times
    return entry.draft_ms + entry.verify_ms


if __name__ == "__main__":
    sys.exit(main())
