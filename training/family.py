"""Trains the whole bundled family, stage by stage; what is already in the work folder is not made again.

    python -m training.family --data_dir DIR --work_dir DIR [--out assets/models] [--stop_after STAGE]

A teacher learns from the data sets' worked answers, and the target from the teacher's (sequence-level knowledge
distillation, arXiv 1606.07947): text written by people is too irregular for a small model to write, or draft, well.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from specdec.errors import UserError
from training.answers import load_answers
from training.batches import TokenDocs
from training.cards import TITLES, model_card
from training.cli import deadline_of, pick_device, run_command, training_parser
from training.corpus import load_examples, with_variants
from training.decoder import DecodeSettings
from training.export import REPORT_FILE, check_published, publish, write_model
from training.loop import LoopSettings
from training.make_drafters import DrafterRun, DrafterSettings, Workplace, answer_prompts, loop_facts
from training.models import Shape
from training.self_generate import summary
from training.stages import Stage, run_stages
from training.tokenizer import VOCAB_SIZE, load_tokenizer, train_bpe, write_tokenizer
from training.train_ar_drafter import ArSettings
from training.train_dllm_drafter import DllmSettings
from training.train_target import MAX_DOCUMENT, TargetSettings, encode_examples, train_target


@dataclass(frozen=True)
class FamilySettings:
    """Everything that decides what the family is."""

    teacher: TargetSettings = TargetSettings()
    target: TargetSettings = TargetSettings(loop=LoopSettings(num_steps=2500, num_docs=64, learning_rate=1.5e-3))
    drafters: DrafterSettings = DrafterSettings()
    vocab_size: int = VOCAB_SIZE
    examples_per_set: int | None = None
    # Copies of the questions with other numbers: new prompts at no cost, since answers need not be right.
    teacher_variants: int = 3
    target_variants: int = 3


def smoke_settings() -> FamilySettings:
    """The same pipeline in about a minute on a CPU; the models are good for nothing."""
    loop = LoopSettings(num_steps=30, num_docs=8, learning_rate=2e-3)
    model = TargetSettings(shape=Shape(512, 64, 128, 6, 4, 2), loop=loop)
    drafters = DrafterSettings(
        answers=DecodeSettings(max_new_tokens=48, max_rows=32),
        ar_drafter=ArSettings(num_layers=2, loop=loop),
        dllm_drafter=DllmSettings(num_layers=3, loop=loop),
        keep_repetitive=True,  # after so few steps every answer is
    )
    return FamilySettings(model, model, drafters, 512, 40, 1, 1)


@dataclass(frozen=True)
class Family:
    """One run: where its files are and what it is to be. Each stage reads the artefacts of those before it."""

    data_dir: Path
    out: Path
    settings: FamilySettings
    workplace: Workplace

    def path(self, name: str) -> Path:
        """The artefact of a stage in the work folder."""
        return self.workplace.work_dir / name

    def stages(self) -> list[Stage]:
        """All stages, in order."""
        drafters = DrafterRun(self.path("target"), self.target_prompts, self.settings.drafters, self.workplace)
        return [
            Stage("tokenizer", self.path("tokenizer"), self.make_tokenizer),
            Stage("teacher", self.path("teacher"), self.make_teacher, trains_together=True),
            Stage("teacher_answers", self.path("teacher_answers.npz"), self.make_teacher_answers),
            Stage("target", self.path("target"), self.make_target, trains_together=True),
            *drafters.stages(),
            Stage("export", self.out, self.export, is_redone=True),
        ]

    def make_tokenizer(self) -> dict:
        """The tokenizer, from the training texts."""
        examples = load_examples(self.data_dir, self.settings.examples_per_set)
        texts = [text for example in examples for text in (example.prompt, example.answer)]
        tokenizer = train_bpe([*texts, "user assistant system"], self.settings.vocab_size)
        temporary = self.path("tokenizer.tmp")
        write_tokenizer(tokenizer, temporary)
        temporary.rename(self.path("tokenizer"))
        return {"vocab_size": tokenizer.get_vocab_size(), "documents": len(examples)}

    def make_teacher(self) -> dict:
        """The teacher, from the data sets' answers."""
        tokenizer = load_tokenizer(self.path("tokenizer"))
        docs = encode_examples(load_examples(self.data_dir, self.settings.examples_per_set), tokenizer)
        return self._train("teacher", docs, self.settings.teacher)

    def make_teacher_answers(self) -> dict:
        """The teacher's own greedy answers, which the target learns."""
        texts = self._prompts(self.settings.teacher_variants, seed=1)
        path = self.path("teacher_answers.npz")
        return answer_prompts(self.path("teacher"), texts, path, self.settings.drafters.answers, self.workplace)

    def make_target(self) -> dict:
        """The target, from those of the teacher's answers that come to an end."""
        keep = self.settings.drafters.keep_repetitive
        answers = load_answers(self.path("teacher_answers.npz"))
        docs = answers.documents(MAX_DOCUMENT, keep_repetitive=keep, keep_truncated=keep)
        return self._train("target", docs, self.settings.target)

    def target_prompts(self) -> list[str]:
        """What the target is asked, for its drafters to learn from."""
        return self._prompts(self.settings.target_variants, seed=2)

    def _prompts(self, num_variants: int, seed: int) -> list[str]:
        examples = load_examples(self.data_dir, self.settings.examples_per_set)
        return with_variants([example.prompt for example in examples], num_variants, seed)

    def _train(self, name: str, docs: TokenDocs, settings: TargetSettings) -> dict:
        tokenizer = load_tokenizer(self.path("tokenizer"))
        settings = replace(settings, shape=replace(settings.shape, vocab_size=len(tokenizer)))
        model, report = train_target(docs, tokenizer, settings, self.workplace.place(name))
        facts = self.workplace.finish(name, report, {"documents": len(docs), **loop_facts(settings.loop)})
        write_model(model, tokenizer, self.path("tokenizer"), self.path(name), facts)
        return facts

    def export(self) -> dict:
        """The three model folders with their cards, under `out`."""
        counts = {name: summary(load_answers(self.path(f"{name}.npz")), 0.0) for name in ("teacher_answers", "answers")}
        sizes = {}
        for kind in TITLES:
            report = json.loads((self.path(kind) / REPORT_FILE).read_text(encoding="utf-8"))
            config = json.loads((self.path(kind) / "config.json").read_text(encoding="utf-8"))
            self.out.mkdir(parents=True, exist_ok=True)
            card = model_card(kind, report, config, counts["teacher_answers" if kind == "target" else "answers"])
            sizes[kind] = publish(self.path(kind), self.out / kind, card)
        return {"bytes": sizes, "total_bytes": sum(sizes.values())}


