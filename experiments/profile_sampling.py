"""What sampling adds to a round: the same rounds, greedy and sampled, one right after the other in one process.

    python -m experiments.profile_sampling --temperature 1 --draft_sampling sample --drafter_thresholds 0 \\
        --sweep_lowconf_threshold 0 --num_questions 4 --max_new_tokens 128

The flags describe the sampled side. A pair is a round from one prefix of a greedy answer under
both. Only pairs of equal drafter passes and draft lengths count: what is measured is the price of drawing and judging,
not that a drafter which samples drafts something else. With both thresholds at 0, as above, all block drafts are equal
in that sense. The last line on stdout is JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from profiling.common import (
    COST_AWARE_FLAGS,
    DECODING_FLAGS,
    asked_prompts,
    parser_of,
    run_measurement,
    session_of,
    tokens_of,
)
from specdec.config import RunConfig
from specdec.decoding.target import Target
from specdec.drafters.base import Drafter, Spec
from specdec.drafters.plain import Plain
from specdec.errors import UserError

if TYPE_CHECKING:
    from specdec.session import Session

SAMPLING_FLAGS = ("temperature", "top_k", "top_p", "draft_sampling")
FLAGS = {*DECODING_FLAGS, *SAMPLING_FLAGS} - {*COST_AWARE_FLAGS}
STRIDE = 8  # tokens between the prefixes of an answer
BUDGET = 200  # more than any draft


@dataclass(frozen=True)
class Side:
    """One way to play a round."""

    target: Target
    drafter: Drafter

    def play(self, prefix_ids: list[int]) -> tuple[float, tuple[int, int]]:
        """Milliseconds of a round after a prefix that both models have in their caches; passes and tokens drafted."""
        self.target.start(prefix_ids)
        self.drafter.reset()
        self.drafter.propose(prefix_ids, BUDGET)
        clock = self.target.lm.clock
        begin = clock()
        draft = self.drafter.propose(prefix_ids, BUDGET)
        self.target.verify(draft)
        return 1e3 * (clock() - begin), (draft.passes.total, len(draft.tokens))


def main(arguments: Sequence[str] | None = None) -> int:
    return run_measurement(parser_of("experiments.profile_sampling", __doc__, FLAGS), measure, arguments)


def measure(config: RunConfig, sampled: Session) -> dict[str, Any]:
    """Per drafter: how many pairs, median milliseconds of both sides, and the spread of the pairs' ratios."""
    if not config.decoding.is_sampled:
        raise UserError("give the sampled side's --temperature")
    plain = replace(config.decoding, temperature=0.0, top_k=0, top_p=1.0, draft_sampling="greedy")
    greedy = session_of(replace(config, decoding=plain))
    prefixes = prefixes_of(config, greedy)
    found = {spec.name: compare(spec, greedy, sampled, prefixes) for spec in sampled.specs}
    settings = {name: getattr(config.decoding, name) for name in SAMPLING_FLAGS}
    return {"what": "a sampled round over a greedy one", "engine": greedy.backend, **settings, "drafters": found}


def prefixes_of(config: RunConfig, session: Session) -> list[list[int]]:
    """Prefixes of the target's greedy answers to the first questions."""
    found = []
    for prompt_ids in asked_prompts(config, session):
        text = prompt_ids + tokens_of(session.decode(Plain(), prompt_ids))
        found += [text[:end] for end in range(len(prompt_ids), len(text) - 1, STRIDE)]
    return found


def compare(spec: Spec, greedy: Session, sampled: Session, prefixes: list[list[int]]) -> dict[str, Any]:
    sampler = sampled.sampler("", 0, spec)
    sides = Side(greedy.target(), greedy.drafter(spec)), Side(sampled.target(sampler), sampled.drafter(spec, sampler))
    for side in sides:
        side.play(prefixes[0])
    pairs = []
    for number, prefix_ids in enumerate(tqdm(prefixes, desc=spec.name, disable=None)):
        order = (0, 1) if number % 2 else (1, 0)
        played = {index: sides[index].play(prefix_ids) for index in order}
        if played[0][1] == played[1][1]:
            pairs.append((played[0][0], played[1][0]))
    if len(pairs) < 2:
        return {"num_prefixes": len(prefixes), "num_pairs": len(pairs)}
    ratios = [theirs / ours for ours, theirs in pairs]
    tenths = quantiles(ratios, n=10)
    return {
        "num_prefixes": len(prefixes),
        "num_pairs": len(pairs),
        "greedy_ms": median(ours for ours, _ in pairs),
        "sampled_ms": median(theirs for _, theirs in pairs),
        "ratio": {"median": median(ratios), "p10": tenths[0], "p90": tenths[-1]},
    }


if __name__ == "__main__":
    sys.exit(main())
