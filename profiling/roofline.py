"""Roofline: the least time a pass can take on a GPU, by its memory bandwidth and its FLOP/s. Measures nothing.

    python -m profiling.roofline --gpu H100 --targets Qwen2.5-7B Qwen3-32B --write_profile mine

A pass reads every weight that it uses and the keys and values of the context once, and multiplies; the bound is the
longer of the two (Williams, Waterman and Patterson 2009), as if nothing else took time. Profiles made of it are marked
`"source": "roofline"`, and every table that prices with one says so.

On a terminal it prints lines for people; into a pipe or a file (also --out FILE) JSON.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from profiling.common import parser_of, run_profiler
from profiling.head_bounds import HEADS, HeadShape, head_pass_ms
from profiling.results import add_result_flags
from specdec.commands.flags import StrictParser
from specdec.drafters.ar import AR_DRAFTER
from specdec.drafters.block_diffusion import DLLM_DRAFTER
from specdec.errors import UserError
from specdec.latency.profile import ROOFLINE, known_profiles, load_profile, save_profile
from specdec.models.checkpoints import TARGET, ModelSource, Role, find_model
from specdec.records.record import target_name
from specdec.text import aligned

COUNTS = (1, 2, 4, 8, 16, 32, 64, 96)
# Where batches are priced: requests, tokens of each (a chunk of a prompt has up to 2,048), their contexts.
REQUESTS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
TOKENS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 2048)
CONTEXTS = (0, 4096, 32768)
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
BLOCK, SUB_BLOCK = 32, 8  # of the block-diffusion drafters that are measured


@dataclass(frozen=True)
class Shape:
    """The numbers of a config.json that decide what a pass costs."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool = False


@dataclass(frozen=True)
class OtherShape(Shape):
    """Of another architecture than Qwen2's; only reckoned with."""

    model_type: str = "qwen3"
    head_dim: int = 128


SHAPES = {
    "Qwen2.5-0.5B": Shape(896, 4864, 24, 14, 2, 151936, True),
    "Qwen2.5-1.5B": Shape(1536, 8960, 28, 12, 2, 151936, True),
    "Qwen2.5-7B": Shape(3584, 18944, 28, 28, 4, 152064),
    "Qwen2.5-14B": Shape(5120, 13824, 48, 40, 8, 152064),
    "Qwen2.5-32B": Shape(5120, 27648, 64, 40, 8, 152064),
    "SmolLM2-135M": Shape(576, 1536, 30, 9, 3, 49152, True),
    "tiny": Shape(64, 128, 2, 4, 2, 512, True),
}
# From config.json of Qwen/Qwen3-* and meta-llama/Llama-3.1-*.
OTHERS = {
    "Qwen3-8B": OtherShape(4096, 12288, 36, 32, 8, 151936),
    "Qwen3-14B": OtherShape(5120, 17408, 40, 40, 8, 151936),
    "Qwen3-32B": OtherShape(5120, 25600, 64, 64, 8, 151936),
    "Llama-3.1-8B-Instruct": OtherShape(4096, 14336, 32, 32, 8, 128256, model_type="llama"),
    "tiny-qwen3": OtherShape(64, 128, 8, 4, 2, 4608, head_dim=16),
}


def entry_name(target: str) -> str:
    """What a record calls a target of that shape: "Qwen2.5-7B" is "Qwen2.5-7B-Instruct"."""
    return f"{target}-Instruct" if target in SHAPES else target_name(target)


@dataclass(frozen=True)
class Gpu:
    """What a datasheet (`source`) promises; FLOP/s of dense bfloat16 products, half of those with 2:4 sparsity."""

    memory_TB_per_s: float
    dense_TFLOP_per_s: float
    memory_GB: float
    source: str


