"""Turns any Qwen2 or Llama chat model into a target with drafters of its own: an AR and a block-diffusion drafter, and
heads that read its hidden states (EAGLE-3, DFlash, JetSpec, DSpark).

    python -m training.make_drafters --target_dir DIR --prompt_file FILE --work_dir DIR [--families FAMILY ...]

The target answers the prompts, and all drafters learn from its answers, in stages. What is already in the work folder
is not made again; what was made there from something else is refused. The bundled family (training.family) goes through
the same stages.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.errors import UserError
from specdec.questions.repetition import MOSTLY
from training import ranks
from training.answers import DecodeSettings
from training.checkpoint import Progress
from training.cli import add_compile_flag, deadline_of, pick_device, run_command, training_parser
from training.corpus import add_prompt_flags, read_prompts, split_prompts
from training.drafting import Lesson, load_lesson
from training.export import write_model
from training.heads import HeadSettings
from training.loop import LoopSettings, OutOfTime, Place
from training.made_from import is_made, note, sha256, target_facts, text_facts
from training.make_heads import HEADS, equal_facts, head_training, make_head, print_table, publish_head, table_of
from training.models import TARGET_HELP, find_target
from training.on_policy import HeldBack
from training.self_generate import answer_texts
from training.tokenizer import load_tokenizer
from training.train_ar_drafter import ArSettings, train_ar_drafter
from training.train_dllm_drafter import DllmSettings, check_mask, dllm_config, mask_id_of, train_dllm_drafter
from training.train_target import TargetSettings

if TYPE_CHECKING:
    import torch

MODULE = "training.make_drafters"
FOLDERS = {"ar": "ar_drafter", "dllm": "dllm_drafter", **{family: family for family in HEADS}}
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


@dataclass(frozen=True)
class DrafterSettings:
    answers: DecodeSettings = DecodeSettings()
    ar_drafter: ArSettings = ArSettings()
    dllm_drafter: DllmSettings = DllmSettings()
    heads: HeadSettings = HeadSettings()
    families: tuple[str, ...] = ("ar", "dllm")
    max_repeated: float = MOSTLY  # answers with a larger repeated_share teach nothing
    mask_token: str | None = None


@dataclass(frozen=True)
class DrafterRun:
    """A target, who asks it, and what its drafters are to be."""

    target_dir: Path
    texts: Callable[[], list[str]]
    settings: DrafterSettings
    workplace: Workplace
    held_back: Callable[[], HeldBack] | None = None  # asked for heads

    def stages(self) -> list[Stage]:
        """The answers, then one drafter after the other; each in the work folder under its name."""
        makers = {
            "ar": (self._make_ar_drafter, self._ar_drafter_from),
            "dllm": (self._make_dllm_drafter, self._dllm_drafter_from),
            **{family: (partial(self._make_head, family), partial(self._head_from, family)) for family in HEADS},
        }
        found = [Stage("answers", self._answers, self._make_answers, self._answers_from)]
        for family in self.settings.families:
            name, (work, made_from) = FOLDERS[family], makers[family]
            found.append(Stage(name, self.workplace.work_dir / name, work, made_from, True))
        return found

    def folders(self) -> dict[str, Path]:
        """Family -> its model folder."""
        return {family: self.workplace.work_dir / FOLDERS[family] for family in self.settings.families}

    def _answers_from(self) -> dict:
        return {**self._target_facts, **text_facts("prompts", self.texts()), **answer_facts(self.settings.answers)}

    def _ar_drafter_from(self) -> dict:
        return {**self._lesson_from(), **training_facts(self.settings.ar_drafter)}

    def _dllm_drafter_from(self) -> dict:
        own = {"mask_token": self.settings.mask_token, **training_facts(self.settings.dllm_drafter)}
        return {**self._lesson_from(), **own}

    def _lesson_from(self) -> dict:
        answers = sha256([self._answers.read_bytes()])
        return {**self._target_facts, "answers_sha256": answers, "max_repeated": self.settings.max_repeated}

    @cached_property
    def _target_facts(self) -> dict[str, str]:
        return target_facts(self.target_dir)

    @property
    def _answers(self) -> Path:
        return self.workplace.work_dir / "answers.npz"

    def _make_answers(self) -> dict:
        return self.workplace.answer(self.target_dir, self.texts(), self._answers, self.settings.answers)

    @cached_property
    def _lesson(self) -> Lesson:
        return load_lesson(self.target_dir, self._answers, self.workplace.device, self.settings.max_repeated)

    def _make_ar_drafter(self) -> dict:
        lesson, settings = self._lesson, self.settings.ar_drafter
        model, report = train_ar_drafter(lesson, settings, self.workplace.place("ar_drafter"))
        chosen = {"documents": len(lesson.docs), **loop_facts(settings.loop), "soft_weight": settings.soft_weight}
        facts = {**self.workplace.finish("ar_drafter", report, chosen), **equal_facts(report, lesson)}
        write_model(model, lesson.tokenizer, self.target_dir, self.workplace.work_dir / "ar_drafter", facts)
        return facts

    def _make_dllm_drafter(self) -> dict:
        lesson, settings = self._lesson, self.settings.dllm_drafter
        mask_id = mask_id_of(lesson.tokenizer, self.settings.mask_token)
        model, report = train_dllm_drafter(lesson, mask_id, settings, self.workplace.place("dllm_drafter"))
        chosen = {"documents": len(lesson.docs), **loop_facts(settings.loop), "soft_weight": settings.soft_weight}
        chosen |= vars(settings.noise)
        facts = {**self.workplace.finish("dllm_drafter", report, chosen), **equal_facts(report, lesson)}
        extra = dllm_config(mask_id, settings)
        folder = self.workplace.work_dir / "dllm_drafter"
        write_model(model, lesson.tokenizer, self.target_dir, folder, facts, extra)
        return facts

    def _head_from(self, family: str) -> dict:
        own = {"family": family, "mask_token": self.settings.mask_token, **training_facts(self.settings.heads)}
        return {**self._lesson_from(), **own, **text_facts("held_back", self._held_back.texts)}

    @cached_property
    def _held_back(self) -> HeldBack:
        assert self.held_back is not None  # whoever asks for a head says what is held back
        return self.held_back()

    def _make_head(self, family: str) -> dict:
        lesson, settings, folder = self._lesson, self.settings.heads, self.workplace.work_dir / FOLDERS[family]
        mask_id = None if family == "eagle3" else mask_id_of(lesson.tokenizer, self.settings.mask_token)
        if mask_id is not None:
            check_mask(mask_id, lesson)
        made = head_training(family, lesson, settings, mask_id)
        report, own = make_head(family, made, lesson, settings, self.workplace.place(family), self._held_back)
        chosen = {"documents": len(lesson.docs), **loop_facts(settings.loop), "soft_weight": settings.soft_weight}
        facts = {"family": family, **self.workplace.finish(family, report, chosen), **own}
        publish_head(made, folder, facts)
        return facts


def answer_facts(settings: DecodeSettings) -> dict:
    """What decides an answer; the number of rows does not."""
    return {"max_prompt": MAX_PROMPT, "max_new_tokens": settings.max_new_tokens, "temperature": settings.temperature}


def training_facts(settings: ArSettings | DllmSettings | TargetSettings | HeadSettings) -> dict:
    """Every setting of a training that is set, by its own name."""
    found: dict = {}
    for name, value in asdict(settings).items():
        found |= value if isinstance(value, dict) else {name: value}
    return {name: value for name, value in found.items() if value is not None}


def workplace_of(arguments: argparse.Namespace) -> Workplace:
    device, deadline = pick_device(arguments.device), deadline_of(arguments.max_minutes)
    return Workplace(arguments.work_dir, device, deadline, arguments.compile)


def loop_facts(loop: LoopSettings) -> dict:
    """The loop's settings as a card tells them."""
    return {"documents a step": loop.num_docs, "learning rate": loop.learning_rate, "seed": loop.seed}


