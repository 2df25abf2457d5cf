"""Whole passes with plans of one's own beside those of the engine: the last word on what `tune_engine.py` finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from profiling.bench import timed_in_turn
from profiling.profile_engine import pass_flops, weight_bytes
from specdec.models.graph.graph_lm import TOKEN_COUNTS, GraphLM
from specdec.models.graph.graphs import Graphs
from specdec.models.graph.network import Products
from specdec.models.graph.plans import TREE_COUNTS

if TYPE_CHECKING:
    from profiling.engine_candidates import Key
    from specdec.models.graph.plans import Plan

USUAL, BEST = "usual", "best"
REPEATS = 20


@dataclass(frozen=True)
class Way:
    """How passes are run: recordings of their own, and products."""

    graphs: Graphs
    products: Products | None

    def run(self, lm: GraphLM, call: Callable[[], object]) -> None:
        lm.graphs, lm._fused = self.graphs, self.products
        call()


def ways_of(lm: GraphLM, plans: dict[Key, Plan]) -> dict[str, Way]:
    """As the engine's tables say, and by `plans`."""
    from specdec.models.graph.products import FusedProducts  # needs Triton

    ways = {}
    for name, its in {USUAL: {}, BEST: plans}.items():
        products = FusedProducts(lm.options.overlaps)
        products.plans.update(its)
        ways[name] = Way(Graphs(lm.device), products)
    return ways


def measure_passes(
    lm: GraphLM, draft: list[int], plans: dict[Key, Plan], speeds: tuple[float, float]
) -> dict[str, dict[str, float]]:
    """Ms of passes over `draft`, a chain and a tree, where the engine records one of as many rows: medians by way, the
    larger of the two limits, and how far over it each is. `speeds`: bytes a ms of memory, FLOP a ms of arithmetic."""
    count, before = len(draft), Way(lm.graphs, lm._fused)
    shapes = {"chain": (TOKEN_COUNTS, None), "tree": (TREE_COUNTS, [(row - 1) // 2 for row in range(count)])}
    limit_ms = max(weight_bytes(lm) / speeds[0], pass_flops(lm, count, count) / speeds[1])
    found: dict[str, dict[str, float]] = {}
    for name, (counts, parents) in shapes.items():
        if count in counts:
            call = partial(lm.predict, draft, parents=parents)
            ways = ways_of(lm, plans).items()
            calls: dict[str, Callable[[], object]] = {way: partial(how.run, lm, call) for way, how in ways}
            times = {way: figures["ms"] for way, figures in timed_in_turn(lm, calls, REPEATS).items()}
            over = {f"{way}, over the limit": ms / limit_ms for way, ms in times.items()}
            found[name] = {f"{way}_ms": ms for way, ms in times.items()} | {"limit_ms": limit_ms} | over
    before.run(lm, lambda: None)
    return found
