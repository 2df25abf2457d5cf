"""Recordings of different drafters over the same texts as one: each question's trace with the chains of all.

    python -m experiments.merge_traces OUT RECORDING RECORDING ... [--asked RECORDING]

For drafters that were recorded apart, say a GPU each. Questions are those that all have, and --asked has. Two
recordings of chains of one name, or of other texts, are a mistake.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from profiling.common import parser_of, run_command
from specdec.errors import UserError
from specdec.traces.trace import Trace, find_traces, load_trace, save_trace, trace_path

Question = tuple[str, int, int]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.merge_traces", __doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="results folder to write")
    parser.add_argument("recordings", type=Path, nargs="+", metavar="RECORDING", help="results folders with traces")
    parser.add_argument("--asked", type=Path, nargs="*", default=[], help="only questions that these have, too")
    return run_command(parser, merge, arguments)


def merge(flags: argparse.Namespace) -> dict[str, Any]:
    """How many questions were merged, and of which chains. Raises UserError."""
    recordings = [_traces(folder) for folder in flags.recordings]
    common = set.intersection(*map(set, recordings), *(set(_traces(folder)) for folder in flags.asked))
    if not common:
        raise UserError("the recordings have no question in common")
    for question in sorted(common):
        made = merged([own[question] for own in recordings])
        save_trace(made, trace_path(flags.out, made.identity))
    return {"num_questions": len(common), "chains": sorted(made.chains)}


def _traces(folder: Path) -> dict[Question, Trace]:
    found = map(load_trace, find_traces(folder))
    return {(one.identity.dataset, one.question_id, one.identity.max_new_tokens): one for one in found}


def merged(traces: Sequence[Trace]) -> Trace:
    """One question's. Raises UserError for chains of one name, and for other texts."""
    first, *others = traces
    for one in others:
        if (one.prompt_ids, one.output_tokens) != (first.prompt_ids, first.output_tokens):
            raise UserError(f"question {one.question_id} of {one.identity.dataset} has another text in a recording")
        if twice := first.chains.keys() & one.chains.keys() | first.offers.keys() & one.offers.keys():
            raise UserError(f"two recordings have chains of {min(twice)}: give one of them")
        first = replace(first, chains={**first.chains, **one.chains}, offers={**first.offers, **one.offers})
    return first


if __name__ == "__main__":
    sys.exit(main())
