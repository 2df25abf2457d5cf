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
    """Speculation with the acceptance that was published, really run but for what is accepted."""
    rows = []
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
                said,
                times(given["speedup"]) if given["speedup"] else "not given",
                given["hardware"],
            ]
        )
    titles = ("acceptance of", "on", "tokens a round", "tokens a second, here", "speedup, here", "published", "speedup")
    return table((*titles, "on hardware"), rows)


TABLES: dict[str, Callable[[], str]] = {"at-size": passes, "at-size-taps": taps, "at-size-published": published}
