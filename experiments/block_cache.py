"""What Fast-dLLM v2's sub-block cache saves a drafter, and what it costs in acceptance.

    python -m experiments.block_cache

Every question is answered by static and FailFast drafts with and without `--use_block_cache`; the outputs are the same,
the drafts need not be. A pass over a sub-block counts as a pass and runs 8 positions for a block's 32; what that is
worth in time depends on the device, and is not measured here. The last line on stdout is JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from profiling.common import parser_of, run_command, session_of
from specdec.config import RunConfig
from specdec.drafters.block_diffusion import BlockSpec, DllmStatic, FailFast
from specdec.questions.sets import load_problems
from specdec.runs.jobs import fitting_prompt

SPECS: tuple[BlockSpec, ...] = (
    *(DllmStatic(threshold, 8) for threshold in (0.05, 0.5, 0.9)),
    *(FailFast(threshold, 0.45, 60, 10) for threshold in (0.05, 0.5, 0.9)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.block_cache", __doc__, ("num_questions", "max_new_tokens"))
    parser.set_defaults(num_questions=5, max_new_tokens=128)
    return run_command(parser, lambda flags: measure(flags.num_questions, flags.max_new_tokens), arguments)


def measure(num_questions: int, max_new_tokens: int) -> dict[str, Any]:
    sizes = {"num_questions": num_questions, "max_new_tokens": max_new_tokens}
    made = {cache: totals(RunConfig.of(**sizes, use_block_cache=cache)) for cache in (False, True)}
    texts = [made[cache].pop("texts") for cache in made]
    found = {
        spec.name: {"exact": made[False][spec.name], "cached": made[True][spec.name], **change(spec, made)}
        for spec in SPECS
    }
    return {**sizes, "outputs_equal": texts[0] == texts[1], "drafters": found}


def change(spec: BlockSpec, made: dict[bool, dict[str, Any]]) -> dict[str, float]:
    """Cached against exact: positions that denoising passes ran, passes, and the acceptance rate."""
    exact, cached = made[False][spec.name], made[True][spec.name]
    return {
        "positions_ratio": round(cached["positions"] / exact["positions"], 4),
        "passes_ratio": round(cached["passes"] / exact["passes"], 4),
        "acceptance_lost": round(rate(exact) - rate(cached), 4),
    }


def rate(total: dict[str, float]) -> float:
    return total["accepted"] / total["drafted"]


def totals(config: RunConfig) -> dict[str, Any]:
    """Over all questions by drafter: what was run, drafted and accepted; and the texts, which no drafter changes."""
    session, texts = session_of(config), []
    found: dict[str, Any] = {}
    problems = load_problems("bundled", num_questions=config.questions.num_questions)
    for spec in tqdm(SPECS, desc="drafters", disable=None):
        partial = count_partial(session.model_of(spec))
        total = dict.fromkeys(("rounds", "drafted", "accepted", "passes", "denoise_passes"), 0)
        for problem in problems:
            rounds = session.decode(spec, fitting_prompt(session, problem))
            texts.append([token for turn in rounds for token in turn.emitted_tokens])
            for turn in rounds:
                drafted = turn.draft_len, turn.accepted_len, turn.num_forward_passes, turn.num_denoise_passes
                for key, number in zip(total, (1, *drafted), strict=True):
                    total[key] += number
        total["partial_passes"] = partial()
        total["positions"] = 32 * (total["denoise_passes"] - partial()) + 8 * partial()
        found[spec.name] = total
    return {**found, "texts": texts}


def count_partial(lm: Any) -> Callable[[], int]:
    """Watch a model from now on: what is returned says how many passes ran a sub-block alone."""
    calls: list[int] = []
    run = type(lm).forward_within

    def watched(*arguments: Any) -> Any:
        calls.append(1)
        return run(lm, *arguments)

    lm.forward_within = watched
    return lambda: len(calls)


if __name__ == "__main__":
    sys.exit(main())
