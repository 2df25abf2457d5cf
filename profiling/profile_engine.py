"""What a pass costs in an engine, against the limits of memory bandwidth and arithmetic measured in the same run.

    python -m profiling.profile_engine --drafter Qwen2.5-1.5B --targets Qwen2.5-7B Qwen2.5-14B --out DIR
    python -m profiling.profile_engine --targets Qwen3-8B --heads dflash eagle3 --rows --out DIR

For each model, at each context length: verify(k), a pass of k tokens with predictions for all, as a target checks a
draft, and verify_tree(k), the same of a draft that branches; a denoising pass of one block with predictions for one
sub-block; and a step of drafting, which is such a pass and what the host makes of its predictions. A dLLM drafter's
pass is priced by that step, an AR drafter's by a pass of one token, a head's by a draft of its own (`head_costs.py`).
Times are wall clock from tokens on the host to predictions on the host. Writes DIR/NAME.json, a latency profile that
failfast.py prices with; into a pipe or a file, stdout is that profile. Models are shapes by name (random weights) or
checkpoints; heads have random weights and the shape that is published for the target's.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiling.common import machine, parser_of, run_profiler, save_json
from profiling.results import add_result_flags, table_lines
from profiling.roofline import BLOCK, OTHERS, SHAPES, SUB_BLOCK, entry_name, find_shape
from specdec.commands.flags import StrictParser
from specdec.decoding.denoising import Denoising, LiveBlocks
from specdec.drafters.ar import AR_DRAFTER
from specdec.drafters.block_diffusion import DLLM_DRAFTER
from specdec.drafters.flags import positive_int
from specdec.errors import UserError
from specdec.models.checkpoints import IN_DTYPE, INT8, TARGET, Role, kept_name
from specdec.models.graph.plans import BackendOptions

if TYPE_CHECKING:
    import torch

    from specdec.models.lm import CachedLM

# Both ends of every padded count, so that straight lines between them are the steps of the curve.
VERIFY_COUNTS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 96)
# Rows of trees, the last known token among them: full passes, and the trees of 64, 128 and 256 nodes.
TREE_ROWS = (16, 32, 64, 65, 128, 129, 256, 257)
HEADS = ("dflash", "eagle3")
ROWS_BY = "transformers' modules in one CUDA graph, not by the engine: it runs one request at a time"


@dataclass(frozen=True)
class Settings:
    device: torch.device
    dtype: torch.dtype
    engine: str
    fused_up_to: int
    target_weights: str = IN_DTYPE

    def entry(self, target: str) -> str:
        """What records call a target of that shape, kept so."""
        return kept_name(entry_name(target), self.target_weights)


@dataclass(frozen=True)
class Bench:
    """What every model is measured with: an engine, the speeds of memory and arithmetic, contexts and repeats."""

    settings: Settings
    copy_bytes_per_ms: float
    flops_per_ms: float
    contexts: tuple[int, ...]
    repeats: int

    @classmethod
    def here(cls, settings: Settings, contexts: Sequence[int], repeats: int) -> Bench:
        from profiling.bench import measure_copy, measure_products

        speeds = measure_copy(settings.device), measure_products(settings.device, settings.dtype)
        return cls(settings, *speeds, tuple(contexts), repeats)

    def limit_ms(self, num_bytes: float, num_flops: float) -> float:
        """The least time of a pass that reads and multiplies so much."""
        return max(num_bytes / self.copy_bytes_per_ms, num_flops / self.flops_per_ms)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("profiling.profile_engine", __doc__)
    known = f"one of {', '.join([*SHAPES, *OTHERS])} (random weights), or what failfast.py takes for a model"
    parser.add_argument("--drafter", default="Qwen2.5-1.5B", help=known)
    parser.add_argument("--ar_drafter", help="if not the same model as --drafter")
    parser.add_argument("--targets", nargs="+", default=["Qwen2.5-7B"], help=known)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=[], help="of the target's shape, as published")
    parser.add_argument("--rows", action="store_true", help="also passes over several requests, by other modules")
    parser.add_argument("--name", default="here", help="of the profile and its file")
    parser.add_argument("--out", default="results/latency", help="folder")
    parser.add_argument("--contexts", nargs="+", type=int, default=[512, 1024], help="committed tokens, whole blocks")
    parser.add_argument("--repeats", type=positive_int, default=50)
    parser.add_argument("--target_weights", choices=(IN_DTYPE, INT8), default=IN_DTYPE, help="as failfast.py has it")
    add_engine_flags(parser)
    add_result_flags(parser, has_file=False)
    return run_profiler(parser, measure_profile, pass_lines, arguments)


def add_engine_flags(parser: StrictParser) -> None:
    """What `read_settings` reads."""
    parser.add_argument("--engine", choices=("eager", "graph"), default="graph")
    parser.add_argument("--fused_up_to", type=int, default=BackendOptions.fused_up_to, help="see BackendOptions")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))


def read_settings(flags: Namespace) -> Settings:
    """The engine's settings from parsed flags. Raises UserError."""
    from specdec.models.load import resolve_device, resolve_dtype

    device = resolve_device(flags.device)
    kept_as = getattr(flags, "target_weights", IN_DTYPE)
    return Settings(device, resolve_dtype(flags.dtype, device), flags.engine, flags.fused_up_to, kept_as)


