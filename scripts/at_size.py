"""At size: the tables of the engine's passes and of speculation at the sizes of published models and heads.

From files of docs/results; smaller shapes: `costs.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scripts.cells import result, table, times

STORED, EARLIER, PLANNED = "2026-11-29-engine-at-size", "2026-11-28-engine-at-size", "2026-11-29-engine-plans"
PASSES = {
    "verify 1 token": ("verify(1)",),
    "verify 16": ("verify(16)",),
    "verify 64": ("verify(64)",),
    "verify a tree of 16 rows": ("verify_tree(16)",),
    "verify a tree of 64 rows": ("verify_tree(64)",),
    "verify a tree of 128 rows": ("verify_tree(128)",),
    "verify a tree of 256 rows": ("verify_tree(256)",),
    "a DFlash head's block of 16": ("dflash", "block"),
    "an EAGLE-3 head's step": ("eagle3", "step"),
    "a level of 10 nodes of its tree": ("eagle3", "level"),
}
HEADS = {"dflash": "DFlash", "eagle3": "EAGLE-3", "jetspec": "JetSpec"}


def passes() -> str:
    """Passes over the larger of their two limits; one shape's are of an earlier run."""
    shapes = result(STORED)["passes"] | {name: one["target"] for name, one in result(EARLIER)["passes"].items()}
    rows = [[words, *(cell for one in shapes.values() for cell in _cells(one, key))] for words, key in PASSES.items()]
    titles = [title for name in shapes for title in (f"{name}: ms", "over the limit")]
    return table(("pass", *titles), rows)


def _cells(target: dict[str, Any], key: tuple[str, ...]) -> tuple[str, str]:
    found = target["by_context"]["512"][key[0]] if len(key) == 1 else target["heads"][key[0]]["passes"][key[1]]
    return f"{found['ms']:.2f}", f"{found['over_limit']:.2f}"


def plans() -> str:
    """Whole passes of one shape by the library and by plans, in turn."""
    rows = []
    for count, one in sorted(result(PLANNED)["products"].items(), key=lambda item: (len(item[0]), item[0])):
        for kind, found in one.get("passes", {}).items():
            over = [f"{found[f'{way}, over the limit']:.2f}" for way in ("usual", "best")]
            rows.append([f"{count}, a {kind}", f"{found['usual_ms']:.2f}", over[0], f"{found['best_ms']:.2f}", over[1]])
    return table(("rows", "before: ms", "over the limit", "by the best plans: ms", "over the limit"), rows)


def taps() -> str:
    """What keeping the heads' taps adds to a verification."""
    rows = [
        [name, HEADS[head], f"{100 * (one['passes']['verification_with_taps']['over_none'] - 1):.1f} %"]
        for name, shape in result(STORED)["passes"].items()
        for head, one in shape["heads"].items()
    ]
    return table(("target's shape", "taps of", "added to a verification"), rows)


def published() -> str:
    """Speculation with the acceptance that was published, really run but for what is accepted."""
    rows = []
    for one in result(STORED)["published"]:
        given = one["published"]
        rows.append(
            [
                f"{HEADS[given['head']]}, `{given['drafter']}`",
                given["dataset"],
                f"{given['acceptance_length']:.2f}",
                f"{one['tokens_per_s']:,.0f}",
                times(one["speedup"]),
                f"{one['modelled_over_measured']:.2f}",
                f"{given['tokens_per_s']:,.0f}" if given["tokens_per_s"] else "not given",
                times(given["speedup"]) if given["speedup"] else "not given",
                given["hardware"],
            ]
        )
    titles = ("acceptance of", "on", "tokens a round", "tokens a second, here", "speedup, here")
    return table((*titles, "modelled over measured", "published: tokens a second", "speedup", "on hardware"), rows)


def rounds() -> str:
    """What a round of a tree takes, whole rounds timed."""
    titles = ("tree", "nodes", "drafting, ms", "the rest of the host", "verification", "commit")
    rows = [
        [HEADS[head], nodes, *(f"{ms:.2f}" for ms in one["parts_ms"].values())]
        for head, passes in result(STORED)["passes"]["Qwen3-8B"]["heads"].items()
        for nodes, one in passes["trees"].items()
    ]
    return table(titles, rows)


def walks() -> str:
    """A Markov head's walk through a block, by kernels and by torch's operations."""
    found = result(STORED)["markov_walk_ms, kernels and torch"]
    counts = list(next(iter(found.values())))
    rows = [[head, *("{:.3f} / {:.3f}".format(*ms[count]) for count in counts)] for head, ms in found.items()]
    return table(("Markov head", *(f"{count} slots, ms" for count in counts)), rows)


def int8() -> str:
    """Passes with layers in 8 bits, over the time that reading what is left takes."""
    rows = []
    for name, ways in result(STORED)["int8"].items():
        for way, one in ways.items() if isinstance(ways, dict) else ():
            cells = [f"{ms:.2f} ({one['over_limit'][count]:.2f})" for count, ms in one["ms"].items()]
            rows.append([name, "bfloat16" if way == "dtype" else "8 bits", f"{one['memory_at_most_GB']:.1f}", *cells])
    counts = result(STORED)["int8"]["Qwen3-8B"]["dtype"]["ms"]
    return table(("target's shape", "layers in", "GB at most", *(f"verify {count}, ms" for count in counts)), rows)


LAYERS = "2026-11-29-engine-layers"
WAYS = {
    "as usual": "usual",
    "tiles of 16 lines": "usual kernels, tiles of 16, 2 warps, 8 stages",
    "a kernel a step": "a kernel a step",
    "three kernels a layer": "attention to output, MLP",
    "one a layer": "a kernel a layer",
    "one kernel for all layers": "one kernel",
}
IN_ANOTHER_RUN = {
    "as usual, in another run": "as usual, that run",
    "kernels begin early": "kernels begin early",
    "early, committed keys and lines of weights ahead": "the same, best plans",
}


def layers() -> str:
    """Ways to run the layers of small models, over the time that reading their weights takes."""
    models = {name: one for name, one in result(LAYERS).items() if isinstance(one, dict) and "limit_us" in one}
    titles = ["layers run", *(f"{name}, rows: {rows}" for name in models for rows in ("1", "32"))]
    rows = [
        [words, *(f"{one[rows][key] / one[limit]:.2f}" for one in models.values() for rows in ("1", "32"))]
        for limit, ways in {"limit_us": WAYS, "limit_us, that run": IN_ANOTHER_RUN}.items()
        for words, key in ways.items()
    ]
    return table(titles, rows)


TABLES: dict[str, Callable[[], str]] = {
    "at-size": passes,
    "at-size-plans": plans,
    "at-size-taps": taps,
    "at-size-published": published,
    "at-size-rounds": rounds,
    "at-size-walks": walks,
    "at-size-int8": int8,
    "layers": layers,
}
