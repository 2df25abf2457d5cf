"""A soak: 2,000 short questions in one process; memory, open files and time per round do not grow.

    python -m experiments.soak [--num_questions 2000] [--every 100]

Made-up questions go through the runner of failfast.py with the bundled models, every record saved as ever. Every 100
questions it notes resident memory, open file descriptors, Python objects, and CPU time per round (of the process: a
busy machine does not show in it). Memory after the last question is compared with that after the first tenth, time per
round of the last quarter with that of the second. The last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiling.common import parser_of, run_command
from specdec.commands.reporter import Reporter
from specdec.commands.work import run_jobs
from specdec.config import RunConfig
from specdec.drafters.flags import positive_int
from specdec.latency.pricing import Pricing
from specdec.runs.resume import asked_problems
from specdec.runs.run_file import RunFile
from specdec.runs.shards import parse_shard
from specdec.runs.stop import StopRequest

if TYPE_CHECKING:
    from specdec.ranking.entries import Entry
    from specdec.records.record import Record

DRAFTERS = ("plain", "ar_sf", "failfast")
MAX_GROWTH = 0.05  # of memory, of its own value after a tenth of the questions


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.soak", __doc__)
    parser.add_argument("--num_questions", type=positive_int, default=2000, help="(default: %(default)s)")
    parser.add_argument(
        "--every", type=positive_int, default=100, help="questions between looks (default: %(default)s)"
    )
    parser.add_argument("--max_new_tokens", type=positive_int, default=4, help="of an answer (default: %(default)s)")
    return run_command(parser, soak, arguments)


def soak(flags: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_questions(Path(folder) / "gsm8k", flags.num_questions)
        config = RunConfig.of(
            dataset_name="gsm8k",
            data_dir=folder,
            num_questions=flags.num_questions,
            max_new_tokens=flags.max_new_tokens,
            drafters=list(DRAFTERS),
            draft_len=[4],
            device="cpu",
            output_dir=f"{folder}/results",
        )
        looks = run_watched(config, flags.every)
    return {"what": "one process, short questions, the real runner", "drafters": list(DRAFTERS), **judged(looks)}


def write_questions(folder: Path, count: int) -> None:
    """Sums of two to five numbers in words of their own; the same every time."""
    folder.mkdir()
    rng, rows = random.Random(0), []
    for number in range(count):
        parts = [rng.randint(2, 99) for _ in range(rng.randint(2, 5))]
        things = rng.choice(("apples", "coins", "books", "red marbles", "cups of tea"))
        text = f"Box {number} holds {', then '.join(f'{part} {things}' for part in parts)}. How many are there?"
        rows.append(json.dumps({"question": text, "answer": f"They are {sum(parts)}.\n#### {sum(parts)}"}))
    (folder / "test.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


class Watch(Reporter):
    """The runner's reporter, which also looks at the process each time that a number of questions is done."""

    def __init__(self, config: RunConfig, pricing: Pricing, every: int) -> None:
        super().__init__(config, pricing)
        self.every, self.num_questions, self.num_rounds = every, 0, 0
        self.looks: list[dict[str, float]] = []
        self._since = time.process_time()

    def add(self, record: Record, entry: Entry) -> None:
        super().add(record, entry)
        self.num_rounds += record.num_rounds
        if record.drafter_name == "plain":
            self.num_questions += 1
            if self.num_questions % self.every == 0:
                self.look()

    def look(self) -> None:
        cpu_ms = 1e3 * (time.process_time() - self._since) / self.num_rounds
        gc.collect()
        seen = {"num_questions": self.num_questions, **process(), "cpu_ms_per_round": round(cpu_ms, 4)}
        self.looks.append(seen)
        print(json.dumps(seen), file=sys.stderr, flush=True)
        self.num_rounds, self._since = 0, time.process_time()

    def finish(self) -> None:
        """Without the ranking: it is not what is asked."""


def process() -> dict[str, float]:
    """Resident memory in MB, open file descriptors, and what Python's collector keeps an eye on."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {
        "rss_mb": round(kilobytes / 1024, 2),
        "num_fds": len(os.listdir("/proc/self/fd")),
        "num_objects": len(gc.get_objects()),
    }


def run_watched(config: RunConfig, every: int) -> list[dict[str, float]]:
    """What `commands/run.py` does with such a configuration."""
    from specdec.runs.jobs import plan_jobs
    from specdec.runs.run_file import describe_run
    from specdec.session import open_session

    logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stdout, force=True)
    problems, shard, session = asked_problems(config), parse_shard(None, {}), open_session(config)
    jobs = plan_jobs(session, problems)
    watch = Watch(config, Pricing.load(config.pricing.latency_profile, config.pricing.latency_target), every)
    description = describe_run(session, problems, shard, jobs)
    with StopRequest() as stop, RunFile(config.output.output_dir, description) as run_file:
        run_jobs(session, jobs, watch, run_file, stop)
    return watch.looks


def judged(looks: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The curve, and what it comes to."""
    early, last = looks[max(0, len(looks) // 10 - 1)], looks[-1]
    quarters = [looks[len(looks) * n // 4 : len(looks) * (n + 1) // 4] for n in (1, 3)]
    second, fourth = (statistics.median(one["cpu_ms_per_round"] for one in part or looks) for part in quarters)
    growth = last["rss_mb"] / early["rss_mb"] - 1
    return {
        "num_questions": last["num_questions"],
        "memory_growth": round(growth, 5),
        "memory_since": early["num_questions"],
        "is_memory_steady": growth <= MAX_GROWTH,
        "num_fds_more": last["num_fds"] - early["num_fds"],
        "time_growth": round(fourth / second - 1, 4),
        "looks": list(looks),
    }


if __name__ == "__main__":
    sys.exit(main())
