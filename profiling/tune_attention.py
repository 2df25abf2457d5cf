"""Compares cuts of the attention kernels on this GPU, and then whole passes: where `plans.ATTENTION_PLANS` comes from.

    python -m profiling.tune_attention --model Qwen3-8B --out tuned.json

Attention alone over several numbers of rows and two contexts, by a model's heads and layers; then passes of the whole
model with the best cut for each number of rows, beside the larger of the two limits; then the ways to add a product to
the residual stream. The last line on stdout is JSON, also written to `--out` after each part. `tune_engine.py`
compares cuts of the products.
"""

from __future__ import annotations

import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiling.common import attempt, cuda_device, parser_of, run_command, save_json
from specdec.drafters.flags import positive_int
from specdec.models.checkpoints import TARGET
from specdec.models.graph.plans import FEW_ROWS, TREE_COUNTS, AttentionPlan, plan_attention
from specdec.records.provenance import provenance

if TYPE_CHECKING:
    import torch

    from specdec.models.graph.graph_lm import GraphLM

CONTEXTS = (512, 4096)
# Of a pass: its rows, those that are padding, and whether it is a tree.
ROWS = {
    **{rows: (rows, 0, False) for rows in (1, 16, 64)},
    **{rows: (rows, 0, True) for rows in (96, 256)},
    **{rows: (count, count - rows, True) for rows, count in ((65, 80), (129, 144), (257, 264))},
}
USUAL = "usual"  # what runs without a plan of its own
CHAINS, TREES = (1, 16, 64, 96, 128, 256), (65, 128, 129, 256, 257)
FEW = {
    1: [AttentionPlan(16, 64, 16), AttentionPlan(16, 32, 16), AttentionPlan(16, 64, 8)],
    16: [AttentionPlan(64, 64, 16), AttentionPlan(32, 64, 8), AttentionPlan(64, 64, 8)],
}
MANY = [
    *(AttentionPlan(64, 64, splits, 4, stages) for stages in (2, 3) for splits in (1, 2, 4)),
    *(AttentionPlan(128, 64, splits, 8, stages) for stages in (2, 3) for splits in (1, 2)),
    *(AttentionPlan(64, 32, splits, 4, 3) for splits in (1, 2)),
    *(AttentionPlan(32, 64, splits, 4, 2) for splits in (1, 2)),
    *(AttentionPlan(64, 64, 1, 8, stages) for stages in (2, 3)),
    *(AttentionPlan(32, 32, 1, 2, 3), AttentionPlan(64, 64, 1, 4, 4)),
]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("profiling.tune_attention", __doc__)
    parser.add_argument("--model", default="Qwen3-8B", help="a shape by name")
    parser.add_argument("--out", type=Path, help="a file for the JSON line, written after each part")
    parser.add_argument("--limit_s", type=positive_int, default=30, help="no further cut is tried after so long")
    return run_command(parser, tune, arguments)


def tune(flags: Namespace) -> dict[str, Any]:
    import torch

    from profiling.bench import make_model, measure_copy, measure_products
    from specdec.models.graph.graph_lm import GraphLM

    device = cuda_device("tune_attention")
    found: dict[str, Any] = {"copy_TB_per_s": measure_copy(device) / 1e9}
    found["products_TFLOP_per_s"] = measure_products(device, torch.bfloat16) / 1e9
    found["provenance"] = provenance(device)
    lm = GraphLM(make_model(flags.model, TARGET, device, torch.bfloat16))
    found["attention_us"] = tune_cuts(lm, flags.limit_s)
    _keep(flags, found)
    found["passes"] = time_passes(lm, best_plans(found["attention_us"]), found)
    _keep(flags, found)
    found["residual_us"] = attempt(partial(residual_products, lm))
    _keep(flags, found)
    return found


def _keep(flags: Namespace, found: dict[str, Any]) -> None:
    if flags.out is not None:
        save_json(found, flags.out)


def cut_name(plan: AttentionPlan | None) -> str:
    """Tile's lines, keys of a step, splits, warps, stages: "64 64 1 4 2"."""
    return USUAL if plan is None else " ".join(map(str, astuple(plan)))


