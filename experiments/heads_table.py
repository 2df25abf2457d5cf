"""Drafters head to head on one target, each at its best length and policy: tuned by replay on some questions, told of
others. Loads no model.

    python -m experiments.heads_table TUNING HELD_OUT --latency_profile vLLM_A6000_heads \\
        --latency_target Qwen2.5-32B-Instruct Qwen2.5-7B-Instruct --work_dir WORK --longer dspark_long

Both folders hold a folder of traces (failfast.py --record) per drafter, under its name: NAME/traces/... Every drafter's
best setting of each policy (static lengths, FailFast's rule, by cost) and its best policy are those with the least
modelled time on all tuning questions together, for each target of the profile. On the held-out questions they are
ranked per data set and together, without answers that are mostly one loop too: paired intervals, differences corrected
by Holm. `--longer` are drafters that had more training than the others: ranked in a table of their own, with all.
`--work_dir`: where scripts/heads.sh trained them, for what their training took. The last line is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.heads_replays import Bench, HeldOut, Tuned, held_out, length_row, processes, tuned
from profiling.common import parser_of, run_command
from specdec.drafters.flags import positive_int
from specdec.errors import UserError
from specdec.latency.profile import LatencyProfile, load_profile, resolve_target
from specdec.ranking.entries import Entry
from specdec.ranking.question_sets import question_key
from specdec.ranking.scopes import ALL, each
from specdec.ranking.table import Row, table_of
from specdec.ranking.table_files import read_json
from specdec.traces.trace import find_traces
from specdec.views.table_data import row_dict

NO_LOOPS = "all, without degenerate answers"
ALIKE, EVERY = "alike", "all"  # drafters that were trained alike, and those with more training too
KEPT = (
    *("rank", "standing", "num_questions", "num_degenerate", "num_rounds", "passes_per_round", "acceptance_rate"),
    *("speedup_mean", "mean_low", "mean_high", "speedup_ratio", "ratio_low", "ratio_high"),
    *("acceptance_len", "acceptance_len_low", "acceptance_len_high", "ceiling_share"),
    *("to_best_value", "to_best_low", "to_best_high", "to_best_p_holm", "to_best_p_equivalence"),
)
TRAINED = ("family", "seconds", "tokens", "passes", "steps", "flops", "num_parameters", "device", "settings")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.heads_table", __doc__)
    parser.add_argument("tuning", type=Path, help="a folder of traces per drafter: what is tuned on")
    parser.add_argument("held_out", type=Path, help="the same drafters' traces of other questions: what is reported")
    parser.add_argument("--latency_profile", required=True, help="with family_pass_ms of the heads")
    parser.add_argument("--latency_target", required=True, nargs="+", help="entries of it, each priced as")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="drafters to compare (default: all)")
    parser.add_argument("--longer", nargs="+", default=[], metavar="NAME", help="drafters that had more training")
    parser.add_argument("--allow_unequal", action="store_true", help="compare on the questions that all have")
    parser.add_argument("--work_dir", type=Path, help="the folder of scripts/heads.sh, for what trainings took")
    parser.add_argument("--workers", type=positive_int, default=1, help="processes")
    return run_command(parser, measure, arguments)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """The document: what was tuned, and per target, group of drafters and data set the ranked rows."""
    profile = profile_of(flags)
    names = names_in(flags.tuning, flags.held_out, flags.only)
    if unknown := set(flags.longer) - set(names):
        raise UserError(f"--longer {min(unknown)}: no drafter that is compared is called so")
    tuned_on, reported_on = (traces_of(one, names, flags.allow_unequal) for one in (flags.tuning, flags.held_out))
    with processes(flags.workers) as each_trace:
        bench = Bench(profile, each_trace)
        choices = {name: tuned(tuned_on[name], bench) for name in names}
        found = {name: held_out(reported_on[name], choices[name], bench) for name in names}
    groups = {ALIKE: [name for name in names if name not in flags.longer], **({EVERY: names} if flags.longer else {})}
    document = {
        "what": "drafters of one target, each at its best length and policy by other questions; modelled",
        "profile": dataclasses.asdict(profile),
        "tuned_on": counts_of(tuned_on),
        "reported_on": counts_of(reported_on),
        "texts": compared_texts(found),
        "trained": {} if flags.work_dir is None else trained(flags.work_dir, names),
        "groups": groups,
        "targets": {entry: target_document(entry, choices, found, groups) for entry in bench.entries},
    }
    return {key: rounded(value) for key, value in document.items()}


def rounded(value: Any) -> Any:
    """Numbers to 5 digits, as stored results have them."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def profile_of(flags: argparse.Namespace) -> LatencyProfile:
    """The profile, with the targets alone that are asked for."""
    profile = load_profile(flags.latency_profile)
    entries = dict.fromkeys(resolve_target(profile, name) for name in flags.latency_target)
    targets = {entry: profile.target_ms_per_token[entry] for entry in entries}
    verify_ms = {entry: table for entry, table in profile.verify_ms.items() if entry in targets}
    return dataclasses.replace(profile, target_ms_per_token=targets, verify_ms=verify_ms, rows=None)


