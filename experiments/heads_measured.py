"""Drafters of one target by the clock, and each tree over the best draft in a row of its own family. Loads no model.

    python -m experiments.heads_measured WORK/live/bfloat16 WORK/live/float32

Every folder holds folders of runs (failfast.py): several, where heads of one kind take turns under the same flag. Of
each run the questions that all its drafters have are ranked by measured time, together and by data set. A tree's ratio
is of sums over the same questions, of ms a token, with its interval. With `--latency_profile` the same rounds are
priced by it instead, as if the target were its `--latency_target`. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from profiling.common import parser_of, rounded, run_command
from specdec.drafters.base import Spec
from specdec.drafters.families import parse_name
from specdec.drafters.tree_drafter import FixedTree
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
KEPT = (
    *("standing", *SHORT, "speedup_ratio", "num_rounds", "acceptance_rate"),
    *("to_best_value", "to_best_low", "to_best_high", "to_best_p_holm"),
)

Run = tuple[list[Entry], str]  # entries of the questions that all its drafters have, and what they are priced by


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.heads_measured", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="of each dtype: folders of runs")
    parser.add_argument("--latency_profile", help="price the rounds by it, and not by the clock")
    parser.add_argument("--latency_target", help="the entry of it to price as")
    return run_command(parser, measure, arguments)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """The document: of each folder, by its name, its runs."""
    if flags.latency_target and not flags.latency_profile:
        raise UserError("--latency_target is an entry of a profile: give --latency_profile too")
    pricing = Pricing.load([flags.latency_profile] if flags.latency_profile else [], flags.latency_target)
    found = {
        folder.name: {name: run_of(*run) for name, run in runs_in(folder, pricing).items()} for folder in flags.folders
    }
    if len(found) < len(flags.folders):
        raise UserError("two of the folders have one name: give each folder once")
    return {
        "what": f"drafters of one target, {'modelled' if pricing.profiles else 'measured'}",
        "folders": {name: rounded(runs) for name, runs in found.items()},
    }


def runs_in(folder: Path, pricing: Pricing) -> dict[str, Run]:
    """The runs in a folder, by name; each is read once."""
    return {run: entries_of(path, pricing) for run, path in paths_of(folder).items()}


def paths_of(folder: Path) -> dict[str, Path]:
    """The folders of runs in a folder, by name; the folder itself where it holds records."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give one that holds folders of runs")
    runs = [folder] if (folder / "pickles").is_dir() else sorted(path for path in folder.iterdir() if path.is_dir())
    if not runs:
        raise UserError(f"{folder} holds no run: give a folder of runs of failfast.py")
    return {run.name: run for run in runs}


def run_of(entries: Sequence[Entry], engine: str) -> dict[str, Any]:
    """One run: its grades, plain decoding, rows by data set and together, and its trees over drafts in a row."""
    found = by_drafter(entries)
    plain = [entry for entry in entries if entry.drafter_name == PLAIN]
    tokens = sum(entry.num_output_tokens for entry in plain)
    return {
        "engine": engine,
        "losslessness": count_grades(entries),
        "plain": {"num_output_tokens": tokens, "ms_per_token": total_ms(plain, engine) / tokens},
        "rows": scopes(entries, engine),
        "ms_a_round": {name: ms_a_round(own, engine) for name, own in found.items()},
        "trees": trees_over_rows({name: ms_a_token(own, engine) for name, own in found.items()}),
    }


def entries_of(folder: Path, pricing: Pricing) -> Run:
    entries = merge(entry_of(load_record(path), pricing) for path in find_records(folder))
    engine = engine_of(entries, folder)
    return comparable([entry for entry in entries if engine in entry.prices], allow_unequal=True)[0], engine


def side_by_side(found: Mapping[str, Run]) -> dict[str, list[dict[str, Any]]]:
    """The drafters of all runs in one ranking, as "RUN: SETTING", each against its own run's plain decoding, over the
    questions that all of them have."""
    drafted = [
        replace(entry, drafter_name=f"{run}: {entry.drafter_name}")
        for run, (entries, _) in found.items()
        for entry in entries
        if entry.drafter_name != PLAIN
    ]
    (engine,) = {engine for _, engine in found.values()}
    return scopes(comparable(drafted, allow_unequal=True)[0], engine)


def scopes(entries: Sequence[Entry], engine: str) -> dict[str, list[dict[str, Any]]]:
    """The ranked rows of each data set, and of all together."""
    groups = {group[0].source.dataset: list(group) for group in each(entries)} | {ALL: list(entries)}
    return {scope: rows(group, engine, KEPT if scope == ALL else SHORT) for scope, group in groups.items()}


def engine_of(entries: Sequence[Entry], folder: Path) -> str:
    """What a run's entries are priced by: the profile, or where none was asked for the clock."""
    priced = {engine for entry in entries for engine in entry.prices}
    if not priced:
        raise UserError(f"{folder} holds no measured drafter beside plain decoding: run both")
    return next(iter(priced - {MEASURED}), MEASURED)


def rows(entries: Sequence[Entry], engine: str, kept: Sequence[str]) -> list[dict[str, Any]]:
    """The ranked rows, fastest first, and of each what is kept."""
    known = [(row.drafter_name, row_dict(row)) for row in table_of(entries, engine, ("acceptance_len",)).rows]
    return [{"drafter": name, **{key: row[key] for key in kept if key in row}} for name, row in known]


def total_ms(entries: Sequence[Entry], engine: str) -> float:
    return sum(entry.prices[engine].total_ms for entry in entries)


def ms_a_round(entries: Sequence[Entry], engine: str) -> dict[str, float]:
    """What drafting and verifying take in a round, on average over all rounds."""
    prices, num_rounds = [entry.prices[engine] for entry in entries], sum(entry.num_rounds for entry in entries)
    drafting, verifying = (sum(getattr(price, part) for price in prices) for part in ("draft_ms", "verify_ms"))
    return {"draft": drafting / num_rounds, "verify": verifying / num_rounds}


def ms_a_token(entries: Sequence[Entry], engine: str) -> np.ndarray:
    """Of each question, in one order."""
    ordered = sorted(entries, key=lambda entry: (entry.source.dataset, entry.question_id))
    return np.array([entry.prices[engine].total_ms / entry.num_output_tokens for entry in ordered])


def trees_over_rows(found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Each tree: how much faster than the fastest draft in a row of the same model, `over`, and where a rule says how
    many nodes it has, than the fastest tree of a fixed number, `over_fixed`. `found`: ms a token."""
    specs = {name: parse_name(name) for name in found}
    made = []
    for name, spec in specs.items():
        beside = [other for other, one in specs.items() if same_model(one, spec)]
        chains = [other for other in beside if not specs[other].is_tree]
        fixed = [other for other in beside if isinstance(specs[other], FixedTree)]
        if spec.is_tree and chains:
            ruled = _over(found, name, fixed, "fixed", "_fixed") if fixed and name not in fixed else {}
            made.append({"tree": name, **_over(found, name, chains, "in_a_row", ""), **ruled})
    return made


def _over(found: Mapping[str, np.ndarray], name: str, beside: Sequence[str], title: str, of: str) -> dict[str, Any]:
    """How much faster than the fastest of those beside it."""
    best = min(beside, key=lambda other: float(np.mean(found[other])))
    over = ratio_values(found[best][:, None], found[name][:, None])[0]
    return {title: best, f"over{of}": over.value, f"low{of}": over.low, f"high{of}": over.high}


def same_model(one: Spec, other: Spec) -> bool:
    return one.model_role is not None and one.model_role == other.model_role


if __name__ == "__main__":
    sys.exit(main())
