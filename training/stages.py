"""Runs the stages of a long piece of work in order, each once: the artefact of a stage says that it is done.

It knows nothing of what the stages do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training import ranks
from training.loop import OutOfTime


@dataclass(frozen=True)
class Stage:
    """One step. When `artefact` exists it is done; `work` makes it and says in builtins what came of it.

    `trains_together`: all of torchrun's processes work; the other stages are the leader's, and the others wait.
    """

    name: str
    artefact: Path
    work: Callable[[], dict]
    trains_together: bool = False
    is_redone: bool = False

    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.artefact.exists() and not self.is_redone


def run_stages(stages: Sequence[Stage], stop_after: str, deadline: float | None) -> dict[str, dict | None]:
    """What each stage up to `stop_after` did (None: it was done already). Raises OutOfTime between two stages."""
    results: dict[str, dict | None] = {}
    for stage in stages:
        if ranks.on_leader(stage.is_done):
            results[stage.name] = None
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
