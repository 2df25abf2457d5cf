"""Results: the tables of what drafters reached, each from one or two files of docs/results. Typed numbers: none.

What passes, rounds and replays cost: `costs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from experiments.kept_records import kept_in
from scripts.cells import PROJECT, document, percent, ranked, rates, result, speedup, table, times

HELD_OUT, SMOLLM2 = "2026-11-28-held-out", "2026-11-27-smollm2"
MODELLED, MEASURED = "vLLM_A6000", "measured"
DATASETS = {"gsm8k": "GSM8K", "math": "MATH-500", "humaneval": "HumanEval", "mt_bench": "MT-bench"}
# What is shown of a ranking, in words: the best static drafters are those of the lengths that were run.
HELD_OUT_ROWS = {
    "FailFast, tau 0.4, N 8, first window 9": "dllm_0.05_df_0.4_60_8_w9",
    "block diffusion, static 12: the best of 3 to 12": "dllm_0.05_sf_12",
    "block diffusion, static 8": "dllm_0.05_sf_8",
    "AR, static 11: the best of 3 to 12": "ar_None_sf_11",
    "AR, static 8": "ar_None_sf_8",
    "prompt lookup, static 12: the best of 3 to 12": "lookup_3_sf_12",
}
SMOLLM2_ROWS = {
    "FailFast, tau 0.45, N 10, first window 8": "dllm_0.05_df_0.45_60_10",
    "block diffusion, static 8": "dllm_0.05_sf_8",
    "block diffusion, static 4": "dllm_0.05_sf_4",
    "AR, static 4": "ar_None_sf_4",
    "AR, static 8": "ar_None_sf_8",
    "AR, dynamic, tau 0.45": "ar_None_df_0.45_60_10",
}
README_ROWS = {
    "**FailFast**: block diffusion, dynamic length": ("dllm_0.05_df_0.4_60_8_w9", "dllm_0.05_df_0.45_60_10"),
    "block diffusion, best static length": ("dllm_0.05_sf_12", "dllm_0.05_sf_8"),
    "small AR model, best static length": ("ar_None_sf_11", "ar_None_sf_4"),
    "prompt lookup, no model": ("lookup_3_sf_12", ""),
}


def readme() -> str:
    """The README's: a line a family, modelled and measured."""
    modelled = ranked(result(HELD_OUT)["ranking"], MODELLED)
    measured = ranked(result(SMOLLM2)["ranking"], MEASURED)
    titles = (
        "drafter",
        f"modelled: bundled models, {result(HELD_OUT)['num_questions']} questions, as if Qwen2.5-32B on an A6000",
        f"measured: SmolLM2-135M on one H100, {_num_questions(measured)} questions",
    )
    rows = [
        [words, speedup(modelled[one]), speedup(measured.get(other))] for words, (one, other) in README_ROWS.items()
    ]
    return table(titles, [*rows, ["plain decoding", times(1), times(1)]])


def _num_questions(rows: Mapping[str, Mapping[str, Any]]) -> int:
    return next(iter(rows.values()))["num_questions"]


def _apart(records: list[dict[str, Any]], drafter: str) -> list[dict[str, float]]:
    """`rates` of a drafter's records, a data set after the other."""
    profile = document(PROJECT / "assets" / "latency" / "vLLM_A6000.json")
    prices = profile["draft_pass_ms"], profile["target_ms_per_token"]["Qwen2.5-32B-Instruct"]
    found = [[one for one in records if (one["dataset"], one["drafter"]) == (name, drafter)] for name in DATASETS]
    return [rates(some, *prices) for some in found if some]


def held_out() -> str:
    """The bundled family on questions that no model has seen."""
    stored = result(HELD_OUT)
    both, without = (ranked(stored[key], MODELLED) for key in ("ranking", "ranking_without_degenerate"))
    titles = "drafter|name|accepted|acceptance length|passes a round|modelled speedup|both sets (95 % interval)"
    rows = []
    for words, name in HELD_OUT_ROWS.items():
        parts = _apart(list(kept_in(stored)), name)
        rows.append([
            words,
            f"`{name}`",
            " / ".join(percent(part["acceptance_rate"]) for part in parts),
            " / ".join(f"{part['acceptance_len']:.2f}" for part in parts),
            " / ".join(f"{part['passes_per_round']:.2f}" for part in parts),
            " / ".join(times(part["speedup"]) for part in parts),
            speedup(both[name]),
            times(without[name]["speedup_mean"]),
        ])  # fmt: skip
    return table((*titles.split("|"), "without degenerate answers"), rows)


