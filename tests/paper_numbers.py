"""The FailFast paper's published numbers as a ranking JSON, to draw figures beside them (`--reference`)."""

from __future__ import annotations

from typing import Any

ENGINE = "vLLM_A6000"
# Whose bar is which drafter. The paper does not say with which lengths: the labels are its own.
BREAKDOWN = {
    "ar": ("ar_None_sf_8", "AR"),
    "fast-dllm": ("dllm_0.9_sf_8", "Fast-dLLM"),
    "failfast": ("dllm_0.05_df_0.45_60_10", "FailFast"),
}


def ranking_of(numbers: dict[str, Any], label: str) -> dict[str, Any]:
    """The document that `--reference` reads, of numbers laid out as in paper_numbers.json; absent ones are left out."""
    rows: dict[str, dict[str, Any]] = {}
    tau, longest = numbers.get("tau_sweep_MATH_32B", {}), numbers.get("N_max_sweep_MATH_32B", {})
    for value, speedup in zip(tau.get("tau", []), tau.get("speedup", []), strict=True):
        rows[f"dllm_0.05_df_{value}_60_10"] = {"speedup_mean": speedup}
    for value, speedup in zip(longest.get("N_max", []), longest.get("speedup", []), strict=True):
        rows[f"dllm_0.05_df_0.45_{value}_10"] = {"speedup_mean": speedup}
    static = numbers.get("static_len_8_threshold_sweep_MATH_32B", {})
    columns = static.get("passes_per_round", []), static.get("acceptance_pct", [])
    for index, (passes, percent) in enumerate(zip(*columns, strict=True)):
        rows[f"dllm_{(index + 1) / 20}_sf_8"] = {"passes_per_round": passes, "acceptance_rate": percent / 100}
    if "ar_drafter" in static:
        one = static["ar_drafter"]
        rows["ar_None_sf_8"] = {
            "passes_per_round": one["passes_per_round"],
            "acceptance_rate": one["acceptance_pct"] / 100,
        }
    engines = [_engine(f"{ENGINE}, Qwen2.5-32B-Instruct", rows)]
    for target, bars in numbers.get("latency_breakdown_ms_per_query_[draft,verify,total]", {}).items():
        engines.append(_engine(f"{ENGINE}, {target}", _breakdown(bars)))
    return {"label": label, "source": "arXiv 2512.20573 and its public code; speedups are modelled", "engines": engines}


def _engine(name: str, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    # The paper's passes are those that its program counts.
    return {
        "engine": name,
        "pass_accounting": "published",
        "rows": [{"drafter_name": key} | row for key, row in rows.items()],
    }


def _breakdown(bars: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    made = {}
    for key, (draft, verify, total) in bars.items():
        name, label = BREAKDOWN[key]
        made[name] = {"label": label, "draft_ms": draft, "verify_ms": verify, "total_ms": total}
    return made
