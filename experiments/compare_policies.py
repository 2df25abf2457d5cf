"""The cost-aware policy against FailFast at its best tau, tuned on half of the recorded questions. Loads no model.

    python -m experiments.compare_policies TRACE_DIR [TRACE_DIR ...]

Every second trace of each folder is for tuning. For each target of the profile: FailFast's tau (N 10, N_max 60, first
window 10, as published), FailFast's tau, N and first window together, and a static length, each the best on the tuning
half; the cost-aware policy is calibrated there. All are reported on the other half only. The last line is JSON.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from profiling.common import parser_of, run_command
from specdec.commands.calibrate import chosen_half, learn
from specdec.decoding.cost_aware import Advice, Calibration
from specdec.drafters.base import Spec
from specdec.drafters.block_diffusion import CostAware, DllmStatic, FailFast
from specdec.latency.asked import PricingConfig
from specdec.latency.pricing import price
from specdec.latency.profile import LatencyProfile, load_profile
from specdec.ranking.oracle import Judge
from specdec.traces.calibration import costs_of
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, find_traces, load_trace

THRESHOLD, CHAINS = 0.05, "dllm_0.05"
TAUS = tuple(percent / 100 for percent in range(5, 100, 5))


def grids() -> dict[str, list[Spec]]:
    """What the cost-aware policy is compared with: the best of each."""
    windows = product(TAUS[1::2], (8, 10), (3, 5, 8, 10))
    return {
        "failfast, best tau": [FailFast(THRESHOLD, tau, 60, 10) for tau in TAUS],
        "failfast, best tau, N and first window": [
            FailFast(THRESHOLD, tau, 60, step, first_window=first) for tau, step, first in windows
        ],
        "static, best length": [DllmStatic(THRESHOLD, length) for length in range(1, 21)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.compare_policies", __doc__)
    parser.add_argument("traces", nargs="+", help="folders of traces, one per data set")
    parser.add_argument("--latency_profile", default=PricingConfig.latency_profile[0], help="default: %(default)s")
    return run_command(parser, measure, arguments)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """Per folder and target: the policies' times on the reported half, and the cost-aware policy's ratio to each."""
    profile, result = load_profile(flags.latency_profile), {}
    for folder in flags.traces:
        traces = [load_trace(path) for path in find_traces(folder)]
        tuned_on = chosen_half(traces)
        ids = {trace.question_id for trace in tuned_on}
        reported = [trace for trace in traces if trace.question_id not in ids]
        calibration = learn(tuned_on, CHAINS, [profile])
        result[Path(folder).name] = {
            "tuned_on": sorted(ids),
            "reported_on": [trace.question_id for trace in reported],
            "reliability": calibration.reliability,
            "targets": {
                entry: compare(tuned_on, reported, Engine(profile, entry), advice_for(calibration, profile, entry))
                for entry in profile.target_ms_per_token
            },
        }
    return {"what": "cost-aware policy against the best of others, tuned and reported on halves", "data": result}


def advice_for(calibration: Calibration, profile: LatencyProfile, entry: str) -> Advice:
    spec = CostAware(THRESHOLD, 60, f"{entry}@{profile.name}")
    pass_ms, verify_ms = costs_of(spec, profile)
    return Advice(calibration, pass_ms=pass_ms, verify_ms=verify_ms, rate=calibration.rates[spec.pricing])


class Engine:
    """What things cost: a profile and one of its targets."""

    def __init__(self, profile: LatencyProfile, entry: str) -> None:
        self.profile, self.entry = profile, entry

    def summary(self, traces: Sequence[Trace], spec: Spec, advice: Advice | None = None) -> dict[str, Any]:
        records = [replay(trace, spec, advice=advice) for trace in traces]
        prices = [price(record, self.profile, self.entry) for record in records]
        total_ms = sum(one.total_ms for one in prices)
        return {
            "drafter": spec.name,
            "total_ms": total_ms,
            "speedup_ratio": sum(one.baseline_ms for one in prices) / total_ms,
            "speedup_mean": sum(one.speedup for one in prices) / len(prices),
            "passes_per_round": sum(r.num_forward_passes for r in records) / sum(r.num_rounds for r in records),
            "acceptance_rate": sum(r.num_accepted for r in records) / sum(r.num_drafted for r in records),
        }

    def ceiling_ms(self, traces: Sequence[Trace], names: tuple[str, ...] | None = None) -> float:
        """The clairvoyant's time with these drafters, or with all that were recorded."""
        return sum(
            Judge(trace, self.profile, self.entry).oracle(names or tuple(sorted(trace.chains))).best_ms
            for trace in traces
        )


def compare(tuned_on: Sequence[Trace], reported: Sequence[Trace], engine: Engine, advice: Advice) -> dict[str, Any]:
    own = engine.summary(reported, CostAware(THRESHOLD, 60, f"{engine.entry}@{engine.profile.name}"), advice)
    rows = {"cost-aware": own}
    for name, grid in grids().items():
        best = min(grid, key=lambda spec: engine.summary(tuned_on, spec)["total_ms"])
        row = engine.summary(reported, best)
        row["cost_aware_ratio_of_sums"] = row["total_ms"] / own["total_ms"]
        row["cost_aware_ratio_of_means"] = own["speedup_mean"] / row["speedup_mean"]
        if isinstance(best, FailFast):
            row |= {"tau": best.tau, "N": best.draft_step, "first_window": best.first_window}
        rows[name] = row
    ceilings = {"own_drafter": engine.ceiling_ms(reported, (CHAINS,)), "all_drafters": engine.ceiling_ms(reported)}
    for row in rows.values():
        row["share_of_ceiling"] = {name: ms / row["total_ms"] for name, ms in ceilings.items()}
    return rows


if __name__ == "__main__":
    sys.exit(main())
