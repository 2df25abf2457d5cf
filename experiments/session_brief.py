"""What a GPU session found, in a few lines: passes against their limits, heads, taps, published acceptance.

    python -m experiments.session_brief DIR

It measures nothing: it reads what `gpu_session` and its steps wrote.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from profiling.common import parser_of
from specdec.errors import exit_status
from specdec.text import aligned

COUNTS = ("verify(1)", "verify(16)", "verify(64)", "verify_tree(65)", "verify_tree(128)", "verify_tree(256)")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.session_brief", __doc__)
    parser.add_argument("folder", type=Path, help="of the session")
    return exit_status(parser.prog, lambda: show(parser.parse_args(arguments).folder))


def show(folder: Path) -> None:
    session = _read(folder / "session.json")
    for name, step in session.items():
        print(f"{name}: {step['ended']}, {step.get('seconds', 0):.0f} s")
    for path in sorted(folder.glob("*.json")):
        found = _read(path)
        if "provenance" in found and "details" in found["provenance"]:
            print(path.name, *aligned([["", "ms", "limit", "over"], *profile_rows(found["provenance"])]), sep="\n")
        elif "cases" in found:
            head = ["case", "AL", "tok/s", "plain", "speedup", "modelled", "draft", "verify", "round", "published"]
            print(path.name, *aligned([head, *case_rows(found["cases"])]), sep="\n")
    for target, counts in (session.get("tree_products", {}).get("result") or {}).get("ms", {}).items():
        print(target, json.dumps(counts))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def profile_rows(provenance: Mapping[str, Any]) -> Iterator[list[str]]:
    """Of each target its verifications and its heads' passes: ms, the limit, and how far over it."""
    speeds = (
        f"{provenance[name]:.4g} {unit}" for name, unit in (("copy_TB_per_s", "TB/s"), ("TFLOP_per_s", "TFLOP/s"))
    )
    yield [provenance.get("device_name") or "", *speeds, ""]
    for part, found in provenance["details"].items():
        passes = next(iter(found["by_context"].values()))
        yield from (_row(f"{part} {name}", passes[name]) for name in (*COUNTS, "denoise") if name in passes)
        for kind, head in found.get("heads", {}).items():
            if "failed" in head:
                yield [f"{kind} {head['failed']}", "", "", ""]
            yield from (_row(f"{part} {kind} {name}", one) for name, one in head.get("passes", {}).items())


def _row(name: str, one: Mapping[str, float]) -> list[str]:
    over = one.get("over_limit", one.get("over_none"))
    shown = ("" if value is None else f"{value:.3f}" for value in (one["ms"], one.get("limit_ms"), over))
    return [name, *shown]


def case_rows(cases: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """A row a case, measured beside published."""
    for case in cases:
        told = case["published"]
        numbers = ("acceptance_length", "tokens_per_s", "plain_tokens_per_s", "speedup", "modelled_speedup")
        times = ("draft_ms", "verify_ms", "round_ms")
        shown = ("" if case.get(name) is None else f"{case[name]:.4g}" for name in (*numbers, *times))
        said = (told["speedup"] and f"{told['speedup']}x", told["tokens_per_s"], told["hardware"])
        published = " ".join(str(one) for one in said if one)
        yield [f"{told['head']} {told['drafter']} {told['dataset']}", *shown, published]


if __name__ == "__main__":
    sys.exit(main())
