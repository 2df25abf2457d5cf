"""Rankings: what records say of every setting, priced as `parse_log.py` prices them. No matplotlib.

`ranking_files.py` reads rankings from files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plotting.inputs import read_records
from plotting.points import Point, ratio_points
from plotting.ranking_files import read_ranking_file
from plotting.settings import CEILING_PARTS, SHARES, Ranking, Setting
from specdec.config import RunConfig
from specdec.errors import UserError
from specdec.latency.pricing import Price
from specdec.latency.profile import load_profiles
from specdec.ranking.comparisons import compare
from specdec.ranking.entries import PLAIN, QuestionStats, Reading, merge
from specdec.ranking.oracle import Judges
from specdec.ranking.question_sets import comparable
from specdec.ranking.ranking import by_drafter, engines_of, priced_under, rank
from specdec.records.record import Record

# Each quantity as a ratio of sums over questions: (numerator, denominator) of a question under an engine.
Ratio = Callable[[QuestionStats, Price], tuple[float, float]]
QUANTITIES: dict[str, Ratio] = {
    "speedup_mean": lambda entry, price: (price.speedup, 1),
    "speedup_ratio": lambda entry, price: (price.baseline_ms, price.total_ms),
    "acceptance_rate": lambda entry, price: (entry.num_accepted, entry.num_drafted),
    "acceptance_len": lambda entry, price: (entry.num_output_tokens, entry.num_rounds),
    "passes_per_round": lambda entry, price: (entry.num_forward_passes, entry.num_rounds),
    "draft_ms": lambda entry, price: (price.draft_ms, 1),  # these four per question
    "verify_ms": lambda entry, price: (price.verify_ms, 1),
    "total_ms": lambda entry, price: (price.total_ms, 1),
    "baseline_ms": lambda entry, price: (price.baseline_ms, 1),
}


@dataclass(frozen=True)
class Asked:
    """How records become rankings; the flags of the same names."""

    drafters: Collection[str] | None = None
    question_ids: Collection[int] | None = None
    latency_profile: Sequence[str] = RunConfig.latency_profile
    latency_target: Sequence[str | None] = (None,)
    trace_dir: str | None = None
    allow_unequal: bool = False
    without_degenerate: bool = False


def read_rankings(paths: Sequence[Path], asked: Asked) -> list[Ranking]:
    """The rankings of JSON files, and of records: one per target, data set and engine. Raises UserError."""
    files = [path for path in paths if path.suffix == ".json"]
    made = [ranking for path in files for ranking in read_ranking_file(path)]
    folders = [path for path in paths if path.suffix != ".json"]
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in read_records(folders, None, asked.question_ids) if folders else ():
        if asked.drafters is not None and record.drafter_name not in (*asked.drafters, PLAIN):
            continue  # plain decoding stays: it is what measured times are compared with
        key = str(record.identity["target"]), str(record.identity["dataset"])
        groups.setdefault(key, []).append(record)
    for (target, dataset), records in groups.items():
        stats = _stats(records, asked)
        loops = {entry.question_id for entry in stats if entry.is_degenerate} if asked.without_degenerate else set()
        stats = [entry for entry in stats if entry.question_id not in loops]
        made += _rankings_of(stats, target, dataset, len(loops))
    if not made:
        raise UserError("nothing in the input has a price: give records of drafters and a --latency_profile")
    return _chosen(made, asked.drafters)


def _stats(records: Sequence[Record], asked: Asked) -> list[QuestionStats]:
    profiles = load_profiles(asked.latency_profile)
    readings = []
    for entry in asked.latency_target:
        judges = None if asked.trace_dir is None else Judges(asked.trace_dir, profiles, entry)
        readings.append(Reading(profiles, entry, judges))
    stats = merge(reading.entry(record) for record in records for reading in readings)
    return comparable(stats, asked.allow_unequal)[0]


def _rankings_of(stats: list[QuestionStats], target: str, dataset: str, num_left_out: int) -> list[Ranking]:
    found, made = by_drafter(stats), []
    for engine in engines_of(stats):
        names = [row.drafter_name for row in rank(stats, engine) if row.rank is not None]
        columns = [priced_under(engine, found[name]) for name in names]
        if columns:
            settings = _settings(names, columns, engine, _level(stats, engine))
            made.append(Ranking(dataset, target, engine, settings, num_left_out))
    return made


def _level(stats: list[QuestionStats], engine: str) -> dict[str, bool]:
    comparisons = compare(stats, engine)
    found = {} if comparisons is None else comparisons.by_drafter
    return {name: one.to_best is None or not one.to_best.is_clear for name, one in found.items()}


def _settings(
    names: Sequence[str], columns: Sequence[list[QuestionStats]], engine: str, level: dict[str, bool]
) -> list[Setting]:
    ratios: dict[str, Ratio] = dict(QUANTITIES)
    if all(engine in entry.ceilings for column in columns for entry in column):
        ratios |= {name: _part(part, engine) for name, part in CEILING_PARTS.items()}
    points: list[dict[str, Point]] = [{} for _ in names]
    for quantity, ratio in ratios.items():
        pairs = [[ratio(entry, entry.prices[engine]) for entry in column] for column in columns]
        most = 1.0 if quantity in SHARES else math.inf
        for setting, point in zip(points, _points_of(pairs), strict=True):
            if math.isfinite(point.value):
                setting[quantity] = point.within(0.0, most)
    counts = map(len, columns)
    return [
        Setting(name, count, made, level.get(name)) for name, count, made in zip(names, counts, points, strict=True)
    ]


def _points_of(pairs_CQ2: Sequence[Sequence[tuple[float, float]]]) -> list[Point]:
    """A point per column; columns of as many questions together, which is quicker."""
    if len({len(column) for column in pairs_CQ2}) > 1:
        return [point for column in pairs_CQ2 for point in _points_of([column])]
    array_CQ2 = np.array(pairs_CQ2, float)
    return ratio_points(array_CQ2[..., 0].T, array_CQ2[..., 1].T)


def _part(part: str, engine: str) -> Ratio:
    return lambda entry, _: (getattr(entry.ceilings[engine], part), entry.ceilings[engine].total_ms)


def _chosen(rankings: list[Ranking], drafters: Collection[str] | None) -> list[Ranking]:
    """Of all settings those asked for. Raises UserError for one that is nowhere."""
    if drafters is None:
        return rankings
    there = {setting.drafter_name for ranking in rankings for setting in ranking.settings}
    missing = [name for name in drafters if name not in there]
    if missing:
        raise UserError(f"no input ranks {missing[0]} (there are: {', '.join(sorted(there)[:8])}, ...)")
    chosen = [[one for one in ranking.settings if one.drafter_name in drafters] for ranking in rankings]
    return [
        dataclasses.replace(ranking, settings=settings)
        for ranking, settings in zip(rankings, chosen, strict=True)
        if settings
    ]
