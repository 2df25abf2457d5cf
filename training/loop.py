"""The one optimizer loop of all three trainings: schedule, clipping, logging, checkpoints, time limit.

It knows nothing of data or masks: a training hands it the batch of a step and the loss of a batch.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tqdm import tqdm

from specdec.errors import UserError
from training import ranks
from training.checkpoint import Progress, load_checkpoint, save_checkpoint
from training.models import compile_layers

if TYPE_CHECKING:
    import numpy as np
    import torch

    from training.graphs import LossOf


class StepBatch(Protocol):
    """What a step is given: a whole batch, of which each process takes its share."""

    @property
    def num_tokens(self) -> int: ...
    def arrays(self) -> dict[str, np.ndarray]: ...
    def share(self, rank: int, size: int) -> StepBatch: ...


BatchOf = Callable[[int], StepBatch]  # step, counted from 0 -> the whole batch of that step


TIMED_STEPS = 1_000_000  # more than any budget of time allows


class OutOfTime(Exception):
    """The time limit came; a checkpoint holds everything done so far."""


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train. Every field changes the result."""

    num_steps: int
    num_docs: int
    learning_rate: float
    warmup_share: float = 0.05
    final_share: float = 0.05
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 0
    # Instead of num_steps, of which each decides it: of the documents' tokens, of the training's own operations, or of
    # time (then the schedule follows the clock, and no two runs are quite alike).
    num_tokens: float | None = None
    num_flops: float | None = None
    num_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_docs"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"--learning_rate {self.learning_rate}: give a number above 0")

    @property
    def has_budget(self) -> bool:
        return (self.num_tokens, self.num_flops, self.num_seconds) != (None, None, None)


@dataclass(frozen=True)
class Place:
    """Where a run happens; nothing here changes the result (up to rounding of the device)."""

    checkpoint: Path
    device: torch.device
    deadline: float | None = None  # time.monotonic() value
    log_every: int = 50
    checkpoint_every: int = 500
    is_compiled: bool = False  # training.models.compile_layers


@dataclass(frozen=True)
class Steps:
    """What is trained on. `tokens_a_step`: on average; `watch`: looked at now and then, see `Watch`."""

    batch_of: BatchOf
    loss_of: LossOf
    tokens_a_step: float = 0.0
    watch: Watch | None = None


class Watch(Protocol):
    """Looks at a model in training now and then; the time that it takes is not the training's. `share`: of the
    training, that is done."""

    def is_due(self, step: int, share: float) -> bool: ...
    def look(self, progress: Progress) -> None: ...


def learning_rate(settings: LoopSettings, step: float) -> float:
    """Linear warm-up over warmup_share of the steps, then a cosine down to final_share of the peak."""
    warmup = max(1, round(settings.warmup_share * settings.num_steps))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    along = (step - warmup) / max(1, settings.num_steps - warmup)
    share = settings.final_share + (1 - settings.final_share) * 0.5 * (1 + math.cos(math.pi * along))
    return settings.learning_rate * share


def settled(settings: LoopSettings, tokens_a_step: float, flops_a_token: float) -> LoopSettings:
    """With the number of steps that a budget of tokens or operations comes to."""
    tokens = settings.num_tokens
    if settings.num_flops is not None:
        tokens = settings.num_flops / flops_a_token
    if tokens is None:
        return replace(settings, num_steps=TIMED_STEPS) if settings.num_seconds is not None else settings
    return replace(settings, num_steps=max(1, round(tokens / tokens_a_step)))


