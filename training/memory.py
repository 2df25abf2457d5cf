"""How much memory a head's training will take, said before its first step. An estimate, on the low side."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from specdec.errors import UserError
from training.drafting import Lesson
from training.heads import HeadSettings, HeadTraining

if TYPE_CHECKING:
    import torch

TRAINED_BYTES, SOFT_TOKENS = 16, 32  # a parameter with its gradient and AdamW's state; teach's top_k
LOGIT_BYTES = 12  # a logit, its logarithm and its gradient


def free_bytes(device: torch.device) -> float:
    """Of the device, or of this machine."""
    import torch

    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def require_memory(made: HeadTraining, lesson: Lesson, settings: HeadSettings) -> None:
    """UserError where a step cannot fit, with how many documents would."""
    docs, free = lesson.docs, free_bytes(lesson.device)
    fixed = TRAINED_BYTES * sum(p.numel() for p in made.module.parameters())
    fixed += (len(docs.tokens) * SOFT_TOKENS * 6) if settings.soft_weight else 0
    num_words = lesson.target.config.vocab_size if made.words_T is None else int(made.words_T.max()) + 1
    longest = made.begins(docs, docs.lengths.argsort()[-1:], np.random.default_rng(0))
    a_doc = LOGIT_BYTES * num_words * len(made.slot_weights) * longest.shape[1]
    num_docs = min(settings.loop.num_docs, len(docs))
    if fixed + num_docs * a_doc > free:
        room = int((free - fixed) // a_doc)
        advice = f"--num_docs {room} would fit" if room > 0 else "not even one document fits: use a larger device"
        raise UserError(
            f"a step takes about {(fixed + num_docs * a_doc) / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: {advice}"
        )
