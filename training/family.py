"""Trains the whole bundled family, stage by stage; what is already in the work folder is not made again.

    python -m training.family --data_dir DIR --work_dir DIR [--out assets/models] [--stop_after STAGE]
    python -m training.family --data_dir DIR --work_dir DIR --target_dir assets/models/target   # drafters alone

A first teacher learns from the data sets' worked answers, the next from its answers, and at last the target
(sequence-level knowledge distillation, arXiv 1606.07947): text written by people is too irregular for a small model to
write, or to draft, well.
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from specdec.errors import UserError
from training.answers import DecodeSettings, load_answers
from training.batches import TokenDocs
from training.cards import TITLES, model_card
from training.cli import add_compile_flag, run_command, training_parser
from training.corpus import load_examples, with_variants
from training.drafter_run import DrafterRun, DrafterSettings, answer_facts, loop_facts, training_facts
from training.export import REPORT_FILE, check_published, publish, replacing, write_model
from training.loop import LoopSettings
from training.made_from import sha256, target_facts, text_facts
from training.models import Shape, find_target
from training.self_generate import summary
from training.stages import Stage, Workplace, run_stages, workplace_of
from training.tokenizer import VOCAB_SIZE, load_tokenizer, train_bpe, write_tokenizer
from training.train_ar_drafter import ArSettings
from training.train_dllm_drafter import DllmSettings
from training.train_target import MAX_DOCUMENT, TargetSettings, encode_examples, train_target

MODULE = "training.family"
COMMAND = f"python -m {MODULE} --data_dir DIR --work_dir DIR"
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


@dataclass(frozen=True)
class Family:
    """One run: where its files are and what it is to be. Each stage reads the artefacts of those before it.

    `target_dir` is a finished target of the family: then only drafters are made for it, and only they are exported.
    """

    data_dir: Path
    out: Path
    settings: FamilySettings
    workplace: Workplace
    target_dir: Path | None = None
    command: str = COMMAND

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in TITLES if kind != "target" or self.target_dir is None]

    def path(self, name: str) -> Path:
        return self.workplace.work_dir / name

    def stages(self) -> list[Stage]:
        texts = partial(self.prompts, self.settings.num_teachers + 1, self.settings.num_mixed)
        target_dir = self.target_dir or self.path("target")
        drafters = DrafterRun(target_dir, texts, self.settings.drafters, self.workplace)
        return [
            *([] if self.target_dir else self._target_stages()),
            *drafters.stages(),
            Stage("export", self.out, self.export, None),
        ]

    def _target_stages(self) -> list[Stage]:
        return [
            Stage("tokenizer", self.path("tokenizer"), self.make_tokenizer, self._tokenizer_from),
            *(stage for number in range(1, self.settings.num_teachers + 1) for stage in self._teacher_stages(number)),
            Stage("target", self.path("target"), self.make_target, self._target_from, True),
        ]

    def _teacher_stages(self, number: int) -> list[Stage]:
        name, answers = f"teacher_{number}", f"teacher_{number}_answers"
        return [
            Stage(name, self.path(name), partial(self.make_teacher, number), partial(self._teacher_from, number), True),
            Stage(
                answers,
                self.path(f"{answers}.npz"),
                partial(self.make_teacher_answers, number),
                partial(self._teacher_answers_from, number),
            ),
        ]

    def _tokenizer_from(self) -> dict:
        return {**self._example_facts, "vocab_size": self.settings.vocab_size}

    def _teacher_from(self, number: int) -> dict:
        if number > 1:
            return self._learnt_from(number - 1)
        tokenizer = sha256(path.read_bytes() for path in sorted(self.path("tokenizer").iterdir()))
        return {**self._example_facts, "tokenizer_sha256": tokenizer, **training_facts(self.settings.teacher)}

    def _teacher_answers_from(self, number: int) -> dict:
        asked = text_facts("prompts", self.prompts(number))
        return {**target_facts(self.path(f"teacher_{number}")), **asked, **answer_facts(self.settings.drafters.answers)}

    def _target_from(self) -> dict:
        return self._learnt_from(self.settings.num_teachers)

    def _learnt_from(self, number: int) -> dict:
        """A model that learns a teacher's answers."""
        answers, settings = self.path(f"teacher_{number}_answers.npz"), self.settings
        kept = {"max_repeated": settings.max_repeated, "keep_truncated": settings.keep_truncated}
        return {"answers_sha256": sha256([answers.read_bytes()]), **kept, **training_facts(settings.target)}

    @cached_property
    def _example_facts(self) -> dict:
        examples = load_examples(self.data_dir, self.settings.examples_per_set)
        return text_facts("examples", (text for one in examples for text in (one.prompt, one.answer)))

    def make_tokenizer(self) -> dict:
        examples = load_examples(self.data_dir, self.settings.examples_per_set)
        texts = [text for example in examples for text in (example.prompt, example.answer)]
        tokenizer = train_bpe([*texts, "user assistant system"], self.settings.vocab_size)
        with replacing(self.path("tokenizer")) as folder:
            write_tokenizer(tokenizer, folder)
        return {"vocab_size": tokenizer.get_vocab_size(), "documents": len(examples)}

    def make_teacher(self, number: int) -> dict:
        """A teacher: the first from the data sets' answers, another from those of the teacher before it."""
        if number > 1:
            return self._train(f"teacher_{number}", self._answers_of(number - 1), self.settings.target)
        tokenizer = load_tokenizer(self.path("tokenizer"))
        docs = encode_examples(load_examples(self.data_dir, self.settings.examples_per_set), tokenizer)
        return self._train("teacher_1", docs, self.settings.teacher)

    def make_teacher_answers(self, number: int) -> dict:
        """A teacher's own greedy answers, which the next model learns."""
        path = self.path(f"teacher_{number}_answers.npz")
        settings = self.settings.drafters.answers
        return self.workplace.answer(self.path(f"teacher_{number}"), self.prompts(number), path, settings)

    def make_target(self) -> dict:
        return self._train("target", self._answers_of(self.settings.num_teachers), self.settings.target)

    def prompts(self, seed: int, num_mixed: int = 0) -> list[str]:
        """The questions and their copies, others for every seed."""
        examples = load_examples(self.data_dir, self.settings.examples_per_set)
        return with_variants([e.prompt for e in examples], self.settings.num_variants, seed, num_mixed)

    def _answers_of(self, number: int) -> TokenDocs:
        """The better ones of a teacher's answers."""
        answers, settings = load_answers(self.path(f"teacher_{number}_answers.npz")), self.settings
        return answers.documents(
            MAX_DOCUMENT, max_repeated=settings.max_repeated, keep_truncated=settings.keep_truncated
        )

    def _train(self, name: str, docs: TokenDocs, settings: TargetSettings) -> dict:
        tokenizer = load_tokenizer(self.path("tokenizer"))
        settings = replace(settings, shape=replace(settings.shape, vocab_size=len(tokenizer)))
        model, report = train_target(docs, tokenizer, settings, self.workplace.place(name))
        facts = self.workplace.finish(name, report, {"documents": len(docs), **loop_facts(settings.loop)})
        write_model(model, tokenizer, self.path("tokenizer"), self.path(name), facts)
        return facts

    def export(self) -> dict:
        """The model folders with their cards, under `out`."""
        learnt = {"target": f"teacher_{self.settings.num_teachers}_answers"}
        sizes = {}
        for kind in self.kinds:
            report = json.loads((self.path(kind) / REPORT_FILE).read_text(encoding="utf-8"))
            config = json.loads((self.path(kind) / "config.json").read_text(encoding="utf-8"))
            self.out.mkdir(parents=True, exist_ok=True)
            counts = summary(load_answers(self.path(f"{learnt.get(kind, 'answers')}.npz")), 0.0)
            card = model_card(kind, report, config, counts, self.command, self.settings.num_mixed)
            sizes[kind] = publish(self.path(kind), self.out / kind, card)
        return {"bytes": sizes, "total_bytes": sum(sizes.values())}


