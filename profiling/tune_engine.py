"""Compares the graph engine's variants, and cuts of its fused products, on this GPU: where its defaults come from.

    python -m profiling.tune_engine --models Qwen2.5-1.5B Qwen2.5-7B

For each model: passes under several `EngineOptions`, the kernels that a pass spends its
time in, and each product's time under several plans beside the matrix library's. A variant that
fails is reported and left out. The last line on stdout is JSON.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from transformers import PreTrainedModel

from profiling.common import print_json
from profiling.made_models import make_model
from profiling.profile_engine import BLOCK, SUB_BLOCK, measure_copy, timed
from specdec.checkpoints import TARGET
from specdec.config import StrictParser
from specdec.engine.graph_lm import EngineOptions, GraphLM
from specdec.engine.graphs import Graphs
from specdec.engine.network import LibraryProducts, Products, Stream
from specdec.engine.weights import Weights
from specdec.errors import UserError, exit_status
from specdec.models import resolve_device

COUNTS = (1, 8, 16, 32, 64, 96)
VARIANTS = {f"fused_up_to_{limit}": EngineOptions(limit) for limit in (0, 32, 64)}
CONTEXT = 512
KINDS = ("qkv", "output", "gate_up", "down")


def main(arguments: Sequence[str] | None = None) -> int:
    def work() -> None:
        parser = StrictParser(prog="tune_engine", description=__doc__.split("\n")[0])
        parser.add_argument("--models", nargs="+", default=["Qwen2.5-1.5B", "Qwen2.5-7B"])
        parser.add_argument("--skip_plans", action="store_true", help="variants only")
        flags = parser.parse_args(arguments)
        device = resolve_device("auto")
        if device.type != "cuda":
            raise UserError("tune_engine measures GPU kernels: it needs a CUDA device")
        result: dict[str, object] = {"copy_TB_per_s": measure_copy(device) / 1e9}
        for name in flags.models:
            model = make_model(name, TARGET, device, torch.bfloat16)
            result[name] = {"variants": compare_variants(model)}
            if not flags.skip_plans:
                result[name]["plans"] = compare_plans(GraphLM(model))
            del model
        print_json(result, str(device))

    return exit_status("tune_engine", work)


def compare_variants(model: PreTrainedModel) -> dict[str, object]:
    """Per variant: ms of verify(k) and of a denoising pass, and the kernels of three of them."""
    return {name: attempt(lambda how=how: measure_variant(model, how)) for name, how in VARIANTS.items()}


def attempt(measure: Callable[[], object]) -> object:
    """What `measure` returns, or in words why it failed: the other variants go on."""
    try:
        return measure()
    except Exception as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


def measure_variant(model: PreTrainedModel, options: EngineOptions) -> dict[str, object]:
    lm = GraphLM(model, options=options)
    ids = [1 + index % 997 for index in range(CONTEXT + max(COUNTS))]
    lm.forward(ids[:CONTEXT], block_size=BLOCK, keep=[])
    lm.commit(CONTEXT)
    calls: dict[str, Callable[[], object]] = {
        f"verify({k})": lambda k=k: lm.predict(ids[CONTEXT : CONTEXT + k]) for k in COUNTS
    }
    block, sub_block = ids[CONTEXT : CONTEXT + BLOCK], range(SUB_BLOCK)
    calls["denoise"] = lambda: lm.predict(block, block_size=BLOCK, keep=sub_block, never=0)
    found: dict[str, object] = {name: timed(lm, call, 30)["ms"] for name, call in calls.items()}
    for name in ("verify(1)", "denoise", "verify(64)"):
        found[f"kernels of {name}"] = attempt(lambda name=name: kernels_of(calls[name]))
    return found


def kernels_of(call: Callable[[], object], repeats: int = 5) -> dict[str, list[float]]:
    """Kernel -> [launches in a call, mean microseconds of one, total of a call], the costliest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
    times: dict[str, list[float]] = defaultdict(list)
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            times[event.name[:60]].append(event.time_range.elapsed_us())
    table = {name: [len(t) / repeats, statistics.mean(t), sum(t) / repeats] for name, t in times.items()}
    return dict(sorted(table.items(), key=lambda item: -item[1][2])[:12])


