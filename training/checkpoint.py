"""Saves and resumes a training run, atomically; one file per run.

Everything random in a run is a function of (seed, step) and so is the learning rate, therefore the step restores
both. It is not the export: optimizer state never leaves the work folder.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, and (step, mean loss since the last entry) so far."""

    step: int
    losses: list[tuple[int, float]]
    seconds: float
    tokens: int
    flops_a_token: float = 0.0  # of training, as counted in the first step; 0: not counted

    def to_builtins(self) -> dict:
        """A finished run, for the JSON line and the model card."""
        counted = {"flops": round(self.flops_a_token * self.tokens)} if self.flops_a_token else {}
        return {
            **counted,
            "steps": self.step,
            "first_loss": self.losses[0][1],
            "last_loss": self.losses[-1][1],
            "losses": [[step, round(loss, 4)] for step, loss in self.losses],
            "seconds": round(self.seconds, 1),
            "tokens": self.tokens,
        }


def save_checkpoint(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, identity: dict
) -> None:
    """Writes the run's state to `path` in one atomic step (a reader sees the old file or the new one)."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    state = {
        "identity": identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "progress": {**vars(progress), "losses": [list(entry) for entry in progress.losses]},
    }
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, identity: dict
) -> Progress | None:
    """Restores model and optimizer from `path` and returns the progress; None when there is no file.

    Raises UserError for a damaged file and for a checkpoint of a run with other settings; nothing is changed then.
    """
    if not path.is_file():
        return None
    import torch

    try:
        # CPU: the optimizer moves its state to the parameters' device by itself.
        state = torch.load(path, map_location="cpu", weights_only=True)
        stored, progress = state["identity"], state["progress"]
    except (RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        kind = type(error).__name__
        raise UserError(f"{path} is not a readable checkpoint ({kind}): delete it to start anew") from None
    for key in sorted({*stored, *identity}):
        if stored.get(key) != identity.get(key):
            raise UserError(
                f"{path} belongs to another run ({key}: stored {stored.get(key)!r}, asked {identity.get(key)!r}): "
                "use another work folder or delete the file"
            )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    losses = [(int(step), float(loss)) for step, loss in progress["losses"]]
    return Progress(progress["step"], losses, progress["seconds"], progress["tokens"])