def run_family(family: Family, stop_after: str) -> dict[str, dict | None]:
    """Runs the stages in order up to `stop_after`; returns what each did (None: it was done already)."""
    if stop_after == "export":
        for kind in family.kinds:
            check_published(family.out / kind, TITLES[kind])
    stages = family.stages()
    if stop_after not in (names := [stage.name for stage in stages]):
        raise UserError(f"--stop_after {stop_after}: the stages are {', '.join(names)}")
    family.workplace.work_dir.mkdir(parents=True, exist_ok=True)
    return run_stages(stages, stop_after, family.workplace.deadline)


def main() -> dict:
    parser = training_parser(
        MODULE, "Trains the bundled family: tokenizer, teacher, target, its answers, two drafters."
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="has gsm8k/train.jsonl and math/train.jsonl")
    parser.add_argument("--work_dir", type=Path, required=True, help="artefacts and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("assets/models"))
    parser.add_argument("--stop_after", default="export", help="a stage, such as target")
    parser.add_argument("--smoke", action="store_true", help="a toy family in a minute, to try the pipeline")
    parser.add_argument("--target_dir", type=Path, help="a finished target: make drafters for it, and nothing else")
    parser.add_argument("--num_mixed", type=int, help="copies with a sentence of another question, for the drafters")
    usual = FamilySettings()
    for name in TRAINED:
        part = getattr(usual if hasattr(usual, name) else usual.drafters, name)
        parser.add_argument(f"--{name}_steps", type=int, help=f"optimizer steps (default: {part.loop.num_steps})")
    add_compile_flag(parser)
    arguments = parser.parse_args()
    settings = settings_of(arguments)
    target_dir = arguments.target_dir and find_target(arguments.target_dir)
    if target_dir and (arguments.teacher_steps or arguments.target_steps):
        raise UserError("--target_dir is a finished target: leave out --teacher_steps and --target_steps")
    place, command = workplace_of(arguments), command_of(arguments)
    family = Family(arguments.data_dir, arguments.out, settings, place, target_dir, command)
    return {"stages": run_family(family, arguments.stop_after)}


if __name__ == "__main__":
    sys.exit(run_command(MODULE, main))