def compare_plans(lm: GraphLM) -> dict[str, object]:
    """Product and rows -> plan -> microseconds of one product, over all layers in turn so that no cache holds them."""
    from specdec.engine.products import FusedProducts

    found: dict[str, object] = {}
    for kind, num_rows in product(KINDS, (1, 16, 32, 64)):
        outer, inner, plan_kind = sizes_of(kind, lm.weights)
        run = runner(kind, num_rows, lm.weights)
        times = {"library": attempt(lambda run=run: time_product(run, LibraryProducts(lm._operations), lm))}
        times["default"] = attempt(lambda run=run: time_product(run, FusedProducts(), lm))
        for plan in candidates(plan_kind, inner):
            products = FusedProducts()
            products.plans[plan_kind, num_rows, outer, inner] = plan
            text = f"n{plan.block_n} k{plan.block_k} s{plan.splits} w{plan.num_warps} x{plan.num_stages}"
            times[text] = attempt(lambda run=run, products=products: time_product(run, products, lm))
        numbers = {name: value for name, value in times.items() if isinstance(value, float)}
        found[f"{kind} {num_rows}"] = dict(sorted(numbers.items(), key=lambda item: item[1])[:6]) | {
            name: numbers[name] for name in ("library", "default") if name in numbers
        }
    return found


def sizes_of(kind: str, weights: Weights) -> tuple[int, int, str]:
    """Outer and inner size of a product, and what `plan_product` calls its kind."""
    layer = weights.layers[0]
    matrix = {"qkv": layer.qkv_NC, "output": layer.output_CHD, "gate_up": layer.gate_up_2IC, "down": layer.down_CI}[
        kind
    ]
    outer = len(matrix) // 2 if kind == "gate_up" else len(matrix)
    return outer, matrix.shape[1], {"qkv": "normed", "gate_up": "gated"}.get(kind, "add")


def candidates(plan_kind: str, inner: int) -> Iterator[object]:
    """Plans worth trying; those that do not divide the inner size are left out."""
    from specdec.engine.products import Plan

    choices = {
        "normed": product((16, 32, 64), (128, 256), (1,), (4,), (3, 4)),
        "gated": product((32, 64, 128), (64, 128), (1,), (4, 8), (3, 4)),
        "add": product((16, 32, 64), (128, 256), (1, 2, 3, 6, 8), (4,), (3, 4, 6)),
    }
    for block_n, block_k, splits, num_warps, num_stages in choices[plan_kind]:
        if inner % block_k == 0:
            yield Plan(block_n, block_k, splits, num_warps, num_stages)


def runner(kind: str, num_rows: int, weights: Weights) -> Callable[[Products], None]:
    """A function that does one product of `kind` for every layer."""
    hidden_MC = torch.randn(num_rows, weights.hidden_size, dtype=weights.dtype, device=weights.device)
    wide = sizes_of(kind, weights)[1]
    y_MI = torch.randn(num_rows, wide, dtype=weights.dtype, device=weights.device)

    def run(products: Products) -> None:
        stream = Stream(hidden_MC, weights.norm_C, weights.norm_eps)
        products.begin(stream)
        for layer in weights.layers:
            if kind == "qkv":
                products.normed(stream, layer.qkv_NC, layer.qkv_bias_N)
            elif kind == "gate_up":
                products.gated(stream, layer.gate_up_2IC)
            else:
                products.add(stream, y_MI, layer.output_CHD if kind == "output" else layer.down_CI, weights.norm_C)

    return run


def time_product(run: Callable[[Products], None], products: Products, lm: GraphLM) -> float:
    """Microseconds of one product, by events around replays of a graph over all layers."""
    graphs = Graphs(lm.device)
    with torch.inference_mode():
        graphs.run("all", lambda: run(products))
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(5):
            graphs.run("all", lambda: run(products))
        end.record()
        end.synchronize()
    return 1e3 * begin.elapsed_time(end) / 5 / len(lm.weights.layers)


if __name__ == "__main__":
    sys.exit(main())
