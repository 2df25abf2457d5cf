"""Head to head: the tables of docs/heads.md, from what `experiments.heads_table` printed. No other page's."""

from __future__ import annotations

from collections.abc import Callable

from experiments.heads_grids import BY_COST, RULE, STATIC
from scripts.cells import percent, result, speedup, table, times
from scripts.head_to_head_said import ALIKE, BIG, DATASETS, EVERY, SMALL, TOGETHER, Row, rows_of, said, title

BUNDLED, ON_H200, OF_SMOLLM2 = "2026-11-28-heads", "2026-11-28-heads-h200", "2026-11-28-heads-smollm2"


def drafters(name: str, target: str, group: str) -> str:
    """Each drafter at the length and policy that other questions chose: what it reached on these."""
    stored = result(name)
    chosen = stored["targets"][target]["chosen"]
    ranked = rows_of(stored, target, group).items()
    found = {scope: {row["drafter"]: row for row in rows} for scope, rows in ranked}
    sets = [scope for scope in DATASETS if scope in found]
    titles = [
        "drafter",
        "setting, chosen on other questions",
        *(f"acceptance length, {DATASETS[scope]}" for scope in sets),
    ]
    titles += ["a round, in target passes", *(f"speedup, {DATASETS[scope]}" for scope in sets)]
    titles += ["together (95 % interval)", "standing", "of its ceiling"]
    rows = []
    for drafter, row in found[TOGETHER].items():
        best = chosen[drafter]["best"]
        rows.append([
            title(drafter),
            f"{best}: `{chosen[drafter][best]['setting'].partition('@')[0]}`",
            *(f"{found[scope][drafter]['acceptance_len']:.2f}" for scope in sets),
            f"{row['round_cost']:.2f}",
            *(times(found[scope][drafter]["speedup_mean"]) for scope in sets),
            speedup(row),
            standing(row),
            percent(row["ceiling_share"], 0),
        ])  # fmt: skip
    return table(titles, rows)


def standing(row: Row) -> str:
    """In words, with the corrected p-value of the difference to the first."""
    p_holm = row["to_best_p_holm"]
    return row["standing"] if p_holm is None else f"{row['standing']} (p {p_holm:.4f})"


def policies(name: str = BUNDLED) -> str:
    """Each drafter under every policy, as if for either target, both data sets together."""
    stored = result(name)
    targets = list(stored["targets"])
    titles = ["drafter", *(f"{policy}, {short(target)}" for target in targets for policy in (STATIC, RULE, BY_COST))]
    rows = []
    for drafter in stored["groups"].get(EVERY, stored["groups"][ALIKE]):
        cells = [title(drafter)]
        for target in targets:
            found = {row["drafter"]: row for row in rows_of(stored, target, EVERY, "policies")[TOGETHER]}
            for policy in (STATIC, RULE, BY_COST):
                row = found.get(f"{drafter}: {policy}")
                cells.append("-" if row is None else times(row["speedup_mean"]))
        rows.append(cells)
    return table(titles, rows)


def short(target: str) -> str:
    return target.removeprefix("Qwen2.5-").removesuffix("-Instruct")


def trained(name: str = BUNDLED) -> str:
    """What each training took: the same time for all that are compared."""
    titles = ("drafter", "trained", "tokens seen", "passes over the answers", "operations", "parameters", "GPU minutes")
    rows = []
    for drafter, one in result(name)["trained"].items():
        minutes = one["seconds"] / 60
        counts = [f"{one['tokens'] / 1e6:.0f} M", f"{one['passes']:.1f}", f"{one['flops']:.1e}"]
        rows.append([
            title(drafter),
            f"{one['seconds']:.0f} s",
            *counts,
            f"{one['num_parameters'] / 1e6:.2f} M",
            f"{minutes:.1f}",
        ])  # fmt: skip
    return table(titles, rows)


def words() -> str:
    """What won where."""
    return said(result(BUNDLED), result(ON_H200))


def as_if_big() -> str:
    return drafters(BUNDLED, BIG, ALIKE)


def as_if_small() -> str:
    return drafters(BUNDLED, SMALL, ALIKE)


def on_h200() -> str:
    """By costs that were measured."""
    return drafters(ON_H200, BIG, ALIKE)


def of_smollm2() -> str:
    return drafters(OF_SMOLLM2, BIG, ALIKE)


def smollm2_as_if_small() -> str:
    return drafters(OF_SMOLLM2, SMALL, ALIKE)


def smollm2_trained() -> str:
    return trained(OF_SMOLLM2)


def longer() -> str:
    """With those that had more training."""
    return drafters(BUNDLED, BIG, EVERY)


TABLES: dict[str, Callable[[], str]] = {
    "heads-said": words,
    "heads-32b": as_if_big,
    "heads-7b": as_if_small,
    "heads-h200": on_h200,
    "heads-smollm2": of_smollm2,
    "heads-smollm2-7b": smollm2_as_if_small,
    "heads-smollm2-trained": smollm2_trained,
    "heads-longer": longer,
    "heads-policies": policies,
    "heads-trained": trained,
}
