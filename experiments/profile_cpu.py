"""What a pass on a CPU costs by transformers' own modules and as this program runs it, by turns, in one process.

    python -m experiments.profile_cpu --device cpu

The run's models, after 160 tokens, 1, 9 and 32 new ones; CPU time of this process, so that other processes change
little; the medians of each, and the ratio of the medians. Logits of both are compared. The last line on stdout is JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from profiling.common import DECODING_FLAGS, parser_of, run_measurement
from specdec.config import RunConfig

if TYPE_CHECKING:
    from specdec.models.lm import CachedLM
    from specdec.session import Session

NUM_TOKENS = (1, 9, 32)
CONTEXT = 160
TURNS = 40


def main(arguments: Sequence[str] | None = None) -> int:
    return run_measurement(parser_of("experiments.profile_cpu", __doc__, tuple(DECODING_FLAGS)), measure, arguments)


def measure(config: RunConfig, session: Session) -> dict[str, Any]:
    """Per model and number of tokens."""
    from specdec.models.lm import CachedLM
    from specdec.models.load import load_hf_model, load_lm

    found = {}
    for role, source in session.sources.items():
        own = CachedLM(load_hf_model(source, session.dtype))
        found[role.title] = measured({"modules": own, "joined": load_lm(source, session.device, session.dtype)})
    return {"what": "CPU ms of a pass, medians", "context": CONTEXT, "turns": TURNS, "models": found}


def measured(lms: dict[str, CachedLM]) -> dict[str, Any]:
    context = [5 + index % 50 for index in range(CONTEXT)]
    for lm in lms.values():
        lm.forward(context)
        lm.commit(CONTEXT)
    found = {}
    for count in NUM_TOKENS:
        logits = [lm.forward(context[:count]) for lm in lms.values()]
        times: dict[str, list[float]] = {name: [] for name in lms}
        for turn in range(TURNS):
            for name in sorted(lms, reverse=turn % 2 == 0):
                begin = time.process_time()
                lms[name].predict(context[:count])
                times[name].append(1000 * (time.process_time() - begin))
        medians = {name: median(values) for name, values in times.items()}
        difference = (logits[0] - logits[1]).abs().max().item()
        ratio = medians["modules"] / medians["joined"]
        found[f"{count} tokens"] = {**medians, "ratio": ratio, "largest_difference_of_logits": difference}
    return found


if __name__ == "__main__":
    sys.exit(main())