def measure_profile(flags: Namespace) -> dict[str, Any]:
    """The latency profile, also written; its figures are under provenance. Prices are at the first context.

    Raises UserError for heads or rows of several targets, and for rows in 8 bits."""
    if (flags.heads or flags.rows) and len(flags.targets) > 1:
        raise UserError("a profile with --heads or --rows has one target: a head is made for it")
    if flags.rows and flags.target_weights == INT8:
        raise UserError("--rows are passes of weights in full: leave out it or --target_weights int8")
    settings = read_settings(flags)
    bench = Bench.here(settings, flags.contexts, flags.repeats)
    details = {"drafter": measure_model(flags.drafter, DLLM_DRAFTER, bench)}
    if flags.ar_drafter:
        details["ar_drafter"] = measure_model(flags.ar_drafter, AR_DRAFTER, bench)
    for target in flags.targets:
        details[settings.entry(target)] = measure_model(target, TARGET, bench, flags.heads)
    context = str(bench.contexts[0])
    passes = {part: found["by_context"][context] for part, found in details.items()}
    verify_ms = {entry: _verify_table(passes[entry]) for entry in map(settings.entry, flags.targets)}
    first = settings.entry(flags.targets[0])
    family_pass_ms, trees = (details[first].pop(part, {}) for part in ("family_pass_ms", "trees"))
    profile = {
        "name": flags.name,
        "draft_pass_ms": passes["drafter"]["draft_step"]["ms"],
        "ar_draft_pass_ms": passes.get("ar_drafter", passes["drafter"])["verify(1)"]["ms"],
        **({"family_pass_ms": family_pass_ms} if family_pass_ms else {}),
        "target_ms_per_token": {target: table["1"] for target, table in verify_ms.items()},
        "verify_ms": verify_ms,
        **({"trees": {first: trees}} if family_pass_ms else {}),
        "provenance": {
            "measured_by_this_project": True,
            "drafter": flags.drafter,
            "engine": settings.engine,
            "fused_up_to": settings.fused_up_to,
            "dtype": str(settings.dtype).removeprefix("torch."),
            "remark": f"random weights for shapes by name; batch 1; prices at {context} tokens of context; medians",
            "copy_TB_per_s": bench.copy_bytes_per_ms / 1e9,
            "TFLOP_per_s": bench.flops_per_ms / 1e9,
            **({"rows_by": ROWS_BY} if flags.rows else {}),
            "details": details,
            **machine(settings.device),
        },
    }
    path = Path(flags.out, f"{flags.name}.json")
    save_json(profile, path)
    if flags.rows:
        profile["rows"] = _rows(flags, settings)
        save_json(profile, path)
    print(f"latency profile: {path}", file=sys.stderr)
    return profile


