"""The one optimizer loop of all three trainings: schedule, clipping, logging, checkpoints, time limit.

It knows nothing of data or masks: a training hands it the batch of a step and the loss of a batch.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from specdec.errors import UserError
from training import ranks
from training.batches import Batch
from training.checkpoint import Progress, load_checkpoint, save_checkpoint
from training.models import compile_layers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from training.graphs import LossOf

BatchOf = Callable[[int], Batch]  # step, counted from 0 -> the whole batch of that step


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

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_docs"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"--learning_rate {self.learning_rate}: give a number above 0")


@dataclass(frozen=True)
class Place:
    """Where a run happens; nothing here changes the result (up to rounding of the device)."""

    checkpoint: Path
    device: torch.device
    deadline: float | None = None  # time.monotonic() value
    log_every: int = 50
    checkpoint_every: int = 500
    is_compiled: bool = False  # training.models.compile_layers


def learning_rate(settings: LoopSettings, step: int) -> float:
    """Linear warm-up over warmup_share of the steps, then a cosine down to final_share of the peak."""
    warmup = max(1, round(settings.warmup_share * settings.num_steps))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    along = (step - warmup) / max(1, settings.num_steps - warmup)
    share = settings.final_share + (1 - settings.final_share) * 0.5 * (1 + math.cos(math.pi * along))
    return settings.learning_rate * share


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
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.losses, self.tokens = list(self.done.losses), self.done.tokens
        self._open_window()

    def _open_window(self) -> None:
        self._sum: torch.Tensor | float = 0.0
        self._count = 0

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
        return Progress(step, self.losses, self.done.seconds + time.monotonic() - self.started, self.tokens)


def train(
    name: str,
    model: PreTrainedModel,
    step_of: tuple[BatchOf, LossOf],
    settings: LoopSettings,
    place: Place,
    identity: dict,
) -> Progress:
    """Trains `model` in place to settings.num_steps, resuming from place.checkpoint when it is there.

    `step_of` makes the batch of a step, and from its arrays on the device the loss. With several processes
    (training.ranks) every one ends with the same weights; only the leader logs and saves.

    `identity` says what the run is (data, init, options); a checkpoint with another one is a UserError. Raises
    OutOfTime after a checkpoint when place.deadline has passed, UserError when the loss is not finite.
    """
    import torch

    from training.graphs import Gradients, Graphs

    identity = {"name": name, **identity, **asdict(settings)}
    optimizer = make_optimizer(model, settings)
    done = load_checkpoint(place.checkpoint, model, optimizer, identity) or Progress(0, [], 0.0, 0)
    log = _LossLog(name, settings.num_steps, done)
    model.train()
    if place.is_compiled:
        compile_layers(model)
    graphs, (batch_of, loss_of) = Graphs[torch.Tensor](place.device), step_of
    gradients = Gradients(model, loss_of, place.device, graphs)

    def update(step: int) -> float:
        rate = learning_rate(settings, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = batch_of(step).share(ranks.rank(), ranks.size())
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
        _take_steps(update, save, log, place)
    return log.progress(settings.num_steps)


def _take_steps(update: Callable[[int], float], save: Callable[[int], None], log: _LossLog, place: Place) -> None:
    """All steps left, with a line, a checkpoint, a look at the clock when due. `update` returns the learning rate."""
    is_shown = ranks.is_leader() and sys.stderr.isatty()
    bar = tqdm(total=log.num_steps, initial=log.done.step, desc=log.name, disable=not is_shown)
    for step in range(log.done.step + 1, log.num_steps + 1):
        rate = update(step - 1)
        bar.update()
        is_last = step == log.num_steps
        is_late = not is_last and ranks.is_past(place.deadline)
        if is_late or is_last or step % place.log_every == 0:
            log.close_window(step, rate)
        if is_late or (step % place.checkpoint_every == 0 and not is_last):
            ranks.on_leader(partial(save, step))
        if is_late:
            raise OutOfTime(f"{log.name}: stopped at step {step} of {log.num_steps}")
    bar.close()
