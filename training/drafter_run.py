"""All drafters of one target as stages: its answers first, then one drafter after the other, each from what came
before. What the user asks for is read in training.make_drafters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

from specdec.questions.repetition import MOSTLY
from training.answers import DecodeSettings
from training.drafting import Lesson, load_lesson
from training.export import write_model
from training.heads import HeadSettings
from training.loop import LoopSettings
from training.made_from import sha256, target_facts, text_facts
from training.make_heads import HEADS, equal_facts, head_training, make_head, publish_head
from training.on_policy import HeldBack
from training.stages import MAX_PROMPT, Stage, Workplace
from training.train_ar_drafter import ArSettings, train_ar_drafter
from training.train_dllm_drafter import DllmSettings, check_mask, dllm_config, mask_id_of, train_dllm_drafter
from training.train_target import TargetSettings

FOLDERS = {"ar": "ar_drafter", "dllm": "dllm_drafter", **{family: family for family in HEADS}}  # in the work folder


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
        makers: dict[str, tuple[Callable[[], dict], Callable[[], dict]]] = {
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


def loop_facts(loop: LoopSettings) -> dict:
    """The loop's settings as a card tells them."""
    return {"documents a step": loop.num_docs, "learning rate": loop.learning_rate, "seed": loop.seed}
