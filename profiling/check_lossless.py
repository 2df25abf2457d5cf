"""Whether every drafter's text is what plain decoding writes in the same engine; each divergence is graded.

    python -m profiling.check_lossless --num_questions 8 --max_new_tokens 128

The flags are failfast.py's. "exact": no divergence; "tie": both tokens' logits are as near to
the best as the engine's rounding goes there, so that either may rightly come first; "bug":
anything else, and exit status 1. The last line on stdout is JSON.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from tqdm import tqdm

from profiling.common import print_json
from specdec.answers.divergence import BUG, EXACT
from specdec.asked import asked_problems
from specdec.config import RunConfig, parse_args
from specdec.errors import exit_status
from specdec.rankings.against_plain import diverging
from specdec.session import Session, open_session
from specdec.specs import DrafterSpec, Plain
from specdec.speculate import speculate
from specdec.tokens import encode_prompt


def main(arguments: Sequence[str] | None = None) -> int:
    grades: Counter[str] = Counter()

    def work() -> None:
        config = parse_args(arguments)
        session = open_session(config)
        result = check(config, session)
        grades.update(result["grades"])
        print_json(result, str(session.device))

    return exit_status("check_lossless", work) or int(grades[BUG] > 0)


def check(config: RunConfig, session: Session) -> dict:
    """Decode every question with every drafter and plain decoding; all grades, and every divergence."""
    problems = asked_problems(config)
    grades: Counter[str] = Counter()
    found: list[dict[str, object]] = []
    for problem in tqdm(problems, desc="questions", disable=None):
        prompt_ids = encode_prompt(session.tokenizer, problem.prompt)
        plain = decode(session, Plain(), prompt_ids)
        for spec in config.drafter_specs:
            tokens = plain if isinstance(spec, Plain) else decode(session, spec, prompt_ids)
            divergence = diverging(session.target().lm, prompt_ids, tokens, plain)
            grades[divergence.kind] += 1
            if divergence.kind != EXACT:
                found.append({"question_id": problem.question_id, "drafter": spec.name, **divergence.to_builtins()})
    return {
        "what": "texts of each drafter against plain decoding in the same engine",
        "engine": session.engine,
        "dtype": str(session.dtype).removeprefix("torch."),
        "num_questions": len(problems),
        "max_new_tokens": config.max_new_tokens,
        "grades": dict(grades),
        "divergences": found,
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


if __name__ == "__main__":
    sys.exit(main())
