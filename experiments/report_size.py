"""Size of an HTML report of 30 questions x 40 configurations x 1,024 tokens, and the time to make it, with real drafts.

`python -m experiments.report_size TRACE_DIR --out report.html`: texts stretched from recorded ones (`replay_speed.py`),
replayed under the first 40 of the paper's settings. How fast a browser opens such a file: tests/browser/.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.replay_speed import NUM_QUESTIONS, NUM_TOKENS, stretched
from profiling.common import print_json
from specdec.config import RunConfig
from specdec.errors import exit_status
from specdec.grids import GRIDS
from specdec.html_report import report_html
from specdec.latency import load_profiles
from specdec.rankings.ranking import merge
from specdec.rankings.reading import Reading
from specdec.token_bytes import find_tokenizer, read_token_bytes
from specdec.traces.replayed import replay
from specdec.traces.trace import find_traces, load_trace
from specdec.views.pieces import Reader

NUM_SETTINGS = 40


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", help="folder of the bundled target's traces, recorded with --grid paper")
    parser.add_argument("--out", type=Path, required=True, help="the report")
    options = parser.parse_args(arguments)
    return exit_status("report_size", lambda: print_json(measure(options.traces, options.out)))


def measure(folder: str, out: Path) -> dict:
    """The page's size, and seconds from the records, which are in memory, to the file."""
    traces = [load_trace(path) for path in find_traces(folder)]
    records = []
    for number in range(NUM_QUESTIONS):
        turned = traces[number % len(traces) :] + traces[: number % len(traces)]
        trace = stretched(turned, number)
        records += [replay(trace, spec) for spec in GRIDS["paper"][:NUM_SETTINGS]]
    reader = Reader(read_token_bytes(find_tokenizer("bundled")))
    begin = time.perf_counter()
    stats = merge(map(Reading(load_profiles(RunConfig.latency_profile)).entry, records))
    out.write_text(report_html(records, stats, reader), encoding="utf-8")
    return {
        "what": f"HTML report of {NUM_QUESTIONS} questions x {NUM_SETTINGS} settings x {NUM_TOKENS} tokens",
        "megabytes": round(out.stat().st_size / 1e6, 2),
        "seconds": round(time.perf_counter() - begin, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
