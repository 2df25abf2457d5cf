"""Compares the graph engine's variants, and cuts of its fused products, on this GPU: where its defaults come from.

    python -m profiling.tune_engine --models Qwen2.5-1.5B Qwen2.5-7B

For each model: passes under several `BackendOptions` and the kernels that they spend their time in; then, for layers
over some numbers of tokens, product by product, what other plans make of them: a product is judged in its place, with
its neighbours and the caches as they leave them, and the best plan stays while the next product is tried. Lines to
paste into `plans.MEASURED_PLANS` are printed, and what whole passes gain by them (`planned_passes.py`). Plans worth a
trial are compiled ahead, in threads. A variant that fails is reported and left out. The last line on stdout is JSON.
"""

from __future__ import annotations

import statistics
import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiling.common import attempt, cuda_device, parser_of, run_command, save_json
from profiling.engine_candidates import Key, plan_name, plans_to_try
from profiling.roofline import BLOCK, SUB_BLOCK
from specdec.models.checkpoints import IN_DTYPE, INT8, TARGET
from specdec.models.graph.plans import MAX_NODES, ONE_TILE, BackendOptions, Plan, plan_rows
from specdec.records.provenance import provenance

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from specdec.models.graph.graph_lm import GraphLM
    from specdec.models.graph.weights import Weights

COUNTS = (1, 8, 16, 32, 64, 96)
FUSED = {f"fused_up_to_{limit}": BackendOptions(limit) for limit in (0, 32, 64)}
VARIANTS = FUSED | {"no_overlap": BackendOptions(overlaps=False)}
CONTEXT = 512
TUNED_COUNTS = (1, 16, 32, 64)
GAIN = 0.002  # of the layers' time: less than that is chance
COMPILED_AHEAD = 10  # plans of each product


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("profiling.tune_engine", __doc__)
    parser.add_argument("--models", nargs="+", default=["Qwen2.5-1.5B", "Qwen2.5-7B"])
    parser.add_argument("--skip", choices=("plans", "variants"), help="do without them")
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--target_weights", default=IN_DTYPE, choices=(IN_DTYPE, INT8), help="as failfast.py has it")
    parser.add_argument("--counts", nargs="+", type=int, default=TUNED_COUNTS, help="of tokens, to compare plans over")
    parser.add_argument("--limit_s", type=float, default=inf, help="for all plans, every product its share")
    parser.add_argument("--out", type=Path, help="a file for the JSON line, written after each product")
    return run_command(parser, tune, arguments)


def tune(flags: Namespace) -> dict[str, Any]:
    from profiling.bench import make_model, measure_copy, measure_products
    from specdec.models.int8 import quantised
    from specdec.models.load import resolve_dtype

    device = cuda_device("tune_engine")
    dtype = resolve_dtype(flags.dtype, device)
    speeds = measure_copy(device), measure_products(device, dtype)
    result: dict[str, Any] = {"dtype": flags.dtype, "copy_TB_per_s": speeds[0] / 1e9, "TFLOP_per_s": speeds[1] / 1e9}
    for name in flags.models:
        model = make_model(name, TARGET, device, dtype)
        model = quantised(model, device) if flags.target_weights == INT8 else model
        result[name] = {"plans": {}}
        if flags.skip != "plans":
            tune_plans(model, flags, speeds, result[name]["plans"], lambda: _keep(flags, result))
        variants = {} if flags.skip == "variants" else VARIANTS
        result[name]["variants"] = {one: attempt(partial(measure_variant, model, how)) for one, how in variants.items()}
        del model
        _keep(flags, result)
    return result | {"provenance": provenance(device)}


def _keep(flags: Namespace, result: dict[str, Any]) -> None:
    if flags.out is not None:
        save_json(result, flags.out)


def measure_variant(model: PreTrainedModel, options: BackendOptions) -> dict[str, Any]:
    """Ms of verify(k) and of a denoising pass, and the kernels of three of them."""
    from profiling.bench import timed_in_turn

    lm, draft = after_context(model, options), token_ids()[CONTEXT:]
    calls: dict[str, Callable[[], object]] = {f"verify({k})": partial(lm.predict, draft[:k]) for k in COUNTS}
    block, sub_block = draft[:BLOCK], range(SUB_BLOCK)
    calls["denoise"] = lambda: lm.predict(block, block_size=BLOCK, keep=sub_block, never=0)
    found: dict[str, Any] = {name: figures["ms"] for name, figures in timed_in_turn(lm, calls, 30).items()}
    for name in ("verify(1)", "denoise", "verify(64)"):
        found[f"kernels of {name}"] = attempt(partial(kernels_of, calls[name]))
    return found