GPUS = {
    "RTX_A6000": Gpu(0.768, 154.8, 48, "NVIDIA RTX A6000 datasheet; Ampere GA102 whitepaper"),
    "A100": Gpu(2.039, 312, 80, "NVIDIA A100 datasheet, A100 80GB SXM"),
    "H100": Gpu(3.35, 989.4, 80, "NVIDIA H100 datasheet, H100 SXM (1,979 TFLOPS with sparsity)"),
    "H200": Gpu(4.8, 989.4, 141, "NVIDIA H200 datasheet, H200 SXM (1,979 TFLOPS with sparsity)"),
    "L40S": Gpu(0.864, 362.05, 48, "NVIDIA L40S datasheet"),
    "RTX_4090": Gpu(1.008, 165.2, 24, "NVIDIA Ada GPU architecture whitepaper, GeForce RTX 4090"),
    "B200": Gpu(8.0, 2250, 180, "NVIDIA DGX B200 datasheet, an eighth of it; Blackwell architecture brief"),
}


def gpu_of(device_name: str) -> str | None:
    """The GPU of the table that a driver's name means: `gpu_of("NVIDIA H100 80GB HBM3") == "H100"`."""
    return next((name for name in GPUS if re.search(rf"\b{name.replace('_', ' ')}\b", device_name)), None)


