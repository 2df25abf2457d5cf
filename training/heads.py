"""What the trainings of all heads share: their settings, what a head says of itself, the run of one training.

A head reads hidden states of the target (its taps) and is exported without tokenizer, and without the target's table
where its readers take that from the target. What each family's network and drafts are is said in its own file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from specdec.errors import UserError
from training import ranks
from training.batches import Schedule, TokenDocs
from training.checkpoint import Progress
from training.drafting import Lesson, labels_of
from training.export import REPORT_FILE, check_free, config_of, replacing
from training.head_batches import HeadBatch, head_batch
from training.loop import LoopSettings, Place, Steps, train
from training.models import autocast, weights_digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from training.graphs import Inputs
    from training.losses import Labels
    from training.on_policy import HeldBack

ROOM_FOR_FEATURES = 0.5  # of the memory that is free


@dataclass(frozen=True)
class HeadSettings:
    """What decides a head. `taps`: None for the family's own choice; `num_begins`: drafts of a document in a step (of
    block heads); `decay`: what each token of a draft weighs, of the one before."""

    loop: LoopSettings = LoopSettings(num_steps=4000, num_docs=64, learning_rate=1e-3)
    taps: tuple[int, ...] | None = None
    num_layers: int = 5
    block_size: int = 16
    num_begins: int = 8
    decay: float | None = None
    soft_weight: float = 0.5
    markov_rank: int = 64
    num_words: int | None = None
    num_drafts: int = 7  # of EAGLE-3: steps on its own outputs

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_begins", "markov_rank", "num_drafts"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give at least 1")
        if self.block_size < 2:
            raise UserError(f"--block_size {self.block_size}: give at least 2, the anchor and a draft")
        if self.num_words is not None and self.num_words < 2:
            raise UserError(f"--draft_vocab_size {self.num_words}: give at least 2")
        if self.decay is not None and not 0 < self.decay <= 1:
            raise UserError(f"--decay {self.decay:g}: give more than 0 and at most 1")
        if not 0 <= self.soft_weight < math.inf:
            raise UserError(f"--soft_weight {self.soft_weight:g}: give 0 or more")


@dataclass(frozen=True)
class Piece:
    """Some predictions of a step. `slot`: which token of a draft they are (None: `log_NV` has all of every draft, one
    after the other)."""

    log_NV: Tensor
    slot: int | None = None
    also: Tensor | None = None  # what else the loss has


class HeadTraining(Protocol):
    """A family's network in training, and what it is to predict."""

    module: torch.nn.Module
    taps: tuple[int, ...]
    slot_weights: np.ndarray
    words_T: Tensor | None

    def begins(self, docs: TokenDocs, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray: ...
    def pieces(self, inputs: Inputs, features_BLF: Tensor) -> Iterator[Piece]: ...
    def config(self) -> dict[str, Any]: ...
    def extra_tensors(self) -> dict[str, Tensor]: ...


def base_config(lesson: Lesson) -> dict[str, Any]:
    """The settings of a head's layers, which are of the target's sizes, in every layout's words."""
    made = config_of(lesson.target, lesson.tokenizer)
    config = {name: value for name, value in made.items() if name not in ("mlp_bias", "use_cache")}
    config["head_dim"] = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    return {**config, "attention_bias": False, "tie_word_embeddings": False}


def require_taps(taps: tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    """`taps`, or UserError where the target has no such layer, or it is the last: what leaves that is normed."""
    if not taps or len(set(taps)) < len(taps) or list(taps) != sorted(taps):
        raise UserError(f"--taps {' '.join(map(str, taps))}: give different layers, in their order")
    if outside := [tap for tap in taps if not 0 <= tap < num_layers - 1]:
        raise UserError(
            f"--taps {outside[0]}: the target has {num_layers} layers, of which 0 to {num_layers - 2} can be tapped"
        )
    return taps


def train_head(
    family: str,
    made: HeadTraining,
    lesson: Lesson,
    settings: HeadSettings,
    place: Place,
    held_back: HeldBack | None = None,
) -> Progress:
    """Trains a head in place; resumes from place.checkpoint. UserError as `training.loop.train`."""
    from training.features import features_of
    from training.memory import free_bytes, require_memory

    docs, device = lesson.docs, lesson.device
    require_memory(made, lesson, settings)
    features = features_of(docs, lesson.target, made.taps, ROOM_FOR_FEATURES * free_bytes(device))
    labels, slot_weights_S = labels_of(lesson, settings.soft_weight), slot_weights(made, device)
    schedule = Schedule(docs.lengths, settings.loop.num_docs, settings.loop.seed)

    def batch_of(step: int) -> HeadBatch:
        rows, rng = schedule.rows(step), np.random.default_rng([settings.loop.seed, 2, step])
        return head_batch(docs, rows, made.begins(docs, rows, rng), made.slot_weights)

    def loss_of(inputs: Inputs) -> Tensor:
        with autocast(device):
            return step_loss(made, inputs, features.of(inputs), labels, slot_weights_S)

    watch = None if held_back is None else held_back.watch(family, made, lesson, settings, place)
    steps = Steps(batch_of, loss_of, docs.tokens_a_step(settings.loop.num_docs), watch)
    own = {name: value for name, value in asdict(settings).items() if name != "loop"}
    identity = {
        "docs": docs.fingerprint(),
        "target": weights_digest(lesson.target),
        **own,
        "taps": list(made.taps),
    }
    return train(family, made.module, steps, settings.loop, place, identity)


def slot_weights(made: HeadTraining, device: torch.device) -> Tensor:
    """What each token of a draft weighs, on the device."""
    import torch

    return torch.tensor(made.slot_weights, dtype=torch.float32, device=device)


def step_loss(
    made: HeadTraining, inputs: Inputs, features_BLF: Tensor, labels: Labels, slot_weights_S: Tensor
) -> Tensor:
    """The weighted mean over the tokens of all drafts of a step."""
    import torch

    from training.head_loss import asked_of, draft_loss

    asked = asked_of(inputs, slot_weights_S)
    total = torch.zeros((), device=features_BLF.device)
    for piece in made.pieces(inputs, features_BLF):
        at, weight = asked.of(piece.slot)
        total = total + draft_loss(piece.log_NV, at, weight, labels, made.words_T)
        if piece.also is not None:
            total = total + (piece.also * weight).sum()
    return total / inputs["total_weight"]


def write_head(made: HeadTraining, folder: Path, report: Mapping[str, Any], *, is_new: bool = True) -> None:
    """Writes `folder` whole or not at all: bfloat16 safetensors, config.json, training.json. Raises UserError when
    something is there already and should not be."""
    import torch
    from safetensors.torch import save_file

    if is_new:
        check_free(folder)
    state = {name: tensor.detach().to("cpu", torch.bfloat16) for name, tensor in made.module.state_dict().items()}
    weights = {name: tensor.contiguous() for name, tensor in {**state, **made.extra_tensors()}.items()}
    facts = {**report, "num_parameters": sum(p.numel() for p in made.module.parameters())}
    with replacing(folder) as temporary:
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(json.dumps(made.config(), indent=1) + "\n", encoding="utf-8")
        (temporary / REPORT_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def say_shape(family: str, made: HeadTraining) -> None:
    count = sum(p.numel() for p in made.module.parameters())
    ranks.say(f"{family}: {count / 1e6:.2f} M parameters, taps {' '.join(map(str, made.taps))}")