def kernels_of(call: Callable[[], object], repeats: int = 5) -> dict[str, list[float]]:
    """Kernel -> [launches in a call, mean microseconds of one, total of a call], the costliest first.

    Kernels that overlap count their waiting too: compare those of "no_overlap".
    """
    import torch

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


def token_ids() -> list[int]:
    """A context, and the longest draft after it."""
    return [1 + index % 997 for index in range(CONTEXT + 1 + MAX_NODES)]


def after_context(model: PreTrainedModel, options: BackendOptions | None = None) -> GraphLM:
    """The engine with `CONTEXT` committed tokens."""
    from specdec.models.graph.graph_lm import GraphLM

    lm = GraphLM(model, options=options)
    lm.forward(token_ids()[:CONTEXT], block_size=BLOCK, keep=[])
    lm.commit(CONTEXT)
    return lm


def tune_plans(
    model: PreTrainedModel,
    flags: Namespace,
    speeds: tuple[float, float],
    found: dict[str, Any],
    keep: Callable[[], None],
) -> None:
    """Into `found`, count by count; `keep` is called after each product and each count."""
    from profiling.planned_passes import measure_passes

    lm, end = after_context(model), time.monotonic() + flags.limit_s
    compile_ahead(lm, flags.counts, end)
    for index, count in enumerate(flags.counts):
        draft = token_ids()[CONTEXT : CONTEXT + count]
        lm.predict(draft)  # what is recorded from now on reads these inputs
        until = time.monotonic() + (end - time.monotonic()) / (len(flags.counts) - index)
        best: dict[Key, Plan] = {}
        found[str(count)] = {}
        for name, one in compare_plans(lm, count, until, best):
            found[str(count)][name] = one
            keep()
        found[str(count)]["difference"] = attempt(partial(difference, lm, count, best))
        found[str(count)]["passes"] = attempt(partial(measure_passes, lm, draft, best, speeds))
        print(f"passes of {count}:", found[str(count)]["passes"], file=sys.stderr, flush=True)
        keep()


def compile_ahead(lm: GraphLM, counts: Sequence[int], end: float) -> None:
    """Launch, in threads, the first plans of each product for each number of rows: later launches find them compiled.
    What does not compile fails again where it is tried; after `end` none begins."""
    import torch

    def launch(name: str, key: Key, plan: Plan | None) -> None:
        with suppress(Exception), torch.cuda.device(lm.device):
            if plan is not None and time.monotonic() < end:
                run_product(lm, name, key, plan)

    lm.predict(token_ids()[CONTEXT:][:1])  # keys go where this one's did, after the context
    with ThreadPoolExecutor() as pool:
        for count in counts:
            for name, (kind, outer, inner) in products_of(lm.weights, count).items():
                key = (kind, count, outer, inner)
                for plan in islice(plans_to_try(lm.weights, key), 1, 1 + COMPILED_AHEAD):
                    pool.submit(launch, name, key, plan)
    torch.cuda.synchronize(lm.device)


def run_product(lm: GraphLM, name: str, key: Key, plan: Plan) -> None:
    """One product of the first layer by a plan; what it leaves in the cache, the next pass writes over."""
    import torch

    from specdec.models.graph.network import Place, Stream
    from specdec.models.graph.products import FusedProducts

    layer, buffers, products = lm.weights.layers[0], lm.network.buffers, FusedProducts(lm.options.overlaps)
    products.plans[key] = plan
    with torch.inference_mode():
        stream = Stream(buffers.hidden_MC[: key[1]].clone(), layer.attention_norm_C, lm.weights.norm_eps)
        products.begin(stream)
        if name == "query, key, value":
            place = Place(buffers.rotary_2PE, buffers.cache_L2GPD[0], buffers.state, layer.head_norms_2D)
            products.queries(stream, layer.qkv_NC, layer.qkv_bias_N, place)
        elif name == "gate, up":
            products.gated(stream, layer.gate_up_2IC)
        else:
            w_CI = layer.down_CI if name == "down" else layer.output_CHD
            products.add(stream, stream.hidden_MC.new_ones(key[1], key[3]), w_CI, layer.mlp_norm_C)