def ahead() -> str:
    """How far FailFast is ahead, in a sentence."""
    rows = ranked(result(HELD_OUT)["ranking"], MODELLED)
    first, static = rows["dllm_0.05_df_0.4_60_8_w9"], rows["dllm_0.05_sf_12"]
    ar, dllm = (f"{abs(row[f'{to}_value']):.2f}x" for row, to in ((first, "to_ar"), (static, "to_best")))
    low, high = sorted(abs(static[f"to_best_{end}"]) for end in ("low", "high"))
    return (
        f"On these {first['num_questions']} questions FailFast is {ar} ahead of the best static AR drafter "
        f"({first['to_ar_low']:.2f} to {first['to_ar_high']:.2f}) and {dllm} ahead of the best static block-diffusion "
        f"drafter ({low:.2f} to {high:.2f}), in modelled time."
    )


def cpu() -> str:
    """Measured times of the bundled family on a CPU."""
    shown = {"FailFast": "dllm_0.05_df_", "block diffusion, best static": "dllm_0.05_sf_", "AR, best static": "ar_"}
    rows = {words: [words] for words in shown}
    for name in ("gsm8k", "math"):
        ranking = ranked(result(f"2026-11-24-cpu-{name}")["ranking"], MEASURED)
        for words, prefix in shown.items():
            best = max((row for key, row in ranking.items() if key.startswith(prefix)), key=_mean)
            rows[words].append(f"{speedup(best)}, `{best['drafter_name']}`")
    return table(("drafter", "GSM8K", "MATH-500"), rows.values())


def _mean(row: Mapping[str, Any]) -> float:
    return row["speedup_mean"]


def smollm2() -> str:
    """A target with drafters of its own, on one GPU."""
    ranking, records = result(SMOLLM2)["ranking"], list(kept_in(result(f"{SMOLLM2}-records")))
    modelled, measured = ranked(ranking, MODELLED), ranked(ranking, MEASURED)
    rows = []
    for words, name in SMOLLM2_ROWS.items():
        apart = [times(one["speedup"]) for one in _apart(records, name)]
        rate = percent(modelled[name]["acceptance_rate"])
        rows.append([words, *apart, speedup(modelled[name]), speedup(measured[name]), rate])
    return table(("drafter", *DATASETS.values(), "all, modelled", "all, measured", "accepted"), rows)


def policies() -> str:
    """The cost-aware policy against FailFast, tuned on one half of the questions and reported on the other."""
    stored = result("2026-11-28-policies")["data"]
    targets = list(stored["gsm8k"]["targets"])
    names = list(stored["gsm8k"]["targets"][targets[0]])
    rows = [[name, *(_policy(stored, target, name) for target in targets)] for name in names]
    return table(("policy", *(target.removesuffix("-Instruct") for target in targets)), rows)


def _policy(stored: Mapping[str, Any], target: str, name: str) -> str:
    cells = []
    for dataset in ("gsm8k", "math"):
        one = stored[dataset]["targets"][target][name]
        share = one["share_of_ceiling"]["own_drafter"]
        cells.append(f"{times(one['speedup_ratio'])} ({percent(share, 0)})")
    return " / ".join(cells)


def sampling() -> str:
    """Acceptance while sampling."""
    runs = result("2026-11-24-sampling-acceptance")["runs"]
    rows = [
        [f"`{name}`", *(_rate(run["drafters"][name]["acceptance_rate"]) for run in runs)] for name in _drafters(runs)
    ]
    return table(("drafter", *(_sampling_title(run["settings"]) for run in runs)), rows)


def _drafters(runs: list[dict[str, Any]]) -> list[str]:
    return [name for name in runs[0]["drafters"] if name != "plain"]


def _sampling_title(settings: Mapping[str, Any]) -> str:
    if settings["decoding"] != "sampled":
        return "temperature 0"
    return f"temperature {settings['temperature']:g}, {settings['draft_sampling'].replace('sample', 'sampled')} drafts"


def _rate(value: Mapping[str, float]) -> str:
    return f"{percent(value['value'])} ({100 * value['low']:.1f} to {100 * value['high']:.1f})"


def sampling_cost() -> str:
    """What sampling adds to a round."""
    runs = result("2026-11-24-sampling-cost")
    rows = [
        [f"`{name}`", *(f"{run['drafters'][name]['ratio']['median']:.2f}" for run in runs)]
        for name in runs[0]["drafters"]
    ]
    return table(("drafter", *(_cost_title(run) for run in runs)), rows)


def _cost_title(run: Mapping[str, Any]) -> str:
    words = f"{run['draft_sampling'].replace('sample', 'sampled')} drafts"
    return f"{words}, top-k {run['top_k']}, top-p {run['top_p']}" if run["top_k"] else words


TABLES: dict[str, Callable[[], str]] = {
    "readme": readme,
    "held-out": held_out,
    "ahead": ahead,
    "cpu": cpu,
    "smollm2": smollm2,
    "policies": policies,
    "sampling": sampling,
    "sampling-cost": sampling_cost,
}
