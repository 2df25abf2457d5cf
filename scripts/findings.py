"""Findings: what a new user met in the first hour, as a table from the list in docs/results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.cells import result, table

NAME = "2026-11-28-first-hour"


def findings() -> str:
    """A row a finding, with its commits and tests."""
    rows = [_row(one) for one in result(NAME)["findings"]]
    return table(("finding", "what was wrong", "now", "commits", "tests"), rows)


def _row(one: Mapping[str, Any]) -> list[str]:
    now = f"{one['state']}: {one['note']}" if "note" in one else one["state"]
    tests = ", ".join(f"`{name.rpartition('/')[2]}`" for name in one["tests"])
    return [one["finding"], one["wrong"], now, " ".join(one["commits"]), tests]
