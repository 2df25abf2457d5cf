"""Rows: what a pass costs by how many requests it runs, how many tokens of each, and how long their contexts are.

The part of a latency profile that batches are priced by; `profile.py` has what one request costs, `batch_costs.py` how
batches are priced.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from specdec.errors import MALFORMED, UserError
from specdec.records.fields import MIN_MS

MAX_PASS_MS = 1e9  # eleven days
BOUNDS_MS = f"{MIN_MS:g} to {MAX_PASS_MS:g}"  # in messages
AXES = ("requests", "tokens", "contexts")
_LEAST = {"requests": 1, "tokens": 1, "contexts": 0}
_OPTIONAL = ("kv_tokens",)


@dataclass(frozen=True)
class Rows:
    """Ms of a pass: `ms[i][j][k]` for `requests[i]` requests of `tokens[j]` tokens each after `contexts[k]` tokens.

    Between its points linear in each of the three. `kv_tokens`: how many tokens of context, of all requests together,
    the device holds beside the weights; None: not said.
    """

    requests: tuple[int, ...]
    tokens: tuple[int, ...]
    contexts: tuple[int, ...]
    ms: tuple[tuple[tuple[float, ...], ...], ...]
    kv_tokens: int | None = None

    def to_builtins(self) -> dict[str, Any]:
        """As a profile's file has it."""
        found = {**{axis: list(getattr(self, axis)) for axis in AXES}, "ms": self.ms_RKX.tolist()}
        return found if self.kv_tokens is None else {**found, "kv_tokens": self.kv_tokens}

    @cached_property
    def ms_RKX(self) -> np.ndarray:
        return np.array(self.ms, float)

    def at(self, requests: Sequence[float], tokens: Sequence[float], contexts: Sequence[float]) -> np.ndarray:
        """[R, K, X] ms at all of these; beyond the last point of an axis its last slope goes on, before the first one
        its value. Example: of ms 1 and 3 for 1 and 2 requests it is 5 for 3."""
        found = self.ms_RKX
        for axis, (known, asked) in enumerate(
            ((self.requests, requests), (self.tokens, tokens), (self.contexts, contexts))
        ):
            found = along(found, axis, known, asked)
        return found


@dataclass(frozen=True)
class RowTables:
    """`verify` by target, `passes` by what a drafter is priced as. `context`: that the prices of one request are at."""

    context: int
    verify: Mapping[str, Rows]
    passes: Mapping[str, Rows]

    def to_builtins(self, targets: Collection[str]) -> dict[str, Any]:
        """As a profile's file has it, of these targets alone; {} where none of them has rows."""
        verify = {name: one.to_builtins() for name, one in self.verify.items() if name in targets}
        passes = {name: one.to_builtins() for name, one in self.passes.items()}
        return {"rows": {"context": self.context, "verify": verify, "passes": passes}} if verify else {}


def along(values: np.ndarray, axis: int, known: Sequence[float], asked: Sequence[float]) -> np.ndarray:
    """Values at points `known` of an axis, at the points `asked`: linear between, as `Rows.at` beyond."""
    points, wanted = np.asarray(known, float), np.asarray(asked, float)
    if len(points) == 1:
        return np.repeat(values, len(wanted), axis)
    left = np.clip(np.searchsorted(points, wanted, "right") - 1, 0, len(points) - 2)
    weight = np.maximum((wanted - points[left]) / (points[left + 1] - points[left]), 0.0)
    shape = [-1 if one == axis else 1 for one in range(values.ndim)]
    low, high = values.take(left, axis), values.take(left + 1, axis)
    return low + weight.reshape(shape) * (high - low)


def parse_rows(raw: Any, targets: Mapping[str, Any]) -> RowTables:
    """The `rows` of a profile's file, whose verifications `targets` have. Raises UserError."""
    fields = _object(raw, "rows", ("context", "verify", "passes"))
    context = fields["context"]
    if type(context) is not int or not 0 <= context < 1e9:
        raise UserError(f"rows.context must be a number of tokens, not {context!r:.40}")
    verify, passes = (_tables(fields[key], f"rows.{key}") for key in ("verify", "passes"))
    for name in verify:
        if name not in targets:
            raise UserError(f"rows.verify[{name!r}] has no table in verify_ms: the costs of one request come first")
    for name, one in passes.items():
        if len(one.tokens) > 1:
            raise UserError(f"rows.passes[{name!r}] has several numbers of tokens: a drafter's pass runs one")
    return RowTables(context, verify, passes)


def rows_lines(rows: Mapping[str, Any]) -> str:
    """The `rows` of a profile as JSON, a line per number of requests."""

    def table(one: Mapping[str, Any]) -> str:
        others = [f'"{key}": {json.dumps(value)}' for key, value in one.items() if key != "ms"]
        lines = ",\n    ".join(json.dumps(line, separators=(",", ":")) for line in one["ms"])
        return "{" + ", ".join(others) + f',\n   "ms": [\n    {lines}]' + "}"

    parts = [f'"context": {rows["context"]}']
    for key in ("verify", "passes"):
        tables = ",\n   ".join(f"{json.dumps(name)}: {table(one)}" for name, one in rows[key].items())
        parts.append(f'"{key}": {{\n   {tables}}}')
    return "{\n  " + ",\n  ".join(parts) + "\n }"


def _tables(raw: Any, where: str) -> dict[str, Rows]:
    if not isinstance(raw, dict) or not raw:
        raise UserError(f"{where} must be a JSON object with a table or more")
    return {name: _rows(one, f"{where}[{name!r}]") for name, one in raw.items()}


def _rows(raw: Any, where: str) -> Rows:
    fields = _object(raw, where, (*AXES, "ms"), _OPTIONAL)
    points = {axis: _points(fields[axis], f"{where}.{axis}", _LEAST[axis]) for axis in AXES}
    if points["requests"][0] != 1:
        raise UserError(f"{where}.requests must begin with 1: the costs of more are set against those of one")
    shape = tuple(map(len, points.values()))
    try:
        ms_RKX = np.array(fields["ms"], float)
    except MALFORMED:
        ms_RKX = np.zeros(0)
    if ms_RKX.shape != shape or not np.all((ms_RKX >= MIN_MS) & (ms_RKX < MAX_PASS_MS)):
        size = " x ".join(map(str, shape))
        raise UserError(f"{where}.ms must be {size} positive numbers of milliseconds ({BOUNDS_MS})")
    room = fields.get("kv_tokens")
    if room is not None and (type(room) is not int or not 1 <= room < 1e18):
        raise UserError(f"{where}.kv_tokens must be a number of tokens, not {room!r:.40}")
    ms = tuple(tuple(map(tuple, table)) for table in ms_RKX.tolist())
    return Rows(**points, ms=ms, kv_tokens=room)


def _points(raw: Any, where: str, least: int) -> tuple[int, ...]:
    is_fine = isinstance(raw, list) and raw and all(type(one) is int and least <= one < 1e9 for one in raw)
    if not is_fine or any(a >= b for a, b in zip(raw, raw[1:], strict=False)):
        raise UserError(f"{where} must be rising whole numbers from {least} on")
    return tuple(raw)


def _object(raw: Any, where: str, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise UserError(f"{where} must be a JSON object")
    missing = [key for key in needed if key not in raw]
    unknown = [key for key in raw if key not in (*needed, *optional)]
    if missing or unknown:
        what = f"lacks the field {missing[0]!r}" if missing else f"has the unknown field {unknown[0]!r}"
        raise UserError(f"{where} {what}")
    return raw
