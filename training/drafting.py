"""What both drafter trainings share: their data (the target's own answers), its soft labels, their command's flags."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.errors import UserError
from specdec.questions.repetition import MOSTLY
from training import ranks
from training.answers import load_answers
from training.batches import TokenDocs
from training.cli import add_loop_flags, training_parser
from training.loop import LoopSettings
from training.models import TARGET_HELP, load_model, weights_digest
from training.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from training.losses import Labels, SoftTargets

MAX_DOCUMENT = 640


@dataclass(frozen=True)
class Lesson:
    """Everything a drafter is trained from."""

    target: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    docs: TokenDocs

    @property
    def device(self) -> torch.device:
        return next(self.target.parameters()).device

    @cached_property
    def soft(self) -> SoftTargets:
        """The target's distributions: one pass of it over all answers, for all that is trained from them."""
        from training.losses import teach

        ranks.say("target distributions of all answers ...")
        return teach(self.target, self.docs)


def load_lesson(target_dir: Path, answers_path: Path, device: torch.device, max_repeated: float = MOSTLY) -> Lesson:
    """The target, its tokenizer, its answers that repeat little. UserError for what is unfit, small files first."""
    tokenizer = load_tokenizer(target_dir)
    answers = load_answers(answers_path)
    documents = answers.documents(MAX_DOCUMENT, max_repeated=max_repeated)
    target = load_model(target_dir, device)
    if answers.writer not in ("", weights_digest(target)):
        raise UserError(f"another model than {target_dir} wrote {answers_path}: use another work folder or delete it")
    if documents.tokens.max() >= target.config.vocab_size:
        raise UserError(f"{answers_path} holds tokens that the target in {target_dir} lacks: give its own answers")
    return Lesson(target, tokenizer, documents)


def labels_of(lesson: Lesson, soft_weight: float) -> Labels:
    """Hard labels, and the target's distributions when soft_weight > 0."""
    from training.losses import Labels, to_device

    soft = lesson.soft if soft_weight > 0 else None
    return Labels(to_device(lesson.docs.tokens, lesson.device).long(), soft, soft_weight)


def drafter_parser(
    module: str, description: str, loop: LoopSettings, num_layers: int, soft_weight: float
) -> argparse.ArgumentParser:
    """The flags of a drafter's training command, with these defaults."""
    parser = training_parser(module, description)
    add_loop_flags(parser, loop)
    parser.add_argument("--target_dir", type=Path, required=True, help=TARGET_HELP)
    parser.add_argument("--answers", type=Path, required=True, help="the .npz of training.self_generate")
    parser.add_argument("--num_layers", type=int, default=num_layers, help="layers cut evenly from the target")
    parser.add_argument("--soft_weight", type=float, default=soft_weight, help="weight of KL to the target; 0: none")
    return parser