def settings_of(arguments: argparse.Namespace) -> DrafterSettings:
    answers = DecodeSettings(max_new_tokens=arguments.max_new_tokens, max_rows=arguments.max_rows)
    families = tuple(arguments.families)
    if doubled := {family for family in families if families.count(family) > 1}:
        raise UserError(f"--families names {min(doubled)} twice")
    settings = DrafterSettings(answers=answers, mask_token=arguments.mask_token, families=families)
    given = {name: getattr(arguments, name) for name in ("num_docs", "learning_rate", "seed")} | budget_of(arguments)
    for stage in ("ar_drafter", "dllm_drafter"):
        part, steps = getattr(settings, stage), getattr(arguments, f"{stage}_steps")
        loop = replace(part.loop, num_steps=part.loop.num_steps if steps is None else steps, **given)
        settings = replace(settings, **{stage: replace(part, loop=loop, num_layers=arguments.num_layers)})
    return replace(settings, heads=head_settings_of(arguments, given))


def budget_of(arguments: argparse.Namespace) -> dict[str, float | None]:
    """What is equal for all drafters, by its name in LoopSettings."""
    given = {name: getattr(arguments, f"budget_{name}") for name in ("tokens", "flops", "seconds")}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise UserError(f"--budget_{' and --budget_'.join(given)} exclude each other: give one")
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise UserError(f"--budget_{name} {value}: give a number above 0")
    return {f"num_{name}": value for name, value in given.items()}


