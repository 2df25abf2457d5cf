"""vLLM: the tables of what a real one showed on a CPU, beside our records and predictions."""

from __future__ import annotations

from collections.abc import Callable

from scripts.cells import percent, result, table, times

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


def speed() -> str:
    """Speedups, predicted from step times at two other draft lengths, and measured."""
    titles = ("method", "tokens a draft", "priced at", "predicted", "measured", "error")
    rows = []
    for name, one in result(f"{DAY}-vllm-speed")["methods"].items():
        pair, ratio = " and ".join(map(str, one["priced_at"])), one["ratio"]
        shown = [times(ratio[who]) for who in ("predicted", "measured")]
        rows.append([f"`{name}`", str(one["asked"]), pair, *shown, percent(ratio["error"], 1)])
    return table(titles, rows)


def load() -> str:
    """Tokens a second by requests at a time, predicted by `failfast load` and measured, on two data sets."""
    titles = ("questions", "method", "at a time", "predicted", "measured", "error", "TTFT, ms", "TPOT, ms")
    rows = []
    for words, file in {"gsm8k": "vllm-load", "math": "vllm-load-math"}.items():
        for name, by_places in result(f"{DAY}-{file}")["predicted_against_measured"].items():
            for places, one in by_places.items():
                rates = [f"{one[who]:,.1f}" for who in ("predicted", "measured")]
                latencies = [f"{one[key]:.1f}" for key in ("ttft_ms", "tpot_ms")]
                rows.append([words, f"`{name}`", places, *rates, percent(one["error"], 1), *latencies])
    return table(titles, rows)


TABLES: dict[str, Callable[[], str]] = {"vllm-counts": counts, "vllm-speed": speed, "vllm-load": load}