def count_flops(model: torch.nn.Module, steps: Steps, device: torch.device) -> float:
    """Floating-point operations of a training step for each token of its documents, counted in the first step."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    batch = steps.batch_of(0).share(ranks.rank(), ranks.size())
    inputs = {name: torch.from_numpy(array).to(device) for name, array in batch.arrays().items()}
    with FlopCounterMode(display=False) as counter:
        steps.loss_of(inputs).backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops() * ranks.size() / batch.num_tokens


def make_optimizer(model: torch.nn.Module, settings: LoopSettings) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(p.is_cuda for p in parameters)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=fused)


@dataclass
class _LossLog:
    """Collects losses on the device and reads them back only when a window closes (a read stalls the GPU)."""

    name: str
    num_steps: int
    done: Progress
    num_seconds: float | None = None
    started: float = field(default_factory=time.monotonic)
    last_step: int = 0

    def __post_init__(self) -> None:
        self.losses, self.tokens = list(self.done.losses), self.done.tokens
        self._open_window()

    def _open_window(self) -> None:
        self._sum: torch.Tensor | float = 0.0
        self._count = 0

    def share(self, step: int) -> float:
        """Of the training, that is done after `step` steps: by the clock, where that decides."""
        share = step / self.num_steps
        if self.num_seconds is None:
            return share
        return max(share, ranks.on_leader(lambda: self.progress(step).seconds) / self.num_seconds)

    def paused(self, work: Callable[[], None]) -> None:
        """Do something that is not the training's."""
        begin = time.monotonic()
        work()
        self.started += time.monotonic() - begin

    def add(self, loss: torch.Tensor, num_tokens: int) -> None:
        self._sum = self._sum + loss
        self._count += 1
        self.tokens += num_tokens

    def close_window(self, step: int, rate: float) -> None:
        loss = float(self._sum) / self._count
        if not math.isfinite(loss):
            raise UserError(f"{self.name}: the loss is {loss} at step {step}: start again with a lower --learning_rate")
        self.losses.append((step, loss))
        self._open_window()
        if ranks.is_leader():
            tqdm.write(
                f"{self.name}: step {step}/{self.num_steps}, loss {loss:.4f}, lr {rate:.2e}, "
                f"{self.progress(step).seconds:.0f} s, {self.tokens / 1e6:.1f} M tokens",
                file=sys.stderr,
            )

    def progress(self, step: int) -> Progress:
        seconds = self.done.seconds + time.monotonic() - self.started
        return Progress(step, self.losses, seconds, self.tokens, self.done.flops_a_token)


def train(
    name: str,
    model: torch.nn.Module,
    steps: Steps,
    settings: LoopSettings,
    place: Place,
    identity: dict,
) -> Progress:
    """Trains `model` in place to settings.num_steps, resuming from place.checkpoint when it is there.

    `steps` makes the batch of a step, and from its arrays on the device the loss. With several processes
    (training.ranks) every one ends with the same weights; only the leader logs and saves.

    `identity` says what the run is (data, init, options); a checkpoint with another one is a UserError. Raises
    OutOfTime after a checkpoint when place.deadline has passed, UserError when the loss is not finite.
    """
    import torch

    from training.graphs import Gradients, Graphs

    identity = {"name": name, **identity, **asdict(settings)}
    graphs = Graphs[torch.Tensor](place.device)
    with graphs.stream():
        flops_a_token = count_flops(model, steps, place.device) if steps.tokens_a_step else 0.0
    settings = settled(settings, steps.tokens_a_step, flops_a_token)
    optimizer = make_optimizer(model, settings)
    done = load_checkpoint(place.checkpoint, model, optimizer, identity)
    done = replace(done or Progress(0, [], 0.0, 0), flops_a_token=flops_a_token)
    log = _LossLog(name, settings.num_steps, done, settings.num_seconds)
    model.train()
    if place.is_compiled:
        compile_layers(model)
    gradients = Gradients(model, steps.loss_of, place.device, graphs)

    def update(step: int) -> float:
        rate = learning_rate(settings, log.share(step) * settings.num_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = steps.batch_of(step).share(ranks.rank(), ranks.size())
        loss = gradients(batch.arrays())
        # This process's part of the loss and the gradients becomes that of the whole step.
        ranks.sum_over_ranks([loss, *(p.grad for p in model.parameters() if p.grad is not None)])
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        log.add(loss, batch.num_tokens)
        return rate

    def save(step: int) -> None:
        save_checkpoint(place.checkpoint, model, optimizer, log.progress(step), identity)

    with graphs.stream():
        _take_steps(update, save, log, place, steps.watch)
    return log.progress(log.last_step)


def _take_steps(
    update: Callable[[int], float],
    save: Callable[[int], None],
    log: _LossLog,
    place: Place,
    watch: Watch | None,
) -> None:
    """All steps left, with a line, a checkpoint, a look at the clock when due. `update` returns the learning rate."""
    is_shown = ranks.is_leader() and sys.stderr.isatty()
    bar = tqdm(total=log.num_steps, initial=log.done.step, desc=log.name, disable=not is_shown)
    step = log.done.step
    while step < log.num_steps:
        step += 1
        rate = update(step - 1)
        bar.update()
        share = log.share(step)
        is_last = share >= 1
        is_late = not is_last and ranks.is_past(place.deadline)
        if is_late or is_last or step % place.log_every == 0:
            log.close_window(step, rate)
        if watch is not None and (is_last or watch.is_due(step, share)):
            log.paused(partial(watch.look, log.progress(step)))
        if is_late or (step % place.checkpoint_every == 0 and not is_last):
            ranks.on_leader(partial(save, step))
        if is_late:
            raise OutOfTime(f"{log.name}: stopped at step {step} of {log.num_steps}")
        if is_last:
            break
    log.last_step = step
    bar.close()
