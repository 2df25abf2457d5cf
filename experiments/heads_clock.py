"""Heads by this machine's clock: of every family the setting that is fastest on a few questions, on others.

    python -m experiments.heads_clock WORK --target smollm2 --data_dir data --dtypes bfloat16 float32

WORK is where scripts/heads.sh trained them. Every dtype is tuned by itself, on questions that it is not told of; then
the chosen settings run. Records go to WORK/clock/tuning/DTYPE and WORK/clock/DTYPE, a folder a run, for heads of one
kind take turns under the same flag; what is finished is not done again. The last line on stdout is JSON: what was
chosen, and the rows of `heads_measured`.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from experiments.heads_measured import entries_of, rows, run_of, runs_in, side_by_side
from experiments.heads_table import trained
from profiling.common import parser_of, rounded, run_command
from specdec import cli
from specdec.drafters.families import parse_name
from specdec.drafters.flags import positive_int
from specdec.errors import UserError
from specdec.latency.pricing import Pricing
from specdec.ranking.entries import PLAIN

DATASETS = ("gsm8k", "math", "humaneval", "mt_bench", "spec_bench")
SPREAD = {"spec_bench": (80, 480)}  # its kinds stand one after the other, the first MT-bench's: some of each other
AT_ONCE = 30  # questions of a data set, before the next one's
# Family -> the flag that takes it, where heads.sh left it, and what is tried of it.
BLOCK = ("dflash_sf_4", "dflash_sf_8", "dflash_sf_15", *(f"dflash_df_{tau}_15_1" for tau in (0.05, 0.2, 0.4)))
FAMILIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "ar": (
        *("--ar_model_name", "ar/ar_drafter"),
        ("ar_None_sf_2", "ar_None_sf_4", "ar_None_df_0.65_16_1", "ar_None_df_0.8_16_1"),
    ),
    "dllm": (
        *("--dllm_dir", "dllm/dllm_drafter"),
        ("dllm_0.05_sf_4", "dllm_0.05_sf_6", "dllm_0.05_sf_8", *(f"dllm_0.05_df_{tau}_60_8_w6" for tau in (0.4, 0.5))),
    ),
    "eagle3": (
        *("--eagle3_dir", "eagle3/eagle3"),
        ("eagle3_sf_2", "eagle3_sf_4", "eagle3_df_0.45_16_1", "eagle3_df_0.65_16_1"),
    ),
    "dflash": ("--dflash_dir", "dflash/dflash", BLOCK),
    "jetspec": ("--dflash_dir", "jetspec/jetspec", BLOCK),
    "dspark": ("--dflash_dir", "dspark/dspark", BLOCK),
}
BY_CLOCK = Pricing()
KEPT_APART = ("dllm_sf", "failfast")  # of one family, a row each
OWN_RUNS = ("jetspec", "dspark")  # their flag is DFlash's

Runs = dict[str, tuple[list[str], list[str]]]  # name -> flags of its drafters, and settings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.heads_clock", __doc__)
    parser.add_argument("work", type=Path, metavar="WORK", help="the WORK_DIR of scripts/heads.sh")
    parser.add_argument("--target", default="bundled", help="the target that the heads are for")
    parser.add_argument("--data_dir", required=True, type=Path, help="the data sets, as failfast.py reads them")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), help="of these")
    parser.add_argument("--num_questions", type=positive_int, default=30, help="of each, that the result is told of")
    parser.add_argument("--num_tuning", type=positive_int, default=2, help="of each, to choose settings by")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], choices=("bfloat16", "float32"))
    parser.add_argument("--max_new_tokens", type=positive_int, default=256)
    parser.add_argument("--engine", default="graph", choices=("graph", "eager"))
    parser.add_argument("--device", default="auto", help="as failfast.py has it")
    parser.add_argument("--limit_s", type=float, default=inf, help="no run begins after these seconds")
    return run_command(parser, measure, arguments)


def measure(flags: Namespace) -> dict[str, Any]:
    runs, end = heads_in(flags.work), time.monotonic() + flags.limit_s
    tuned_on, told_of = ({name: ask(name, flags) for name in flags.datasets} for ask in (tuning, told))
    chosen, found, ranked = {}, {}, {}
    for dtype in flags.dtypes:
        tried, out = flags.work / "clock" / "tuning" / dtype, flags.work / "clock" / dtype
        decode(flags, dtype, tried, runs, tuned_on, end)
        chosen[dtype] = fastest(tried, runs)
        decode(flags, dtype, out, {name: (runs[name][0], own) for name, own in chosen[dtype].items()}, told_of, end)
        if out.is_dir():
            made = runs_in(out, BY_CLOCK)
            found[dtype], ranked[dtype] = {name: run_of(*run) for name, run in made.items()}, side_by_side(made)
    return {
        "what": "drafters of one target, measured",
        "trained": rounded(trained(flags.work, [*FAMILIES])),
        "tuned_on": tuned_on,
        "told_of": told_of,
        "chosen": chosen,
        "folders": rounded(found),
        "side_by_side": rounded(ranked),
    }


def heads_in(work: Path) -> Runs:
    """The heads that stand in `work`, those of one flag in runs of their own; lookup needs none."""
    runs: Runs = {"all": ([], [PLAIN, "lookup"])}
    for family, (flag, folder, settings) in FAMILIES.items():
        if (work / folder).is_dir():
            words, names = runs.setdefault(family if family in OWN_RUNS else "all", ([], [PLAIN]))
            words += [flag, str(work / folder)]
            names += settings
    if not runs["all"][0]:
        wanted = ", ".join(folder for _, folder, _ in FAMILIES.values())
        raise UserError(f"{work} has none of {wanted}: give the WORK_DIR in which scripts/heads.sh trained them")
    return runs


def decode(flags: Namespace, dtype: str, out: Path, runs: Runs, asked: Mapping[str, list[int]], end: float) -> None:
    """Every run on these questions of each data set, some of each in turn; none begins after `end`."""
    for begin in range(0, max(map(len, asked.values())), AT_ONCE):
        for dataset, ids in asked.items():
            for name, (words, settings) in runs.items():
                if ids[begin:] and time.monotonic() < end:
                    some = ids[begin : begin + AT_ONCE]
                    _run(flags, dtype, out / name, ["--dataset_name", dataset, *words], some, settings)


def _run(
    flags: Namespace, dtype: str, out: Path, words: list[str], ids: Iterable[int], settings: Iterable[str]
) -> None:
    """One call of failfast.py, in this process, whose kernels are compiled once."""
    how = ["--target_model_name", flags.target, "--data_dir", str(flags.data_dir), "--turns", "first", "--dtype", dtype]
    how += ["--max_new_tokens", str(flags.max_new_tokens), "--engine", flags.engine, "--device", flags.device]
    how += ["--latency_profile", "none", "--no_report", "--log_level", "WARNING", "--output_dir", str(out)]
    status = cli.main(["run", *how, *words, "--question_ids", *map(str, ids), "--drafters", *settings])
    if status:
        raise UserError(f"the run of {out.name} in {dtype} ended with exit status {status}: see above")


def told(dataset: str, flags: Namespace) -> list[int]:
    """The questions that results are told of: a data set's first ones, or evenly spread ones."""
    begin, end = SPREAD.get(dataset, (0, flags.num_questions))
    if dataset in SPREAD and flags.num_questions + flags.num_tuning > end - begin:
        raise UserError(f"{dataset} has {end - begin} questions: ask for fewer by --num_questions and --num_tuning")
    step = (end - begin) // flags.num_questions
    return list(range(begin, begin + step * flags.num_questions, step))


def tuning(dataset: str, flags: Namespace) -> list[int]:
    """Others, to choose settings by: those after them, or evenly spread ones between them."""
    seen, num = told(dataset, flags), flags.num_tuning
    if dataset not in SPREAD:
        return list(range(flags.num_questions, flags.num_questions + num))
    free = sorted(set(range(*SPREAD[dataset])) - set(seen))
    return free[len(free) // (2 * num) :: len(free) // num][:num]


def fastest(folder: Path, runs: Runs) -> dict[str, list[str]]:
    """Run -> plain decoding, and of each family the setting with the highest mean speedup there, of whatever policy; of
    block diffusion its fastest static length and FailFast's rule, which keeps its row wherever it lands."""
    chosen = {}
    for name in runs:
        if (folder / name).is_dir():
            best: dict[str, str] = {}
            for row in rows(*entries_of(folder / name, BY_CLOCK), ()):  # fastest first
                kind = parse_name(row["drafter"]).kind
                best.setdefault(kind if kind in KEPT_APART else kind.partition("_")[0], row["drafter"])
            chosen[name] = [PLAIN, *(one for one in best.values() if one != PLAIN)]
    return chosen


if __name__ == "__main__":
    sys.exit(main())
