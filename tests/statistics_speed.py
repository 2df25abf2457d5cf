"""Processor seconds for the statistics of 64 configurations of 1,000 questions. No question set and no model is needed.

OMP_NUM_THREADS=1 PYTHONPATH=. python tests/statistics_speed.py
"""

import sys
import time
from collections.abc import Sequence

import numpy as np

from profiling.common import parser_of, run_command
from specdec.ranking.statistics import PairedBootstrap

NUM_QUESTIONS, NUM_CONFIGURATIONS = 1_000, 64


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(parser_of("tests.statistics_speed", __doc__), lambda _: measure(), arguments)


def measure() -> dict[str, object]:
    """Of mean speedups and of speedups of totals: every interval, and differences from two configurations."""
    rng = np.random.default_rng(0)
    plain_QC = rng.lognormal(5, 0.4, (NUM_QUESTIONS, NUM_CONFIGURATIONS))
    drafted_QC = plain_QC / rng.lognormal(1, 0.3, plain_QC.shape)
    begin = time.process_time()
    for bootstrap in (PairedBootstrap(plain_QC / drafted_QC), PairedBootstrap(plain_QC, drafted_QC)):
        bootstrap.ratios()
        bootstrap.differences(3)
        bootstrap.differences(5)
    what = f"statistics of {NUM_CONFIGURATIONS} configurations of {NUM_QUESTIONS} questions"
    return {"what": what, "processor_seconds": time.process_time() - begin}


if __name__ == "__main__":
    sys.exit(main())
