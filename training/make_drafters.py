"""Turns any Qwen2 or Llama chat model into a target with drafters of its own: an AR and a block-diffusion drafter.

    python -m training.make_drafters --target_dir DIR --prompt_file FILE --work_dir DIR

The target answers the prompts, and both drafters learn from its answers, in stages. What is already in the work folder
is not made again; what was made there from something else is refused. The bundled family (training.family) goes through
the same stages.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.questions.repetition import MOSTLY
from training import ranks
from training.answers import DecodeSettings
from training.checkpoint import Progress
from training.cli import add_compile_flag, deadline_of, pick_device, run_command, training_parser
from training.corpus import add_prompt_flags, read_prompts
from training.drafting import Lesson, load_lesson
from training.export import write_model
from training.loop import LoopSettings, OutOfTime, Place
from training.made_from import is_made, note, sha256, target_facts, text_facts
from training.models import TARGET_HELP, find_target
from training.self_generate import answer_texts
from training.tokenizer import load_tokenizer
from training.train_ar_drafter import ArSettings, train_ar_drafter
from training.train_dllm_drafter import DllmSettings, dllm_config, mask_id_of, train_dllm_drafter
from training.train_target import TargetSettings

if TYPE_CHECKING:
    import torch

MODULE = "training.make_drafters"
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
    max_repeated: float = MOSTLY  # answers with a larger repeated_share teach nothing
    mask_token: str | None = None


@dataclass(frozen=True)
class DrafterRun:
    """A target, who asks it, and what its drafters are to be."""

    target_dir: Path
    texts: Callable[[], list[str]]
    settings: DrafterSettings
    workplace: Workplace

    def stages(self) -> list[Stage]:
        """The answers, then one drafter after the other; each in the work folder under its name."""
        folder = self.workplace.work_dir
        return [
            Stage("answers", self._answers, self._make_answers, self._answers_from),
            Stage("ar_drafter", folder / "ar_drafter", self._make_ar_drafter, self._ar_drafter_from, True),
            Stage("dllm_drafter", folder / "dllm_drafter", self._make_dllm_drafter, self._dllm_drafter_from, True),
        ]

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
        facts = self.workplace.finish("ar_drafter", report, chosen)
        write_model(model, lesson.tokenizer, self.target_dir, self.workplace.work_dir / "ar_drafter", facts)
        return facts

    def _make_dllm_drafter(self) -> dict:
        lesson, settings = self._lesson, self.settings.dllm_drafter
        mask_id = mask_id_of(lesson.tokenizer, self.settings.mask_token)
        model, report = train_dllm_drafter(lesson, mask_id, settings, self.workplace.place("dllm_drafter"))
        chosen = {"documents": len(lesson.docs), **loop_facts(settings.loop), "soft_weight": settings.soft_weight}
        facts = self.workplace.finish("dllm_drafter", report, {**chosen, **vars(settings.noise)})
        extra = dllm_config(mask_id, settings)
        folder = self.workplace.work_dir / "dllm_drafter"
        write_model(model, lesson.tokenizer, self.target_dir, folder, facts, extra)
        return facts


def answer_facts(settings: DecodeSettings) -> dict:
    """What decides an answer; the number of rows does not."""
    return {"max_prompt": MAX_PROMPT, "max_new_tokens": settings.max_new_tokens, "temperature": settings.temperature}


def training_facts(settings: ArSettings | DllmSettings | TargetSettings) -> dict:
    """Every setting of a training by its own name."""
    found: dict = {}
    for name, value in asdict(settings).items():
        found |= value if isinstance(value, dict) else {name: value}
    return found


def workplace_of(arguments: argparse.Namespace) -> Workplace:
    device, deadline = pick_device(arguments.device), deadline_of(arguments.max_minutes)
    return Workplace(arguments.work_dir, device, deadline, arguments.compile)


def loop_facts(loop: LoopSettings) -> dict:
    """The loop's settings as a card tells them."""
    return {"documents a step": loop.num_docs, "learning rate": loop.learning_rate, "seed": loop.seed}


def settings_of(arguments: argparse.Namespace) -> DrafterSettings:
    answers = DecodeSettings(max_new_tokens=arguments.max_new_tokens, max_rows=arguments.max_rows)
    settings = DrafterSettings(answers=answers, mask_token=arguments.mask_token)
    given = {name: getattr(arguments, name) for name in ("num_docs", "learning_rate", "seed")}
    for stage in ("ar_drafter", "dllm_drafter"):
        part, steps = getattr(settings, stage), getattr(arguments, f"{stage}_steps")
        loop = replace(part.loop, num_steps=part.loop.num_steps if steps is None else steps, **given)
        settings = replace(settings, **{stage: replace(part, loop=loop, num_layers=arguments.num_layers)})
    return settings


def main() -> dict:
    default = DrafterSettings()
    parser = training_parser(MODULE, "Makes an AR and a block-diffusion drafter for a target, from its own answers.")
    parser.add_argument("--target_dir", type=Path, required=True, help=TARGET_HELP)
    add_prompt_flags(parser)
    parser.add_argument("--work_dir", type=Path, required=True, help="answers, checkpoints, and the two drafters")
    parser.add_argument("--num_layers", type=int, default=6, help="layers cut evenly from the target")
    parser.add_argument("--mask_token", help="the tokenizer entry to use as mask (default: its own mask token)")
    answers = default.answers
    parser.add_argument("--max_new_tokens", type=int, default=answers.max_new_tokens, help="the longest answer")
    parser.add_argument("--max_rows", type=int, default=answers.max_rows, help="answers decoded at once")
    parser.add_argument("--num_docs", type=int, default=64, help="documents in a training step")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of both, at its highest")
    for stage in ("ar_drafter", "dllm_drafter"):
        steps = getattr(default, stage).loop.num_steps
        parser.add_argument(f"--{stage}_steps", type=int, help=f"optimizer steps (default: {steps})")
    add_compile_flag(parser)
    arguments = parser.parse_args()
    settings = settings_of(arguments)
    workplace = workplace_of(arguments)
    target_dir = find_target(arguments.target_dir)
    mask_id_of(load_tokenizer(target_dir), arguments.mask_token)  # a mistake here is better told before the hours
    workplace.work_dir.mkdir(parents=True, exist_ok=True)
    run = DrafterRun(target_dir, lambda: read_prompts(arguments), settings, workplace)
    results = run_stages(run.stages(), "dllm_drafter", workplace.deadline)
    ranks.say(
        f"Both drafters are in {workplace.work_dir}. Run them: python failfast.py "
        f"--target_model_name {shlex.quote(str(arguments.target_dir))} "
        f"--ar_model_name {shlex.quote(str(workplace.work_dir / 'ar_drafter'))} "
        f"--dllm_dir {shlex.quote(str(workplace.work_dir / 'dllm_drafter'))}"
    )
    return {"stages": results}


if __name__ == "__main__":
    sys.exit(run_command(MODULE, main))
