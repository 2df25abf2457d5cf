"""Ablations: the table of docs/heads.md, from what `experiments.ablations` printed. No other page's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from experiments.ablations import LENGTHS
from experiments.heads_grids import RULE
from scripts.cells import result, speedup, table, times
from scripts.head_to_head import standing
from scripts.head_to_head_said import BIG, SMALL

NAME = "2026-11-28-ablations"


def ablations() -> str:
    """A row a variant, of the ablations that were measured."""
    statics = "/".join(map(str, LENGTHS))
    titles = ["varied", "", "tokens seen", "setting, chosen on other questions", "acceptance length"]
    titles += ["a round, in target passes", "speedup (95 % interval)", "standing", f"under {RULE}"]
    titles += ["as if for 7B", "standing, 7B"]
    titles += [f"acceptance length at {statics} drafts"]
    stored = result(NAME)["ablations"]
    return table(titles, [row for name, one in stored.items() for row in rows(name, one)])


def rows(name: str, one: Mapping[str, Any]) -> list[list[str]]:
    """Of one ablation, its variants in the order that they were asked for."""
    made = []
    for label, big in one["targets"][BIG].items():
        small, lens = one["targets"][SMALL][label], one["static"][label]
        made.append([
            name,
            label,
            tokens(one["trained"].get(label)),
            f"{big['policy']}: `{big['setting'].partition('@')[0]}`",
            f"{big['acceptance_len']:.2f}",
            f"{big['round_cost']:.2f}",
            speedup(big),
            standing(big),
            times(big["policies"][RULE]),
            times(small["speedup_mean"]),
            standing(small),
            " / ".join(f"{lens[str(length)]:.2f}" if str(length) in lens else "-" for length in LENGTHS),
        ])  # fmt: skip
    return made


def tokens(trained: Mapping[str, float] | None) -> str:
    return "-" if trained is None else f"{trained['tokens'] / 1e6:.0f} M"


TABLES: dict[str, Callable[[], str]] = {"ablations": ablations}
