"""Head to head, in words: what docs/heads.md says won where, each sentence made of the numbers that carry it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.heads_grids import BY_COST, RULE, STATIC
from scripts.cells import percent, speedup, times
from specdec.ranking.comparisons import BEHIND, EQUAL

BIG, SMALL = "Qwen2.5-32B-Instruct", "Qwen2.5-7B-Instruct"
TITLES = {
    "ar": "AR",
    "dllm": "block diffusion",
    "eagle3": "EAGLE-3",
    "dflash": "DFlash",
    "jetspec": "JetSpec",
    "dspark": "DSpark",
    "dflash_long": "DFlash, longer",
    "dspark_long": "DSpark, longer",
    "today_ar": "AR, as it comes with the program",
    "today_dllm": "block diffusion, as it comes with the program",
}
DATASETS = {
    "gsm8k": "GSM8K",
    "math": "MATH-500",
    "humaneval": "HumanEval",
    "mt_bench": "MT-bench",
    "spec_bench": "Spec-Bench",
}
TOGETHER, ALIKE, EVERY = "all", "alike", "all"
TOLD, UNTOLD = {BEHIND: "behind it", EQUAL: "level with it"}, "not told from it"
FAILFAST, TODAY = "dllm", "today_"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
Row = Mapping[str, Any]


def title(drafter: str) -> str:
    return TITLES.get(drafter, drafter)


def rows_of(stored: Mapping[str, Any], target: str, group: str, what: str = "drafters") -> dict[str, list[Row]]:
    """Data set -> the ranked rows; of a document whose drafters were all trained alike, those of every group."""
    rankings = stored["targets"][target]["rankings"]
    found: dict[str, list[Row]] = rankings.get(group, rankings[ALIKE])[what]
    return found


def said(stored: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The sentences, a line each; `measured`: the same drafters by costs that were measured."""
    lines = [_first(stored), _data_sets(stored), _failfast(stored), _rounds(stored), _smaller(stored)]
    lines += [_measured(stored, measured), *_more(stored)]
    return "\n".join(f"- {line}" for line in lines)


def _first(stored: Mapping[str, Any]) -> str:
    first, second, *_ = rows_of(stored, BIG, ALIKE)[TOGETHER]
    return (
        f"Trained alike, **{title(first['drafter'])}** is first as if for 32B over all {first['num_questions']} "
        f"questions: {speedup(first)}. Next is {title(second['drafter'])} with {speedup(second)}, "
        f"{TOLD.get(second['standing'], UNTOLD)} "
        f"({difference(second)}, corrected p {second['to_best_p_holm']:.4f})."
    )


def difference(row: Row) -> str:
    """To the first, with its interval where there is one."""
    value, low, high = (row[f"to_best_{part}"] for part in ("value", "low", "high"))
    return f"{value:+.2f}x" if low is None else f"{value:+.2f}x, {low:+.2f} to {high:+.2f}"


def _data_sets(stored: Mapping[str, Any]) -> str:
    found = rows_of(stored, BIG, ALIKE)
    parts = []
    for scope, words in DATASETS.items():
        if scope in found:
            first, second, *_ = found[scope]
            clear = "clearly" if second["standing"] == BEHIND else "not clearly"
            parts.append(f"on {words} {title(first['drafter'])} ({times(first['speedup_mean'])}, {clear})")
    return f"First by data set: {'; '.join(parts)}."


def _failfast(stored: Mapping[str, Any]) -> str:
    rows = rows_of(stored, BIG, ALIKE)[TOGETHER]
    place = next(index for index, row in enumerate(rows) if row["drafter"] == FAILFAST)
    own = {row["drafter"]: row for row in rows_of(stored, BIG, ALIKE, "policies")[TOGETHER]}
    named = {policy: own[f"{FAILFAST}: {policy}"]["speedup_mean"] for policy in (STATIC, RULE, BY_COST)}
    gap = rows[place]["to_best_value"]
    clear = "clearly" if rows[place]["standing"] == BEHIND else rows[place]["standing"]
    lost = "" if gap is None else f", {abs(gap):.2f}x behind the first ({clear})"
    return (
        f"Block diffusion is {ORDINALS[place]} of {len(rows)}{lost}: {times(named[RULE])} under FailFast's rule, "
        f"{times(named[STATIC])} at its best static length, {times(named[BY_COST])} by cost."
    )


def _rounds(stored: Mapping[str, Any]) -> str:
    rows = rows_of(stored, BIG, ALIKE)[TOGETHER]
    longest = max(rows, key=lambda row: row["acceptance_len"])
    first = rows[0]
    here, there = (
        f"{row['acceptance_len']:.2f} tokens a round for {row['round_cost']:.2f}" for row in (longest, first)
    )
    if longest["drafter"] == first["drafter"]:
        return f"{title(first['drafter'])} has the longest acceptance as well: {here} target passes."
    return (
        f"Acceptance length alone would choose {title(longest['drafter'])}: {here} target passes, where "
        f"{title(first['drafter'])} has {there}."
    )


def _smaller(stored: Mapping[str, Any]) -> str:
    rows = rows_of(stored, SMALL, ALIKE)[TOGETHER]
    order = ", ".join(f"{title(row['drafter'])} {times(row['speedup_mean'])}" for row in rows)
    return f"As if for 7B, beside which a drafter's pass costs more, the order is: {order}."


def _measured(stored: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """By other costs the order may be another."""
    first, second, *_ = rows_of(measured, BIG, ALIKE)[TOGETHER]
    shares = [percent(share_of_pass(one["profile"], "eagle3"), 1) for one in (measured, stored)]
    return (
        f"By what passes cost on one {measured['profile']['provenance']['device_name']}, where one of EAGLE-3 takes "
        f"{shares[0]} of the target's and not {shares[1]}, the first are {title(first['drafter'])} with "
        f"{speedup(first)} and {title(second['drafter'])} with {speedup(second)}, "
        f"{TOLD.get(second['standing'], UNTOLD)} ({difference(second)}, corrected p {second['to_best_p_holm']:.4f})."
    )


def share_of_pass(profile: Mapping[str, Any], family: str) -> float:
    """A pass of a head over one of the big target."""
    ms = profile["family_pass_ms"][family]
    own: float = ms[BIG] if isinstance(ms, dict) else ms
    return own / float(profile["target_ms_per_token"][BIG])


def _more(stored: Mapping[str, Any]) -> Sequence[str]:
    """Against the drafters that come with the program, where they were recorded too."""
    rows = rows_of(stored, BIG, EVERY)[TOGETHER]
    today = [row for row in rows if row["drafter"].startswith(TODAY)]
    if not today:
        return []
    best = next(row for row in rows if not row["drafter"].startswith(TODAY))
    ratio = best["speedup_mean"] / today[0]["speedup_mean"]
    return [
        f"With more training the best is {title(best['drafter'])}: {speedup(best)}, {times(ratio)} of "
        f"{title(today[0]['drafter'])} ({speedup(today[0])})."
    ]
