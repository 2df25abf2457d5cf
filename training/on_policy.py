"""How a head does while it is trained: the acceptance length of the real loop on questions held back, and beside it how
often its tokens are right after the target's own text. The log of both is a file beside the checkpoint.

The loop is that of every benchmark (specdec.decoding.loop), over the head as it would be exported; the acceptance
length counts the target's own token. Nothing here is learnt from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specdec.errors import MALFORMED, UserError
from specdec.records.pickles import write_atomic
from training import ranks
from training.batches import TokenDocs, pack_documents
from training.checkpoint import Progress
from training.drafting import MAX_DOCUMENT, Lesson
from training.head_batches import head_batch
from training.heads import HeadSettings, HeadTraining, slot_weights, write_head
from training.loop import Place

if TYPE_CHECKING:
    from specdec.decoding.loop import Drafter
    from specdec.records.rounds import Round
    from specdec.session import Session

LEAST = 2  # questions
FLAGS = {"eagle3": "eagle3_dir"}  # of the others dflash_dir
BEGINS = 16  # drafts of a document, of which the share of right tokens is told


@dataclass(frozen=True)
class HeldBack:
    """Questions that nobody learns from. `num_looks`: how often a training is looked at; 0: never."""

    target_dir: Path
    texts: Sequence[str]
    max_new_tokens: int
    num_looks: int = 8

    def __post_init__(self) -> None:
        if len(self.texts) < LEAST:
            raise UserError(f"{len(self.texts)} questions are left to hold back: give more prompts, at least {LEAST}")

    def session(self, family: str, folder: Path, device: str, draft_len: int) -> Session:
        """The target with a head in `folder` that drafts `draft_len` tokens."""
        import specdec

        flag = FLAGS.get(family, "dflash_dir")
        kind = "eagle3_sf" if flag == "eagle3_dir" else "dflash_sf"
        return specdec.open_session(
            str(self.target_dir),
            [kind],
            draft_len=(draft_len,),
            max_new_tokens=self.max_new_tokens,
            device=device,
            **{flag: str(folder)},
        )

    def watch(
        self, family: str, made: HeadTraining, lesson: Lesson, settings: HeadSettings, place: Place
    ) -> HeadWatch | None:
        """Who looks; None where nobody is to."""
        if self.num_looks == 0:
            return None
        return HeadWatch(family, made, lesson, settings, place, self)


@dataclass
class HeadWatch:
    """Looks at one head in training; see `training.loop.Watch`."""

    family: str
    made: HeadTraining
    lesson: Lesson
    settings: HeadSettings
    place: Place
    held_back: HeldBack
    _looks: int = 0
    _session: Any = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """Where the looks are kept."""
        return self.place.checkpoint.with_name(f"{self.family}.curve.json")

    def is_due(self, step: int, share: float) -> bool:
        return step == 1 or share * self.held_back.num_looks >= self._looks + 1

    def look(self, progress: Progress) -> None:
        """One more line of the log, by the leader."""
        self._looks += progress.step > 1
        ranks.on_leader(lambda: self._look(progress))

    def _look(self, progress: Progress) -> None:
        begin, was_training = time.monotonic(), self.made.module.training
        self.made.module.eval()
        found = {
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 1),
            "loss": progress.losses[-1][1] if progress.losses else None,
            **self._on_policy(),
            **self._off_policy(),
        }
        self.made.module.train(was_training)
        found["look_seconds"] = round(time.monotonic() - begin, 1)
        known = [one for one in read_curve(self.log) if one["step"] < progress.step]
        write_atomic(self.log, (json.dumps([*known, found], indent=1) + "\n").encode())
        ranks.say(
            f"{self.family}: step {progress.step}, acceptance length {found['acceptance_length']:.2f} on "
            f"{found['questions']} held-back questions, {found['accuracy']:.1%} of tokens right"
        )

    def _on_policy(self) -> dict[str, Any]:
        """By the real loop."""
        from specdec.models.checkpoints import TARGET

        folder = self.place.checkpoint.with_name(f"{self.family}.look")
        write_head(self.made, folder, {}, is_new=False)
        session = self.held_back.session(self.family, folder, str(self.lesson.device), len(self.made.slot_weights))
        rounds = accepted = differ = 0
        spec, target = session.specs[-1], self._target.models.of(TARGET)
        assert spec.model_role is not None  # a head
        source: Any = session.sources[spec.model_role]
        drafter = spec.drafter(session.setup(spec, lm=source.head.load(source, target, "eager")))
        for prompt_ids, plain in zip(self._prompts, self._answers, strict=True):
            turns = self._decode(drafter, prompt_ids)
            emitted = [token for turn in turns for token in turn.emitted_tokens]
            rounds, accepted = rounds + len(turns), accepted + len(emitted)
            differ += emitted != plain
        counts = {"questions": len(self._prompts), "rounds": rounds, "answers_that_differ": differ}
        return {"acceptance_length": round(accepted / max(1, rounds), 4), **counts}

    def _decode(self, drafter: Drafter, prompt_ids: list[int]) -> list[Round]:
        """One answer, by the target that was loaded once."""
        from specdec.decoding.loop import speculate
        from specdec.decoding.target import Target
        from specdec.models.checkpoints import TARGET

        target, most = Target(self._target.models.of(TARGET)), self.held_back.max_new_tokens
        return speculate(target, drafter, prompt_ids, max_new_tokens=most, stop_ids=self._target.stop_ids)

    @cached_property
    def _target(self) -> Session:
        import specdec

        where = {"device": str(self.lesson.device), "max_new_tokens": self.held_back.max_new_tokens}
        return specdec.open_session(str(self.held_back.target_dir), ["plain"], engine="eager", **where)

    @cached_property
    def _prompts(self) -> list[list[int]]:
        return [self._target.encode(text) for text in self.held_back.texts]

    @cached_property
    def _answers(self) -> list[list[int]]:
        """Plain decoding's."""
        from specdec.drafters.plain import NoDrafter

        found = []
        for prompt_ids in self._prompts:
            turns = self._decode(NoDrafter(), prompt_ids)
            found.append([token for turn in turns for token in turn.emitted_tokens])
        return found

    @cached_property
    def _docs(self) -> TokenDocs:
        return pack_documents(self._prompts, self._answers, 2 * MAX_DOCUMENT)

    def _off_policy(self) -> dict[str, Any]:
        """The share of right tokens in drafts after the target's own text, of all and of the first ones."""
        import torch

        from training.features import tapped
        from training.head_loss import asked_of, num_right
        from training.losses import Labels, to_device
        from training.models import autocast

        docs, device = self._docs, self.lesson.device
        labels = Labels(to_device(docs.tokens, device).long())
        right, there = np.zeros(2), np.zeros(2)
        for row in range(len(docs)):
            rows = np.array([row])
            begins = self.made.begins(docs, rows, np.random.default_rng(row))
            batch = head_batch(docs, rows, begins, self.made.slot_weights)
            inputs = {name: to_device(array, device) for name, array in batch.arrays().items()}
            asked = asked_of(inputs, slot_weights(self.made, device))
            with torch.no_grad(), autocast(device):
                features = tapped(self.lesson.target, inputs["ids_BL"], self.made.taps)
                for number, piece in enumerate(self.made.pieces(inputs, features)):
                    at, weight = asked.of(piece.slot)
                    is_right = num_right(piece.log_NV, at, labels, self.made.words_T) & (weight > 0)
                    firsts = slice(None, None, len(self.made.slot_weights)) if piece.slot is None else slice(None)
                    right += [int(is_right.sum()), int(is_right[firsts].sum()) * (number == 0)]
                    there += [int((weight > 0).sum()), int((weight[firsts] > 0).sum()) * (number == 0)]
        return {"accuracy": round(right[0] / there[0], 4), "first_accuracy": round(right[1] / there[1], 4)}


def read_curve(path: Path) -> list[dict[str, Any]]:
    """What a log of looks holds; nothing where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, *MALFORMED):
        return []
    return found if isinstance(found, list) else []
