"""Trees under load: what they take beside passes, each request its own; one at a time costs what pricing says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from samples import make_record, make_round
from test_load import AR, alone, costs, profile, recorded

from specdec.latency.load import serve
from specdec.latency.pricing import price
from specdec.latency.profile import LatencyProfile
from specdec.latency.rows import RowTables
from specdec.latency.serving import Plan
from specdec.latency.tree_costs import TreeCosts
from specdec.ranking.load_study import Asked, Study
from specdec.ranking.load_table import FIXED
from specdec.ranking.requests import requests_of
from specdec.records.record import Record
from specdec.views.load_text import load_text, load_title, tree_line


def of_trees(num_questions: int = 3) -> list[Record]:
    """Trees of a head, of a hybrid and of the text, some of which do not branch, and drafts in a row."""
    branching, made = {"draft_parents": [-1, 0, 0, 1], "accepted_path": [0, 2]}, []
    for name in ("dflash_tree_8", "lookup_3_sf_10_else_dflash_tree_8", "dflash_sf_4", "lookup_3_tree_4", AR):
        branches = branching if "tree" in name else {}
        turns = [make_round(3, (5, 6, 7, 8), 2, num_denoise_passes=1, **branches), make_round(6, (8,), 1)]
        copied = make_round(8, (5, 6, 7, 8), 0, num_denoise_passes=0)
        made += [make_record(number, name, [*turns[number % 2 :], copied]) for number in range(num_questions)]
    return made


def with_trees() -> LatencyProfile:
    """`profile`, of a head's passes too, and of trees, which take more than those."""
    own = profile()
    assert own.rows is not None
    rows = RowTables(0, own.rows.verify, {"ar": own.rows.passes["ar"], "dflash": own.rows.passes["ar"],
                                          "block": own.rows.passes["ar"]})  # fmt: skip
    trees = {"t": TreeCosts({1: 15.0, 8: 30.0}, {"dflash": {1: 3.0, 8: 5.0}})}
    return LatencyProfile(**vars(own) | {"rows": rows, "trees": trees, "family_pass_ms": {"dflash": 2.0}})


def test_one_tree_at_a_time_takes_what_pricing_says():
    """More than a draft in a row, and to as many digits."""
    ours, theirs = alone(of_trees(), with_trees(), "t", 0)
    assert ours == pytest.approx(theirs, rel=1e-9, abs=0)
    in_a_row, _ = alone(of_trees(), LatencyProfile(**vars(with_trees()) | {"trees": {}}), "t", 0)
    is_more = np.reshape(np.array(ours) > np.array(in_a_row) + 1e-6, (5, 3)).any(1)
    assert is_more.tolist() == [True, True, False, True, False]


def test_each_request_of_a_step_adds_what_its_tree_takes_beside_passes():
    rounds, plan = [[(1, 3, 1, 2)], [(2, 3, 0, 1)]], Plan(2, 2, np.array([[0, 1]]), np.zeros(1, int), np.array([1, 1]))
    plan = replace(plan, arrivals_BN=np.zeros((1, 2)))
    times = [serve(plan, recorded(rounds, beside_ms=np.array(ms)), costs(2)).time_ms_B[0] for ms in ((0, 0), (4, 0.5))]
    assert times[1] - times[0] == pytest.approx(4.5)


def test_a_table_at_one_request_has_the_price_of_its_trees():
    records = of_trees(1)
    study = Study(requests_of(records), with_trees(), "t", Asked(concurrency=(1, 2), context=0))
    alone, two = study.tables()
    for record in records:
        row, priced = alone.row(record.drafter_name, FIXED), price(record, with_trees(), "t")
        assert row is not None and row.number("tpot_ms_p50") == pytest.approx(
            priced.total_ms / record.num_output_tokens
        )
    assert alone.row("dflash_tree_8", FIXED).number("tpot_ms_p50") < two.row("dflash_tree_8", FIXED).number(
        "tpot_ms_p50"
    )
    (line,) = tree_line(study)
    assert "Trees: a round takes" in line and "ms more than its passes" in line and line in load_text(study, [alone])
    assert load_title(study).endswith(line.rstrip("."))
    assert tree_line(replace(study, profile=LatencyProfile(**vars(with_trees()) | {"trees": {}}))) == []
