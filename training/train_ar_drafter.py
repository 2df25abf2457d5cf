"""Trains a small autoregressive drafter on the target's own greedy answers, with the target's distributions.

The drafter is cut from the target, or fresh in the target's shape with fewer layers. training.loop runs the loop.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.batches import Batch, Schedule, causal_batch
from training.checkpoint import Progress
from training.cli import loop_of, place_of, run_command
from training.drafting import Lesson, drafter_parser, labels_of, load_lesson
from training.export import write_model
from training.loop import LoopSettings, Place, Steps, train
from training.models import autocast, cut_layers, find_target, hidden_states, weights_digest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from training.graphs import Inputs


MODULE = "training.train_ar_drafter"


@dataclass(frozen=True)
class ArSettings:
    num_layers: int = 5
    loop: LoopSettings = LoopSettings(num_steps=4000, num_docs=96, learning_rate=1e-3)
    soft_weight: float = 1.0
    is_fresh: bool = False


def _fresh(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(model)(model.config).float().to(next(model.parameters()).device)


def train_ar_drafter(lesson: Lesson, settings: ArSettings, place: Place) -> tuple[PreTrainedModel, Progress]:
    """The trained drafter on the target's device, and how it went; resumes from place.checkpoint."""
    from training.losses import batch_loss

    docs, device = lesson.docs, lesson.device
    model = cut_layers(lesson.target, settings.num_layers)
    if settings.is_fresh:
        model = _fresh(model, settings.loop.seed)
    labels = labels_of(lesson, settings.soft_weight)
    schedule = Schedule(docs.lengths, settings.loop.num_docs, settings.loop.seed)

    def batch_of(step: int) -> Batch:
        return causal_batch(docs, schedule.rows(step), lesson.tokenizer.eos_token_id, prompt_weight=0.0)

    def loss_of(inputs: Inputs) -> torch.Tensor:
        with autocast(device):
            return batch_loss(model, hidden_states(model, inputs["ids_BL"]), inputs, labels)

    identity = {
        "docs": docs.fingerprint(),
        "target": weights_digest(lesson.target),
        "num_layers": settings.num_layers,
        "soft_weight": settings.soft_weight,
        "is_fresh": settings.is_fresh,
    }
    steps = Steps(batch_of, loss_of, docs.tokens_a_step(settings.loop.num_docs) if settings.loop.has_budget else 0.0)
    report = train("ar_drafter", model, steps, settings.loop, place, identity)
    return model, report


def main() -> dict:
    default = ArSettings()
    parser = drafter_parser(MODULE, __doc__.splitlines()[0], default.loop, default.num_layers, default.soft_weight)
    parser.add_argument("--fresh", action="store_true", help="start from random weights, not from the target's")
    arguments = parser.parse_args()
    settings = ArSettings(arguments.num_layers, loop_of(arguments), arguments.soft_weight, arguments.fresh)
    place, target_dir = place_of(arguments), find_target(arguments.target_dir)
    lesson = load_lesson(target_dir, arguments.answers, place.device)
    model, report = train_ar_drafter(lesson, settings, place)
    write_model(model, lesson.tokenizer, target_dir, arguments.out, report.to_builtins())
    place.checkpoint.unlink(missing_ok=True)
    return {"stage": "ar_drafter", **report.to_builtins()}


if __name__ == "__main__":
    sys.exit(run_command(MODULE, main))