def head_settings_of(arguments: argparse.Namespace, given: dict) -> HeadSettings:
    usual = HeadSettings()
    names = ("block_size", "num_begins", "decay", "soft_weight", "markov_rank", "num_drafts")
    chosen = {name: getattr(arguments, name) for name in names}
    steps = arguments.head_steps if arguments.head_steps is not None else usual.loop.num_steps
    return replace(
        usual,
        **chosen,
        taps=None if arguments.taps is None else tuple(arguments.taps),
        num_layers=arguments.head_layers,
        num_words=arguments.draft_vocab_size,
        loop=replace(usual.loop, num_steps=steps, **given),
    )


def add_head_flags(parser: argparse.ArgumentParser) -> None:
    usual = HeadSettings()
    parser.add_argument("--taps", type=int, nargs="+", help="layers of the target that heads read (default: spread)")
    parser.add_argument("--head_layers", type=int, default=usual.num_layers, help="layers of block heads")
    parser.add_argument("--block_size", type=int, default=usual.block_size, help="of block heads, the anchor included")
    parser.add_argument("--num_begins", type=int, default=usual.num_begins, help="blocks of a document in a step")
    parser.add_argument("--num_drafts", type=int, default=usual.num_drafts, help="steps of EAGLE-3 on its own outputs")
    parser.add_argument("--decay", type=float, help="weight of a draft's token, of the one before (default: by family)")
    parser.add_argument("--soft_weight", type=float, default=usual.soft_weight, help="of KL to the target, for heads")
    parser.add_argument("--markov_rank", type=int, default=usual.markov_rank, help="of DSpark's Markov head")
    parser.add_argument("--draft_vocab_size", type=int, help="words that EAGLE-3 drafts (default: the target's)")
    parser.add_argument("--head_steps", type=int, help=f"optimizer steps of heads (default: {usual.loop.num_steps})")
    parser.add_argument("--held_back", type=int, default=8, help="questions that heads are looked at with")
    parser.add_argument("--num_looks", type=int, default=8, help="how often, while a head is trained")


def add_budget_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget_tokens", type=float, help="equal for all: tokens of documents seen in training")
    parser.add_argument("--budget_flops", type=float, help="equal for all: operations of training, as counted")
    parser.add_argument("--budget_seconds", type=float, help="equal for all: time of training, on this machine")


