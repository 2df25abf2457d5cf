"""Whether every drafter's text is what plain decoding writes in the same engine; each divergence is graded.

    python -m profiling.check_lossless --num_questions 8 --max_new_tokens 128

"exact": no divergence; "tie": both tokens' logits are as near to the best as the engine's rounding goes there, so that
either may rightly come first; "bug": anything else, and exit status 1.

On a terminal it prints lines for people; into a pipe or a file (also --out FILE) JSON.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from profiling.common import DECODING_FLAGS, asked_prompts, parser_of, run_measurement, tokens_of
from specdec.config import RunConfig
from specdec.drafters.plain import Plain
from specdec.records.divergence import BUG, EXACT
from specdec.runs.resume import asked_problems

if TYPE_CHECKING:
    from specdec.session import Session


def main(arguments: Sequence[str] | None = None) -> int:
    found: dict[str, Any] = {}

    def measure(config: RunConfig, session: Session) -> dict[str, Any]:
        found.update(check(config, session))
        return found

    parser = parser_of("profiling.check_lossless", __doc__, DECODING_FLAGS)
    status = run_measurement(parser, measure, arguments, grade_lines)
    return status or int(found["grades"].get(BUG, 0) > 0)


def grade_lines(found: dict[str, Any]) -> list[str]:
    """How many texts have which grade, and every one that is not exact, for people."""
    grades = ", ".join(f"{grade} {count}" for grade, count in found["grades"].items())
    parted = [
        f"  question {one['question_id']}, {one['drafter']}: {one['kind']}" for one in found.get("divergences", ())
    ]
    return [f"texts against plain decoding's: {grades}", *parted]


def check(config: RunConfig, session: Session) -> dict[str, Any]:
    """Decode every question with every drafter and plain decoding; all grades, and every divergence."""
    from specdec.runs.against_plain import diverging

    questions = list(zip(asked_problems(config), asked_prompts(config, session), strict=True))
    grades: Counter[str] = Counter()
    found: list[dict[str, object]] = []
    for problem, prompt_ids in tqdm(questions, desc="questions", disable=None):
        plain = tokens_of(session.decode(Plain(), prompt_ids))
        for spec in session.specs:
            tokens = plain if isinstance(spec, Plain) else tokens_of(session.decode(spec, prompt_ids))
            divergence = diverging(session.target().lm, prompt_ids, tokens, plain)
            grades[divergence.kind] += 1
            if divergence.kind != EXACT:
                found.append({"question_id": problem.question_id, "drafter": spec.name, **vars(divergence)})
    return {
        "what": "texts of each drafter against plain decoding in the same engine",
        "engine": session.backend,
        "dtype": session.dtype_name,
        "num_questions": len(questions),
        "max_new_tokens": config.decoding.max_new_tokens,
        "grades": dict(grades),
        "divergences": found,
    }


if __name__ == "__main__":
    sys.exit(main())