@dataclass(frozen=True)
class Machine:
    """A GPU, and the bytes of one weight on it."""

    gpu: Gpu
    value_bytes: int

    def pass_ms(
        self, model: ModelSource, num_tokens: int, context: int, num_outputs: int | None = None, requests: int = 1
    ) -> float:
        """The least ms of a pass of `num_tokens` after `context` of each request; `num_outputs` of them (all) predict
        a token."""
        num_outputs = num_tokens if num_outputs is None else num_outputs
        values = values_moved(model, num_tokens, context, requests)
        return self.least_ms(values, requests * num_flops(model, num_tokens, context, num_outputs))

    def least_ms(self, values: int, flops: float) -> float:
        """The least ms in which it moves so many numbers and makes so many products and sums."""
        bytes_s = self.value_bytes * values / (1e12 * self.gpu.memory_TB_per_s)
        return 1e3 * max(bytes_s, flops / (1e12 * self.gpu.dense_TFLOP_per_s))

    def rows(self, model: ModelSource, tokens: Sequence[int], num_outputs: int | None = None) -> dict[str, Any]:
        """The least ms of passes over several requests, as a profile's `rows` have it."""
        return points_of(lambda k, c, requests: self.pass_ms(model, k, c, num_outputs, requests), tokens)

    def kv_tokens(self, model: ModelSource) -> int | None:
        """How many tokens of context it has room for beside the model's weights; None: not known."""
        room = 1e9 * self.gpu.memory_GB - self.value_bytes * model.num_parameters
        return int(room // (self.value_bytes * model.kv_values_per_token)) if isfinite(room) else None


def points_of(ms_of: Callable[[int, int, int], float], tokens: Sequence[int]) -> dict[str, Any]:
    """`ms_of` tokens of a request, context and requests, at the points of a profile's `rows`."""
    points = {"requests": REQUESTS, "tokens": tokens, "contexts": CONTEXTS}
    ms = [[[_short(ms_of(k, c, requests)) for c in CONTEXTS] for k in tokens] for requests in REQUESTS]
    return {**{name: list(one) for name, one in points.items()}, "ms": ms}


def _short(ms: float) -> float:
    return float(f"{ms:.5g}")


def values_moved(model: ModelSource, num_tokens: int, context: int, requests: int = 1) -> int:
    """Numbers that a pass reads or writes at least: weights once, of each request its tokens' embeddings, keys and
    values."""
    table = model.vocab_size * model.config["hidden_size"]
    unread = 0 if model.config.get("tie_word_embeddings") else table
    embeddings = num_tokens * model.config["hidden_size"] if unread else 0
    of_each = embeddings + model.kv_values_per_token * (context + num_tokens)
    return model.num_parameters - unread + requests * of_each


def num_flops(model: ModelSource, num_tokens: int, context: int, num_outputs: int) -> float:
    """Multiplications and additions: 2 per weight and token, and per head weight and output; 4 per query and key."""
    table = model.vocab_size * model.config["hidden_size"]
    layers = model.num_parameters - table * (1 if model.config.get("tie_word_embeddings") else 2)
    query = model.config["num_hidden_layers"] * model.config["num_attention_heads"] * model.head_dim
    pairs = num_tokens * (context + (num_tokens + 1) / 2)
    return 2.0 * layers * num_tokens + 2.0 * table * num_outputs + 4.0 * query * pairs


def find_shape(role: Role, name: str) -> ModelSource:
    """A model, without weights, by its shape's name ("Qwen2.5-7B[-Instruct]") or as failfast.py finds it. UserError."""
    shape = SHAPES.get(name.removesuffix("-Instruct"))
    known = OTHERS.get(name) if shape is None else shape
    if known is None:
        source = find_model(role, name, with_weights=False)
        if "num_experts" in source.architecture.fields:
            raise UserError(f"{name!r} has experts, of which a pass reads a part: limits are those of dense models")
        return source
    return ModelSource(role, name, Path(name), {"model_type": "qwen2", **vars(known)})


def build_parser() -> StrictParser:
    parser = parser_of("profiling.roofline", __doc__)
    parser.add_argument("--gpu", choices=tuple(GPUS), help="of the table in profiling/roofline.py")
    parser.add_argument("--memory_TB_per_s", type=float, help="another GPU: its memory bandwidth")
    parser.add_argument("--dense_TFLOP_per_s", type=float, help="another GPU: dense FLOP/s of the dtype")
    known = f"one of {', '.join([*SHAPES, *OTHERS])}, or what failfast.py takes for a model"
    parser.add_argument("--targets", nargs="+", default=["Qwen2.5-7B", "Qwen2.5-14B", "Qwen2.5-32B"], help=known)
    parser.add_argument("--drafter", default="Qwen2.5-1.5B", help="block-diffusion drafter, by its shape")
    parser.add_argument("--ar_drafter", help="if not of the same shape")
    parser.add_argument(
        "--heads",
        action="store_true",
        help="price passes of heads over several requests too, beside the first target",
    )
    parser.add_argument("--contexts", nargs="+", type=int, default=[512, 2048], help="a profile prices the first")
    parser.add_argument("--dtype", choices=tuple(BYTES), default="bfloat16")
    parser.add_argument("--write_profile", metavar="NAME", help="as ./latency/NAME.json")
    add_result_flags(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    return run_profiler(build_parser(), work, tables, arguments)


def work(flags: argparse.Namespace) -> dict[str, Any]:
    """The profile of the bounds, written where that is asked for."""
    fields = bounds(flags, Machine(_gpu(flags), BYTES[flags.dtype]))
    name = flags.write_profile
    if name in known_profiles() and not load_profile(name).is_bound:
        # A bound never replaces what was measured or published.
        raise UserError(
            f"the latency profile {name} is there already and is not a roofline: write another --write_profile"
        )
    if name:
        save_profile(fields)
    return fields


def _gpu(flags: argparse.Namespace) -> Gpu:
    own = (flags.memory_TB_per_s, flags.dense_TFLOP_per_s)
    if (flags.gpu is None) == (None in own) or (flags.gpu and any(own)):
        raise UserError("give either --gpu, or both --memory_TB_per_s and --dense_TFLOP_per_s")
    if min(flags.contexts) < 0 or not all(value is None or 0 < value < 1e6 for value in own):
        raise UserError("bandwidth and FLOP/s must be positive numbers, contexts 0 or more")
    return GPUS[flags.gpu] if flags.gpu else Gpu(*own, memory_GB=float("inf"), source="given on the command line")


def bounds(flags: argparse.Namespace, machine: Machine) -> dict[str, Any]:
    """The latency profile of the bounds; every figure for every context is in its provenance. Raises UserError."""
    drafter = find_shape(DLLM_DRAFTER if flags.drafter not in SHAPES else TARGET, flags.drafter)
    ar_drafter = drafter if flags.ar_drafter is None else find_shape(AR_DRAFTER, flags.ar_drafter)
    targets = {entry_name(name): find_shape(TARGET, name) for name in flags.targets}
    for model in (drafter, ar_drafter, *targets.values()):
        _check_fits(model, machine)
    context = flags.contexts[0]
    tables = {name: {str(k): machine.pass_ms(model, k, context) for k in COUNTS} for name, model in targets.items()}
    details = {
        name: {str(length): {str(k): machine.pass_ms(model, k, length) for k in COUNTS} for length in flags.contexts}
        for name, model in {**targets, "drafter": drafter}.items()
    }
    first = next(iter(targets.values()))
    heads = HEADS if flags.heads else {}
    return {
        "name": flags.write_profile or ROOFLINE,
        "draft_pass_ms": machine.pass_ms(drafter, BLOCK, context, SUB_BLOCK),
        "ar_draft_pass_ms": machine.pass_ms(ar_drafter, 1, context),
        "target_ms_per_token": {name: table["1"] for name, table in tables.items()},
        "family_pass_ms": {
            family: {name: head_pass_ms(machine, head, model, context) for name, model in targets.items()}
            for family, head in HEADS.items()
        },
        "verify_ms": tables,
        "provenance": {
            "source": ROOFLINE,
            "measured_by_this_project": False,
            "hardware": flags.gpu or "GPU of the command line",
            "gpu": {**vars(machine.gpu), "memory_GB": None} if flags.gpu is None else vars(machine.gpu),
            "dtype": flags.dtype,
            "drafter": flags.drafter,
            "heads": {family: vars(head) for family, head in HEADS.items()},
            "remark": f"lower bounds, calculated; one GPU; prices of one request at {context} tokens of context",
            "ms_by_context_and_tokens": details,
        },
        "rows": {
            "context": context,
            "verify": {name: _verify_rows(machine, model) for name, model in targets.items()},
            "passes": {
                "ar": machine.rows(ar_drafter, (1,)),
                "block": machine.rows(drafter, (BLOCK,), SUB_BLOCK),
                **{family: _head_rows(machine, head, first) for family, head in heads.items()},
            },
        },
    }


def _head_rows(machine: Machine, head: HeadShape, target: ModelSource) -> dict[str, Any]:
    return points_of(lambda _, *where: head_pass_ms(machine, head, target, *where), (head.num_tokens,))


def _verify_rows(machine: Machine, model: ModelSource) -> dict[str, Any]:
    room = machine.kv_tokens(model)
    return machine.rows(model, TOKENS) | ({} if not room or room < 1 else {"kv_tokens": room})


def _check_fits(model: ModelSource, machine: Machine) -> None:
    needed_GB = 1e-9 * machine.value_bytes * model.num_parameters
    if needed_GB > machine.gpu.memory_GB:
        raise UserError(
            f"{model.name} has {needed_GB:.0f} GB of weights and the GPU {machine.gpu.memory_GB:g} GB: leave it out, "
            "or take a bigger --gpu"
        )


def tables(fields: dict[str, Any]) -> list[str]:
    """Ms per pass by model, in lines: one a context, a column per number of tokens."""
    lines: list[str] = []
    for model, by_context in fields["provenance"]["ms_by_context_and_tokens"].items():
        rows = [[context, *(f"{ms:.3f}" for ms in table.values())] for context, table in by_context.items()]
        title = f"{model}: least ms of a pass (roofline, not measured) by context and tokens"
        lines += [title, *aligned([["context", *map(str, COUNTS)], *rows]), ""]
    return lines


if __name__ == "__main__":
    sys.exit(main())
