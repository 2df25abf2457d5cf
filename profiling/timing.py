"""How long calls take, and how fast a device copies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from specdec.models.lm import CachedLM

COPY_BYTES = 4 << 30
TURNS = 5


def timed_in_turn(lm: CachedLM, calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Median, tenth and ninetieth percentile of each call in ms, after a few that do not count.

    Its repeats are spread over several turns: a host has slow and quick seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(TURNS):
        for name, call in calls.items():
            for _ in range(5):
                call()
            for _ in range(turn, repeats, TURNS):
                begin = lm.clock()
                call()
                times[name].append(1e3 * (lm.clock() - begin))
    return {name: _summary(taken) for name, taken in times.items()}


def _summary(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=10) if len(times) > 1 else [times[0]] * 9
    return {"ms": statistics.median(times), "p10": cuts[0], "p90": cuts[-1]}


def measure_copy(device: torch.device) -> float:
    """Bytes read and written per ms by a large copy within the device's memory, at best."""
    num_bytes = COPY_BYTES if device.type == "cuda" else COPY_BYTES // 64
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device).random_(0, 255)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        _synchronise(device)
        begin = time.perf_counter()
        target.copy_(source)
        _synchronise(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * num_bytes / (1e3 * best)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
