"""What the measurements share: timing, the machine's description, and the JSON line they end with."""

import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from specdec.provenance import provenance


def median_ms(work: Callable[[], object], repeats: int, warmup: int = 2) -> float:
    """Median milliseconds of `work()` over `repeats` calls after `warmup` calls."""
    return spread_ms(work, repeats, warmup)["median_ms"]


def spread_ms(work: Callable[[], object], repeats: int, warmup: int = 2) -> dict[str, float]:
    """Median, least and greatest milliseconds of `work()`."""
    for _ in range(warmup):
        work()
    samples = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        samples.append(1e3 * (time.perf_counter() - begin))
    return summary(samples)


def summary(samples: Sequence[float]) -> dict[str, float]:
    return {
        "median_ms": statistics.median(samples),
        "min_ms": min(samples),
        "max_ms": max(samples),
        "num_samples": len(samples),
    }


def print_json(result: dict, device: str = "cpu") -> None:
    """The measurement's last stdout line: its numbers and where they were taken."""
    print(json.dumps({**result, "provenance": provenance(torch.device(device))}))
