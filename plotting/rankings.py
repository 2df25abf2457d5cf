"""Rankings: what records or the JSON of a ranking say of every setting, as points with intervals. No matplotlib.

Records are priced here as `parse_log.py` prices them; a file (`parse_log.py --json`, `specdec.replay --json`, or
published figures in that layout) says less: where it has no interval or no value, there is none.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plotting.inputs import is_finite, read_records
from plotting.points import Point, ratio_points
from specdec.comparisons import compare
from specdec.errors import UserError
from specdec.judges import Judges
from specdec.latency import MEASURED, Price, load_profiles
from specdec.question_sets import comparable
from specdec.ranking import PLAIN, QuestionStats, by_drafter, engines_of, merge, priced_under, rank
from specdec.reading import Reading
from specdec.records import Record
from specdec.specs import DrafterSpec, parse_drafter_name

# Each quantity as a ratio of sums over questions: (numerator, denominator) of one question under one engine.
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
CEILING_PARTS = {  # shares of the time taken
    "ceiling_share": "best_ms",
    "over_share": "over_ms",
    "under_share": "under_ms",
    "passes_share": "passes_ms",
}
SHARES = ("acceptance_rate", *CEILING_PARTS)
_INTERVALS = {"speedup_mean": "mean", "speedup_ratio": "ratio"}  # what a file's intervals are called


@dataclass(frozen=True)
class Setting:
    """One drafter configuration under one engine. `points` by name of quantity; what is not known is not there."""

    drafter_name: str
    num_questions: int | None
    points: dict[str, Point]
    is_level: bool | None = None  # cannot be told from the best; None: not known
    own_label: str = ""  # a file's name for it, where it has one

    @property
    def spec(self) -> DrafterSpec:
        return parse_drafter_name(self.drafter_name)

    def has(self, *quantities: str) -> bool:
        return all(quantity in self.points for quantity in quantities)


@dataclass(frozen=True)
class Ranking:
    """All settings under one engine, best first. `title`: which questions, or which file."""

    title: str
    target: str
    engine: str
    settings: list[Setting]
    num_left_out: int = 0  # questions whose answer is degenerate, where those were not wanted

    @property
    def num_questions(self) -> list[int]:
        """Of every setting, where it is known."""
        return [one.num_questions for one in self.settings if one.num_questions is not None]


@dataclass(frozen=True)
class Asked:
    """How records become rankings; the flags of the same names."""

    drafters: Collection[str] | None = None
    question_ids: Collection[int] | None = None
    latency_profile: Sequence[str] = ("vLLM_A6000",)
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


def under_one_engine(rankings: Sequence[Ranking], engine: str | None) -> list[Ranking]:
    """The rankings under `engine` (default: the first there is), one per data set.

    Raises UserError for an engine that is not there, and for several targets.
    """
    engines = list(dict.fromkeys(ranking.engine for ranking in rankings))
    if engine is not None and engine not in engines:
        raise UserError(f"no --engine {engine!r} (there are: {', '.join(map(repr, engines)) or 'none'})")
    require_one_target(rankings)
    return [ranking for ranking in rankings if ranking.engine == (engine or engines[0])]


def require_one_target(rankings: Sequence[Ranking]) -> None:
    """UserError for rankings of several targets, which one figure must not mix."""
    targets = sorted({ranking.target for ranking in rankings})
    if len(targets) > 1:
        raise UserError(f"input of several targets ({', '.join(targets)}): give one, as OUTPUT_DIR/pickles/TARGET")


def engine_note(engine: str) -> str:
    """What speedups under an engine are."""
    return "measured wall clock" if engine == MEASURED else f"modelled time: {engine}"


# --- from records ---


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


# --- from a file ---


def read_ranking_file(path: Path) -> list[Ranking]:
    """The rankings of a JSON file, one per engine; `label` in it is its title, else its sources.

    Raises UserError for anything else, a number that is not finite included.
    """
    document = read_json(path)
    document = document.get("ranking", document) if isinstance(document, dict) else document
    try:
        engines = [(entry["engine"], entry["rows"]) for entry in document["engines"]]
        sources = [str(source) for source in document.get("sources", [])]
        title = str(document.get("label") or ", ".join(sources) or path.stem)
        target = _target(sources)
        made = [Ranking(title, target, str(engine), [_setting(row) for row in rows]) for engine, rows in engines]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__} {error}"
        raise UserError(f"{path} is no ranking ({reason}): parse_log.py --json makes one") from None
    if not any(ranking.settings for ranking in made):
        raise UserError(f"{path} ranks nothing")
    return made


def read_json(path: Path) -> Any:
    """The document in a JSON file. Raises UserError for an unreadable file or another format."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error})") from None


def _target(sources: Iterable[str]) -> str:
    """The targets of a file's sources ("TARGET DATASET BUDGET ..."), "" if it names none."""
    return ", ".join(sorted({source.partition(" ")[0] for source in sources}))


def _setting(row: dict[str, Any]) -> Setting:
    name = str(row["drafter_name"])
    parse_drafter_name(name)
    count = row.get("num_questions")
    points = {}
    for quantity in (*QUANTITIES, *CEILING_PARTS):
        value = _number(row, quantity)
        if value is not None:
            prefix = _INTERVALS.get(quantity, "")
            points[quantity] = Point(value, _number(row, f"{prefix}_low"), _number(row, f"{prefix}_high"))
    label = str(row.get("label") or "")
    return Setting(name, count, _per_question(points, row, count), row.get("is_level_with_best"), label)


def _per_question(points: dict[str, Point], row: dict[str, Any], count: int | None) -> dict[str, Point]:
    """A file's times are sums over its questions (one's, where it does not count them), and its losses milliseconds:
    both as `QUANTITIES` has them."""
    total = _number(row, "total_ms")
    if not total:
        return points
    for quantity in ("draft_ms", "verify_ms", "total_ms"):
        if quantity in points:
            points[quantity] = Point(points[quantity].value / (count or 1))
    if "speedup_ratio" in points:
        points["baseline_ms"] = Point(points["speedup_ratio"].value * points["total_ms"].value)
    for quantity, part in CEILING_PARTS.items():
        value = _number(row, part)
        if value is not None:
            points[quantity] = Point(value / total)
    return points


def _number(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None or is_finite(value):
        return value
    raise UserError(f"{row.get('drafter_name')}: {key} is no finite number but {value!r:.40}")


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
