"""Trains the whole bundled family, stage by stage; what is already in the work folder is not made again.

python -m training.family --data_dir DIR --work_dir DIR [--out assets/models] [--stop_after STAGE]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from specdec.errors import UserError
from training import ranks
from training.answers import load_answers
from training.cards import TITLES, model_card
from training.cli import deadline_of, pick_device, run_command, training_parser
from training.corpus import load_examples, with_other_numbers
from training.drafting import Lesson, load_lesson
from training.export import REPORT_FILE, check_published, publish, write_model
from training.loop import LoopSettings, OutOfTime, Place, TrainReport
from training.models import Shape, load_model
from training.self_generate import GenerateSettings, self_generate, summary
from training.tokenizer import VOCAB_SIZE, chat_prompts, load_tokenizer, train_bpe, write_tokenizer
from training.train_ar_drafter import ArSettings, train_ar_drafter
from training.train_dllm_drafter import DllmSettings, dllm_config, mask_id_of, train_dllm_drafter
from training.train_target import TargetSettings, encode_examples, train_target

MAX_PROMPT = 400  # longer prompts leave too little room for an answer in a training document


@dataclass(frozen=True)
class FamilySettings:
    """Everything that decides what the family is."""

    target: TargetSettings = TargetSettings()
    answers: GenerateSettings = GenerateSettings()
    ar_drafter: ArSettings = ArSettings()
    dllm_drafter: DllmSettings = DllmSettings()
    vocab_size: int = VOCAB_SIZE
    examples_per_set: int | None = None
    number_variants: int = 1  # copies of the questions with other numbers, for the drafters to learn from
    keep_repetitive: bool = False


def smoke_settings() -> FamilySettings:
    """The same pipeline in about a minute on a CPU; the models are good for nothing."""
    loop = LoopSettings(num_steps=30, num_docs=8, learning_rate=2e-3)
    return FamilySettings(
        target=TargetSettings(shape=Shape(512, 64, 128, 6, 4, 2), loop=loop),
        answers=GenerateSettings(max_new_tokens=48, max_rows=32),
        ar_drafter=ArSettings(loop=loop),
        dllm_drafter=DllmSettings(num_layers=3, loop=loop),
        vocab_size=512,
        examples_per_set=40,
        keep_repetitive=True,  # after so few steps every answer is
    )


@dataclass(frozen=True)
class Family:
    """One run: where its files are and what it is to be. Each stage reads the artefacts of those before it."""

    data_dir: Path
    work_dir: Path
    out: Path
    settings: FamilySettings
    device: torch.device
    deadline: float | None = None
    compile: bool = False

    def path(self, stage: str) -> Path:
        """The artefact of a stage; when it exists, the stage is done."""
        return {
            "answers": self.work_dir / "answers.npz",
            "export": self.out / "dllm_drafter" / "README.md",
        }.get(stage, self.work_dir / stage)

    def place(self, stage: str) -> Place:
        """Where a training stage runs."""
        return Place(self.work_dir / f"{stage}.checkpoint.pt", self.device, self.deadline, self.compile)

    def lesson(self) -> Lesson:
        """What the drafters are trained from."""
        return load_lesson(self.path("target"), self.path("answers"), self.device, self.settings.keep_repetitive)

    def report(self, report: TrainReport, settings: dict) -> dict:
        """What training.json says of a trained model."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        count = "one" if ranks.size() == 1 else ranks.size()
        where = f"{count} {device}, torch {torch.__version__}"
        return {**report.to_builtins(), "device": where, "settings": settings}


def make_tokenizer(family: Family) -> dict:
    """Stage 1: the tokenizer, from the training texts."""
    examples = load_examples(family.data_dir, family.settings.examples_per_set)
    texts = [text for example in examples for text in (example.prompt, example.answer)]
    tokenizer = train_bpe([*texts, "user assistant system"], family.settings.vocab_size)
    temporary = family.work_dir / "tokenizer.tmp"
    write_tokenizer(tokenizer, temporary)
    temporary.rename(family.path("tokenizer"))
    return {"vocab_size": tokenizer.get_vocab_size(), "documents": len(examples)}


def make_target(family: Family) -> dict:
    """Stage 2: the target, from the data sets' answers."""
    tokenizer = load_tokenizer(family.path("tokenizer"))
    docs = encode_examples(load_examples(family.data_dir, family.settings.examples_per_set), tokenizer)
    settings = family.settings.target
    settings = replace(settings, shape=replace(settings.shape, vocab_size=len(tokenizer)))
    model, report = train_target(docs, tokenizer, settings, family.place("target"))
    facts = family.report(report, {"documents": len(docs), **loop_facts(settings.loop)})
    write_model(model, tokenizer, family.path("tokenizer"), family.path("target"), facts)
    return facts


def make_answers(family: Family) -> dict:
    """Stage 3: the target's own greedy answers to the training prompts."""
    started, settings = time.monotonic(), family.settings
    tokenizer = load_tokenizer(family.path("tokenizer"))
    examples = load_examples(family.data_dir, settings.examples_per_set)
    rng = random.Random(0)
    asked = [example.prompt for example in examples]
    asked += [with_other_numbers(prompt, rng) for _ in range(settings.number_variants) for prompt in asked]
    prompts = [prompt for prompt in chat_prompts(tokenizer, asked) if len(prompt) <= MAX_PROMPT]
    model = load_model(family.path("target"), family.device)
    stop_ids = [tokenizer.eos_token_id]
    answers = self_generate(model, prompts, stop_ids, family.path("answers"), settings.answers, family.deadline)
    return summary(answers, time.monotonic() - started)