def run_family(family: Family, stop_after: str) -> dict[str, dict | None]:
    """Runs the stages in order up to `stop_after`; returns what each did (None: it was done already)."""
    if stop_after == "export":
        for kind, title in TITLES.items():
            check_published(family.out / kind, title)
    family.workplace.work_dir.mkdir(parents=True, exist_ok=True)
    return run_stages(family.stages(), stop_after, family.workplace.deadline)


def settings_of(arguments: argparse.Namespace) -> FamilySettings:
    """The family's settings as asked on the command line."""
    settings = smoke_settings() if arguments.smoke else FamilySettings()

    def with_loop(part: TargetSettings | ArSettings | DllmSettings, name: str) -> object:
        steps = getattr(arguments, f"{name}_steps")
        if steps is not None and steps < 1:
            raise UserError(f"--{name}_steps {steps}: give at least 1")
        return replace(part, loop=replace(part.loop, num_steps=steps or part.loop.num_steps, seed=arguments.seed))

    drafters = settings.drafters
    return replace(
        settings,
        teacher=with_loop(settings.teacher, "teacher"),
        target=with_loop(settings.target, "target"),
        drafters=replace(
            drafters,
            ar_drafter=with_loop(drafters.ar_drafter, "ar_drafter"),
            dllm_drafter=with_loop(drafters.dllm_drafter, "dllm_drafter"),
        ),
    )


TRAINED_STAGES = ("teacher", "target", "ar_drafter", "dllm_drafter")
STAGES = ("tokenizer", "teacher", "teacher_answers", "target", "answers", "ar_drafter", "dllm_drafter", "export")


def main() -> dict:
    """The command."""
    parser = training_parser("Trains the bundled family: tokenizer, teacher, target, its answers, two drafters.")
    parser.add_argument("--data_dir", type=Path, required=True, help="has gsm8k/train.jsonl and math/train.jsonl")
    parser.add_argument("--work_dir", type=Path, required=True, help="artefacts and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("assets/models"))
    parser.add_argument("--stop_after", choices=STAGES, default="export")
    parser.add_argument("--smoke", action="store_true", help="a toy family in a minute, to try the pipeline")
    for name in TRAINED_STAGES:
        parser.add_argument(f"--{name}_steps", type=int, help="instead of the default number")
    arguments = parser.parse_args()
    settings = settings_of(arguments)
    workplace = Workplace(arguments.work_dir, pick_device(arguments.device), deadline_of(arguments.max_minutes))
    family = Family(arguments.data_dir, arguments.out, settings, workplace)
    return {"stages": run_family(family, arguments.stop_after)}


if __name__ == "__main__":
    sys.exit(run_command(main))
