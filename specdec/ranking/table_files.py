"""Tables in files: what `parse_log.py --json` and `specdec.replay --json` print, or published figures laid out alike.

A file says less than entries do: where it has no interval or no value, there is none.
"""

import json
from pathlib import Path
from typing import Any, TypeGuard

from specdec.drafters.families import parse_name
from specdec.errors import MALFORMED, UserError, user_error
from specdec.latency.accounting import OURS
from specdec.ranking.comparisons import BEHIND, BEST, EQUAL, UNDECIDED
from specdec.ranking.quantities import PARTS, QUANTITIES, values_from
from specdec.ranking.source import Source
from specdec.ranking.statistics import Value
from specdec.ranking.table import Row, Table, agreeing
from specdec.records.fields import is_count, is_number
from specdec.records.identity import current_name
from specdec.text import named

ROUNDING = 1e-6  # ms, or of a share


def read_table_file(path: Path) -> list[Table]:
    """The tables of a JSON file, one per engine; `label` in it is their title, else its sources. Raises UserError for
    anything else, a number that is not finite included."""
    document = read_json(path)
    document = document.get("ranking", document) if isinstance(document, dict) else document
    try:
        engines = [
            (entry["engine"], entry["rows"], entry.get("pass_accounting", OURS)) for entry in document["engines"]
        ]
        sources = [Source.from_builtins(source) for source in document.get("sources", [])]
        title = named(document.get("label") or ", ".join(source.title for source in sources) or path.stem)
        target = named(", ".join(sorted({source.target or source.title for source in sources})))
        made = [
            Table(named(engine), agreeing([_row(row) for row in rows]), title, target, accounting=named(accounting))
            for engine, rows, accounting in engines
        ]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except MALFORMED as error:
        reason = f"{type(error).__name__} {error}"
        raise UserError(f"{path} is not a ranking ({reason}): parse_log.py --json makes one") from None
    if not any(table.rows for table in made):
        raise UserError(f"{path} ranks nothing")
    return made


def read_json(path: Path) -> Any:
    """The document in a JSON file. Raises UserError for an unreadable file or another format."""
    try:
        with user_error(f"read {path}"):
            return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error})") from None


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value read from JSON is a number that can be shown."""
    return is_number(value)


def _row(row: dict[str, Any]) -> Row:
    """A row of a file. Plain decoding's time, which files leave out, follows from the ratio of sums."""
    name = current_name(str(row["drafter_name"]))
    parse_name(name)
    sums = {part: value for part in PARTS if (value := _positive(row, part)) is not None}
    values = {}
    for quantity in QUANTITIES.values():
        value = _positive(row, quantity.name)
        if value is not None:
            bounds = (_number(row, f"{quantity.key}_{end}") for end in ("low", "high"))
            values[quantity.name] = Value(value, *bounds)
    if "total_ms" in values and "speedup_ratio" in values:
        sums["baseline_ms"] = values["speedup_ratio"].value * values["total_ms"].value
    label, rank = named(row.get("label") or ""), row.get("rank")
    if rank is not None and not (is_count(rank) and rank):
        raise ValueError(f"rank {rank!r:.40}")
    return Row(name, sums, values_from(sums) | values, rank, standing=_standing(row), own_label=label)


def _standing(row: dict[str, Any]) -> str:
    """A row's; files of before say only whether it could be told from the best. Raises ValueError for another word."""
    said = row.get("standing")
    if said is None:
        is_level = row.get("is_level_with_best")
        said = "" if is_level is None else BEHIND if not is_level else BEST if row.get("rank") == 1 else UNDECIDED
        said = UNDECIDED if said == BEST and not (_number(row, "speedup_mean") or 0.0) > 1 else said
    if said not in ("", BEST, EQUAL, BEHIND, UNDECIDED):
        raise ValueError(f"standing {said!r:.40}")
    return str(said)


def _positive(row: dict[str, Any], key: str) -> float | None:
    """A number of at least 0: what a record loses against the clairvoyant's time may be 0 but for rounding."""
    value = _number(row, key)
    if value is not None and value < -ROUNDING:
        raise UserError(f"{row.get('drafter_name')}: {key} is {value!r:.40}, and not at least 0")
    return value if value is None else max(value, 0.0)


def _number(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None or is_finite(value):
        return value
    raise UserError(f"{row.get('drafter_name')}: {key} is not a finite number but {value!r:.40}")
