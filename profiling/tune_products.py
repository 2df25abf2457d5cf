"""How the graph engine's fused products are cut best on this GPU, each judged by the time of all layers around it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain, product

import torch

from profiling.common import attempt
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.graph.graphs import Graphs
from specdec.models.graph.plans import Plan, plan_product
from specdec.models.graph.products import FusedProducts
from specdec.models.graph.weights import Weights


def compare_plans(lm: GraphLM, count: int) -> dict[str, object]:
    """Product -> plan -> microseconds of all layers over `count` tokens, the fastest first."""
    best: dict[tuple[str, int, int, int], Plan] = {}
    found: dict[str, object] = {}
    for name, (kind, outer, inner) in products_of(lm.weights).items():
        key = (kind, count, outer, inner)
        default = plan_product(outer, inner, kind, lm.weights.dtype.itemsize)
        plans = {default, *candidates(kind, inner)}
        tried = {plan: attempt(partial(time_layers, lm, count, best | {key: plan})) for plan in plans}
        times = {plan: time for plan, time in tried.items() if isinstance(time, float)}
        ranked = sorted(times, key=times.__getitem__)
        best[key] = ranked[0] if ranked else default
        found[name] = {"default": times.get(default)} | {
            f"n{plan.block_n} k{plan.block_k} s{plan.splits} w{plan.num_warps} x{plan.num_stages}": times[plan]
            for plan in ranked[:6]
        }
    return found


def products_of(weights: Weights) -> dict[str, tuple[str, int, int]]:
    """A layer's products: what `plan_product` calls their kind, outer and inner size."""
    layer = weights.layers[0]
    matrices = {
        "query, key, value": ("rotated", layer.qkv_NC),
        "output": ("add", layer.output_CHD),
        "gate, up": ("gated", layer.gate_up_2IC),
        "down": ("add", layer.down_CI),
    }
    return {name: (kind, matrix.shape[0], matrix.shape[1]) for name, (kind, matrix) in matrices.items()}


def candidates(kind: str, inner: int) -> Iterator[Plan]:
    """Plans worth trying; those that do not divide the inner size are left out."""
    whole_lines = ((16,), (128, 256), (1,), (2, 4), (3, 4))
    choices: dict[str, list[tuple[tuple[int, ...], ...]]] = {
        "rotated": [whole_lines, ((64,), (64, 128), (1, 2, 3, 4), (4,), (3, 4, 6))],
        "gated": [((64, 128), (64, 128), (1,), (4, 8), (3, 4))],
        "add": [whole_lines, ((64,), (128, 256), (2, 3, 5, 6), (4,), (4, 6))],
    }
    for block_n, block_k, splits, warps, stages in chain.from_iterable(product(*choice) for choice in choices[kind]):
        plan = Plan(block_n=block_n, block_k=block_k, splits=splits, num_warps=warps, num_stages=stages)
        if inner % plan.block_k == 0:
            yield plan


def time_layers(lm: GraphLM, count: int, plans: dict[tuple[str, int, int, int], Plan]) -> float:
    """Microseconds of the layers over `count` tokens under `plans`, by events around replays."""
    graphs, products = Graphs(lm.weights.device), FusedProducts(lm.options.overlaps)
    products.plans.update(plans)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.inference_mode():
        for repeats in (2, 10):
            begin.record()
            for _ in range(repeats):
                graphs.run("layers", lambda: lm.network.body(count, products))
            end.record()
            end.synchronize()
    return 1e3 * begin.elapsed_time(end) / repeats
