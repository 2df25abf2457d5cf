"""Time of a large load study on one CPU core: 64 configurations x 8 loads x 100 questions of 256 tokens.

    OMP_NUM_THREADS=1 python -m experiments.load_speed

The records are made up: static drafts of 1 to 32 tokens of an AR and of a block-diffusion drafter, whose next token is
right with probability 0.8. Process CPU time, of everything from the records in memory to the tables; also where other
work runs on the machine, which slows a process down by more than its share.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments.counted_records import Counts, record_of
from profiling.common import parser_of, run_command
from specdec.latency.profile import load_profile
from specdec.ranking.load_study import PROFILE, Asked, Study
from specdec.ranking.requests import requests_of
from specdec.records.identity import Identity
from specdec.records.record import Record

NUM_QUESTIONS, NUM_LENGTHS, NUM_TOKENS, PROMPT_LEN, RIGHT = 100, 32, 256, 128, 0.8
LOADS = (1, 2, 4, 8, 16, 32, 64, 128)
ENTRY = "Qwen2.5-7B-Instruct"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.load_speed", __doc__)
    parser.add_argument("--what", default="of a machine that other work runs on too", help="the core, in words")
    return run_command(parser, measure, arguments)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    records = list(made_up())
    begin = time.process_time()
    study = Study(requests_of(records), load_profile(PROFILE[0]), ENTRY, Asked(concurrency=LOADS))
    tables, marks = [], [begin]
    for table in map(study.table, study.asked.loads):
        tables.append(table)
        marks.append(time.process_time())
    return {
        "what": f"{2 * NUM_LENGTHS} configurations x {len(LOADS)} loads x {NUM_QUESTIONS} questions of {NUM_TOKENS} "
        f"tokens, each for {study.num_draws} draws of the questions,",
        "cpu_s": round(marks[-1] - begin, 2),
        "cpu_s_by_load": {load: round(b - a, 2) for load, a, b in zip(LOADS, marks, marks[1:], strict=False)},
        "cpu": flags.what,
        "best": {table.load.label: table.best.name for table in tables if table.best},
    }


def made_up() -> Iterator[Record]:
    rng = np.random.default_rng(0)
    for question in range(NUM_QUESTIONS):
        for length in range(1, NUM_LENGTHS + 1):
            for name, passes in ((f"ar_None_sf_{length}", length), (f"dllm_0.05_sf_{length}", 2 + length // 8)):
                identity = Identity("made-up", "made-up", question, name, NUM_TOKENS, {})
                yield record_of(identity, list(_rounds(rng, length, passes)), NUM_TOKENS, PROMPT_LEN)


def _rounds(rng: np.random.Generator, length: int, passes: int) -> Iterator[Counts]:
    left = NUM_TOKENS
    while left > 0:
        accepted = int(min(length, rng.geometric(1 - RIGHT) - 1, left - 1))
        yield length, accepted, passes
        left -= accepted + 1


if __name__ == "__main__":
    sys.exit(main())
