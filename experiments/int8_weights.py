"""A target's layers in 8 bits against bfloat16, on a GPU: ms of a pass of some tokens, beside the time that reading the
weights takes, and the memory that it needs.

    python -m experiments.int8_weights --models Qwen3-8B Qwen2.5-32B --full Qwen3-8B

Shapes by name, random weights, batch 1. A model is made where it runs, matrix by matrix, so that the memory at most is
that of the model as it is kept. The last line on stdout is JSON.
"""

from __future__ import annotations

import gc
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from profiling.common import cuda_device, parser_of, run_command
from profiling.roofline import OTHERS, SHAPES
from specdec.models.checkpoints import IN_DTYPE, INT8, TARGET
from specdec.records.provenance import provenance

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from specdec.models.graph.graph_lm import GraphLM

COUNTS = (1, 16, 64, 96)
CONTEXT = 512
SPREAD = 0.02  # of random weights, as models of this size begin


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.int8_weights", __doc__)
    known = (*SHAPES, *OTHERS)
    parser.add_argument("--models", nargs="+", default=["Qwen3-8B", "Qwen2.5-32B"], choices=known, help="in 8 bits")
    parser.add_argument("--full", nargs="*", default=["Qwen3-8B"], choices=known, help="those in bfloat16 as well")
    parser.add_argument("--repeats", type=int, default=40)
    return run_command(parser, measure, arguments)


def measure(flags: Namespace) -> dict[str, Any]:
    """By model and how its weights are kept."""
    from profiling.bench import measure_copy

    device = cuda_device("int8_weights")
    copy_bytes_per_ms = measure_copy(device)
    found: dict[str, Any] = {"copy_TB_per_s": copy_bytes_per_ms / 1e9}
    for name in flags.models:
        ways = (IN_DTYPE, INT8) if name in flags.full else (INT8,)
        found[name] = {how: measured(name, how, device, (copy_bytes_per_ms, flags.repeats)) for how in ways}
        print(name, {how: one["ms"] for how, one in found[name].items()}, file=sys.stderr, flush=True)
    return found | {"provenance": provenance(device)}


def measured(name: str, how: str, device: torch.device, bench: tuple[float, int]) -> dict[str, Any]:
    """Memory, and every pass in ms and over its limit by bandwidth; `bench`: bytes a ms of a copy, and repeats."""
    import torch

    from profiling.bench import timed_in_turn
    from profiling.profile_engine import weight_bytes
    from specdec.models.graph.graph_lm import GraphLM

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    lm = GraphLM(random_model(name, how, device))
    loaded = torch.cuda.max_memory_allocated(device)
    ids = [1 + index % 997 for index in range(CONTEXT + max(COUNTS))]
    error = difference(lm, ids[: max(COUNTS)])
    lm.forward(ids[:CONTEXT], keep=[])
    lm.commit(CONTEXT)
    calls: dict[str, Callable[[], object]] = {str(k): partial(lm.predict, ids[CONTEXT : CONTEXT + k]) for k in COUNTS}
    times = timed_in_turn(lm, calls, bench[1])
    limit_ms = weight_bytes(lm) / bench[0]
    return {
        "ms": {count: figures["ms"] for count, figures in times.items()},
        "over_limit": {count: figures["ms"] / limit_ms for count, figures in times.items()},
        "limit_ms": limit_ms,
        "read_GB": weight_bytes(lm) / 1e9,
        "memory_to_load_GB": loaded / 1e9,
        "memory_at_most_GB": torch.cuda.max_memory_allocated(device) / 1e9,
        "error_against_eager": error,
    }


def difference(lm: GraphLM, ids: Sequence[int]) -> dict[str, float]:
    """How far the logits after some tokens are from those of the eager backend, of their own length."""
    from specdec.models.lm import CachedLM

    found = {}
    for count in COUNTS:
        ours = lm.forward(ids[:count], keep=[count - 1]).float()
        theirs = CachedLM(lm.model).forward(ids[:count], keep=[count - 1]).float()
        found[str(count)] = ((ours - theirs).norm() / theirs.norm()).item()
    return found


def random_model(name: str, how: str, device: torch.device) -> PreTrainedModel:
    """A network of a named shape in bfloat16, its layers kept in 8 bits or not."""
    import torch

    from profiling.bench import shaped_model

    torch.manual_seed(0)
    with torch.device("meta"):
        model = shaped_model(name, TARGET)
    filled(model, how, device)
    body: Any = model.get_submodule("model")
    body.rotary_emb = type(body.rotary_emb)(config=model.config).to(device)
    return model


def filled(model: PreTrainedModel, how: str, device: torch.device) -> None:
    """Random weights in place of those that are nowhere yet, one module after the other."""
    import torch
    from torch import nn

    from specdec.models.int8 import Int8Linear

    def random(own: nn.Parameter) -> nn.Parameter:
        made = torch.randn(own.shape, device=device, dtype=torch.bfloat16) * SPREAD
        return nn.Parameter(made if own.dim() > 1 else 1 + made, requires_grad=False)

    for place in [place for place, _ in model.named_modules() if place]:
        parent, _, name = place.rpartition(".")
        module = model.get_submodule(place)
        for own_name, own in list(module.named_parameters(recurse=False)):
            module.register_parameter(own_name, random(own))
        if how == INT8 and isinstance(module, nn.Linear) and name != "lm_head":
            setattr(model.get_submodule(parent), name, Int8Linear(module, device))
    model.tie_weights()


if __name__ == "__main__":
    sys.exit(main())
