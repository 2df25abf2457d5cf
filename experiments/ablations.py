"""Ablations: variants of one drafter, each at its best length and policy: tuned by replay on some questions, told of
others. Loads no model.

    python -m experiments.ablations TUNING HELD_OUT --latency_profile vLLM_A6000 \\
        --latency_target Qwen2.5-32B-Instruct Qwen2.5-7B-Instruct --work_dir WORK \\
        --of "unmask threshold" 0.05=dllm 0.3=others:dllm_0.3 0.6=others:dllm_0.6 --of block 4=b4 8=b8 16=base

Folders, settings and prices are those of `heads_table`; each `--of` names what is varied, then LABEL=FOLDER for every
variant, or LABEL=FOLDER:CHAINS where traces hold chains of several names. Variants are ranked among those of their own
ablation alone. `--beside` is what this printed earlier, by the same profile: ablations of it that are not asked for are
kept. The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.heads_replays import Bench, HeldOut, Tuned, held_out, tuned
from experiments.heads_table import (
    compared_texts,
    counts_of,
    heads_parser,
    named,
    names_in,
    profile_of,
    rows,
    traces_of,
    trained,
)
from profiling.common import rounded, run_command
from specdec.errors import UserError
from specdec.latency.profile import LatencyProfile
from specdec.ranking.scopes import each
from specdec.ranking.table_files import read_json
from specdec.runs.side_by_side import processes

LENGTHS = (3, 7, 15)  # drafts that blocks of 4, 8 and 16 have: of these, static, acceptance lengths are told
KEPT = (
    *("standing", "acceptance_len", "round_cost", "speedup_mean", "mean_low", "mean_high"),
    *("to_best_low", "to_best_high", "to_best_p_holm"),
)
TRAINED = ("seconds", "tokens", "flops", "num_parameters")


@dataclasses.dataclass(frozen=True)
class Variant:
    """`chains`: the name of its chains where the traces in its folder hold others too."""

    label: str
    folder: str
    chains: str | None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = heads_parser("experiments.ablations", __doc__)
    varied = "what is varied, and its variants, LABEL=FOLDER or LABEL=FOLDER:CHAINS"
    parser.add_argument("--of", required=True, nargs="+", action="append", metavar="WORD", help=varied)
    parser.add_argument("--beside", type=Path, help="ablations that were measured before, to keep")
    return run_command(parser, measure, arguments)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """The document: what is varied -> what was tuned and told of its variants."""
    profile = profile_of(flags)
    asked = {words[0]: variants_of(words) for words in flags.of}
    kept = {} if flags.beside is None else ablations_in(flags.beside, profile)
    folders = sorted({variant.folder for own in asked.values() for variant in own})
    names_in(flags.tuning, flags.held_out, folders, flag="--of")
    with processes(flags.workers) as each_trace:
        bench = Bench(profile, each_trace)
        made = {name: ablation(variants, flags, bench) for name, variants in asked.items()}
    document = {
        "what": "variants of one drafter, each at its best length and policy by other questions; modelled",
        "profile": prices_of(profile),
        "ablations": kept | made,
    }
    return {key: rounded(value) for key, value in document.items()}


def variants_of(words: Sequence[str]) -> list[Variant]:
    """Of `["block", "4=b4", "8=b8"]`; there must be two with labels of their own."""
    found = []
    for word in words[1:]:
        label, _, where = word.partition("=")
        folder, _, chains = where.partition(":")
        if not label or not folder:
            raise UserError(f"--of {words[0]} {word}: give LABEL=FOLDER")
        found.append(Variant(label, folder, chains or None))
    if len({one.label for one in found}) < max(2, len(found)):
        raise UserError(f"--of {words[0]}: give two variants or more, each with a label of its own")
    return found


def ablations_in(path: Path, profile: LatencyProfile) -> dict[str, Any]:
    """Those of a file. UserError where it holds none, or they were priced by another profile."""
    stored = read_json(path)
    found = stored.get("ablations") if isinstance(stored, dict) else None
    if not isinstance(found, dict):
        raise UserError(f"--beside {path}: no ablations are in it, give what this command printed")
    if stored.get("profile") != rounded(prices_of(profile)):
        raise UserError(f"--beside {path}: it was priced by another profile or as if for other targets, give the same")
    return found


def prices_of(profile: LatencyProfile) -> dict[str, Any]:
    """Its name and prices, spelled as in a file."""
    prices: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(profile)))
    return {key: value for key, value in prices.items() if key not in ("provenance", "rows")}


def ablation(variants: Sequence[Variant], flags: argparse.Namespace, bench: Bench) -> dict[str, Any]:
    """What is told of the variants of one ablation."""
    folders = sorted({variant.folder for variant in variants})
    tuned_on, reported_on = (traces_of(one, folders, False) for one in (flags.tuning, flags.held_out))
    choices = {one.label: tuned(tuned_on[one.folder], bench, one.chains) for one in variants}
    found = {one.label: held_out(reported_on[one.folder], choices[one.label], bench) for one in variants}
    took = {} if flags.work_dir is None else trained(flags.work_dir, folders)
    return {
        "tuned_on": counts_of(tuned_on),
        "reported_on": counts_of(reported_on),
        "texts": compared_texts(found),
        "trained": {
            one.label: {key: float(took[one.folder][key]) for key in TRAINED} for one in variants if one.folder in took
        },
        "static": {label: acceptance_lens(own) for label, own in found.items()},
        "targets": {target: variant_rows(target, choices, found) for target in bench.entries},
    }


def acceptance_lens(found: HeldOut) -> dict[str, float]:
    """Static length -> acceptance length, which depends on no price."""
    sums = next(iter(found.lengths.values()))
    return {str(length): sums[length]["tokens"] / sums[length]["rounds"] for length in LENGTHS if length in sums}


def variant_rows(target: str, choices: Mapping[str, Tuned], found: Mapping[str, HeldOut]) -> dict[str, dict[str, Any]]:
    """Label -> its setting and ranked row on all questions, in the order asked for; of each policy
    and of each data set the mean speedup."""
    best = {label: one.best_policy(target) for label, one in choices.items()}
    entries = named(found, target, policies=best)
    ranked = {row["drafter"]: row for row in rows(entries)}
    by_policy = {row["drafter"]: row["speedup_mean"] for row in rows(named(found, target))}
    by_set: dict[str, dict[str, float]] = {label: {} for label in found}
    for group in each(entries):
        for row in rows(group):
            by_set[row["drafter"]][group[0].source.dataset] = row["speedup_mean"]
    return {
        label: {
            "policy": best[label],
            "setting": choices[label].chosen[target][best[label]]["setting"],
            **{key: ranked[label][key] for key in KEPT},
            "policies": {policy: by_policy[f"{label}: {policy}"] for policy in found[label].entries[target]},
            "datasets": by_set[label],
        }
        for label in found
    }


if __name__ == "__main__":
    sys.exit(main())
