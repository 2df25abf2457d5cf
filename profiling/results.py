"""Results: how a profiler hands on what it found: lines for people, and one line of JSON for programs.

On a terminal the lines alone; into a pipe or a file the JSON alone, and the lines beside it, on stderr: so
`profiler > row.json` is a file of JSON. It measures nothing.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specdec.commands.flags import StrictParser
from specdec.errors import UserError, user_error
from specdec.records.pickles import write_atomic
from specdec.records.provenance import provenance
from specdec.text import aligned, visible

# What a spread of a result is called, in the order of the lines.
_SPREADS = {
    "ms_per_token": "ms per token",
    "ttft_ms": "time to the first token, ms",
    "ttft_repeated_ms": "the same, of a question asked again",
    "ms_per_pass": "ms per pass",
}
_PARTS = {"ar_drafter": "AR drafter, ms per pass", "dllm_drafter": "dLLM drafter, ms per pass"}
RESULT_FLAGS = ("result_file", "json")  # what `add_result_flags` adds
_HEAD = ["", "median", "p10", "p90", "of"]


def add_result_flags(parser: StrictParser, *, has_file: bool = True) -> None:
    """What `show_result` reads; without `has_file`, for a command that writes its file itself."""
    output = parser.group("output")
    if has_file:
        output.add_argument("--out", dest="result_file", type=Path, metavar="FILE", help="write the JSON there")
    output.add_argument(
        "--json", action="store_true", help="print the JSON on a terminal, too (default: into a pipe or a file alone)"
    )


def check_out(flags: argparse.Namespace) -> None:
    """Raise UserError, before anything is measured, where --out cannot be written."""
    path: Path | None = getattr(flags, RESULT_FLAGS[0], None)
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise UserError(f"--out {path}: give a file in a folder that is there")


def show_result(
    result: dict[str, Any], lines: Sequence[str], flags: argparse.Namespace, device: str | None = None
) -> None:
    """`lines` for people, and the result as JSON, with where it was taken (`device`; None: it says so itself, or no
    device of this machine took part)."""
    if "provenance" not in result:
        result = result | {"provenance": provenance(_device(device or "cpu"))}
    text = json.dumps(result)
    to_file: Path | None = getattr(flags, "result_file", None)
    prints_json = flags.json or (to_file is None and (not sys.stdout.isatty() or not lines))
    for line in lines:
        print(visible(line), file=sys.stderr if prints_json else sys.stdout)
    if to_file is not None:
        with user_error(f"write {to_file}", "choose another --out"):
            write_atomic(to_file, (text + "\n").encode())
    if prints_json:
        print(text)
    else:
        print(f"All of it as JSON: {to_file}" if to_file else "All of it as JSON: --json")


def _device(name: str) -> Any:
    import torch

    return torch.device(name)


def result_lines(found: Mapping[str, Any]) -> list[str]:
    """What a profiler of tokens and passes found, of a target and of drafters beside it."""
    where = " ".join(str(found[key]) for key in ("engine", "engine_version") if found.get(key))
    title = f"{found.get('model', '')} under {where}, questions of {found.get('dataset', '')}"
    rows = _rows(found)
    rows += [spread_row(title, found[part]["ms_per_pass"]) for part, title in _PARTS.items() if part in found]
    count = f"{found.get('num_valid', 0)} of {found.get('num_trials', 0)} answers count"
    lines = [f"{title}: {count}", *aligned([_HEAD, *rows], is_ruled=False)]
    if found.get("tokens_per_s"):
        lines.append(f"{found['tokens_per_s']:.1f} tokens a second, {found['concurrency']} at a time")
    speculation = found.get("speculation")
    if speculation:
        rate = speculation.get("acceptance_rate")
        shown = "" if rate is None else f"; {rate:.1%} of drafted tokens accepted"
        lines.append(f"acceptance length {speculation['acceptance_len']:.2f} (tokens per round, bonus included){shown}")
    return lines


def _rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Spreads by their names, then verifications by their number of tokens, then lengths of answers."""
    named = [(title, found.get(key)) for key, title in _SPREADS.items()]
    named += [(f"verify {count} tokens, ms", one) for count, one in (found.get("verify_ms") or {}).items()]
    rows = [spread_row(title, one) for title, one in named if one]
    lengths = {"output tokens": found.get("output_tokens")}
    return rows + [spread_row(title, one, digits=0) for title, one in lengths.items() if one]


def spread_row(title: str, spread: Mapping[str, float], digits: int = 2) -> list[str]:
    """A line of a spread: its median, tenth and ninetieth percentile, and how many values it has, where it says."""
    middle = spread["median"] if "median" in spread else spread["ms"]
    shown = (f"{value:.{digits}f}" for value in (middle, spread["p10"], spread["p90"]))
    return [title, *shown, str(spread.get("num", ""))]


def table_lines(title: str, spreads: Mapping[str, Mapping[str, float]], digits: int = 2) -> list[str]:
    """A titled table of spreads by name."""
    rows = [spread_row(name, one, digits) for name, one in spreads.items()]
    return [title, *aligned([_HEAD, *rows], is_ruled=False)]
