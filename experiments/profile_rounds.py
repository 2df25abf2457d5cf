"""Time of one round against the length of the context, for every drafter of the command line's flags.

    python -m experiments.profile_rounds --spec_len 8

Shows that a round costs its new tokens and not its prefix. Contexts are cut from the questions' text, chained until
long enough. The last line on stdout is JSON.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from profiling.common import COST_AWARE_FLAGS, DRAFTER_FLAGS, MODEL_FLAGS, parser_of, run_measurement
from specdec.config import RunConfig
from specdec.drafters.base import Spec
from specdec.questions.sets import load_problems
from specdec.records.rounds import Round

if TYPE_CHECKING:
    from specdec.session import Session

FLAGS = (*MODEL_FLAGS, "dataset_name", "data_dir", *DRAFTER_FLAGS, *COST_AWARE_FLAGS)
CONTEXT_LENS = (100, 1000)
NUM_TEXTS = 6
NEW_TOKENS = 48


def main(arguments: Sequence[str] | None = None) -> int:
    return run_measurement(parser_of("experiments.profile_rounds", __doc__, FLAGS), measure, arguments)


def measure(config: RunConfig, session: Session) -> dict[str, Any]:
    """Per drafter: median ms per round, and per drafter pass, at each context length, and their ratio."""
    asked = config.questions
    text_ids = [
        token
        for problem in load_problems(asked.dataset_name, data_dir=asked.data_dir, num_questions=None)
        for token in session.tokenizer(problem.prompt, add_special_tokens=False)["input_ids"]
    ]
    table = {}
    endless = dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, max_new_tokens=NEW_TOKENS))
    session = dataclasses.replace(session, config=endless, stop_ids=frozenset())
    for spec in tqdm(session.specs, desc="drafters", disable=None):
        rounds = rounds_by_context(session, spec, text_ids)
        by_context = {length: summary(turns) for length, turns in rounds.items()}
        short, long = (by_context[length]["round_ms"] for length in CONTEXT_LENS)
        table[spec.name] = {"by_context": by_context, "ratio": long / short}
    return {"what": "median ms per round", "new_tokens": NEW_TOKENS, "drafters": table}


def rounds_by_context(session: Session, spec: Spec, text_ids: list[int]) -> dict[int, list[Round]]:
    """Rounds after `NUM_TEXTS` contexts of each length, in turn; the first round, which prefills, is left out."""
    rounds: dict[int, list[Round]] = {length: [] for length in CONTEXT_LENS}
    for index in range(NUM_TEXTS):
        for length in CONTEXT_LENS:
            begin = index * (len(text_ids) - length) // NUM_TEXTS
            prompt_ids = text_ids[begin : begin + length]
            rounds[length] += session.decode(spec, prompt_ids)[1:]
    return rounds


def summary(rounds: list[Round]) -> dict[str, float]:
    """Medians. Drafts of dynamic length differ from text to text, so drafting is also given per pass."""
    passes = sum(turn.num_forward_passes for turn in rounds)
    return {
        "round_ms": statistics.median(turn.draft_ms + turn.verify_ms for turn in rounds),
        "verify_ms": statistics.median(turn.verify_ms for turn in rounds),
        "draft_ms_per_pass": sum(turn.draft_ms for turn in rounds) / passes if passes else 0.0,
        "num_rounds": len(rounds),
    }


if __name__ == "__main__":
    sys.exit(main())
