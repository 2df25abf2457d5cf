"""Table data: rankings for programs, as CSV and JSON, unrounded.

The columns are those that `tables.py` shows, and all that is known beside them.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from specdec.ranking.comparisons import MARGIN
from specdec.ranking.entries import Entry
from specdec.ranking.lossless import count_grades
from specdec.ranking.quantities import CEILING_PARTS, CEILING_SHARES, COMPARED, MEASURED_ONLY, QUANTITIES
from specdec.ranking.ranking import engines_of, plain_row, rounds_by_drafter
from specdec.ranking.scopes import each
from specdec.ranking.statistics import LEVEL, NUM_RESAMPLES, Value
from specdec.ranking.table import Row, Table, table_of
from specdec.runs.drafter_facts import DrafterFacts
from specdec.views.categories import category_document
from specdec.views.drafters_table import drafters_document
from specdec.views.tables import COLUMNS, winners
from specdec.views.verdict import headline, profiles_line, too_few_line

SCOPE = ("target", "dataset", "max_new_tokens")  # what a row is over
_CEILING = (*CEILING_PARTS, "ceiling_share")  # in CSV always, in JSON where it is known
_REQUESTS = ("request_acceptance_len", *MEASURED_ONLY)  # means of the questions' own values, in no column
_BOUNDED = ("acceptance_rate", "acceptance_len", "passes_per_round", "draft_ms", "verify_ms", "total_ms", *_REQUESTS)
_DIFFERENCES = ("to_best", "to_ar", "ratio_to_best", "ratio_to_ar")


def row_dict(row: Row) -> dict[str, Any]:
    """A row as flat keys: its attributes, unrounded; `mean_low`, ..., `to_best_p_holm`, ...; None where there is no
    value."""
    cells: dict[str, Any] = {key: row.number(key) for column in COLUMNS for key in column.keys}
    cells |= {key: row.number(key) for key in _REQUESTS}
    cells |= {name: getattr(row, name) for name in ("rank", "drafter_name", "num_left_out")}
    cells["standing"] = row.standing or None
    if row.has("ceiling_share"):
        cells |= {name: row.number(name) for name in _CEILING}
    cells |= _bound_cells(row, COMPARED)
    for name in _DIFFERENCES:
        difference = row.differences.get(name)
        estimate = getattr(difference, "estimate", None)
        cells |= {f"{name}_{part}": _rounded(getattr(estimate, part, None)) for part in ("value", "low", "high")}
        cells[f"{name}_p_holm"] = _rounded(getattr(difference, "p_holm", None))
        cells[f"{name}_p_equivalence"] = _rounded(getattr(difference, "p_equivalence", None))
        cells[f"{name}_more_questions"] = getattr(difference, "num_more_questions", None)
    # Not told from the best: what files said before there were standings.
    cells["is_level_with_best"] = row.rank == 1 or row.may_be_best if row.standing else None
    return cells | _bound_cells(row, _BOUNDED + ("ceiling_share",) * row.has("ceiling_share"))


def _bound_cells(row: Row, names: Iterable[str]) -> dict[str, Any]:
    ends = [(name, end) for name in names for end in ("low", "high")]
    return {f"{QUANTITIES[name].key}_{end}": _rounded(getattr(row.values.get(name), end, None)) for name, end in ends}


def _rounded(value: float | None) -> float | None:
    """To 9 digits: the order of summation, which the number of threads decides, shows in the last ones."""
    return float(f"{value:.9g}") if value is not None and math.isfinite(value) else None


def table_rows(table: Table) -> list[dict[str, Any]]:
    """A table's rows, plain decoding in its place, each with what it is over: `row_dict` and SCOPE."""
    return [row_dict(row) | _scope(table) for row in table.with_plain]


def _scope(table: Table) -> dict[str, Any]:
    return {name: getattr(table, name) for name in SCOPE}


def ranking_csv(stats: Sequence[Entry]) -> str:
    """All engines in one CSV: `engine` and the keys of `table_rows`, unrounded, empty for none. Data sets each, then
    all together."""
    out = io.StringIO()
    known = Row("", values=dict.fromkeys(CEILING_SHARES, Value(0.0)))  # of which everything is said
    writer = csv.DictWriter(out, ["engine", *row_dict(known), *SCOPE], lineterminator="\n")
    writer.writeheader()
    for group in (*_data_sets(stats), stats):
        writer.writerows({"engine": table.engine} | row for table in _tables(group) for row in table_rows(table))
    return out.getvalue()


def ranking_json(stats: Sequence[Entry], note: str = "", facts: Sequence[DrafterFacts] = ()) -> str:
    """`ranking_document` as JSON text."""
    return json.dumps(ranking_document(stats, note, facts), indent=2, allow_nan=False)


def ranking_document(stats: Sequence[Entry], note: str = "", facts: Sequence[DrafterFacts] = ()) -> dict[str, Any]:
    """Per engine the rows and the best, of all questions and, where there are several data sets, of each; plain
    decoding's measured time. `note`: what to know of the questions; `facts`: of the drafters."""
    plain = plain_row(stats)
    return {
        **scope_document(stats),
        "data_sets": [_scope(table_of(group, "")) | scope_document(group) for group in _data_sets(stats)],
        "plain": None if plain is None else vars(plain) | {"ms_per_token": plain.ms_per_token},
        "sources": [source.to_builtins() for source in sorted({entry.source for entry in stats})],
        "drafters": drafters_document(facts, stats),
        "losslessness": count_grades(stats),
        "acceptance_len": "tokens per round, bonus included; of all rounds together, and the mean of the questions'",
        "intervals": f"paired symmetric bootstrap-t over questions (turns of a conversation together), {LEVEL:.0%}, "
        f"{NUM_RESAMPLES} resamples",
        "margin": MARGIN,
        "profiles": profiles_line(winners(stats)),
        "note": note,
    }


def scope_document(stats: Sequence[Entry]) -> dict[str, Any]:
    """What is said of any part of the questions: the rankings, and acceptance by position."""
    return {"engines": _engines(stats), "acceptance": acceptance_document(stats)}


def acceptance_document(stats: Sequence[Entry]) -> dict[str, Any]:
    """Of every drafter whose rounds are known: by position, and how many tokens were accepted."""
    return {name: rounds.to_builtins() for name, rounds in rounds_by_drafter(stats).items()}


def _engines(stats: Sequence[Entry]) -> list[dict[str, Any]]:
    return [
        {
            "engine": table.engine,
            "pass_accounting": table.accounting,
            "best": None if table.best is None else table.best.drafter_name,
            "headline": None if (heading := headline(table)) is None else vars(heading),
            **({"doubt": table.doubt} if table.doubt else {}),
            "num_questions_needed": table.num_needed,
            "too_few": too_few_line(table),
            "over": table.over,
            "ar_baseline": table.ar_baseline,
            "rows": [row_dict(row) | _scope(table) for row in table.rows],
            "plain_row": None if table.plain is None else row_dict(table.plain) | _scope(table),
            "categories": category_document(stats, table.engine),
        }
        for table in _tables(stats)
    ]


def _data_sets(stats: Sequence[Entry]) -> list[list[Entry]]:
    """Each data set's entries, where there are several."""
    groups = each(stats)
    return groups if len(groups) > 1 else []


def _tables(stats: Sequence[Entry]) -> list[Table]:
    return [table_of(stats, engine, (*_BOUNDED, "ceiling_share")) for engine in engines_of(stats)]
