"""Trees by rule against the best fixed number of nodes, tuned on some questions, told of others. Loads no model.

    python -m experiments.compare_tree_rules TUNING_DIR --reported DIR --latency_profile FILE --latency_target NAME

Without `--reported` every second trace is for tuning. The number of nodes, the floor of the rules that stop where their
drafter is not sure, and the length of a draft in a row are each the best on the tuning questions, by total time; the
rule by cost is tuned by nothing. All are told of the other questions only: times over those of the fixed number, with
their interval, and of the fixed number that is best there, which nobody can know; and the share of the ceiling.
`--beside`: traces of the same questions, of other drafters, of which the fastest there stands beside. The last line on
stdout is JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from profiling.common import parser_of, run_command
from specdec.drafters.base import Spec
from specdec.drafters.dflash import DflashStatic
from specdec.drafters.dflash_trees import OFFERS, DflashCostTree, DflashPairsTree, DflashSureTree, DflashTree
from specdec.drafters.eagle3 import Eagle3Static
from specdec.drafters.eagle3_trees import OFFERS as LEVELS
from specdec.drafters.eagle3_trees import Eagle3SureTree, Eagle3Tree
from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.latency.pricing import Price, price
from specdec.latency.profile import LatencyProfile, load_profile, resolve_target
from specdec.ranking.oracle import Judge
from specdec.ranking.statistics import ratio_values
from specdec.records.record import Record
from specdec.traces.calibration import tree_costs
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, find_traces, load_trace

# FailFast at the setting that was the best of many on other questions (docs/results), and fixed lengths.
BESIDE = ("dllm_0.05_df_0.4_60_8_w9", *(f"dllm_0.05_sf_{length}" for length in (6, 8, 10, 11, 12)))
FIXED, IN_A_ROW = "fixed number of nodes", "in a row"
# Passes of trees are padded: 15, 31, ... nodes are the most that cost the same.
BUDGETS = (1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 24, 31, 40, 48, 63, 79, 95, 112, 128, 143, 192, 256)
MOST = (31, 63, 95, 143, 256)
FLOORS = (0.0, 0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.compare_tree_rules", __doc__)
    parser.add_argument("traces", help="a folder of traces that hold dflash_tree's or eagle3_tree's offers")
    parser.add_argument("--reported", help="a folder of others, of the same drafter, that the result is told of")
    parser.add_argument("--beside", help="a folder of traces of the reported questions, of other drafters")
    parser.add_argument("--beside_drafters", nargs="+", default=list(BESIDE), help="their names")
    parser.add_argument("--latency_profile", required=True, help="with family_pass_ms of the head, and verify_ms")
    parser.add_argument("--latency_target", required=True, help="the entry of it to price as")
    return run_command(parser, measure, arguments)


@dataclass(frozen=True)
class Engine:
    """What things cost: a profile and one of its targets."""

    profile: LatencyProfile
    entry: str

    def known(self, budgets: Sequence[int]) -> list[int]:
        """Those whose verification the profile has measured, if it has any: after its last number it is flat."""
        table = self.profile.verify_ms.get(self.entry)
        return [nodes for nodes in budgets if table is None or nodes < max(table)]

    def prices(self, records: Sequence[Record]) -> list[Price]:
        return [price(record, self.profile, self.entry) for record in records]

    def records(self, traces: Sequence[Trace], spec: Spec) -> list[Record]:
        costs = tree_costs(spec, [self.profile])
        return [replay(trace, spec, {"slot_top_k": slots_of(trace)}, costs=costs) for trace in traces]

    def times(self, traces: Sequence[Trace], spec: Spec) -> np.ndarray:
        return np.array([one.total_ms for one in self.prices(self.records(traces, spec))])


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    profile = load_profile(flags.latency_profile)
    engine = Engine(profile, resolve_target(profile, flags.latency_target))
    traces = [load_trace(path) for path in find_traces(flags.traces)]
    others = [load_trace(path) for path in find_traces(flags.reported)] if flags.reported else []
    tuned_on, reported = (traces, others) if others else (traces[::2], traces[1::2])
    if not tuned_on or not reported or not all(trace.offers for trace in (*tuned_on, *reported)):
        raise UserError(f"{flags.traces}: give two traces or more, recorded with --drafters dflash_tree or eagle3_tree")
    rules = {name: told(tuned_on, reported, grid, engine) for name, grid in grids(traces[0], engine).items()}
    fixed_ms = rules[FIXED]["ms"]
    hindsight = min((engine.times(reported, spec) for spec in grids(traces[0], engine)[FIXED]), key=np.sum)
    ceiling_ms = sum(Judge(trace, profile, engine.entry).oracle(tuple(trace.offers)).best_ms for trace in reported)
    times = {name: row.pop("ms") for name, row in rules.items()}
    for name, row in rules.items():
        ms = times[name]
        over = ratio_values(fixed_ms[:, None], ms[:, None])[0]
        row |= {"over_fixed": over.value, "over_fixed_low": over.low, "over_fixed_high": over.high}
        row |= {"over_fixed_in_hindsight": hindsight.sum() / ms.sum(), "share_of_ceiling": ceiling_ms / ms.sum()}
    found = {"tuned_on": len(tuned_on), "reported_on": len(reported), "profile": profile.name, "target": engine.entry}
    beside = {"beside": others_beside(flags, reported, times, engine)} if flags.beside else {}
    return {**found, "rules": rules, **beside}


def others_beside(
    flags: argparse.Namespace, reported: Sequence[Trace], times: Mapping[str, np.ndarray], engine: Engine
) -> dict[str, Any]:
    """The fastest of other drafters on the reported questions, and how much faster each rule is."""
    known = {key_of(trace): trace for trace in map(load_trace, find_traces(flags.beside))}
    missing = [key for key in map(key_of, reported) if key not in known]
    if missing:
        raise UserError(f"{flags.beside}: no trace of question {missing[0][1]} of {missing[0][0]}")
    same = [known[key_of(trace)] for trace in reported]
    ms = {spec.name: engine.times(same, spec) for spec in map(parse_name, flags.beside_drafters)}
    best = min(ms, key=lambda name: float(ms[name].sum()))
    over = {rule: ratio_values(ms[best][:, None], own[:, None])[0] for rule, own in times.items()}
    baseline_ms = engine.profile.target_ms_per_token[engine.entry] * sum(len(trace.output_tokens) for trace in same)
    return {
        "drafter": best,
        "speedup_ratio": baseline_ms / ms[best].sum(),
        "rules_over_it": {rule: [one.value, one.low, one.high] for rule, one in over.items()},
    }


def key_of(trace: Trace) -> tuple[str, int]:
    return trace.identity.dataset, trace.question_id


def slots_of(trace: Trace) -> int:
    """Candidates of a slot that a trace holds; 1 where it holds none."""
    return trace.offers[OFFERS].size if OFFERS in trace.offers else 1


def grids(trace: Trace, engine: Engine) -> Mapping[str, Sequence[Spec]]:
    """The settings of which the best on the tuning questions is told of."""
    return _of_slots(trace, engine) if OFFERS in trace.offers else _of_levels(trace, engine)


def _of_slots(trace: Trace, engine: Engine) -> dict[str, Sequence[Spec]]:
    budgets, bounds = engine.known(BUDGETS), engine.known(MOST) or engine.known(BUDGETS)[-1:]
    found: dict[str, Sequence[Spec]] = {
        FIXED: [DflashTree(nodes) for nodes in budgets],
        "where the drafter is sure": [DflashSureTree(floor, most) for floor, most in product(FLOORS, bounds)],
        "by cost": [DflashCostTree(bounds[-1], f"{engine.entry}@{engine.profile.name}")],
        "tied by pairs, fixed number": [DflashPairsTree(0.0, nodes) for nodes in budgets],
        "tied by pairs, where sure": [DflashPairsTree(floor, most) for floor, most in product(FLOORS, bounds)],
    }
    if "dflash" in trace.chains:
        found[IN_A_ROW] = [DflashStatic(length) for length in range(1, trace.offers[OFFERS].depth + 1)]
    return found


def _of_levels(trace: Trace, engine: Engine) -> dict[str, Sequence[Spec]]:
    name, offers = next(iter(trace.offers.items()))
    levels, top_k = offers.size, int(name.removeprefix(LEVELS))
    sizes = product(range(2, levels + 1), engine.known(BUDGETS[3:14]))
    found: dict[str, Sequence[Spec]] = {
        FIXED: [Eagle3Tree(depth, top_k, nodes) for depth, nodes in sizes],
        "where the drafter is sure": [
            Eagle3SureTree(floor, levels, top_k, most) for floor, most in product(FLOORS[1:], engine.known(MOST[:2]))
        ],
    }
    if "eagle3" in trace.chains:
        found[IN_A_ROW] = [Eagle3Static(length) for length in range(1, trace.chains["eagle3"].chain_len + 1)]
    return found


def told(tuned_on: Sequence[Trace], reported: Sequence[Trace], grid: Sequence[Spec], engine: Engine) -> dict[str, Any]:
    """The setting that is best on the ones, and what it does on the others; `ms`: of each question."""
    best = min(grid, key=lambda spec: float(engine.times(tuned_on, spec).sum())) if len(grid) > 1 else grid[0]
    made = engine.records(reported, best)
    prices, num_rounds = engine.prices(made), sum(one.num_rounds for one in made)
    ms = np.array([one.total_ms for one in prices])
    return {
        "drafter": best.name,
        "speedup_ratio": sum(one.baseline_ms for one in prices) / ms.sum(),
        "speedup_mean": sum(one.speedup for one in prices) / len(prices),
        "acceptance_len": sum(one.num_output_tokens for one in made) / num_rounds,
        "nodes_per_round": sum(one.num_drafted for one in made) / num_rounds,
        "ms": ms,
    }


if __name__ == "__main__":
    sys.exit(main())
