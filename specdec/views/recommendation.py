"""Recommendation: which drafter to serve a target with, by one table; no stronger than the table's verdict.

What is not faster than plain decoding, what a busy machine measured and what writes another text is never recommended.
Beside it, for each server, the same drafter in its words, or the best that it does have. Words for people are
`recommendation_text.py`'s.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specdec.drafters.base import Spec
from specdec.drafters.families import known_spec
from specdec.drafters.served import SERVERS, Words, words_of
from specdec.latency.profile import MEASURED, ROOFLINE
from specdec.ranking.comparisons import BEST, EQUAL, Difference
from specdec.ranking.statistics import LEVEL, Estimate, more_questions, student
from specdec.ranking.table import Row, Table
from specdec.runs.footprint import Footprint
from specdec.views.captions import time_words
from specdec.views.verdict import DOUBTED, FASTEST, MAYBE_FIRST, MAYBE_PLAIN, UNDECIDED, beats_plain, kind_of_verdict

NO_PRICE, LOSSY = "no_price", "another_text"  # beside the verdict's kinds
MS_PER_HOUR = 3.6e6
CONCURRENCY = 1  # requests at a time: of every record and profile that there is


@dataclass(frozen=True)
class Served:
    """What a server can do: `words` for `row`, which is the wanted drafter or the best that the server has.

    `row` None: it has none that surely beats plain decoding. `difference`: the row's speedup less the wanted one's.
    """

    server: str
    row: Row | None
    words: Words | None
    why_not: str  # "" where it has the wanted drafter
    difference: Difference | None


@dataclass(frozen=True)
class Cost:
    """What a million output tokens cost, in the price's currency; None: not known. `is_measured`: else modelled."""

    first: float | None
    plain: float | None
    is_measured: bool
    is_bound: bool


@dataclass(frozen=True)
class Recommendation:
    """Under one engine: `row` is recommended; None: nothing, for the reason that `kind` names.

    `first`: the highest by number. `alike`: what is level with `row`, or not told from `first`. `num_more`: about how
    many more questions would decide; None: not known, or nothing to decide.
    """

    table: Table
    kind: str
    first: Row | None
    row: Row | None
    alike: list[Row]
    num_more: int | None
    served: list[Served]
    footprint: Footprint | None

    @property
    def spec(self) -> Spec | None:
        """The drafter that settings and memory are of."""
        return known_spec(self.first.drafter_name) if self.first and self.served else None

    def cost(self, price_per_hour: float | None) -> Cost | None:
        """Of one request at a time, on a machine of that price, without the prompt's pass; of the first drafter where
        it may be used, and of plain decoding. None without a price, and of times that are not to be trusted."""
        if price_per_hour is None or self.kind in (NO_PRICE, DOUBTED):
            return None
        rows = self.first if self.served else None, self.table.plain
        times = [None if row is None else row.ms_per_token for row in rows]
        first, plain = (None if ms is None else price_per_hour * ms * 1e6 / MS_PER_HOUR for ms in times)
        return Cost(first, plain, self.table.engine == MEASURED, f"({ROOFLINE})" in self.table.engine)


def recommend(table: Table, models: Mapping[str, Footprint], lossy: Collection[str] = ()) -> Recommendation:
    """`models`: by drafter's name. `lossy`: drafters whose text is not plain decoding's, where no tie explains it."""
    first = table.first
    if first is None:
        return Recommendation(table, NO_PRICE, None, None, [], None, [], None)
    kind = LOSSY if first.drafter_name in lossy else kind_of_verdict(table, first)
    faster = [row for row in table.rows if beats_plain(row) and row.drafter_name not in lossy]
    alike = [row for row in faster if row is not first and row.may_be_best]
    is_sure = kind == FASTEST or (kind == UNDECIDED and first.standing == BEST)
    if not is_sure and kind != UNDECIDED:
        return Recommendation(table, kind, first, None, [], _to_tell_from_plain(table, kind), [], None)
    served = [_served(server, first, faster, models) for server in SERVERS]
    more = None if is_sure else _to_decide(table, first)
    return Recommendation(
        table, kind, first, first if is_sure else None, alike, more, served, models.get(first.drafter_name)
    )


