"""Side by side: work that is not timed and shares nothing, on as many cores as there are. It knows no model."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(calls: Sequence[Callable[[], Made]], begin: Callable[[], None], num_workers: int) -> list[Made]:
    """What the calls give, in their order. `begin`: called in every thread before its first; with one worker, or one
    call, there is no other thread, and it is not."""
    if min(num_workers, len(calls)) < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(num_workers, len(calls)), initializer=begin) as pool:
        return [one.result() for one in [pool.submit(call) for call in calls]]
