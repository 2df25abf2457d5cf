"""What the bundled family is: the settings of every model in it, as they are and as the command line wants them."""

import argparse
from dataclasses import dataclass, replace
from typing import TypeVar

from specdec.errors import UserError
from training.answers import DecodeSettings
from training.loop import LoopSettings
from training.make_drafters import DrafterSettings
from training.models import Shape
from training.tokenizer import VOCAB_SIZE
from training.train_ar_drafter import ArSettings
from training.train_dllm_drafter import DllmSettings
from training.train_target import TargetSettings

COMMAND = "python -m training.family --data_dir DIR --work_dir DIR"
TRAINED = ("teacher", "target", "ar_drafter", "dllm_drafter")
Trained = TypeVar("Trained", TargetSettings, ArSettings, DllmSettings)
RECIPE_FLAGS = ("num_mixed", *(f"{name}_steps" for name in TRAINED))


@dataclass(frozen=True)
class FamilySettings:
    """Everything that decides what the family is."""

    teacher: TargetSettings = TargetSettings()
    target: TargetSettings = TargetSettings(loop=LoopSettings(num_steps=2500, num_docs=64, learning_rate=1.5e-3))
    num_teachers: int = 2  # the first learns as `teacher` says, all others as `target` does
    drafters: DrafterSettings = DrafterSettings(answers=DecodeSettings(max_rows=4096))
    vocab_size: int = VOCAB_SIZE
    examples_per_set: int | None = None
    num_variants: int = 3  # copies of the questions with other numbers: answers need not be right
    num_mixed: int = 8  # more copies, each with a sentence of another question, for the drafters only
    # Only answers that end and seldom repeat themselves are learnt from, or the target would repeat itself without end.
    max_repeated: float = 0.25
    keep_truncated: bool = False


def smoke_settings() -> FamilySettings:
    """The same pipeline in about a minute on a CPU; the models are good for nothing."""
    loop = LoopSettings(num_steps=30, num_docs=8, learning_rate=2e-3)
    model = TargetSettings(shape=Shape(512, 64, 128, 6, 4, 2), loop=loop)
    drafters = DrafterSettings(
        answers=DecodeSettings(max_new_tokens=48, max_rows=32),
        ar_drafter=ArSettings(num_layers=2, loop=loop),
        dllm_drafter=DllmSettings(num_layers=3, loop=loop),
        max_repeated=1.0,  # after so few steps every answer is a loop without end
    )
    return FamilySettings(
        teacher=model,
        target=model,
        drafters=drafters,
        vocab_size=512,
        examples_per_set=40,
        num_variants=1,
        num_mixed=1,
        max_repeated=1.0,
        keep_truncated=True,
    )


def settings_of(arguments: argparse.Namespace) -> FamilySettings:
    settings = smoke_settings() if arguments.smoke else FamilySettings()

    def with_loop(part: Trained, name: str) -> Trained:
        steps = getattr(arguments, f"{name}_steps")
        if steps is not None and steps < 1:
            raise UserError(f"--{name}_steps {steps}: give at least 1")
        return replace(part, loop=replace(part.loop, num_steps=steps or part.loop.num_steps, seed=arguments.seed))

    drafters = settings.drafters
    num_mixed = settings.num_mixed if arguments.num_mixed is None else arguments.num_mixed
    if num_mixed < 0:
        raise UserError(f"--num_mixed {num_mixed}: give 0 or more")
    return replace(
        settings,
        num_mixed=num_mixed,
        teacher=with_loop(settings.teacher, "teacher"),
        target=with_loop(settings.target, "target"),
        drafters=replace(
            drafters,
            ar_drafter=with_loop(drafters.ar_drafter, "ar_drafter"),
            dllm_drafter=with_loop(drafters.dllm_drafter, "dllm_drafter"),
        ),
    )


def command_of(arguments: argparse.Namespace) -> str:
    """The command that makes the same again, with its folders left open."""
    chosen = [f"--{name} {value}" for name in RECIPE_FLAGS if (value := getattr(arguments, name)) is not None]
    alone = ["--target_dir TARGET"] if arguments.target_dir else []
    return " ".join([COMMAND, *alone, *chosen, *([f"--seed {arguments.seed}"] if arguments.seed else [])])
