"""Recording and replaying the paper's 64 settings against running them live.

    python -m experiments.compare_live_replay [--all --workers N]

Six settings are run live, spread over the grid's kinds as the 64 are, and their time is scaled by the number of
settings. With --all every setting is, by N processes: its times are not a fair comparison, but it compares all there
is. The records of both must be the same, round by round, but for times. The last line on stdout is JSON and names those
that are not.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from tqdm import tqdm

from profiling.common import parser_of, run_command, session_of
from specdec.config import RunConfig
from specdec.drafters.ar import ArStatic
from specdec.drafters.base import Spec
from specdec.drafters.block_diffusion import DllmStatic, FailFast
from specdec.drafters.families import paper
from specdec.drafters.flags import positive_int
from specdec.questions.sets import load_problems
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.runs.side_by_side import processes
from specdec.traces.replay import replay
from specdec.traces.trace import load_trace, save_trace, trace_path

CLOSE = 1e-5  # of two confidences that rounding sets apart
LIVE = (
    ArStatic(6),
    DllmStatic(0.3, 8),
    DllmStatic(0.75, 8),
    DllmStatic(0.05, 10),
    FailFast(0.05, 0.25, 60, 10),
    FailFast(0.05, 0.45, 60, 10),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.compare_live_replay", __doc__, ("num_questions", "max_new_tokens"))
    parser.set_defaults(num_questions=10, max_new_tokens=256)
    parser.add_argument("--trace_dir", help="keep the traces there (default: a temporary folder)")
    parser.add_argument("--all", action="store_true", help="run all 64 settings live")
    parser.add_argument("--workers", type=positive_int, default=2, help="processes (default: 2; one runs live of six)")
    return run_command(parser, work, arguments)


def work(flags: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        numbers = {"num_questions": flags.num_questions, "max_new_tokens": flags.max_new_tokens}
        config = RunConfig.of(grid="paper", output_dir=flags.trace_dir or place, **numbers)
        return measure(config, paper() if flags.all else LIVE, flags.workers)


def measure(config: RunConfig, specs: Sequence[Spec], workers: int) -> dict[str, Any]:
    """Seconds of both ways. Loading the models is in neither; starting the replay's processes is in."""
    record_s, num_questions = record(config)
    begin = time.perf_counter()
    folder = config.output.output_dir
    command = [sys.executable, "-m", "specdec.replay", folder, "--grid", "paper", "--workers", str(workers)]
    subprocess.run(command, check=True)
    replay_s = time.perf_counter() - begin
    ran = list(run_live(config, specs, workers if len(specs) > len(LIVE) else 1))
    live_s = sum(seconds for _, seconds, _ in ran)
    scaled_s = live_s * len(paper()) / len(specs)
    return {
        "what": f"{len(paper())} settings x {num_questions} questions, {config.decoding.max_new_tokens} tokens at most",
        "record_s": record_s,
        "replay_s": replay_s,
        "live_settings": [spec.name for spec in specs],
        "live_s": live_s,
        "live_scaled_s": scaled_s,
        "ratio": scaled_s / (record_s + replay_s),
        "num_live_records": len(ran),
        "num_equal_records": sum(equal for _, _, equal in ran),
        "not_equal": [name for name, _, equal in ran if not equal],
    }


def record(config: RunConfig) -> tuple[float, int]:
    """Record what the replays need: the seconds of it, and the number of questions."""
    from specdec.runs.recording import plan_traces, record_trace

    session = session_of(config)
    problems = load_problems(config.questions.dataset_name, num_questions=config.questions.num_questions)
    for spec in LIVE:
        session.drafter(spec)
    session.target()
    begin = time.perf_counter()
    for job in tqdm(plan_traces(session, problems), desc="recording", disable=None):
        save_trace(record_trace(session, job, lambda: None), job.path)
    return time.perf_counter() - begin, len(problems)


Ran = tuple[str, float, bool]  # question and setting, seconds, whether the replay gives the same record


def run_live(config: RunConfig, specs: Sequence[Spec], workers: int) -> Iterator[Ran]:
    """Every question under every setting, live, by `workers` processes."""
    parts = [(part, workers) for part in range(workers)]
    work = partial(run_part, config=config, specs=specs)
    with processes(workers) as each:
        for ran in each(work, parts):
            yield from ran


def run_part(part: tuple[int, int], config: RunConfig, specs: Sequence[Spec]) -> list[Ran]:
    """One process's part of the live runs: (i, n) are jobs i, i + n, i + 2n, ..."""
    import torch

    from specdec.runs.jobs import plan_jobs, run_job

    first, step = part
    if step > 1:
        torch.set_num_threads(1)
    session = session_of(config)
    problems = load_problems(config.questions.dataset_name, num_questions=config.questions.num_questions)
    jobs = [job for job in plan_jobs(session, problems) if job.spec in specs][first::step]
    for spec in {job.spec: None for job in jobs}:
        session.drafter(spec)
    session.target()
    found = []
    for job in tqdm(jobs, desc="live", disable=None, position=first):
        begin = time.perf_counter()
        live = run_job(session, job, lambda: None)
        seconds = time.perf_counter() - begin
        trace = load_trace(trace_path(config.output.output_dir, job.identity))
        name = f"question {job.problem.question_id}, {job.spec.name}"
        found.append((name, seconds, is_same(live, replay(trace, job.spec))))
    return found


def is_same(live: Record, replayed: Record) -> bool:
    """Whether all rounds are equal but for times, and confidences to rounding."""
    ours, theirs = live.rounds, replayed.rounds
    return len(ours) == len(theirs) and all(map(is_same_round, ours, theirs))


def is_same_round(ours: Round, theirs: Round) -> bool:
    blank: dict[str, Any] = {"confidences": [], "draft_ms": 0.0, "verify_ms": 0.0}
    pairs = list(zip(ours.confidences, theirs.confidences, strict=False))
    are_close = all(math.isclose(one, other, rel_tol=0, abs_tol=CLOSE) for one, other in pairs)
    is_equal = dataclasses.replace(ours, **blank) == dataclasses.replace(theirs, **blank)
    return is_equal and are_close and len(ours.confidences) == len(theirs.confidences)


if __name__ == "__main__":
    sys.exit(main())