def difference(lm: GraphLM, count: int, plans: dict[Key, Plan]) -> dict[str, float]:
    """How far `plans` take the logits from those by the usual ones, of their own length: of a chain, and of a tree."""
    from specdec.models.graph.products import FusedProducts

    usual, other, draft = lm._fused, FusedProducts(lm.options.overlaps), token_ids()[CONTEXT : CONTEXT + count]
    other.plans.update(plans)
    found = {}
    for name, parents in {"chain": None, "tree": [(row - 1) // 2 for row in range(count)]}.items():
        logits = []
        for products in (other, usual):
            lm._fused = products
            lm.graphs.clear()
            logits.append(lm.forward(draft, parents=parents).float())
        found[name] = ((logits[0] - logits[1]).norm() / logits[1].norm()).item()
    print(count, "difference", found, file=sys.stderr, flush=True)
    return found


def compare_plans(lm: GraphLM, count: int, until: float, best: dict[Key, Plan]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each product's plans with the microseconds of all layers over `count` tokens, the fastest first, and the line of
    `MEASURED_PLANS` that is worth having; `best` collects them. No plan is tried after its product's share of the time.
    Of many rows, where a fused product gains by fused neighbours, those that stayed usual have a second turn.
    """
    products = {
        name: (kind, count, outer, inner) for name, (kind, outer, inner) in products_of(lm.weights, count).items()
    }
    again = ((f"{name}, again", key) for name, key in products.items() if count > ONE_TILE and key not in best)
    for index, (name, key) in enumerate(chain(products.items(), again)):
        end = time.monotonic() + (until - time.monotonic()) / max(1, len(products) - index)
        times = timed_plans(lm, best, key, end)
        usual_us = times.get(None, inf)
        ranked = sorted((plan for plan in times if plan is not None), key=times.__getitem__)
        one: dict[str, Any] = {"usual": usual_us} | {plan_name(plan): times[plan] for plan in ranked[:6]}
        if ranked and times[ranked[0]] < usual_us * (1 - GAIN):
            best[key] = ranked[0]
            one |= table_line(lm.weights, key, ranked[0])
        print(count, name, one, file=sys.stderr, flush=True)
        yield name, one


def table_line(weights: Weights, key: Key, plan: Plan) -> dict[str, str]:
    """The line of `MEASURED_PLANS` by which the engine takes a plan; none for values that it has no plans of."""
    kind, count, outer, inner = key
    if weights.is_int8 or weights.dtype.itemsize != 2:
        return {}
    return {"MEASURED_PLANS": f"{(kind, plan_rows(count), outer, inner)}: {plan},"}


def timed_plans(lm: GraphLM, best: dict[Key, Plan], key: Key, end: float) -> dict[Plan | None, float]:
    """Microseconds of the layers by plan of the product `key`, those that run; None: what is usual, measured first."""
    times: dict[Plan | None, float] = {}
    for plan in plans_to_try(lm.weights, key):
        if plan is not None and time.monotonic() > end:
            print(f"not tried: {key} {plan_name(plan)}", file=sys.stderr, flush=True)
            continue
        found = attempt(partial(time_layers, lm, key[1], best if plan is None else best | {key: plan}))
        if isinstance(found, float):
            times[plan] = found
    return times


def products_of(weights: Weights, count: int) -> dict[str, tuple[str, int, int]]:
    """A layer's products over `count` rows that have plans: what those call their kind, outer and inner size."""
    layer, is_many = weights.layers[0], count > ONE_TILE
    if is_many and weights.is_int8:
        return {}
    is_head = layer.head_norms_2D is not None or is_many
    kind = "rotated" if not is_head else "scaled" if weights.is_int8 else "heads"
    matrices = {
        "query, key, value": (kind, layer.qkv_NC),
        "output": ("add", layer.output_CHD),
        "gate, up": ("gated", layer.gate_up_2IC),
        "down": ("add", layer.down_CI),
    }
    return {name: (kind, matrix.shape[0], matrix.shape[1]) for name, (kind, matrix) in matrices.items()}


def time_layers(lm: GraphLM, count: int, plans: dict[Key, Plan]) -> float:
    """Microseconds of the layers over `count` tokens under `plans`, by events around replays."""
    import torch

    from specdec.models.graph.graphs import Graphs
    from specdec.models.graph.products import FusedProducts  # needs Triton, which comes with CUDA's torch

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


if __name__ == "__main__":
    sys.exit(main())
