"""Size of an HTML report of 30 questions x 40 configurations x 1,024 tokens, and the time to make it, with real drafts.

    python -m experiments.report_size TRACE_DIR --out report.html

Texts stretched from recorded ones (`replay_speed.py`) are replayed under the first 40 of the paper's settings. How fast
a browser opens such a file: tests/browser/. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.replay_speed import NUM_QUESTIONS, NUM_TOKENS, long_questions
from profiling.common import parser_of, run_command
from specdec.commands.report import report_html
from specdec.config import PricingConfig
from specdec.drafters.grids import paper
from specdec.errors import UserError
from specdec.latency.pricing import Pricing
from specdec.models.checkpoints import BUNDLED
from specdec.models.token_text import find_tokenizer, read_token_bytes
from specdec.ranking.entries import entry_of, merge
from specdec.traces.replay import replay
from specdec.views.pieces import Reader

NUM_SETTINGS = 40


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("report_size", __doc__)
    parser.add_argument("traces", help="folder of the bundled target's traces, recorded with --grid paper")
    parser.add_argument("--out", type=Path, required=True, help="the report")
    return run_command(parser, measure, arguments)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """The page's size, and seconds from the records, which are in memory, to the file."""
    specs = paper()[:NUM_SETTINGS]
    records = [replay(trace, spec) for trace in long_questions(flags.traces) for spec in specs]
    tokenizer = find_tokenizer(BUNDLED)
    if tokenizer is None:
        raise UserError("the bundled target has no tokenizer here")
    reader = Reader(read_token_bytes(tokenizer))
    begin = time.perf_counter()
    pricing = Pricing.load(PricingConfig.latency_profile)
    stats = merge(entry_of(record, pricing) for record in records)
    flags.out.write_text(report_html(records, stats, reader), encoding="utf-8")
    return {
        "what": f"HTML report of {NUM_QUESTIONS} questions x {NUM_SETTINGS} settings x {NUM_TOKENS} tokens",
        "megabytes": round(flags.out.stat().st_size / 1e6, 2),
        "seconds": round(time.perf_counter() - begin, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