def main() -> dict:
    default = DrafterSettings()
    parser = training_parser(MODULE, "Makes drafters for a target, from its own answers.")
    parser.add_argument("--target_dir", type=Path, required=True, help=TARGET_HELP)
    add_prompt_flags(parser)
    parser.add_argument("--work_dir", type=Path, required=True, help="answers, checkpoints, and the drafters")
    parser.add_argument("--families", nargs="+", choices=FOLDERS, default=default.families, help="what to make")
    parser.add_argument("--stop_after", help="a stage, such as answers (default: the last)")
    parser.add_argument("--num_layers", type=int, default=6, help="layers of AR and dLLM drafters, cut from the target")
    parser.add_argument("--mask_token", help="the tokenizer entry to use as mask (default: its own mask token)")
    answers = default.answers
    parser.add_argument("--max_new_tokens", type=int, default=answers.max_new_tokens, help="the longest answer")
    parser.add_argument("--max_rows", type=int, default=answers.max_rows, help="answers decoded at once")
    parser.add_argument("--num_docs", type=int, default=64, help="documents in a training step")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="at its highest")
    for stage in ("ar_drafter", "dllm_drafter"):
        steps = getattr(default, stage).loop.num_steps
        parser.add_argument(f"--{stage}_steps", type=int, help=f"optimizer steps (default: {steps})")
    add_budget_flags(parser)
    add_head_flags(parser)
    add_compile_flag(parser)
    return make(parser.parse_args())


def make(arguments: argparse.Namespace) -> dict:
    """Run the stages that a command line asks for."""
    settings = settings_of(arguments)
    workplace = workplace_of(arguments)
    target_dir = find_target(arguments.target_dir)
    if set(settings.families) - {"ar", "eagle3"}:
        mask_id_of(load_tokenizer(target_dir), arguments.mask_token)  # a mistake here is better told before the hours
    texts, held_back = cached_prompts(arguments, has_heads=bool(set(settings.families) & set(HEADS)))
    workplace.work_dir.mkdir(parents=True, exist_ok=True)
    run = DrafterRun(target_dir, texts, settings, workplace, held_back)
    stages = run.stages()
    names = [stage.name for stage in stages]
    last = arguments.stop_after or names[-1]
    if last not in names:
        raise UserError(f"--stop_after {last}: the stages are {', '.join(names)}")
    results = run_stages(stages, last, workplace.deadline)
    if ranks.is_leader() and last == names[-1]:
        tell(run, arguments)
    return {"stages": results}


def cached_prompts(
    arguments: argparse.Namespace, has_heads: bool
) -> tuple[Callable[[], list[str]], Callable[[], HeldBack] | None]:
    """What the target is asked; and, where heads are trained, what is held back."""
    if not has_heads:
        return lambda: read_prompts(arguments), None
    texts, held = split_prompts(arguments, arguments.held_back)
    most = arguments.max_new_tokens
    return lambda: texts, lambda: HeldBack(find_target(arguments.target_dir), held, most, arguments.num_looks)


def tell(run: DrafterRun, arguments: argparse.Namespace) -> None:
    """What was equal, and how to run what was made."""
    flags = {"ar": "--ar_model_name", "dllm": "--dllm_dir", "eagle3": "--eagle3_dir"}
    folders = run.folders()
    print_table(table_of(folders))
    for family, folder in folders.items():
        flag = flags.get(family, "--dflash_dir")
        name = shlex.quote(str(arguments.target_dir))
        kind = "" if family in ("ar", "dllm") else f" --drafters plain {'eagle3' if family == 'eagle3' else 'dflash'}"
        ranks.say(f"{family}: python failfast.py --target_model_name {name} {flag} {shlex.quote(str(folder))}{kind}")


if __name__ == "__main__":
    sys.exit(run_command(MODULE, main))
