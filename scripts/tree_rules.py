"""Tree rules: the tables of docs/trees.md, from the stored comparison of docs/results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scripts.cells import percent, result, table, times

STORED = "2026-11-28-trees"
FIXED, IN_A_ROW = "fixed number of nodes", "in a row"


def trees() -> str:
    """What each rule gives on questions that it was not tuned on, a head after the other."""
    titles = ("head", "rule, its setting tuned on other questions", "tokens a round", "nodes a round", "speedup")
    rows = [
        [head, f"{rule}: `{row['drafter']}`", f"{row['acceptance_len']:.2f}", f"{row['nodes_per_round']:.1f}"]
        + [times(row["speedup_ratio"]), _over(row), percent(row["share_of_ceiling"], 0)]
        for head, found in result(STORED)["heads"].items()
        for rule, row in _fastest_last(found["rules"])
    ]
    return table((*titles, "over the fixed number", "of the ceiling"), rows)


def said() -> str:
    """The same in a few sentences."""
    stored = result(STORED)
    lines = []
    for head, found in stored["heads"].items():
        rules = found["rules"]
        best = max(rules, key=lambda rule: float(rules[rule]["speedup_ratio"]))
        chain = rules[best]["speedup_ratio"] / rules[IN_A_ROW]["speedup_ratio"]
        line = f"{head}: the best tree is {chain:.2f} times as fast as the same head's best draft in a row"
        if "beside" in found:
            over, low, high = found["beside"]["rules_over_it"][best]
            line += f", and {over:.2f} times ({low:.2f} to {high:.2f}) as fast as `{found['beside']['drafter']}`"
            line += f", the best without heads ({times(found['beside']['speedup_ratio'])})"
        lines.append(line + ".")
    measured = stored["by_the_engine"]
    for head, found in measured["heads"].items():
        if "beside" in found:
            rules = found["rules"]
            best = max(rules, key=lambda rule: float(rules[rule]["speedup_ratio"]))
            over = found["beside"]["rules_over_it"][best][0]
            line = f"{head}, {measured['what']}: {times(rules[best]['speedup_ratio'])} by `{rules[best]['drafter']}`"
            line += (
                f", {_over(rules[best])} times the best fixed number, {over:.2f} times `{found['beside']['drafter']}`"
            )
            lines.append(line + ".")
            break
    one = next(iter(stored["heads"].values()))
    numbers = f"tuned on {one['tuned_on']} questions, told of {one['reported_on']} others"
    head = f"{stored['what']}; {numbers}; ratio of sums, with 95 % intervals over questions."
    return "\n".join([head, "", *(f"- {line}" for line in lines)])


def _fastest_last(rules: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(rules.items(), key=lambda pair: float(pair[1]["speedup_ratio"]))


def _over(row: Mapping[str, Any]) -> str:
    if row["over_fixed"] == 1:
        return "1"
    return f"{row['over_fixed']:.3f} ({row['over_fixed_low']:.3f} to {row['over_fixed_high']:.3f})"


TABLES: dict[str, Callable[[], str]] = {"trees": trees, "trees-said": said}
