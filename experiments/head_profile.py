"""A latency profile for heads and trees: what a target of a public shape takes to verify drafts in a row and trees, and
what a pass of a DFlash and of an EAGLE-3 head made for it takes, in the graph backend, all with random weights.

    python -m experiments.head_profile --shape Qwen2.5-32B --name H100_heads --out DIR

Nothing is drafted that the target would write: times alone are measured. `verify_ms` are those of trees from two tokens
on, which take a little more than drafts in a row (`provenance`), so that neither is priced too low. A DFlash pass is
what a round takes: the features of eight tokens read, then the candidates of every slot on the host; an EAGLE-3 pass is
the mean of the levels of a tree. Building a tree on the host is timed beside them. Writes DIR/NAME.json, a profile that
failfast.py prices with; the last line on stdout is the same JSON.
"""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.heads_at_size import write_head
from profiling.common import machine, parser_of, run_command, save_json
from profiling.profile_engine import VERIFY_COUNTS, Bench, add_engine_flags, make_lm, measure_model, read_settings
from profiling.roofline import SHAPES, entry_name
from specdec.decoding.pairs import Followers, tied_search
from specdec.decoding.trees import Candidates, slots_first
from specdec.drafters.block_diffusion import DLLM_DRAFTER
from specdec.drafters.dflash import DFLASH_HEAD
from specdec.drafters.eagle3 import EAGLE3_HEAD
from specdec.drafters.flags import positive_int
from specdec.models.checkpoints import TARGET, ModelSource
from specdec.models.graph.plans import TREE_COUNTS
from specdec.models.heads import HeadRole

if TYPE_CHECKING:
    from specdec.models.lm import CachedLM

# Both ends of every padded count of a tree's rows.
TREE_ROWS = sorted({2, *TREE_COUNTS, *(count + 1 for count in TREE_COUNTS[:-1])})
READ, TOP_K, LEVELS, LEVEL_TOP_K = 8, 32, 6, 8  # rows of features a round; candidates of a slot; an EAGLE-3 tree's


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.head_profile", __doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="Qwen2.5-32B", help="of the target")
    parser.add_argument("--drafter", default="Qwen2.5-1.5B", help="of the block-diffusion and AR drafters")
    parser.add_argument("--name", default="heads", help="of the profile and its file")
    parser.add_argument("--out", default="results/latency", help="folder")
    parser.add_argument("--context", type=int, default=512, help="committed tokens")
    parser.add_argument("--repeats", type=positive_int, default=50)
    add_engine_flags(parser)
    return run_command(parser, measure, arguments)


def measure(flags: Namespace) -> dict[str, Any]:
    from profiling.bench import measure_copy

    settings = read_settings(flags)
    bench = Bench(settings, measure_copy(settings.device), (flags.context,), flags.repeats)
    drafter = measure_model(flags.drafter, DLLM_DRAFTER, bench)["by_context"][str(flags.context)]
    lm = make_lm(flags.shape, TARGET, settings)
    passes = measure_target(lm, flags.context, flags.repeats)
    heads: dict[str, dict[str, float]] = {}
    for role, measured in ((DFLASH_HEAD, measure_dflash), (EAGLE3_HEAD, measure_eagle3)):
        with tempfile.TemporaryDirectory() as folder:
            network = load_head(Path(folder), role, lm, settings.engine)
        heads |= measured(network, lm, flags.context, flags.repeats)
        del network
    entry = entry_name(flags.shape)
    trees = {rows: passes[f"tree({rows})"]["ms"] for rows in TREE_ROWS}
    profile = {
        "name": flags.name,
        "draft_pass_ms": drafter["draft_step"]["ms"],
        "ar_draft_pass_ms": drafter["verify(1)"]["ms"],
        "family_pass_ms": {"dflash": heads["dflash_round"]["ms"], "eagle3": heads["eagle3_tree"]["ms"] / LEVELS},
        "target_ms_per_token": {entry: passes["verify(1)"]["ms"]},
        "verify_ms": {entry: {"1": passes["verify(1)"]["ms"], **{str(rows): ms for rows, ms in trees.items()}}},
        "provenance": {
            "measured_by_this_project": True,
            "engine": settings.engine,
            "dtype": str(settings.dtype).removeprefix("torch."),
            "drafter": flags.drafter,
            "remark": f"random weights of these shapes; batch 1; {flags.context} tokens of context; medians",
            "details": {"drafter": drafter, "target": passes, "heads": heads, "host": measure_host(flags.repeats)},
            **machine(settings.device),
        },
    }
    save_json(profile, Path(flags.out, f"{flags.name}.json"))
    return profile


