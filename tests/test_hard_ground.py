"""The list of faults in docs/results: every test that it names is there."""

from __future__ import annotations

import ast
import json
from functools import cache

from sources import ROOT

LISTED = json.loads((ROOT / "docs/results/2026-11-28-hard-ground.json").read_text("utf-8"))


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_case_names_tests_that_exist() -> None:
    assert len(LISTED["cases"]) == LISTED["num_cases"] == len({one["case"] for one in LISTED["cases"]})
    for case in LISTED["cases"]:
        assert case["tests"] and case["now"] and case["kind"]
        for name in case["tests"]:
            file, _, test = name.partition("::")
            assert test in names_in(file), name
