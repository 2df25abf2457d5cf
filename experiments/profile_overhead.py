"""How much of a round is not a model's pass: the loop, the drafters and the bookkeeping.

    python -m experiments.profile_overhead --num_questions 4 --max_new_tokens 128

Time inside `predict` and `forward` of any model is a pass; the rest of the wall clock of decoding is overhead. The last
line on stdout is JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from profiling.common import DECODING_FLAGS, asked_prompts, parser_of, run_measurement
from specdec.config import RunConfig

if TYPE_CHECKING:
    from specdec.models.lm import CachedLM
    from specdec.session import Session


def main(arguments: Sequence[str] | None = None) -> int:
    return run_measurement(parser_of("experiments.profile_overhead", __doc__, DECODING_FLAGS), measure, arguments)


def measure(config: RunConfig, session: Session) -> dict[str, Any]:
    """Per drafter: seconds in passes, seconds in all, and the share of the rest."""
    from profiling.in_process import lm_of

    prompts = asked_prompts(config, session)
    meter = PassMeter()
    found = {}
    for spec in tqdm(session.specs, desc="drafters", disable=None):
        for part in (session.target(), session.drafter(spec)):
            meter.watch(lm_of(part))
        session.decode(spec, prompts[0])  # warms up
        meter.seconds, begin = 0.0, time.perf_counter()
        num_rounds = sum(len(session.decode(spec, prompt_ids)) for prompt_ids in prompts)
        total = time.perf_counter() - begin
        found[spec.name] = {
            "num_rounds": num_rounds,
            "passes_s": meter.seconds,
            "total_s": total,
            "overhead_share": 1 - meter.seconds / total,
            "overhead_ms_per_round": 1e3 * (total - meter.seconds) / num_rounds,
        }
    return {"what": "share of decoding time outside model passes", "engine": session.backend, "drafters": found}


class PassMeter:
    """Adds up the time inside the passes of the models it watches."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._watched: set[int] = set()
        self._is_inside = False

    def watch(self, lm: CachedLM | None) -> None:
        """Count the passes of `lm` from now on, once; there may be no model."""
        if lm is not None and id(lm) not in self._watched:
            self._watched.add(id(lm))
            for name in ("forward", "predict"):
                setattr(lm, name, self._timed(getattr(lm, name)))

    def _timed(self, call: Callable[..., object]) -> Callable[..., object]:
        def timed(*arguments: object, **how: object) -> object:
            if self._is_inside:  # `predict` may call `forward`
                return call(*arguments, **how)
            self._is_inside, begin = True, time.perf_counter()
            try:
                return call(*arguments, **how)
            finally:
                self.seconds += time.perf_counter() - begin
                self._is_inside = False

        return timed


if __name__ == "__main__":
    sys.exit(main())