def names_in(tuning: Path, held_out_dir: Path, only: Sequence[str] | None = None) -> list[str]:
    """The drafters of both folders, by name: all, or those of `only`. UserError where one has not the other's."""
    found = []
    for folder in (tuning, held_out_dir):
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: give one that holds a folder of traces per drafter")
        there = {path.name for path in folder.iterdir() if path.is_dir()}
        if unknown := set(only or ()) - there:
            raise UserError(f"--only {min(unknown)}: no folder of {folder} is called so")
        found.append(there & set(there if only is None else only))
    if lacking := found[0] ^ found[1]:
        raise UserError(f"{min(lacking)} is in one of {tuning} and {held_out_dir} alone: record it for both")
    if not found[0]:
        raise UserError(f"{tuning} holds no folder of traces: give one that holds a folder per drafter")
    return sorted(found[0])


def traces_of(folder: Path, names: Sequence[str], allow_unequal: bool) -> dict[str, list[Path]]:
    """Every drafter's traces, of the same questions. UserError where they are not the same; with `allow_unequal` where
    there is none that all have."""
    found = {name: {_question(path): path for path in find_traces(folder / name)} for name in names}
    common = set.intersection(*(set(own) for own in found.values()))
    lacking = sorted(question for own in found.values() for question in own if question not in common)
    if lacking and not (allow_unequal and common):
        dataset, number = lacking[0]
        raise UserError(
            f"{folder}: question {number} of {dataset} was not recorded for all of {', '.join(names)}: record it for "
            "all, or give --allow_unequal"
        )
    return {name: [path for question, path in own.items() if question in common] for name, own in found.items()}


def _question(path: Path) -> tuple[str, str]:
    """(data set, number), as a trace's folders are named."""
    return path.parent.parent.name, path.parent.name


def counts_of(traces: Mapping[str, Sequence[Path]]) -> dict[str, int]:
    """How many questions of each data set."""
    return dict(Counter(dataset for dataset, _ in map(_question, next(iter(traces.values())))))


def named(found: Mapping[str, HeldOut], target: str, *, policies: Mapping[str, str] | None = None) -> list[Entry]:
    """The entries of every drafter under its own name: of the policy chosen for it, or of all, "NAME: POLICY"."""
    made = []
    for name, one in found.items():
        for policy, entries in one.entries[target].items():
            if policies is None or policies[name] == policy:
                title = name if policies else f"{name}: {policy}"
                made += [dataclasses.replace(entry, drafter_name=title) for entry in entries]
    return made


def compared_texts(found: Mapping[str, HeldOut]) -> dict[str, int]:
    """How many of the drafters' texts are those of the first of them: on one machine and in one arithmetic all."""
    first, *others = [one.texts for one in found.values()]
    pairs = [text == first[question] for one in others for question, text in one.items()]
    return {"questions": len(first), "compared": len(pairs), "equal": sum(pairs)}


def trained(work_dir: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each drafter's training says of itself, where it was trained there."""
    files = {name: sorted(work_dir.glob(f"{name}/*/training.json")) for name in names}
    said = {name: read_json(paths[0]) for name, paths in files.items() if paths}
    return {name: {key: one[key] for key in TRAINED if key in one} for name, one in said.items()}


def target_document(
    target: str, choices: Mapping[str, Tuned], found: Mapping[str, HeldOut], groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Of one target: what was chosen, the ranked rows, and every static length on the held-out questions."""
    best = {name: one.best_policy(target) for name, one in choices.items()}
    rankings = {}
    for group, names in groups.items():
        own = {name: found[name] for name in names}
        rankings[group] = {
            "drafters": scopes(named(own, target, policies=best)),
            "policies": {ALL: rows(named(own, target))},
        }
    return {
        "chosen": {name: one.chosen[target] | {"best": best[name]} for name, one in choices.items()},
        "rankings": rankings,
        "lengths": {
            name: [length_row(*one) for one in sorted(own.lengths[target].items())] for name, own in found.items()
        },
    }


def scopes(entries: Sequence[Entry]) -> dict[str, list[dict[str, Any]]]:
    """The ranked rows of each data set, of all together, and of those without loops."""
    key = question_key(entries)
    looped = {key(entry) for entry in entries if entry.is_degenerate}
    groups = {group[0].source.dataset: list(group) for group in each(entries)}
    groups |= {ALL: list(entries), NO_LOOPS: [entry for entry in entries if key(entry) not in looped]}
    return {scope: rows(group) for scope, group in groups.items() if group}


def rows(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    (engine,) = {engine for entry in entries for engine in entry.prices}
    table = table_of(entries, engine, ("acceptance_len",))
    return [{"drafter": row.drafter_name, **cells(row)} for row in table.rows]


def cells(row: Row) -> dict[str, Any]:
    """What is kept of a row; `round_cost`: what a round costs, drafting and verifying, in target passes."""
    known = row_dict(row) | {"num_rounds": row.sums["num_rounds"]}
    cost = row.values["acceptance_len"].value / row.values["speedup_ratio"].value
    return {key: known[key] for key in KEPT if key in known} | {"round_cost": cost}


if __name__ == "__main__":
    sys.exit(main())