def _verify_table(passes: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ms by number of tokens: of chains, and of trees where a chain is never as long."""
    chains = {str(k): passes[f"verify({k})"]["ms"] for k in VERIFY_COUNTS}
    trees = {str(k): passes[f"verify_tree({k})"]["ms"] for k in TREE_ROWS if k > max(VERIFY_COUNTS)}
    return chains | trees


def _rows(flags: Namespace, settings: Settings) -> dict[str, Any]:
    """A profile's rows: of verifications, and of the drafter's passes of one token and of a block."""
    from profiling.bench import make_model
    from profiling.row_costs import BLOCK_ROWS, ONE_ROW, VERIFY_ROWS, row_table

    def table(name: str, role: Role, tokens: tuple[int, ...]) -> dict[str, Any]:
        return row_table(make_model(name, role, settings.device, settings.dtype), tokens, flags.contexts[0])

    target = flags.targets[0]
    passes = {
        "ar": table(flags.drafter, DLLM_DRAFTER, ONE_ROW),
        "block": table(flags.drafter, DLLM_DRAFTER, BLOCK_ROWS),
    }
    verify = {entry_name(target): table(target, TARGET, VERIFY_ROWS)}
    return {"context": flags.contexts[0], "verify": verify, "passes": passes}


def pass_lines(profile: dict[str, Any]) -> list[str]:
    """Of each model the passes at the first context, for people."""
    lines = []
    for part, found in profile["provenance"]["details"].items():
        context, passes = next(iter(found["by_context"].items()))
        lines += table_lines(f"{part} ({found['model']}), ms of a pass after {context} tokens:", passes, digits=3)
        for kind, head in found.get("heads", {}).items():
            lines += table_lines(f"{kind} head for {found['model']}, ms:", head.get("passes", {}), digits=3)
    return lines


def make_lm(name: str, role: Role, settings: Settings, vocab_size: int | None = None) -> CachedLM:
    """A model of `shapes.make_model` in the engine; it predicts the first `vocab_size` tokens (None: all)."""
    from profiling.bench import make_model
    from specdec.models.graph.graph_lm import GraphLM
    from specdec.models.int8 import quantised
    from specdec.models.lm import CachedLM

    model = make_model(name, role, settings.device, settings.dtype)
    if role is TARGET and settings.target_weights == INT8:
        model = quantised(model, settings.device)
    if settings.engine == "eager":
        return CachedLM(model, vocab_size)
    return GraphLM(model, vocab_size, options=BackendOptions(fused_up_to=settings.fused_up_to))


def measure_model(name: str, role: Role, bench: Bench, heads: Sequence[str] = ()) -> dict[str, Any]:
    """Every kind of pass at every context, in ms, beside the least time that it can take; of a target also `heads`."""
    lm = make_lm(name, role, bench.settings)
    is_target = role is TARGET
    begin = time.perf_counter()
    lm.warm_up(num_nodes=max(TREE_ROWS) - 1 if is_target else 0)
    warm_up_s = time.perf_counter() - begin
    by_context = {str(context): measure_context(lm, context, bench, is_target) for context in bench.contexts}
    all_bytes = sum(p.numel() * p.element_size() for p in lm.model.parameters())
    found = {
        "model": name,
        "limit_ms": weight_bytes(lm) / bench.copy_bytes_per_ms,
        "limit_with_embedding_ms": all_bytes / bench.copy_bytes_per_ms,
        "warm_up_s": warm_up_s,
        "by_context": by_context,
    }
    if heads:
        from profiling.head_costs import measure_heads

        found |= measure_heads(heads, find_shape(role, name), lm, bench)
    return found


def weight_bytes(lm: CachedLM) -> int:
    """Bytes that one pass has to read: all parameters but an embedding that is not the head as well."""
    parameters = {id(p): p for p in lm.model.parameters()}
    embedding = lm.model.get_input_embeddings().get_parameter("weight")
    if lm.model.get_parameter("lm_head.weight") is not embedding:
        parameters.pop(id(embedding))
    return sum(p.numel() * p.element_size() for p in parameters.values())


def pass_flops(lm: CachedLM, num_tokens: int, num_outputs: int) -> float:
    """Multiplications and additions of a pass by its weights: the head's for outputs alone."""
    table = lm.model.get_input_embeddings().get_parameter("weight").numel()
    is_tied = lm.model.get_parameter("lm_head.weight") is lm.model.get_input_embeddings().get_parameter("weight")
    layers = sum(p.numel() for p in lm.model.parameters()) - table * (1 if is_tied else 2)
    return 2.0 * (layers * num_tokens + table * num_outputs)


def measure_context(lm: CachedLM, context: int, bench: Bench, has_trees: bool) -> dict[str, dict[str, float]]:
    """Medians at `context` committed tokens (whole blocks, so that denoising can follow), each with its limit."""
    from profiling.bench import timed_in_turn

    ids = begin_text(lm, context)
    block, sub_block = ids[context : context + BLOCK], range(BLOCK - SUB_BLOCK - 1, BLOCK - 1)
    steps = DraftSteps(lm, ids[: context + 1])
    calls: dict[str, tuple[int, int, Callable[[], object]]] = {
        "denoise": (BLOCK, SUB_BLOCK, lambda: lm.predict(block, block_size=BLOCK, keep=sub_block, never=0)),
        "draft_step": (BLOCK, SUB_BLOCK, steps),
    }
    for k in VERIFY_COUNTS:
        calls[f"verify({k})"] = (k, k, partial(lm.predict, ids[context : context + k]))
    for k in TREE_ROWS if has_trees else ():
        parents = [(row - 1) // 2 for row in range(k)]
        calls[f"verify_tree({k})"] = (k, k, partial(lm.predict, ids[context : context + k], parents=parents))
    found = timed_in_turn(lm, {name: call for name, (_, _, call) in calls.items()}, bench.repeats)
    for name, (num_tokens, num_outputs, _) in calls.items():
        limit_ms = bench.limit_ms(weight_bytes(lm), pass_flops(lm, num_tokens, num_outputs))
        found[name] |= {"limit_ms": limit_ms, "over_limit": found[name]["ms"] / limit_ms}
    return found


def begin_text(lm: CachedLM, context: int) -> list[int]:
    """Commit a text of `context` tokens; returns it and as many tokens after it as the largest pass has."""
    import torch

    size = (context + max(*VERIFY_COUNTS, *TREE_ROWS),)
    ids = torch.randint(lm.model.config.vocab_size, size, generator=torch.Generator().manual_seed(0)).tolist()
    lm.rollback(0)
    lm.forward(ids[:context], block_size=BLOCK, keep=[])
    lm.commit(context)
    return ids


class DraftSteps:
    """Denoising passes as drafting makes them, one a call: the pass, and what its predictions make of the block."""

    def __init__(self, lm: CachedLM, prefix_ids: Sequence[int]) -> None:
        """The prefix holds one token more than is committed."""
        self.lm, self.prefix_ids = lm, prefix_ids
        self.how = Denoising(0.0, BLOCK, SUB_BLOCK, mask_id=0, stop_ids=frozenset())
        self.blocks = LiveBlocks(lm, prefix_ids, self.how)

    def __call__(self) -> None:
        if None not in self.blocks.block:
            self.blocks = LiveBlocks(self.lm, self.prefix_ids, self.how)
        self.blocks.step()


if __name__ == "__main__":
    sys.exit(main())
