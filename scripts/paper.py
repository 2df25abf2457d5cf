"""Paper: what the FailFast paper states, beside the commands, memory and hours that showing it here would take.

Expected numbers are data of docs/reference; memory and hours are estimated by the formulas below, which
docs/reproduce-paper.md states. Nothing of it was run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from profiling.roofline import BYTES, find_shape
from scripts.cells import PROJECT, document, percent, ranked, result, table, times
from scripts.results import HELD_OUT, MODELLED
from specdec.models.checkpoints import TARGET

REFERENCE = PROJECT / "docs" / "reference"
# Quantity -> how it is written, and where a ranking's row holds its interval.
QUANTITIES: dict[str, tuple[Callable[[float], str], str]] = {
    "speedup_mean": (times, "mean"),
    "acceptance_rate": (percent, "acceptance_rate"),
    "passes_per_round": ("{:.2f}".format, "passes_per_round"),
    "total_ms": ("{:,.0f} ms".format, "total_ms"),
}
ARRAY = re.compile(r"^(SPEC_LENS|THRESHOLDS|TAUS|MAX_SPEC_LENS|INCR_LENS)=\(\$\{\1:-([^}]*)\}\)$", re.MULTILINE)


def runs() -> str:
    """What is stated x command x expected x tolerance x memory x hours."""
    asked = document(REFERENCE / "paper_runs.json")
    titles = "the paper's|command|figure|expected|tolerance|memory|hours at most"
    return table(titles.split("|"), [_row(asked, run) for run in asked["runs"]])


def _row(asked: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    return [
        run["what"],
        f"`{command(run, asked['exported'])}`",
        f"`{run['figure']}`",
        _expected(run),
        f"{100 * tolerance(run['quantity'], asked['num_questions']):.0f} %",
        f"{max(memory_GB(target, asked) for target in run['targets']):.0f} GB",
        f"{hours(run, asked):.1f}",
    ]


def command(run: Mapping[str, Any], exported: Mapping[str, str]) -> str:
    """The sweep, with the variables that are not its own and not exported before."""
    targets = " ".join(f"Qwen/{name}-Instruct" for name in run["targets"])
    variables = {"TARGETS": targets, "DATASETS": " ".join(run["datasets"]), **run.get("variables", {})}
    told = {name: value for name, value in variables.items() if exported.get(name) != value}
    words = [f'{name}="{value}"' if " " in value else f"{name}={value}" for name, value in told.items()]
    return " ".join([*words, f"bash scripts/{run['script']}.sh"])


def _expected(run: Mapping[str, Any]) -> str:
    text, _ = QUANTITIES[run["quantity"]]
    found = dict(run.get("stated", {}))
    for words, drafter in run.get("at", {}).items():
        found[words] = published(run["targets"][0], drafter)[run["quantity"]]
    return ", ".join(f"{words}: {text(value)}" if words else text(value) for words, value in found.items())


def published(target: str, drafter: str) -> dict[str, Any]:
    """What failfast_paper.json has of a drafter, of all engines of the target together."""
    found: dict[str, Any] = {}
    for engine in document(REFERENCE / "failfast_paper.json")["engines"]:
        if target in engine["engine"]:
            for row in engine["rows"]:
                found |= row if row["drafter_name"] == drafter else {}
    return found


def num_settings(run: Mapping[str, Any]) -> int:
    """How many drafters the sweep runs: the product of its arrays."""
    text = (PROJECT / "scripts" / f"{run['script']}.sh").read_text(encoding="utf-8")
    arrays = dict(ARRAY.findall(text)) | run.get("variables", {})
    return math.prod(len(words.split()) for words in arrays.values())


def tolerance(quantity: str, num_questions: int) -> float:
    """Half of the 95 % interval that so many questions would give, over the value.

    From this project's held-out questions: an interval of n questions is sqrt(n / num_questions) times as wide.
    """
    name = "dllm_0.05_df_0.4_60_8_w9"
    row = ranked(result(HELD_OUT)["ranking"], MODELLED)[name]
    key = QUANTITIES[quantity][1]
    half = (row[f"{key}_high"] - row[f"{key}_low"]) / 2 / row[quantity]
    return half * math.sqrt(row["num_questions"] / num_questions)


def memory_GB(target: str, asked: Mapping[str, Any]) -> float:
    """Weights and KV caches of the target and both drafters in bfloat16."""
    models = [find_shape(TARGET, name) for name in (target, *asked["drafters"])]
    values = sum(one.num_parameters + one.kv_values_per_token * asked["positions"] for one in models)
    return 1e-9 * BYTES["bfloat16"] * values


def hours(run: Mapping[str, Any], asked: Mapping[str, Any]) -> float:
    """Plain decoding and every setting at plain decoding's time, each answer as long as the budget."""
    profile = document(PROJECT / "assets" / "latency" / f"{asked['target_ms_by']}.json")
    tokens = asked["num_questions"] * asked["max_new_tokens"] * len(run["datasets"]) * (1 + num_settings(run))
    ms_per_token = sum(profile["target_ms_per_token"][f"{target}-Instruct"] for target in run["targets"])
    return tokens * ms_per_token / 3.6e6
