"""The stages of a training that is made of several: what each makes and from what, so that what is there is not made
again, and what was made from something else is refused. It knows no drafter.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training import ranks
from training.answers import DecodeSettings
from training.checkpoint import Progress
from training.cli import deadline_of, pick_device
from training.loop import OutOfTime, Place
from training.made_from import is_made, note
from training.self_generate import answer_texts

if TYPE_CHECKING:
    import torch

MAX_PROMPT = 400  # longer prompts leave too little room for an answer in a training document


@dataclass(frozen=True)
class Stage:
    """One step. When `artefact` exists it is done; `work` makes it and says in builtins what came of it.

    `made_from`: everything that decides the artefact, asked when what came before is there. `trains_together`: all of
    torchrun's processes work; the other stages are the leader's, and the others wait.
    """

    name: str
    artefact: Path
    work: Callable[[], dict]
    made_from: Callable[[], dict] | None
    trains_together: bool = False

    def is_done(self) -> bool:
        """Raises UserError where the artefact was made from something else. One that nothing is asked of is redone."""
        if self.made_from is None:
            return False
        asked = self.made_from()
        if is_made(self.artefact, asked):
            return True
        note(self.artefact, asked)
        return False


def run_stages(stages: Sequence[Stage], stop_after: str, deadline: float | None) -> dict[str, dict | None]:
    """What each stage up to `stop_after` did (None: it was done already). Raises OutOfTime between two stages."""
    results: dict[str, dict | None] = {}
    for stage in stages:
        if ranks.on_leader(stage.is_done):
            results[stage.name] = None
            ranks.say(f"--- {stage.name}: reused, it is at {stage.artefact}")
        else:
            if ranks.is_past(deadline):
                raise OutOfTime(f"before stage {stage.name}")
            ranks.say(f"--- {stage.name}")
            facts = stage.work() if stage.trains_together else ranks.on_leader(stage.work)
            results[stage.name] = {k: v for k, v in facts.items() if k not in ("losses", "settings")}
            if ranks.is_leader():
                print(json.dumps({stage.name: results[stage.name]}), flush=True)
        if stage.name == stop_after:
            break
    return results


@dataclass(frozen=True)
class Workplace:
    """Where a run's files are and what it runs on; nothing here changes the result (up to rounding)."""

    work_dir: Path
    device: torch.device
    deadline: float | None = None
    is_compiled: bool = False

    def place(self, stage: str) -> Place:
        checkpoint = self.work_dir / f"{stage}.checkpoint.pt"
        return Place(checkpoint, self.device, self.deadline, is_compiled=self.is_compiled)

    def answer(self, target_dir: Path, texts: list[str], path: Path, settings: DecodeSettings) -> dict:
        """Writes the greedy answers of a target to `path`; returns counts."""
        return answer_texts(
            target_dir, texts, path, settings, device=self.device, deadline=self.deadline, max_prompt=MAX_PROMPT
        )

    def finish(self, stage: str, report: Progress, settings: dict) -> dict:
        """What training.json says of a trained model; deletes its checkpoint, which is not needed any more."""
        import torch

        self.place(stage).checkpoint.unlink(missing_ok=True)
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        count = "one" if ranks.size() == 1 else ranks.size()
        where = f"{count} {device}, torch {torch.__version__}"
        return {**report.to_builtins(), "device": where, "settings": settings}


def workplace_of(arguments: argparse.Namespace) -> Workplace:
    device, deadline = pick_device(arguments.device), deadline_of(arguments.max_minutes)
    return Workplace(arguments.work_dir, device, deadline, arguments.compile)
