"""Tree rules: the tables of docs/trees.md, from the stored comparisons of docs/results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scripts.cells import parted, percent, result, table, times
from scripts.head_to_head_said import TITLES, TOGETHER
from scripts.heads_by_clock import KINDS

STORED = "2026-11-28-trees"
FIXED, IN_A_ROW = "fixed number of nodes", "in a row"
AS_IF_32B, BY_CLOCK = (
    "2026-11-29-trees-as-if-32b",
    ("2026-11-29-trees-measured", "2026-11-29-heads-smollm2-measured-bf16"),
)
TARGETS = {"trees_bundled": "bundled", "bfloat16": "SmolLM2-135M"}  # by the folder of their runs


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


def by_clock() -> str:
    """Each tree over the best draft in a row of its head: its rounds priced as if for 32B, and by a GPU's clock."""
    clocks = {folder: runs for name in BY_CLOCK for folder, runs in result(name)["folders"].items()}
    titles = ["target", "head", "tree", "draft in a row", "tokens a round, tree and in a row", "as if for 32B"]
    titles += ["over the best fixed number, as if for 32B"]
    titles += ["the same, with what its round takes longer", "by the clock", "its round takes longer, by the clock"]
    titles += ["questions, as if for 32B and by the clock"]
    rows, grades = [], []
    for folder, runs in result(AS_IF_32B)["folders"].items():
        for run, modelled in runs.items():
            clock = clocks[folder].get(run)
            rows += [[TARGETS[folder], *_tree(run, modelled, tree, clock)] for tree in modelled["trees"]]
            grades.append(f"{TITLES.get(run, TARGETS[folder])} {parted(modelled['losslessness'])}")
    return f"{table(titles, rows)}\n\nOutputs that part from plain decoding, all at a near-tie: {', '.join(grades)}."


def _tree(run: str, modelled: Mapping[str, Any], tree: Mapping[str, Any], clock: Mapping[str, Any] | None) -> list[str]:
    """The cells of a tree after its target's; `clock`: the same run by the clock, where it was not disturbed."""
    name, chain = tree["tree"], tree["in_a_row"]
    rows = {row["drafter"]: row for row in modelled["rows"][TOGETHER]}
    cells = [TITLES.get(run, KINDS[name.partition("_")[0]]), f"`{name}`", f"`{chain}`"]
    cells += [" and ".join(f"{rows[one]['acceptance_len']:.2f}" for one in (name, chain)), _interval(tree)]
    cells += [_interval(tree, "_fixed") if "fixed" in tree else "-"]
    asked = str(rows[name]["num_questions"])
    if clock is None:
        return [*cells, *["-"] * 3, f"{asked} and 0"]
    found = {(one["tree"], one["in_a_row"]): one for one in clock["trees"]}
    own, other = (sum(clock["ms_a_round"][one].values()) for one in (name, chain))
    round_ms = sum(modelled["ms_a_round"][name].values())
    slower = tree["over"] * round_ms / (round_ms + own - other)
    timed = clock["rows"][TOGETHER][0]["num_questions"]
    return [*cells, f"{slower:.2f}", _interval(found[name, chain]), f"{own - other:.1f} ms", f"{asked} and {timed}"]


def _interval(tree: Mapping[str, Any], of: str = "") -> str:
    value, low, high = (tree[f"{part}{of}"] for part in ("over", "low", "high"))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


TABLES: dict[str, Callable[[], str]] = {"trees": trees, "trees-said": said, "trees-by-clock": by_clock}
