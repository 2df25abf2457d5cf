"""Time of replaying the paper's 64 settings on 30 questions of 1,024 tokens, on this machine's CPU cores.

    python -m experiments.replay_speed TRACE_DIR
    python -m experiments.replay_speed TRACE_DIR --report report.html

The texts are stretched from recorded ones, so that acceptance and passes are real: answers of the traces one after the
other, each with its chains, until they are long enough. The second form measures the HTML report of the first 40
settings instead, its size and the time to make it; how fast a browser opens such a file: tests/browser/.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from profiling.common import parser_of, run_command
from specdec.commands.replay import run
from specdec.commands.report import report_html
from specdec.decoding.chains import Chain, Chains
from specdec.drafters.families import paper
from specdec.latency.asked import PricingConfig
from specdec.latency.pricing import Pricing
from specdec.models.checkpoints import BUNDLED_DIR, TARGET
from specdec.models.token_text import read_token_bytes
from specdec.ranking.entries import entry_of, merge
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, find_traces, load_trace, num_prefixes, save_trace, trace_path
from specdec.views.trajectory import Reader

NUM_QUESTIONS, NUM_TOKENS, NUM_REPORTED = 30, 1024, 40


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.replay_speed", __doc__)
    parser.add_argument("traces", help="folder of traces recorded with --grid paper")
    parser.add_argument("--workers", default="2", help="processes (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="measure a report, written there (traces of the bundled target)")
    return run_command(parser, lambda flags: report(flags) if flags.report else measure(flags), arguments)


def report(flags: argparse.Namespace) -> dict[str, Any]:
    """The page's size, and seconds from the records, which are in memory, to the file."""
    specs = paper()[:NUM_REPORTED]
    records = [replay(trace, spec) for trace in long_questions(flags.traces) for spec in specs]
    reader = Reader(read_token_bytes(BUNDLED_DIR / TARGET.bundled_folder))
    begin = time.perf_counter()
    pricing = Pricing.load(PricingConfig.latency_profile)
    stats = merge(entry_of(record, pricing) for record in records)
    flags.report.write_text(report_html(records, stats, reader), encoding="utf-8")
    return {
        "what": f"HTML report of {NUM_QUESTIONS} questions x {NUM_REPORTED} settings x {NUM_TOKENS} tokens",
        "megabytes": round(flags.report.stat().st_size / 1e6, 2),
        "seconds": round(time.perf_counter() - begin, 2),
    }


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the command line to the ranking, everything included but the start of Python."""
    with tempfile.TemporaryDirectory() as place:
        for made in long_questions(flags.traces):
            save_trace(made, trace_path(place, made.identity))
        size = sum(path.stat().st_size for path in find_traces(place))
        begin = time.perf_counter()
        ranking = run([place, "--grid", "paper", "--workers", flags.workers, "--log", str(Path(place) / "log.txt")])
        seconds = time.perf_counter() - begin
    print(ranking)
    return {
        "what": f"64 settings x {NUM_QUESTIONS} questions x {NUM_TOKENS} tokens replayed, ceilings and log included",
        "seconds": seconds,
        "workers": int(flags.workers),
        "megabytes_per_trace": size / NUM_QUESTIONS / 1e6,
    }


def long_questions(folder: str) -> Iterator[Trace]:
    """`NUM_QUESTIONS` questions of `NUM_TOKENS` tokens, each beginning with another trace of the folder."""
    traces = [load_trace(path) for path in find_traces(folder)]
    for number in range(NUM_QUESTIONS):
        first = number % len(traces)
        yield stretched(traces[first:] + traces[:first], number)


def stretched(traces: Sequence[Trace], question_id: int) -> Trace:
    """One long question: the traces' answers, again and again, without their stop tokens."""
    first = traces[0]
    text: list[int] = []
    chains: dict[str, list[Chain]] = {name: [] for name in first.chains}
    while len(text) < NUM_TOKENS:
        for trace in traces:
            answer = [token for token in trace.output_tokens if token not in trace.stop_ids][: trace.num_prefixes]
            text += answer
            for name, made in chains.items():
                made += islice(trace.chains[name].chains, len(answer))
    count = num_prefixes(NUM_TOKENS, NUM_TOKENS)
    packed = {
        name: Chains.pack(name, first.chains[name].identity, first.chains[name].chain_len, made[:count])
        for name, made in chains.items()
    }
    identity = dataclasses.replace(first.identity, question_id=question_id, max_new_tokens=NUM_TOKENS)
    gaps = [1.0] * NUM_TOKENS
    return dataclasses.replace(first, identity=identity, output_tokens=text[:NUM_TOKENS], gaps=gaps, chains=packed)


if __name__ == "__main__":
    sys.exit(main())