def make_ar_drafter(family: Family) -> dict:
    """Stage 4: the autoregressive drafter."""
    lesson = family.lesson()
    settings = family.settings.ar_drafter
    model, report = train_ar_drafter(lesson, settings, family.place("ar_drafter"))
    chosen = {"documents": len(lesson.docs), **loop_facts(settings.loop), "soft_weight": settings.soft_weight}
    facts = family.report(report, chosen)
    write_model(model, lesson.tokenizer, family.path("tokenizer"), family.path("ar_drafter"), facts)
    return facts


def make_dllm_drafter(family: Family) -> dict:
    """Stage 5: the block-diffusion drafter."""
    lesson = family.lesson()
    settings, mask_id = family.settings.dllm_drafter, mask_id_of(lesson.tokenizer)
    model, report = train_dllm_drafter(lesson, mask_id, settings, family.place("dllm_drafter"))
    chosen = {"documents": len(lesson.docs), **loop_facts(settings.loop), "soft_weight": settings.soft_weight}
    facts = family.report(report, {**chosen, **vars(settings.noise)})
    extra = dllm_config(mask_id, settings)
    write_model(model, lesson.tokenizer, family.path("tokenizer"), family.path("dllm_drafter"), facts, extra)
    return facts


def export_family(family: Family) -> dict:
    """Stage 6: the three model folders with their cards, under family.out."""
    answers = summary(load_answers(family.path("answers")), 0.0)
    sizes = {}
    for kind in TITLES:
        report = json.loads((family.path(kind) / REPORT_FILE).read_text(encoding="utf-8"))
        config = json.loads((family.path(kind) / "config.json").read_text(encoding="utf-8"))
        family.out.mkdir(parents=True, exist_ok=True)
        sizes[kind] = publish(family.path(kind), family.out / kind, model_card(kind, report, config, answers))
    return {"bytes": sizes, "total_bytes": sum(sizes.values())}


def loop_facts(loop: LoopSettings) -> dict:
    """The loop's settings as a card tells them."""
    return {"documents a step": loop.num_docs, "learning rate": loop.learning_rate, "seed": loop.seed}


STAGES: dict[str, Callable[[Family], dict]] = {
    "tokenizer": make_tokenizer,
    "target": make_target,
    "answers": make_answers,
    "ar_drafter": make_ar_drafter,
    "dllm_drafter": make_dllm_drafter,
    "export": export_family,
}


def run_family(family: Family, stop_after: str) -> dict:
    """Runs the stages in order up to `stop_after`; returns what each did (None: it was done already).

    Several processes (torchrun) train together; the other stages, generation too, are the leader's: the others wait.
    """
    if stop_after == "export":
        for kind, title in TITLES.items():
            check_published(family.out / kind, title)
    family.work_dir.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict | None] = {}
    for name, stage in STAGES.items():
        if ranks.on_leader(lambda name=name: name != "export" and family.path(name).exists()):
            results[name] = None
        else:
            if ranks.is_past(family.deadline):
                raise OutOfTime(f"before stage {name}")
            ranks.say(f"--- {name}")
            facts = stage(family) if name in TITLES else ranks.on_leader(lambda stage=stage: stage(family))
            results[name] = {k: v for k, v in facts.items() if k not in ("losses", "settings")}
            if ranks.is_leader():
                print(json.dumps({name: results[name]}), flush=True)
            (family.work_dir / f"{name}.checkpoint.pt").unlink(missing_ok=True)
        if name == stop_after:
            break
    return results


def settings_of(arguments: argparse.Namespace) -> FamilySettings:
    """The family's settings as asked on the command line."""
    settings = smoke_settings() if arguments.smoke else FamilySettings()
    for stage in TITLES:
        part = getattr(settings, stage)
        steps = getattr(arguments, f"{stage}_steps")
        if steps is not None and steps < 1:
            raise UserError(f"--{stage}_steps {steps}: give at least 1")
        loop = replace(part.loop, num_steps=steps or part.loop.num_steps, seed=arguments.seed)
        settings = replace(settings, **{stage: replace(part, loop=loop)})
    return settings


def main() -> dict:
    """The command."""
    parser = training_parser("Trains the bundled family: tokenizer, target, its answers, two drafters.")
    parser.add_argument("--data_dir", type=Path, required=True, help="has gsm8k/train.jsonl and math/train.jsonl")
    parser.add_argument("--work_dir", type=Path, required=True, help="artefacts and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("assets/models"))
    parser.add_argument("--stop_after", choices=list(STAGES), default="export")
    parser.add_argument("--smoke", action="store_true", help="a toy family in a minute, to try the pipeline")
    for stage in TITLES:
        parser.add_argument(f"--{stage}_steps", type=int, help="instead of the default number")
    arguments = parser.parse_args()
    settings = settings_of(arguments)
    family = Family(
        data_dir=arguments.data_dir,
        work_dir=arguments.work_dir,
        out=arguments.out,
        settings=settings,
        device=pick_device(arguments.device),
        deadline=deadline_of(arguments.max_minutes),
        compile=arguments.compile,
    )
    return {"stages": run_family(family, arguments.stop_after)}


if __name__ == "__main__":
    sys.exit(run_command(main))
