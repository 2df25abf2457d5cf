"""Trains a block-diffusion drafter for any Qwen2 or Llama target (Fast-dLLM v2's recipe, arXiv 2509.26328, extended).

Layers cut from the target, masks as met in drafting, loss weighted by the distance from the known head, soft labels
from the target. The masks are in training.noise, the loop in training.loop.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from specdec.errors import UserError
from training.batches import Batch, Schedule
from training.checkpoint import Progress
from training.cli import loop_of, place_of, run_command
from training.drafting import Lesson, drafter_parser, labels_of, load_lesson
from training.export import write_model
from training.loop import LoopSettings, Place, Steps, train
from training.models import autocast, cut_layers, find_target, hidden_states, weights_digest
from training.noise import NoiseSettings, block_mask, noisy_batch, sort_keys

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from training.graphs import Inputs


MODULE = "training.train_dllm_drafter"


@dataclass(frozen=True)
class DllmSettings:
    num_layers: int = 5
    loop: LoopSettings = LoopSettings(num_steps=8300, num_docs=96, learning_rate=1.5e-3)
    soft_weight: float = 0.5
    noise: NoiseSettings = NoiseSettings()


def mask_id_of(tokenizer: PreTrainedTokenizerBase, mask_token: str | None = None) -> int:
    """Id of `mask_token`, or of the tokenizer's own mask token; UserError when there is none."""
    token = mask_token or tokenizer.mask_token
    found = tokenizer.get_vocab().get(token) if token else None
    if found is None:
        raise UserError(f"the tokenizer has no mask token {token or ''}: name an unused entry with --mask_token")
    return found


def check_mask(mask_id: int, lesson: Lesson) -> None:
    """UserError when the mask cannot mark a hidden place: the network has no embedding for it, or documents hold it."""
    if mask_id >= lesson.target.config.vocab_size:
        raise UserError(f"the target has no embedding for mask token {mask_id}: name another entry with --mask_token")
    if (lesson.docs.tokens == mask_id).any():
        raise UserError(f"mask token {mask_id} occurs in the answers: name an unused entry with --mask_token")


def dllm_config(mask_id: int, settings: DllmSettings) -> dict:
    """What the drafter's config.json says beyond its architecture."""
    return {"mask_token_id": mask_id, "block_size": settings.noise.block_size, "drafter_kind": "block_diffusion"}


def train_dllm_drafter(
    lesson: Lesson, mask_id: int, settings: DllmSettings, place: Place
) -> tuple[PreTrainedModel, Progress]:
    """The trained drafter on the target's device, and how it went; resumes from place.checkpoint."""
    from training.losses import batch_loss

    docs, device, loop = lesson.docs, lesson.device, settings.loop
    check_mask(mask_id, lesson)
    model = cut_layers(lesson.target, settings.num_layers)
    labels = labels_of(lesson, settings.soft_weight)
    schedule = Schedule(sort_keys(docs, settings.noise.block_size), loop.num_docs, loop.seed)

    def batch_of(step: int) -> Batch:
        rng = np.random.default_rng([loop.seed, 1, step])
        return noisy_batch(docs, schedule.rows(step), settings.noise, mask_id, rng)

    def loss_of(inputs: Inputs) -> torch.Tensor:
        mask_B1LL = block_mask(inputs["blocks_BL"], inputs["kinds_L"])
        with autocast(device):
            hidden_BLD = hidden_states(model, inputs["ids_BL"], inputs["positions_BL"], mask_B1LL)
            return batch_loss(model, hidden_BLD, inputs, labels)

    identity = {
        "docs": docs.fingerprint(),
        "target": weights_digest(lesson.target),
        "num_layers": settings.num_layers,
        "soft_weight": settings.soft_weight,
        "mask_id": mask_id,
        **asdict(settings.noise),
    }
    steps = Steps(batch_of, loss_of, docs.tokens_a_step(loop.num_docs) if loop.has_budget else 0.0)
    report = train("dllm_drafter", model, steps, loop, place, identity)
    return model, report


def main() -> dict:
    default = DllmSettings()
    parser = drafter_parser(MODULE, __doc__.splitlines()[0], default.loop, default.num_layers, default.soft_weight)
    parser.add_argument("--mask_token", help="the tokenizer entry to use as mask (default: its own mask token)")
    arguments = parser.parse_args()
    settings = DllmSettings(arguments.num_layers, loop_of(arguments), arguments.soft_weight)
    place, target_dir = place_of(arguments), find_target(arguments.target_dir)
    lesson = load_lesson(target_dir, arguments.answers, place.device)
    mask_id = mask_id_of(lesson.tokenizer, arguments.mask_token)
    model, report = train_dllm_drafter(lesson, mask_id, settings, place)
    extra = dllm_config(mask_id, settings)
    write_model(model, lesson.tokenizer, target_dir, arguments.out, report.to_builtins(), extra)
    place.checkpoint.unlink(missing_ok=True)
    return {"stage": "dllm_drafter", **report.to_builtins()}


if __name__ == "__main__":
    sys.exit(run_command(MODULE, main))