def tune_cuts(lm: GraphLM, limit_s: int) -> dict[str, dict[str, list[float]]]:
    """Rows -> cut -> microseconds of a layer's attention at each of `CONTEXTS`, the fastest at the first one first."""
    tables: dict[str, dict[str, list[float]]] = {str(rows): {} for rows in ROWS}
    bench, begin = Attention(lm), time.monotonic()
    asked: list[tuple[AttentionPlan | None, list[int]]] = [(None, list(ROWS))]
    asked += [(plan, [rows for rows in ROWS if rows > FEW_ROWS]) for plan in MANY]
    asked += [(plan, [rows]) for rows, plans in FEW.items() for plan in plans]
    for plan, all_rows in asked:
        if time.monotonic() - begin > limit_s:
            print(f"not tried: {cut_name(plan)}", file=sys.stderr, flush=True)
            continue
        for rows in all_rows:
            times = attempt(partial(bench.times, rows, plan))
            if isinstance(times, dict):  # it does not run: nor with other rows
                break
            tables[str(rows)][cut_name(plan)] = times
    tables = {name: dict(sorted(table.items(), key=lambda item: item[1][0])) for name, table in tables.items()}
    for name, table in tables.items():
        shown = {cut: [round(us, 1) for us in times] for cut, times in [*table.items()][:4]}
        print(f"attention {name} rows: usual {table.get(USUAL)}, best {shown}", file=sys.stderr, flush=True)
    return tables


def best_plans(tables: dict[str, dict[str, list[float]]]) -> dict[int, AttentionPlan]:
    """By rows of the recorded pass, the cut that is the fastest for more than `FEW_ROWS`, both contexts counted alike;
    those whose usual kernels are, are left out."""
    best = {}
    for rows, (count, _, _) in ROWS.items():
        cuts = tables[str(rows)]
        fastest = [min(times) for times in zip(*cuts.values(), strict=True)]
        costs = {name: sum(us / of for us, of in zip(times, fastest, strict=True)) for name, times in cuts.items()}
        name = min(costs, key=costs.__getitem__, default=USUAL)
        if count > FEW_ROWS and name != USUAL:
            best[count] = AttentionPlan(*map(int, name.split()))
    return best


def table_lines(best: dict[int, AttentionPlan], num_heads: int, head_size: int) -> list[str]:
    """The lines of `ATTENTION_PLANS`: passes of at most `FEW_ROWS` rows keep the kernels of few rows, those of more
    lines than were measured take the last cut."""
    counts = sorted(count for count, _, _ in ROWS.values() if count > FEW_ROWS)
    plans = [best.get(count, plan_attention(count * num_heads, head_size)) for count in counts]
    lines = [f"({count * num_heads}, {plan})," for count, plan in zip(counts[:-1], plans, strict=False)]
    return [f"({FEW_ROWS * num_heads}, None),", *lines, f"(inf, {plans[-1]}),"]


