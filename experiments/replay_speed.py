"""Time of replaying the paper's 64 settings on 30 questions of 1,024 tokens, on this machine's CPU cores.

    python -m experiments.replay_speed TRACE_DIR

The texts are stretched from recorded ones, so that acceptance and passes are real: answers of the traces one after the
other, each with its chains, until they are long enough.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from profiling.common import print_json
from specdec.errors import exit_status
from specdec.replay import run
from specdec.traces.chains import Chains
from specdec.traces.trace import Trace, find_traces, load_trace, num_prefixes, save_trace, trace_path

NUM_QUESTIONS, NUM_TOKENS = 30, 1024


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", help="folder of traces recorded with --grid paper")
    parser.add_argument("--workers", default="2")
    options = parser.parse_args(arguments)
    return exit_status("replay_speed", lambda: print_json(measure(options.traces, options.workers)))


def measure(folder: str, workers: str) -> dict:
    """Seconds from the command line to the ranking, everything included but the start of Python."""
    traces = [load_trace(path) for path in find_traces(folder)]
    with tempfile.TemporaryDirectory() as place:
        for number in range(NUM_QUESTIONS):
            turned = traces[number % len(traces) :] + traces[: number % len(traces)]
            made = stretched(turned, number)
            save_trace(made, trace_path(place, made.identity))
        size = sum(path.stat().st_size for path in find_traces(place))
        begin = time.perf_counter()
        ranking = run([place, "--grid", "paper", "--workers", workers, "--log", str(Path(place) / "log.txt")])
        seconds = time.perf_counter() - begin
    print(ranking)
    return {
        "what": f"64 settings x {NUM_QUESTIONS} questions x {NUM_TOKENS} tokens replayed, ceilings and log included",
        "seconds": seconds,
        "workers": int(workers),
        "megabytes_per_trace": size / NUM_QUESTIONS / 1e6,
    }


def stretched(traces: Sequence[Trace], question_id: int) -> Trace:
    """One long question: the traces' answers, again and again, without their stop tokens."""
    first, text, chains = traces[0], [], {name: [] for name in traces[0].chains}
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
    identity = first.identity | {"question_id": question_id, "max_new_tokens": NUM_TOKENS}
    gaps = [1.0] * NUM_TOKENS
    return dataclasses.replace(first, identity=identity, output_tokens=text[:NUM_TOKENS], gaps=gaps, chains=packed)


if __name__ == "__main__":
    sys.exit(main())
