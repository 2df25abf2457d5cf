"""At size: the tables of the engine's passes and of speculation at the sizes of published models and heads.

From one GPU session's file of docs/results; smaller shapes: `costs.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scripts.cells import result, table, times

STORED, PLANNED = "2026-11-28-engine-at-size", "2026-11-29-engine-plans"
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
    """Passes over the larger of their two limits; one shape's again by the plans that were measured for it."""
    shapes = {f"{name} shape": one["target"] for name, one in result(STORED)["passes"].items()}
    shapes["Qwen3-8B shape, with plans"] = result(PLANNED)["passes"]
    rows = [[words, *(cell for one in shapes.values() for cell in _cells(one, key))] for words, key in PASSES.items()]
    titles = [title for name in shapes for title in (f"{name}: ms", "over the limit")]
    return table(("pass", *titles), rows)


def _cells(target: dict[str, Any], key: tuple[str, ...]) -> tuple[str, str]:
    if len(key) == 1:
        found = target["by_context"]["512"][key[0]]
    elif "heads" in target:
        found = target["heads"][key[0]]["passes"][key[1]]
    else:
        return "-", "-"
    return f"{found['ms']:.2f}", f"{found['over_limit']:.2f}"


def taps() -> str:
    """What keeping the heads' taps adds to a verification."""
    rows = [
        [name, HEADS[head], f"{100 * (one['passes']['verification_with_taps']['over_none'] - 1):.1f} %"]
        for name, shape in result(STORED)["passes"].items()
        for head, one in shape["target"]["heads"].items()
    ]
    return table(("target's shape", "taps of", "added to a verification"), rows)


def published() -> str:
    """Speculation with the acceptance that was published, really run but for what is accepted; of the cases that ran
    again with plans, that too."""
    rows, again = [], {_case(one): one for one in result(PLANNED)["published"]["cases"]}
    for one in result(STORED)["published"]["cases"]:
        given = one["published"]
        said = f"{given['tokens_per_s']:,.0f}" if given["tokens_per_s"] else "not given"
        rows.append(
            [
                f"{HEADS[given['head']]}, `{given['drafter']}`",
                given["dataset"],
                f"{given['acceptance_length']:.2f}",
                f"{one['tokens_per_s']:,.0f}",
                times(one["speedup"]),
                *_again(again.get(_case(one))),
                said,
                times(given["speedup"]) if given["speedup"] else "not given",
                given["hardware"],
            ]
        )
    titles = ["acceptance of", "on", "tokens a round", "tokens a second, here", "speedup, here"]
    titles += ["with plans: tokens a second", "speedup", "modelled over measured", "published", "speedup"]
    return table((*titles, "on hardware"), rows)


def _case(one: dict[str, Any]) -> tuple[str, str, str]:
    given = one["published"]
    return given["head"], given["drafter"], given["dataset"]


def _again(one: dict[str, Any] | None) -> tuple[str, str, str]:
    if one is None:
        return "-", "-", "-"
    return f"{one['tokens_per_s']:,.0f}", times(one["speedup"]), f"{one['modelled_over_measured']:.2f}"


def rounds() -> str:
    """What a round of a tree takes, with plans, whole rounds timed."""
    titles = ("tree", "nodes", "drafting, ms", "the rest of the host", "verification", "commit")
    rows = [
        [HEADS[head], nodes, *(f"{ms:.2f}" for ms in one["parts_ms"].values())]
        for head, passes in result(PLANNED)["passes"]["heads"].items()
        for nodes, one in passes["trees"].items()
    ]
    return table(titles, rows)


LAYERS = "2026-11-29-engine-layers"
WAYS = {
    "as usual": "usual",
    "tiles of 16 lines": "usual kernels, tiles of 16, 2 warps, 8 stages",
    "a kernel a step": "a kernel a step",
    "three kernels a layer": "attention to output, MLP",
    "one a layer": "a kernel a layer",
    "one kernel for all layers": "one kernel",
}


def layers() -> str:
    """Ways to run the layers of small models, over the time that reading their weights takes."""
    models = {name: one for name, one in result(LAYERS).items() if isinstance(one, dict) and "limit_us" in one}
    titles = ["layers run", *(f"{name}, rows: {rows}" for name in models for rows in ("1", "32"))]
    rows = [
        [words, *(f"{one[rows][key] / one['limit_us']:.2f}" for one in models.values() for rows in ("1", "32"))]
        for words, key in WAYS.items()
    ]
    return table(titles, rows)


TABLES: dict[str, Callable[[], str]] = {
    "at-size": passes,
    "at-size-taps": taps,
    "at-size-published": published,
    "at-size-rounds": rounds,
    "layers": layers,
}
