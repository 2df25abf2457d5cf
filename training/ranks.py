"""The processes of a training started by torchrun: who leads, what all of them agree on, sums over all of them.

Gradients are added up, not averaged by DistributedDataParallel: each process makes its share of a global weighted
mean, and a single process runs through the same lines without any communication. All processes must see the same
files (one host, or a shared file system). It knows nothing of models and data.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from specdec.errors import UserError

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")

_DAYS_TO_WAIT = 7  # the others wait while the leader generates; torchrun ends them if it dies
_SECONDS_FOR_THE_LEADER = 20.0


@contextmanager
def joined() -> Iterator[None]:
    """Joins the processes that torchrun started, if any, while the block runs. UserError where they cannot be."""
    if not _are_several() or size() > 1:
        yield
        return
    import torch
    import torch.distributed as dist

    # Both: decisions go through the host, so that a look at the clock does not stall the GPUs.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(days=_DAYS_TO_WAIT))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot join the other processes ({str(error).splitlines()[0]}): start by torchrun") from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def _are_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) != 1


def _rank_and_size() -> tuple[int, int]:
    if not _are_several():  # torch is not loaded to say so: --help answers at once
        return 0, 1
    import torch.distributed as dist

    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def size() -> int:
    """How many processes train together; 1 without torchrun."""
    return _rank_and_size()[1]


def rank() -> int:
    """This process's number among them, from 0."""
    return _rank_and_size()[0]


def local_device(name: str) -> str:
    """The name of this process's own device: under torchrun every process of a host has a GPU of its own."""
    if size() == 1 or not name.startswith("cuda"):
        return name
    if name != "cuda":
        raise UserError(f"--device {name} names one GPU for {size()} processes: give --device cuda")
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def is_leader() -> bool:
    """Whether this process logs, writes and decides."""
    return rank() == 0


def say(text: str) -> None:
    """One line on stderr, from the leader."""
    if is_leader():
        print(text, file=sys.stderr, flush=True)


def on_leader(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises in the leader, in every process; only the leader runs it, the others wait."""
    if size() == 1:
        return work()
    import torch
    import torch.distributed as dist

    outcome: list = [None, None]
    if is_leader():
        try:
            outcome[0] = work()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def is_past(deadline: float | None) -> bool:
    """Whether the leader's time.monotonic() is past `deadline`; the same answer in every process."""
    return deadline is not None and on_leader(lambda: time.monotonic() > deadline)


def sum_over_ranks(tensors: Iterable[torch.Tensor]) -> None:
    """Replaces each tensor, in place, by its sum over all processes."""
    if size() == 1:
        return
    import torch.distributed as dist

    for pending in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
        pending.wait()


def let_the_leader_speak() -> None:
    """Before a process tells the user of a mistake: gives the leader time to say the same and so end them all.

    Returns at once in the leader, and in another process when the mistake turns out to be its own.
    """
    if not is_leader():
        time.sleep(_SECONDS_FOR_THE_LEADER)
