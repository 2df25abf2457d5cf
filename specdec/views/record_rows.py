"""Record rows: results as two flat tables, a row per question and drafter, and a row per round. Tidy data for others.

docs/measures.md has every column. Not how they are written to files (`commands/exports.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specdec.drafters.families import known_spec
from specdec.ranking.acceptance import RoundCounts
from specdec.ranking.entries import COUNTS, Entry
from specdec.ranking.quantities import QUANTITIES
from specdec.ranking.source import Source
from specdec.records.record import Record
from specdec.records.turns import row_of, turn_of

Cell = bool | int | float | str | None
KEYS: dict[str, type] = {  # what tells rows of the first table apart, and joins the second to it
    **{"target": str, "dataset": str, "max_new_tokens": int, "dtype": str, "device": str, "prompt_style": str},
    **{"thinking": str, "temperature": float, "top_k": int, "top_p": float, "question_id": int, "drafter_name": str},
}
_WHAT: dict[str, type] = {"row": int, "turn": int, "category": str, "family": str, "origin": str}
_RATES = ("acceptance_rate", "acceptance_len", "passes_per_round")
_TIMES = ("prefill_ms", "draft_ms", "verify_ms", "ttft_ms", "tpot_ms")
_GRADES: dict[str, type] = {"is_correct": bool, "is_degenerate": bool, "losslessness": str}
_ROUND: dict[str, type] = {
    **{"round": int, "num_output_before": int, "asked_len": int, "draft_len": int, "accepted_len": int},
    **{"emitted_len": int, "is_cut": bool, "num_prefill_passes": int, "num_denoise_passes": int},
    **{"num_commit_passes": int, "stop_reason": str, "draft_ms": float, "verify_ms": float, "cpu_ms": float},
}


@dataclass(frozen=True)
class Rows:
    """A flat table. `columns`: their types by name, in order; a row says nothing, or None, of what it has not."""

    columns: Mapping[str, type]
    rows: Sequence[Mapping[str, Cell]]


def record_rows(pairs: Sequence[tuple[Record, Entry]]) -> Rows:
    """A row per question and drafter: a record and its entry, merged as rankings merge it, where its prices are."""
    fields = [_fields(record.drafter_name) for record, _ in pairs]
    settings = {name: _type(one[name] for one in fields if name in one) for one in fields for name in one}
    engines = dict.fromkeys(engine for _, entry in pairs for engine in entry.prices)
    priced = {f"{what} [{engine}]": float for engine in engines for what in ("speedup", "total_ms")}
    counted = dict.fromkeys((*COUNTS, "num_drafts"), int) | dict.fromkeys((*_RATES, *_TIMES), float)
    columns: dict[str, type] = {**KEYS, **_WHAT, **settings, **counted, **_GRADES, **priced}
    return Rows(columns, [own | _record_row(*pair) for own, pair in zip(fields, pairs, strict=True)])


def _record_row(record: Record, entry: Entry) -> dict[str, Cell]:
    number, spec = record.question_id, known_spec(record.drafter_name)
    cells: dict[str, Cell] = _keys(record) | {"row": row_of(number), "turn": turn_of(number)}
    cells |= {"category": entry.category or None, "origin": entry.origin or None}
    cells |= {"family": None if spec is None else spec.kind}
    cells |= {name: getattr(entry, name) for name in COUNTS} | {"num_drafts": RoundCounts.of(record).num_drafts}
    cells |= {name: QUANTITIES[name].of({part: getattr(entry, part) for part in COUNTS}) for name in _RATES}
    if record.is_timed:
        cells |= {name: float(getattr(record, name)) for name in _TIMES[:3]}
        cells |= {"ttft_ms": record.ttft_ms, "tpot_ms": float(record.measured_ms_per_token)}
    cells |= {name: getattr(entry, name) for name in ("is_correct", "is_degenerate")}
    cells |= {"losslessness": entry.losslessness or None}
    for engine, price in entry.prices.items():
        cells |= {f"speedup [{engine}]": price.speedup if price.total_ms else None}
        cells |= {f"total_ms [{engine}]": float(price.total_ms)}
    return cells


def round_rows(records: Sequence[Record]) -> Rows:
    """A row per round of these records."""
    return Rows(KEYS | _ROUND, [row for record in records for row in _rounds(record)])


def _rounds(record: Record) -> Iterable[dict[str, Cell]]:
    keys, begin = _keys(record), len(record.prompt_ids)
    names = [
        name for name in _ROUND if name not in ("round", "num_output_before", "emitted_len", "draft_ms", "verify_ms")
    ]
    for index, turn in enumerate(record.rounds):
        cells: dict[str, Any] = {name: getattr(turn, name) for name in names}
        places = {"round": index, "num_output_before": turn.prefix_len - begin, "emitted_len": len(turn.emitted_tokens)}
        times = {"draft_ms": float(turn.draft_ms), "verify_ms": float(turn.verify_ms)} if record.is_timed else {}
        yield keys | cells | places | times


def _keys(record: Record) -> dict[str, Cell]:
    source = {name: value for name, value in Source.of(record).to_builtins().items() if name in KEYS}
    return source | {"question_id": record.question_id, "drafter_name": record.drafter_name}


def _fields(drafter_name: str) -> dict[str, Cell]:
    """The settings of a drafter, by the names of its spec's fields; {} of one that is not known."""
    spec = known_spec(drafter_name)
    return {} if spec is None else dict(vars(spec))


def _type(values: Iterable[Cell]) -> type:
    """One for all of a column's values: of whole and other numbers together, float; of anything else, text."""
    found = {type(value) for value in values if value is not None}
    if found == {int, float}:
        return float
    return found.pop() if len(found) == 1 and found <= {bool, int, float, str} else str
