"""Recording and replaying the paper's 64 settings against running them live.

    python -m experiments.compare_live_replay

Six settings are run live, spread over the grid's kinds as the 64 are, and their time is scaled by the number of
settings; the records of both must be the same, round by round. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from profiling.common import parser_of, run_command, session_of
from specdec.config import RunConfig
from specdec.drafters.ar import ArStatic
from specdec.drafters.block_diffusion import DllmStatic, FailFast
from specdec.drafters.families import paper
from specdec.questions.sets import Problem, load_problems
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.traces.replay import replay
from specdec.traces.trace import load_trace, save_trace, trace_path

if TYPE_CHECKING:
    from specdec.session import Session

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
    return run_command(parser, work, arguments)


def work(flags: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        numbers = {"num_questions": flags.num_questions, "max_new_tokens": flags.max_new_tokens}
        return measure(RunConfig.of(grid="paper", output_dir=flags.trace_dir or place, **numbers))


def measure(config: RunConfig) -> dict[str, Any]:
    """Seconds of both ways. Loading the models is in neither; starting the replay's processes is in."""
    from specdec.runs.recording import plan_traces, record_trace

    session = session_of(config)
    problems = load_problems(config.questions.dataset_name, num_questions=config.questions.num_questions)
    for spec in LIVE:
        session.drafter(spec)
    session.target()
    begin = time.perf_counter()
    for job in tqdm(plan_traces(session, problems), desc="recording", disable=None):
        save_trace(record_trace(session, job, lambda: None), job.path)
    recorded = time.perf_counter()
    command = [sys.executable, "-m", "specdec.replay", config.output.output_dir, "--grid", "paper", "--workers", "2"]
    subprocess.run(command, check=True)
    replayed = time.perf_counter()
    live, num_equal = run_live(session, problems)
    scaled_s = live * len(paper()) / len(LIVE)
    return {
        "what": f"{len(paper())} settings x {len(problems)} questions, {config.decoding.max_new_tokens} tokens at most",
        "record_s": recorded - begin,
        "replay_s": replayed - recorded,
        "live_settings": [spec.name for spec in LIVE],
        "live_s": live,
        "live_scaled_s": scaled_s,
        "ratio": scaled_s / (replayed - begin),
        "num_live_records": len(LIVE) * len(problems),
        "num_equal_records": num_equal,
    }


def run_live(session: Session, problems: Sequence[Problem]) -> tuple[float, int]:
    """Seconds of the live settings, and how many of their records the replay gives too."""
    from specdec.runs.jobs import plan_jobs, run_job

    seconds, num_equal = 0.0, 0
    jobs = [job for job in plan_jobs(session, problems) if job.spec in LIVE]
    for job in tqdm(jobs, desc="live", disable=None):
        begin = time.perf_counter()
        record = run_job(session, job, lambda: None)
        seconds += time.perf_counter() - begin
        trace = load_trace(trace_path(session.config.output.output_dir, job.identity))
        num_equal += is_same(record, replay(trace, job.spec))
    return seconds, num_equal


def is_same(live: Record, replayed: Record) -> bool:
    """Whether all rounds are equal but for times, and confidences to rounding."""
    return [_decided(turn) for turn in live.rounds] == [_decided(turn) for turn in replayed.rounds]


def _decided(turn: Round) -> dict[str, object]:
    decided = {key: value for key, value in vars(turn).items() if key not in ("draft_ms", "verify_ms")}
    return decided | {"confidences": len(turn.confidences)}


if __name__ == "__main__":
    sys.exit(main())
