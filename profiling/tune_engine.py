"""Compares the graph engine's variants, and cuts of its fused products, on this GPU: where its defaults come from.

    python -m profiling.tune_engine --models Qwen2.5-1.5B Qwen2.5-7B

For each model: passes under several `BackendOptions` and the kernels that they spend their time in; then, for layers
over some numbers of tokens, product by product, what other plans make of them: a product is judged in its place, with
its neighbours and the caches as they leave them, and the best plan stays while the next product is tried. A variant
that fails is reported and left out. The last line on stdout is JSON.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from profiling.common import attempt, cuda_device, parser_of, print_json
from profiling.made_models import make_model
from profiling.shapes import BLOCK, SUB_BLOCK
from profiling.timing import measure_copy, timed_in_turn
from specdec.errors import exit_status
from specdec.models.checkpoints import TARGET
from specdec.models.graph.graph_lm import BackendOptions, GraphLM
from specdec.models.load import resolve_dtype

COUNTS = (1, 8, 16, 32, 64, 96)
FUSED = {f"fused_up_to_{limit}": BackendOptions(limit) for limit in (0, 32, 64)}
VARIANTS = FUSED | {"no_overlap": BackendOptions(overlaps=False)}
CONTEXT = 512
TUNED_COUNTS = (1, 16, 32, 64)


def main(arguments: Sequence[str] | None = None) -> int:
    def work() -> None:
        parser = parser_of("tune_engine", __doc__)
        parser.add_argument("--models", nargs="+", default=["Qwen2.5-1.5B", "Qwen2.5-7B"])
        parser.add_argument("--skip_plans", action="store_true", help="variants only")
        parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
        flags = parser.parse_args(arguments)
        device = cuda_device("tune_engine")
        result: dict[str, Any] = {"dtype": flags.dtype, "copy_TB_per_s": measure_copy(device) / 1e9}
        for name in flags.models:
            model = make_model(name, TARGET, device, resolve_dtype(flags.dtype, device))
            result[name] = {"variants": compare_variants(model)}
            if not flags.skip_plans:
                result[name]["plans"] = tune_plans(model)
            del model
        print_json(result, str(device))

    return exit_status("tune_engine", work)


def compare_variants(model: PreTrainedModel) -> dict[str, Any]:
    """Per variant: ms of verify(k) and of a denoising pass, and the kernels of three of them."""
    return {name: attempt(partial(measure_variant, model, how)) for name, how in VARIANTS.items()}


def measure_variant(model: PreTrainedModel, options: BackendOptions) -> dict[str, Any]:
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
    return [1 + index % 997 for index in range(CONTEXT + max(COUNTS))]


def after_context(model: PreTrainedModel, options: BackendOptions | None = None) -> GraphLM:
    """The engine with `CONTEXT` committed tokens."""
    lm = GraphLM(model, options=options)
    lm.forward(token_ids()[:CONTEXT], block_size=BLOCK, keep=[])
    lm.commit(CONTEXT)
    return lm


def tune_plans(model: PreTrainedModel) -> dict[str, Any]:
    """See tune_products: for each number of tokens."""
    from profiling.tune_products import compare_plans  # needs Triton, which comes with CUDA's torch

    lm = after_context(model)
    found: dict[str, Any] = {}
    for count in TUNED_COUNTS:
        lm.predict(token_ids()[CONTEXT : CONTEXT + count])  # what is recorded from now on reads these inputs
        found[str(count)] = compare_plans(lm, count)
    return found


if __name__ == "__main__":
    sys.exit(main())
