"""Side by side: work that is not timed and shares nothing, on as many cores as there are. It knows no model."""

import gc
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol, TypeVar

from specdec.errors import UserError

Given = TypeVar("Given")
Made = TypeVar("Made")


class Each(Protocol):
    """What a function makes of everything given, in order: `map`, or that of several processes."""

    def __call__(self, work: Callable[[Given], Made], given: Sequence[Given], /) -> Iterable[Made]: ...


def side_by_side(calls: Sequence[Callable[[], Made]], begin: Callable[[], None], num_workers: int) -> list[Made]:
    """What the calls give, in their order. `begin`: called in every thread before its first; with one worker, or one
    call, there is no other thread, and it is not."""
    if min(num_workers, len(calls)) < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(min(num_workers, len(calls)), initializer=begin) as pool:
        return [one.result() for one in [pool.submit(call) for call in calls]]


@contextmanager
def processes(num_workers: int) -> Iterator[Each]:
    """So many processes for all that is asked inside, or this one alone. An error of one reaches the caller once what
    has begun is done, and what has not begun is dropped: multiprocessing's own pool, stopped while it hands out work,
    can wait for ever."""
    if num_workers < 2:
        yield map
        return
    # Spawned: a fork would copy whatever the parent has started. Nothing that is asked here makes cycles, and looking
    # for them among a trace's many small lists takes half of the time.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=gc.disable)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise UserError(f"one of {num_workers} processes was ended; out of memory? fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)