def _served(server: str, first: Row, faster: Sequence[Row], models: Mapping[str, Footprint]) -> Served:
    wanted = known_spec(first.drafter_name)
    why_not = "" if wanted and wanted.is_served(server) else (wanted.not_served if wanted else "not one of ours")
    for row in [first, *(one for one in faster if one is not first)]:
        spec, model = known_spec(row.drafter_name), models.get(row.drafter_name)
        words = None if spec is None else words_of(spec, server, model.name if model else None)
        if words is not None:
            return Served(server, row, words, why_not, row.differences.get("to_best"))
    return Served(server, None, None, why_not, None)


def _to_decide(table: Table, first: Row) -> int | None:
    """More questions that would show a difference that matters; where the table does not say, the one that is there."""
    if table.num_needed is not None:
        return table.num_needed - table.num_paired
    open_ones = [row.differences.get("to_best") for row in table.rows if row is not first and row.may_be_best]
    return max((one.num_more_questions or 0 for one in open_ones if one is not None), default=0) or None


def _to_tell_from_plain(table: Table, kind: str) -> int | None:
    """The same for the first one's speedup against plain decoding's, which is 1."""
    value = None if table.first is None else table.first.values["speedup_mean"]
    if kind not in (MAYBE_PLAIN, MAYBE_FIRST) or value is None or value.low is None or value.high is None:
        return None
    spread = (value.high - value.low) / 2 / student((1 + LEVEL) / 2, table.num_paired - 1)
    return more_questions(Estimate(value.value - 1, spread, 0.0, 0.0, 1.0), table.num_paired) or None


def recommendation_dict(one: Recommendation, price_per_hour: float | None = None) -> dict[str, Any]:
    """For programs, unrounded."""
    cost = one.cost(price_per_hour)
    return {
        "engine": one.table.engine,
        "time": time_words(one.table.engine),
        "concurrency": CONCURRENCY,
        "kind": one.kind,
        "doubt": one.table.doubt,
        "recommended": None if one.row is None else one.row.drafter_name,
        "first": None if one.first is None else _row_dict(one.first),
        "level": [row.drafter_name for row in one.alike if row.standing == EQUAL],
        "undecided": [row.drafter_name for row in one.alike if row.standing != EQUAL],
        "num_questions": one.table.num_paired or max(one.table.num_questions, default=0),
        "num_more_questions": one.num_more,
        "servers": {served.server: _served_dict(served) for served in one.served},
        "memory": _memory_dict(one),
        "cost_per_million_tokens": cost and vars(cost),
    }


def _row_dict(row: Row) -> dict[str, Any]:
    spec, speedup = known_spec(row.drafter_name), row.values["speedup_mean"]
    label = row.drafter_name if spec is None else spec.label
    return {"drafter_name": row.drafter_name, "label": label, "speedup_mean": speedup.value} | {
        "mean_low": speedup.low,
        "mean_high": speedup.high,
        "standing": row.standing or None,
    }


def _served_dict(served: Served) -> dict[str, Any]:
    row, estimate = served.row, served.difference and served.difference.estimate
    return {
        "has_it": not served.why_not,
        "why_not": served.why_not or None,
        "drafter_name": None if row is None else row.drafter_name,
        "settings": None if served.words is None else served.words.text,
        "to_best": estimate and {name: getattr(estimate, name) for name in ("value", "low", "high")},
        "standing": None if row is None else row.standing,
    }


def _memory_dict(one: Recommendation) -> dict[str, Any] | None:
    """None where nothing is recommended; of a drafter without a model, 0; None for what the records do not say."""
    if one.spec is None:
        return None
    names = ("num_parameters", "weight_bytes", "kv_bytes_per_token")
    if one.spec.model_role is None:
        return {"model": None} | dict.fromkeys(names, 0)
    known = one.footprint
    model = {name: getattr(known, name, None) for name in ("name", "dtype")}
    return {"model": model["name"], "dtype": model["dtype"]} | {name: getattr(known, name, None) for name in names}
