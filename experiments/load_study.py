"""A load study in short, as docs/results keeps it: `failfast load`, its numbers to five digits, some of its quantities.

python -m experiments.load_study RESULTS [flags of failfast load] > FILE
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specdec.commands import load
from specdec.errors import exit_status
from specdec.ranking.entries import records_of
from specdec.ranking.load_table import CLAIRVOYANT
from specdec.views.load_text import load_dict

KEPT = ("tokens_per_s", "wasted_per_s", "tpot_ms_p50", "tpot_ms_p99", "ttft_ms_p50", "speedup", "break_even_len")
WORDS = ("name", "policy", "label", "may_be_best", "acceptance_len")
DIGITS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status("experiments.load_study", lambda: print(study(given), end=""))


def study(arguments: Sequence[str]) -> str:
    """JSON, a row a line. Raises UserError."""
    parser = load.build_parser("experiments.load_study")
    parser.add_argument("--what", default="", help="what the records are, in words")
    options = parser.parse_args(arguments)
    records = records_of(options.results)
    made = load.study_of(options, records)
    document = {
        "command": _command(arguments, options),
        "records": options.what or f"{len(records)} records",
        **load_dict(made, made.tables()),
    }
    return _text(document)


def _command(arguments: Sequence[str], options: argparse.Namespace) -> str:
    """Without --what, and paths by what they are."""
    paths = {
        str(options.trace_dir): "TRACES",
        str(options.results): "RESULTS",
        **{one: Path(one).name for one in options.latency_profile},
    }
    words = [paths.get(one, one) for one in arguments if one not in ("--what", options.what)]
    return f"python -m experiments.load_study {shlex.join(words)}"


def _text(document: dict[str, Any]) -> str:
    head = {name: value for name, value in document.items() if name != "loads"}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
    loads = ",\n".join(map(_load, document["loads"]))
    return "\n".join(["{", *lines, f' "loads": [\n{loads}\n ]', "}"]) + "\n"


def _load(load_: dict[str, Any]) -> str:
    head = json.dumps({name: _short(value) for name, value in load_.items() if name != "rows"}).removesuffix("}")
    rows = ",\n".join(f"    {json.dumps(_row(row))}" for row in load_["rows"])
    return f'  {head},\n   "rows": [\n{rows}\n   ]}}'


def _row(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("tokens_per_s", "speedup") if row["policy"] == CLAIRVOYANT else KEPT
    return {name: _short(row[name]) for name in (*WORDS, *kept) if name in row}


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
