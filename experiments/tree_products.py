"""Fused products or the library's for passes over trees: which is faster at how many rows, on this GPU.

    python -m experiments.tree_products --targets Qwen3-8B

Every size of a tree's pass is timed both ways, by turns; of more than 64 rows those products are fused that a plan was
measured for. The last line on stdout is JSON.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from profiling.common import attempt, cuda_device, machine, parser_of, run_command
from profiling.profile_engine import Settings, begin_text, make_lm
from specdec.drafters.flags import positive_int
from specdec.models.checkpoints import TARGET
from specdec.models.graph.plans import TREE_COUNTS, BackendOptions

if TYPE_CHECKING:
    from specdec.models.graph.graph_lm import GraphLM

CONTEXT = 512


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.tree_products", __doc__)
    parser.add_argument("--targets", nargs="+", default=["Qwen3-8B"], help="shapes by name")
    parser.add_argument("--repeats", type=positive_int, default=40)
    return run_command(parser, measure, arguments)


def measure(flags: Namespace) -> dict[str, Any]:
    import torch

    from specdec.models.graph.graph_lm import GraphLM

    device = cuda_device("tree_products")
    found: dict[str, Any] = {}
    for target in flags.targets:
        lm = make_lm(target, TARGET, Settings(device, torch.bfloat16, "graph", 0))
        assert isinstance(lm, GraphLM)
        begin_text(lm, CONTEXT)
        found[target] = {str(count): measure_count(lm, count, flags.repeats) for count in TREE_COUNTS}
    return {"what": "ms of a pass over a tree, products fused or the library's", "ms": found, **_here(device)}


def _here(device: Any) -> dict[str, Any]:
    return {"provenance": machine(device)}


def measure_count(lm: GraphLM, count: int, repeats: int) -> dict[str, Any]:
    """Medians of both, and which is faster; one that does not run says why."""
    from profiling.bench import timed_in_turn

    parents = [(row - 1) // 2 for row in range(count)]
    made: dict[str, Any] = {}
    for name, limit in {"library": 0, "fused": count}.items():
        lm.options, call = BackendOptions(limit), partial(lm.predict, [1] * count, parents=parents)
        lm.graphs.clear()
        made[name] = attempt(partial(timed_in_turn, lm, {"pass": call}, repeats))
    known = {name: one["pass"]["ms"] for name, one in made.items() if "pass" in one}
    return {**{name: known.get(name, made[name]) for name in made}, "faster": min(known, key=known.__getitem__)}


if __name__ == "__main__":
    sys.exit(main())