def measure_target(lm: CachedLM, context: int, repeats: int) -> dict[str, dict[str, float]]:
    """Verifications in a row and of trees, with the outputs of five layers kept, as heads need them."""
    from profiling.bench import timed_in_turn

    taps = _taps(lm)
    lm.warm_up(taps, max(TREE_ROWS) - 1)
    fill(lm, context, taps)
    calls: dict[str, Callable[[], object]] = {
        f"verify({rows})": partial(lm.predict, _ids(rows), taps=taps) for rows in VERIFY_COUNTS
    }
    for rows in TREE_ROWS:
        parents = [-1, *((row - 1) // 2 for row in range(1, rows))]
        calls[f"tree({rows})"] = partial(lm.predict, _ids(rows), parents=parents, taps=taps)
    return timed_in_turn(lm, calls, repeats)


def load_head(folder: Path, role: HeadRole, lm: CachedLM, backend: str) -> Any:
    """A head with random weights for the target, through a folder as users' are."""
    config = lm.model.config.to_dict()
    config["head_dim"] = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    head = write_head(folder, role, ModelSource(TARGET, "target", folder, config))
    return head.head.load(head, lm, backend)


def measure_dflash(network: Any, lm: CachedLM, context: int, repeats: int) -> dict[str, dict[str, float]]:
    from profiling.bench import timed_in_turn

    features_LF = fill(lm, context, network.taps)
    network.warm_up()
    network.prepare(TOP_K)
    network.read(features_LF)
    at = network.length

    def round_of(ask: Callable[[], object]) -> object:
        network.length = at - READ
        network.read(features_LF[at - READ : at])
        return ask()

    candidates = partial(network.candidates, [0], [at], TOP_K)
    block = partial(network.draft, [0], [at])
    calls: dict[str, Callable[[], object]] = {
        "dflash_candidates": candidates,
        "dflash_round": partial(round_of, candidates),
        "dflash_chain_round": partial(round_of, lambda: lm.on_host(block()[0])),
    }
    return timed_in_turn(lm, calls, repeats)


def measure_eagle3(network: Any, lm: CachedLM, context: int, repeats: int) -> dict[str, dict[str, float]]:
    from profiling.bench import timed_in_turn

    features_LF = fill(lm, context, network.taps)
    network.warm_up()
    network.prepare(LEVEL_TOP_K, LEVELS)
    network.take_in(features_LF[:-READ], _ids(len(features_LF) - READ))
    at = network.length

    def tree() -> None:
        network.length = at
        network.take_root(features_LF[-READ:], _ids(READ), LEVEL_TOP_K)
        for level in range(LEVELS - 1):
            begin = (level - 1) * LEVEL_TOP_K
            parents = range(begin, begin + LEVEL_TOP_K) if level else [-1] * LEVEL_TOP_K
            network.grow(_ids(LEVEL_TOP_K), list(parents), LEVEL_TOP_K)

    return timed_in_turn(lm, {"eagle3_tree": tree}, repeats)


def measure_host(repeats: int) -> dict[str, float]:
    """Building a tree of 64 nodes from 15 slots, best first, and tied by a text of 512 tokens, in ms."""
    import numpy as np

    rng = np.random.default_rng(0)
    slots = Candidates.of(rng.integers(0, 32000, (15, TOP_K)), np.log(rng.dirichlet([0.15] * TOP_K, 15) + 1e-9))
    text, followers = rng.integers(0, 300, 512).tolist(), Followers()
    followers.read(text)
    calls = {
        "best_first_64": lambda: slots_first(slots, 64),
        "tied_64": lambda: tied_search(slots, followers, text).first(64),
    }
    found = {}
    for name, call in calls.items():
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        found[name] = 1e3 * (time.perf_counter() - begin) / repeats
    return found


def fill(lm: CachedLM, context: int, taps: Sequence[int]) -> Any:
    """Commit a text of `context` tokens; its features."""
    lm.rollback(0)
    lm.forward(_ids(context), keep=[], taps=taps)
    lm.commit(context)
    return lm.features


def _taps(lm: CachedLM) -> tuple[int, ...]:
    """Five layers from the first to the last, as heads read them."""
    last = lm.model.config.num_hidden_layers - 1
    return tuple(sorted({round(1 + part * (last - 2) / 4) for part in range(5)} if last > 4 else {0, last}))


def _ids(count: int) -> list[int]:
    return [1 + 7 * place % 500 for place in range(count)]


if __name__ == "__main__":
    sys.exit(main())
