"""Heads by the clock: the tables of docs/heads.md that a GPU's clock decides. No other page's."""

from __future__ import annotations

from collections.abc import Callable

from scripts.cells import parted, result, speedup, table, times
from scripts.head_to_head import standing, trained
from scripts.head_to_head_said import DATASETS, TOGETHER, title
from specdec.drafters.families import parse_name

SMOLLM2, UNTUNED = "2026-11-29-heads-smollm2-clock", "2026-11-28-heads-smollm2-measured"
# What a setting of the run "all" is called, by the first word of its name; a run of its own has a head's name.
KINDS = {"lookup": "prompt lookup", "ar": "AR", "dllm": "block diffusion", "eagle3": "EAGLE-3", "dflash": "DFlash"}
RULED = {"block diffusion": "FailFast"}  # what a drafter is called under FailFast's rule


def by_clock(dtype: str, name: str = SMOLLM2) -> str:
    """Every kind of drafter at the setting that was fastest on other questions, all families in one ranking."""
    stored = result(name)
    ranked = stored["side_by_side"][dtype]
    sets = [scope for scope in DATASETS if scope in ranked]
    found = {scope: {row["drafter"]: row for row in ranked[scope]} for scope in sets}
    titles = [
        "drafter",
        "setting, chosen on other questions",
        "acceptance length",
        "a round: drafting, ms",
        "verification",
    ]
    titles += [*(f"speedup, {DATASETS[scope]}" for scope in sets), "together (95 % interval)", "standing"]
    rows = []
    for row in ranked[TOGETHER]:
        own = [times(found[scope][row["drafter"]]["speedup_mean"]) for scope in sets]
        run, _, setting = row["drafter"].partition(": ")
        spent = stored["folders"][dtype][run]["ms_a_round"][setting]
        cells = [f"{row['acceptance_len']:.2f}", f"{spent['draft']:.2f}", f"{spent['verify']:.2f}"]
        rows.append([*named(row["drafter"]), *cells, *own, speedup(row), standing(row)])
    asked = "; ".join(f"{DATASETS[scope]} {found[scope][row['drafter']]['num_questions']}" for scope in sets)
    said = (
        f"Questions: {asked}. From plain decoding part {grades(name, dtype)} outputs, all at a near-tie of the target."
    )
    return f"{table(titles, rows)}\n\n{said}"


def grades(name: str, dtype: str) -> str:
    """How many outputs of all runs part from plain decoding."""
    runs = [one["losslessness"] for one in result(name)["folders"][dtype].values()]
    return parted({kind: sum(one[kind] for one in runs) for kind in runs[0]})


def named(drafter: str) -> tuple[str, str]:
    """What "RUN: SETTING" is called, and its setting."""
    run, _, setting = drafter.partition(": ")
    kind = KINDS[setting.partition("_")[0]] if run == "all" else title(run)
    called = RULED.get(kind, kind) if "_df_" in setting else kind
    return f"{called}, a tree" if parse_name(setting).is_tree else called, f"`{setting}`"


def bfloat16() -> str:
    return by_clock("bfloat16")


def untuned() -> str:
    """In float32, lengths not tuned, each over the questions that its run had time for."""
    ((dtype, runs),) = result(UNTUNED)["folders"].items()
    found = [(f"{run}: {row['drafter']}", row) for run, one in runs.items() for row in one["rows"][TOGETHER]]
    rows = [
        [*named(name), str(row["num_questions"]), f"{row['acceptance_len']:.2f}", speedup(row)]
        for name, row in sorted(found, key=lambda pair: -float(pair[1]["speedup_mean"]))
    ]
    return table(("drafter", "setting", "questions", "acceptance length", f"speedup, {dtype}"), rows)


def trained_alike() -> str:
    return trained(SMOLLM2)


TABLES: dict[str, Callable[[], str]] = {
    "heads-smollm2-bfloat16": bfloat16,
    "heads-smollm2-measured": untuned,
    "heads-smollm2-clock-trained": trained_alike,
}
