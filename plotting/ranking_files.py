"""Rankings in files: what `parse_log.py --json` and `specdec.replay --json` print, or published figures laid out alike.

A file says less than records do: where it has no interval or no value, there is none. No matplotlib.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from plotting.inputs import is_finite
from plotting.points import Point
from plotting.settings import CEILING_PARTS, Ranking, Setting
from specdec.drafters.specs import parse_drafter_name
from specdec.errors import UserError

TIMES = ("draft_ms", "verify_ms", "total_ms")
VALUES = ("speedup_mean", "speedup_ratio", "acceptance_rate", "acceptance_len", "passes_per_round", *TIMES)
_INTERVALS = {"speedup_mean": "mean", "speedup_ratio": "ratio"}  # what a file's intervals are called


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
        raise UserError(f"{path} is not a ranking ({reason}): parse_log.py --json makes one") from None
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
        raise UserError(f"{path} is not JSON ({error})") from None


def _target(sources: Iterable[str]) -> str:
    """The targets of a file's sources ("TARGET DATASET BUDGET ..."), "" if it names none."""
    return ", ".join(sorted({source.partition(" ")[0] for source in sources}))


def _setting(row: dict[str, Any]) -> Setting:
    name = str(row["drafter_name"])
    parse_drafter_name(name)
    count = row.get("num_questions")
    points = {}
    for quantity in (*VALUES, "ceiling_share"):
        value = _number(row, quantity)
        if value is not None:
            prefix = _INTERVALS.get(quantity, "")
            points[quantity] = Point(value, _number(row, f"{prefix}_low"), _number(row, f"{prefix}_high"))
    label = str(row.get("label") or "")
    return Setting(name, count, _per_question(points, row, count), row.get("is_level_with_best"), label)


def _per_question(points: dict[str, Point], row: dict[str, Any], count: int | None) -> dict[str, Point]:
    """A file's times are sums over its questions (one's, where it does not count them), and its losses milliseconds:
    both as settings have them."""
    total = _number(row, "total_ms")
    if not total:
        return points
    for quantity in TIMES:
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
    raise UserError(f"{row.get('drafter_name')}: {key} is not a finite number but {value!r:.40}")
