"""Whether every drafter's text is what plain decoding writes in the same engine; each divergence is graded.

    python -m profiling.check_lossless --num_questions 8 --max_new_tokens 128

The flags are failfast.py's. "exact": no divergence; "tie": the two tokens' logits are nearer to
each other than the engine's rounding noise there, so that either may rightly come first; "bug":
anything else, and exit status 1. The last line on stdout is JSON.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from tqdm import tqdm

from profiling.common import print_json
from specdec.config import RunConfig, parse_args
from specdec.errors import exit_status
from specdec.lm import CachedLM
from specdec.problems import load_problems
from specdec.session import Session, open_session
from specdec.specs import DrafterSpec, Plain
from specdec.speculate import speculate
from specdec.tokens import encode_prompt


@dataclass(frozen=True)
class Divergence:
    """The first token in which a drafter's text differs from plain decoding's.

    `gap` is the distance of the two tokens' logits, `noise` what rounding alone can make of it.
    """

    question_id: int
    drafter: str
    position: int
    gap: float
    noise: float

    @property
    def grade(self) -> str:
        return "tie" if self.gap <= self.noise else "bug"


def main(arguments: Sequence[str] | None = None) -> int:
    grades: Counter[str] = Counter()

    def work() -> None:
        config = parse_args(arguments)
        session = open_session(config)
        result = check(config, session)
        grades.update(result["grades"])
        print_json(result, str(session.device))

    return exit_status("check_lossless", work) or int(grades["bug"] > 0)


def check(config: RunConfig, session: Session) -> dict:
    """Decode every question with every drafter and plain decoding; all grades, and every divergence."""
    problems = load_problems(
        config.dataset_name,
        question_ids=config.question_ids,
        num_questions=config.num_questions,
        data_dir=config.data_dir,
        seed=config.seed,
    )
    grades: Counter[str] = Counter()
    found: list[Divergence] = []
    for problem in tqdm(problems, desc="questions", disable=None):
        prompt_ids = encode_prompt(session.tokenizer, problem.prompt)
        plain = decode(session, Plain(), prompt_ids)
        for spec in config.drafter_specs:
            tokens = plain if isinstance(spec, Plain) else decode(session, spec, prompt_ids)
            divergence = diverging(session.target().lm, prompt_ids, (plain, tokens), (problem.question_id, spec.name))
            grades["exact" if divergence is None else divergence.grade] += 1
            found += [] if divergence is None else [divergence]
    return {
        "what": "texts of each drafter against plain decoding in the same engine",
        "engine": session.engine,
        "dtype": str(session.dtype).removeprefix("torch."),
        "num_questions": len(problems),
        "max_new_tokens": config.max_new_tokens,
        "grades": dict(grades),
        "divergences": [{**asdict(divergence), "grade": divergence.grade} for divergence in found],
    }


def decode(session: Session, spec: DrafterSpec, prompt_ids: list[int]) -> list[int]:
    rounds = speculate(
        session.target(),
        session.drafter(spec),
        prompt_ids,
        max_new_tokens=session.config.max_new_tokens,
        stop_ids=session.stop_ids,
    )
    return [token for turn in rounds for token in turn.emitted_tokens]


def diverging(
    lm: CachedLM, prompt_ids: list[int], texts: tuple[list[int], list[int]], names: tuple[int, str]
) -> Divergence | None:
    """The first difference of two texts, with what the target says of the two tokens; None if there is none."""
    plain, drafted = texts
    position = next((i for i, (a, b) in enumerate(zip(plain, drafted, strict=False)) if a != b), None)
    if position is None and len(plain) == len(drafted):
        return None
    if position is None:  # one text goes on where the other ends, which no rounding explains
        return Divergence(*names, min(len(plain), len(drafted)), float("inf"), 0.0)
    single_V, whole_V = next_logits(lm, prompt_ids + plain[:position])
    gap = abs(single_V[plain[position]] - single_V[drafted[position]]).item()
    unit = torch.finfo(lm.model.dtype).eps * single_V.max().abs().item()
    noise = 2 * (single_V - whole_V).abs().max().item() + unit
    return Divergence(*names, position, gap, noise)


def next_logits(lm: CachedLM, prefix_ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 logits behind a prefix, in a pass of its last token and in a pass of many: they differ by rounding."""
    lm.rollback(0)
    lm.forward(prefix_ids[:-1], keep=[])
    lm.commit(len(prefix_ids) - 1)
    single_V = lm.forward(prefix_ids[-1:])[-1].float()
    lm.rollback(max(0, len(prefix_ids) - 11))
    whole_V = lm.forward(prefix_ids[lm.length :])[-1].float()
    return single_V, whole_V


if __name__ == "__main__":
    sys.exit(main())