class Attention:
    """A layer's attention alone, over caches of its own for every layer, so that none is found in the GPU's."""

    def __init__(self, lm: GraphLM) -> None:
        import torch

        weights = lm.weights
        self._width, self._size, self._device = weights.layers[0].output_CHD.shape[1], weights.head_size, lm.device
        capacity = max(CONTEXTS) + 512
        sizes = (len(weights.layers), 2, weights.num_kv_heads, capacity, weights.head_size)
        self._caches = torch.randn(sizes, dtype=weights.dtype, device=lm.device)
        self._state = torch.tensor([0, 1, 1, -1], device=lm.device)

    def times(self, rows: int, plan: AttentionPlan | None) -> list[float]:
        import torch

        from specdec.models.graph.kernels import GpuOperations

        count, padding, is_tree = ROWS[rows]
        operations = GpuOperations(True)
        operations.attention_plans |= {} if plan is None else {count: plan}
        q_MHD = self._caches.new_empty(count, self._width // self._size, self._size).normal_()
        tree = self._branches(count, count - padding) if is_tree else None

        def run() -> list[torch.Tensor]:
            return [operations.attend(q_MHD, cache, self._state, None, tree) for cache in self._caches]

        found = []
        for context in CONTEXTS:
            self._state[:2] = torch.tensor([context, count - padding])
            found.append(1e3 * replay_ms(self._device, run) / len(self._caches))
        return found

    def _branches(self, count: int, num_rows: int) -> Any:
        from specdec.models.graph.branches import BranchBuffers
        from specdec.models.tree_rows import TreeRows

        buffers = BranchBuffers(count, self._device)
        buffers.send(TreeRows.of([(row - 1) // 2 for row in range(num_rows)]), count)
        return buffers.receive(count)


def replay_ms(device: torch.device, run: Callable[[], object], repeats: int = 5) -> float:
    """The median of replays of `run`, by events."""
    import torch

    from specdec.models.graph.graphs import Graphs

    graphs, times = Graphs(device), []
    for _ in range(2 + repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graphs.run("run", run)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[2:])


def residual_products(lm: GraphLM) -> dict[str, dict[str, float]]:
    """Rows and product -> way -> microseconds: a sum in the library's product; a product and a sum of its own; the
    product alone, also with its factors exchanged."""
    found: dict[str, dict[str, float]] = {}
    for count in TREE_COUNTS[3:]:
        for name in ("output_CHD", "down_CI"):
            matrices = [getattr(layer, name) for layer in lm.weights.layers]
            found[f"{count} {name}"] = _ways(count, matrices)
            print("residual", count, name, found[f"{count} {name}"], file=sys.stderr, flush=True)
    return found


def _ways(count: int, matrices: list[torch.Tensor]) -> dict[str, float]:
    y = matrices[0].new_empty(count, matrices[0].shape[1]).normal_()
    hidden = matrices[0].new_empty(count, len(matrices[0])).normal_()
    product, turned = hidden.clone(), hidden.t().contiguous()
    ways: dict[str, Callable[[torch.Tensor], object]] = {
        "addmm": lambda w: hidden.addmm_(y, w.t()),
        "product, sum": lambda w: hidden.add_(y @ w.t()),
        "product": lambda w: product.addmm_(y, w.t(), beta=0),
        "exchanged": lambda w: turned.addmm_(w, y.t(), beta=0),
    }
    return {
        name: round(1e3 * replay_ms(y.device, partial(_each, way, matrices)) / len(matrices), 2)
        for name, way in ways.items()
    }


def _each(way: Callable[[torch.Tensor], object], matrices: Sequence[torch.Tensor]) -> None:
    for matrix in matrices:
        way(matrix)


def time_passes(lm: GraphLM, best: dict[int, AttentionPlan], rates: dict[str, Any]) -> dict[str, Any]:
    """Ms of whole passes by the usual cuts and by the best ones, with their limits, and kernels of the largest tree."""
    from profiling.bench import timed_in_turn
    from profiling.profile_engine import pass_flops, weight_bytes
    from profiling.tune_engine import kernels_of

    context = CONTEXTS[0]
    lm.forward([1 + index % 997 for index in range(context)], keep=[])
    lm.commit(context)
    calls: dict[str, Callable[[], object]] = {f"chain {k}": partial(lm.predict, [1] * k) for k in CHAINS}
    trees = {k: partial(lm.predict, [1] * k, parents=[(row - 1) // 2 for row in range(k)]) for k in TREES}
    calls |= {f"tree {k}": call for k, call in trees.items()}
    found: dict[str, Any] = {}
    for name in calls:
        rows = int(name.split()[1])
        by_bytes = weight_bytes(lm) / (1e9 * rates["copy_TB_per_s"])
        by_products = pass_flops(lm, rows, rows) / (1e9 * rates["products_TFLOP_per_s"])
        found[name] = {"limit_ms": max(by_bytes, by_products)}
    for how, plans in {USUAL: {}, "best": best}.items():
        lm._operations.attention_plans = plans  # type: ignore[attr-defined]  # a GPU's operations have them
        lm.graphs.clear()
        for name, one in calls.items():
            taken = attempt(partial(timed_in_turn, lm, {"pass": one}, 10))
            found[name][how] = taken["pass"]["ms"] if "pass" in taken else taken
    for name, one in found.items():
        print(name, {key: round(ms, 3) for key, ms in one.items() if isinstance(ms, float)}, file=sys.stderr)
    found["ATTENTION_PLANS"] = table_lines(best, lm.weights.num_heads, lm.weights.head_size)
    print(*found["ATTENTION_PLANS"], sep="\n", file=sys.stderr, flush=True)
    found["kernels of tree 257"] = attempt(partial(kernels_of, trees[257], 3))
    found["kernels of tree 256"] = attempt(partial(kernels_of, trees[256], 3))
    return found


if __name__ == "__main__":
    sys.exit(main())
