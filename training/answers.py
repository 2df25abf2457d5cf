"""A target's own answers to the training prompts: how they are made, their file, and which of them drafters learn from.

Who writes them is training.self_generate.
"""

import io
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from specdec.errors import MALFORMED, UserError
from specdec.questions.repetition import MOSTLY, repeated_shares
from specdec.records.pickles import write_atomic
from training.batches import TokenDocs, pack_documents


@dataclass(frozen=True)
class DecodeSettings:
    """How answers are made. The numbers of rows and steps bound memory and time only."""

    max_new_tokens: int = 320
    max_rows: int = 1024
    check_every: int = 16  # steps between two looks at the tokens
    refill_share: float = 0.125  # share of the rows that must be free before new prompts are run
    temperature: float = 0.0  # 0: greedy

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "max_rows"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give at least 1")
        if not self.temperature >= 0:
            raise UserError(f"--temperature {self.temperature}: give 0 (greedy) or more")


@dataclass(frozen=True)
class Answers:
    """Token ids of prompts and answers; a finished answer ends with its stop token, a truncated one has none.

    `writer` is `models.weights_digest` of the model that wrote them ("": not known).
    """

    prompts: list[list[int]]
    answers: list[list[int]]
    is_truncated: list[bool]
    writer: str = ""

    @cached_property
    def repeated_shares(self) -> list[float]:
        """repeated_share of every answer; takes a while, and is stored with them."""
        return repeated_shares(self.answers)

    def num_repetitive(self) -> int:
        return sum(share > MOSTLY for share in self.repeated_shares)

    def documents(self, max_len: int, *, max_repeated: float = MOSTLY, keep_truncated: bool = True) -> TokenDocs:
        """What models learn from: no pair longer than max_len, no answer with a larger repeated_share."""
        kept = [
            n
            for n, share in enumerate(self.repeated_shares)
            if share <= max_repeated and (keep_truncated or not self.is_truncated[n])
        ]
        return pack_documents([self.prompts[n] for n in kept], [self.answers[n] for n in kept], max_len)


def save_answers(answers: Answers, path: Path) -> None:
    """Writes one compressed .npz, atomically."""
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        prompt_tokens=np.concatenate([np.array(p, dtype=np.int32) for p in answers.prompts]),
        prompt_lens=np.array([len(p) for p in answers.prompts]),
        answer_tokens=np.concatenate([np.array(a, dtype=np.int32) for a in answers.answers]),
        answer_lens=np.array([len(a) for a in answers.answers]),
        is_truncated=np.array(answers.is_truncated),
        repeated_shares=np.array(answers.repeated_shares),
        writer=np.array(answers.writer),
    )
    write_atomic(path, packed.getvalue())


def load_answers(path: Path) -> Answers:
    """Reads what save_answers wrote; UserError when the file is missing or is something else."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            prompts = np.split(arrays["prompt_tokens"], np.cumsum(arrays["prompt_lens"])[:-1])
            answers = np.split(arrays["answer_tokens"], np.cumsum(arrays["answer_lens"])[:-1])
            truncated, shares = arrays["is_truncated"].tolist(), arrays["repeated_shares"].tolist()
            writer = str(arrays["writer"]) if "writer" in arrays else ""
    except FileNotFoundError:
        raise UserError(f"no answers at {path}: make them with python -m training.self_generate") from None
    except (EOFError, OSError, zipfile.BadZipFile, *MALFORMED) as error:
        raise UserError(f"{path} holds no answers ({type(error).__name__}): delete it and make them again") from None
    found = Answers([p.tolist() for p in prompts], [a.tolist() for a in answers], truncated, writer)
    found.__dict__["repeated_shares"] = shares  # where the cached property looks first
    return found
