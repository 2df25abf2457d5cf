"""Load studies in files: what `failfast load --json` prints, of which docs/results keeps some in short."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdec.drafters.families import parse_name
from specdec.errors import MALFORMED, UserError
from specdec.latency.profile import ROOFLINE
from specdec.ranking.load_study import Study
from specdec.ranking.load_table import CONCURRENCY, FIXED, QUANTITIES, REQUEST_RATE, Load, LoadRow, LoadTable
from specdec.ranking.statistics import Value
from specdec.ranking.table_files import is_finite, read_json
from specdec.records.fields import is_count
from specdec.text import named


@dataclass(frozen=True)
class KeptStudy:
    """What drafters gave as they were recorded, by load; of policies that need more than that a file may say more."""

    title: str
    profile: str
    tables: tuple[LoadTable, ...]

    @classmethod
    def of(cls, study: Study) -> "KeptStudy":
        """The same of a study that was just made."""
        title = _title(study.requests.target, study.entry, len(study.requests.questions))
        return cls(title, study.profile.title, tuple(study.tables()))


def read_load_file(path: Path) -> KeptStudy:
    """Raises UserError for anything else, a number that is not finite included."""
    document = read_json(path)
    try:
        if not is_count(document["num_questions"]):
            raise ValueError("num_questions")
        title = _title(named(document["target"]), named(document["priced_as"]), document["num_questions"])
        profile = f"{named(document['profile'])}{f' ({ROOFLINE})' if document['is_bound'] else ''}"
        if not document["loads"]:
            raise ValueError("no load")
        return KeptStudy(title, profile, tuple(map(_table, document["loads"])))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except MALFORMED as error:
        reason = f"{type(error).__name__} {error}"
        raise UserError(f"{path} is not a study of loads ({reason}): failfast load --json makes one") from None


def _title(target: str, entry: str, num_questions: int) -> str:
    return f"{target} as if {entry}, {num_questions} questions"


def _table(one: dict[str, Any]) -> LoadTable:
    rows = [_row(row) for row in one["rows"] if row["policy"] == FIXED]
    kind, value = one["kind"], one["value"]
    if kind not in (CONCURRENCY, REQUEST_RATE) or not is_finite(value) or value <= 0:
        raise ValueError(f"a load of {value!r:.40}, {kind!r:.40}")
    return LoadTable(Load(kind, float(value)), tuple(rows), named(one["batch_1"]))


def _row(row: dict[str, Any]) -> LoadRow:
    name = str(row["name"])
    parse_name(name)
    values = {quantity: _value(row[quantity]) for quantity in QUANTITIES if quantity in row}
    length, is_saturated = row["acceptance_len"], bool(row.get("is_saturated"))
    if length is not None and not (is_finite(length) and length >= 0):
        raise ValueError(f"acceptance_len {length!r:.40}")
    return LoadRow(name, FIXED, values, length, not is_saturated, bool(row["may_be_best"]))


def _value(parts: dict[str, Any]) -> Value:
    if not all(is_finite(one) or one is None for one in parts.values()) or not is_finite(parts["value"]):
        raise UserError("it has a number that is not finite")
    if parts["value"] < 0:
        raise UserError(f"it has {parts['value']!r:.40} where a number of at least 0 belongs")
    return Value(parts["value"], parts["low"], parts["high"])
