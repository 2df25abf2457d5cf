"""vLLM: the tables of what a real one showed on a CPU, beside our records and predictions."""

from __future__ import annotations

from collections.abc import Callable

from scripts.cells import result, table

DAY = "2026-11-28"
KEYS = ("num_accepted", "num_drafted")
WHO = ("ours", "server", "explained")


def counts() -> str:
    """Acceptance counts by method: ours as recorded, the server's, and ours under its conventions."""
    titles = ("method", "questions", "accepted of drafted, as recorded", "by vLLM", "ours by its conventions", "agree")
    rows = []
    for name, method in result(f"{DAY}-vllm-counts")["methods"].items():
        parts = [part for part in method.values() if isinstance(part, dict) and "num_agree" in part]
        num, agree, left = (
            sum(part[key] if key in part else part["explained"][key] for part in parts)
            for key in ("num_questions", "num_agree", "num_open")
        )
        cells = {who: [sum(part[who][key] for part in parts) for key in KEYS] for who in WHO}
        shown = [f"{accepted:,} of {drafted:,}" for accepted, drafted in cells.values()]
        shown[-1] += f", and up to {left} after the end" if left else ""
        rows.append([f"`{name}`", str(num), *shown, f"{agree} of {num}"])
    return table(titles, rows)


TABLES: dict[str, Callable[[], str]] = {"vllm-counts": counts}
