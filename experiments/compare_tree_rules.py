"""Trees by rule against the best fixed number of nodes, tuned on half of the recorded questions. Loads no model.

    python -m experiments.compare_tree_rules TRACE_DIR --latency_profile PROFILE.json --latency_target NAME

Every second trace is for tuning: the number of nodes, the floor of the rule that stops where its drafter is not sure,
and the length of a draft in a row are each the best on that half, by total time. All are reported on the other half
only, with the share of the ceiling; the rule by cost is tuned by nothing. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from itertools import product
from typing import Any

from profiling.common import parser_of, run_command
from specdec.drafters.base import Spec
from specdec.drafters.dflash import DflashStatic
from specdec.drafters.dflash_trees import OFFERS, DflashCostTree, DflashSureTree, DflashTree
from specdec.errors import UserError
from specdec.latency.pricing import price
from specdec.latency.profile import LatencyProfile, load_profile, resolve_target
from specdec.ranking.oracle import Judge
from specdec.traces.calibration import tree_costs
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, find_traces, load_trace

BUDGETS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
FLOORS = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
MOST = (16, 32, 64, 128, 256)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.compare_tree_rules", __doc__)
    parser.add_argument("traces", help="a folder of traces that hold dflash_tree's offers")
    parser.add_argument("--latency_profile", required=True, help="with family_pass_ms of dflash, and verify_ms")
    parser.add_argument("--latency_target", required=True, help="the entry of it to price as")
    return run_command(parser, measure, arguments)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    profile = load_profile(flags.latency_profile)
    entry = resolve_target(profile, flags.latency_target)
    traces = [load_trace(path) for path in find_traces(flags.traces)]
    if len(traces) < 2 or any(OFFERS not in trace.offers for trace in traces):
        raise UserError(f"{flags.traces}: give two traces or more, recorded with --drafters dflash_tree")
    tuned_on, reported = traces[::2], traces[1::2]
    rows = {
        name: tuned(tuned_on, reported, grid, profile, entry) for name, grid in grids(traces[0], profile, entry).items()
    }
    fixed = rows["fixed number of nodes"]["ms"]
    ceiling_ms = sum(Judge(trace, profile, entry).oracle((OFFERS,)).best_ms for trace in reported)
    for row in rows.values():
        times = row.pop("ms")
        row |= {"share_of_ceiling": ceiling_ms / sum(times), "over_fixed": sum(fixed) / sum(times)}
    ids = [[trace.question_id for trace in half] for half in (tuned_on, reported)]
    return {"tuned_on": ids[0], "reported_on": ids[1], "profile": profile.name, "target": entry, "rules": rows}


def grids(trace: Trace, profile: LatencyProfile, entry: str) -> dict[str, list[Spec]]:
    """The settings of which the best on the tuning half is reported."""
    found: dict[str, list[Spec]] = {
        "fixed number of nodes": [DflashTree(nodes) for nodes in BUDGETS],
        "where the drafter is sure": [DflashSureTree(floor, most) for floor, most in product(FLOORS, MOST)],
        "by cost": [DflashCostTree(MOST[-1], f"{entry}@{profile.name}")],
    }
    if "dflash" in trace.chains:
        found["in a row"] = [DflashStatic(length) for length in range(1, trace.offers[OFFERS].depth + 1)]
    return found


def tuned(
    tuned_on: Sequence[Trace], reported: Sequence[Trace], grid: Sequence[Spec], profile: LatencyProfile, entry: str
) -> dict[str, Any]:
    """The best setting on one half, and what it does on the other; `ms`: of each question."""

    def times(traces: Sequence[Trace], spec: Spec) -> list[float]:
        return [price(record, profile, entry).total_ms for record in records(traces, spec)]

    def records(traces: Sequence[Trace], spec: Spec) -> list[Any]:
        sizes = {"slot_top_k": traces[0].offers[OFFERS].size}
        return [replay(trace, spec, sizes, costs=tree_costs(spec, [profile])) for trace in traces]

    best = min(grid, key=lambda spec: sum(times(tuned_on, spec)))
    made = records(reported, best)
    prices = [price(record, profile, entry) for record in made]
    ms = [one.total_ms for one in prices]
    return {
        "drafter": best.name,
        "speedup_ratio": sum(one.baseline_ms for one in prices) / math.fsum(ms),
        "acceptance_len": sum(one.num_output_tokens for one in made) / sum(one.num_rounds for one in made),
        "nodes_per_round": sum(one.num_drafted for one in made) / sum(one.num_rounds for one in made),
        "ms": ms,
    }


if __name__ == "__main__":
    sys.exit(main())
