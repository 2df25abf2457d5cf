"""How much of a round is not a model's pass: the loop, the drafters and the bookkeeping.

    python -m experiments.profile_overhead --num_questions 4 --max_new_tokens 128

The flags are failfast.py's. Time inside `predict` and `forward` of any model is a pass; the rest of
the wall clock of decoding is overhead. The last line on stdout is JSON.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from profiling.common import asked_prompts, run_measurement
from specdec.config import RunConfig
from specdec.lm import CachedLM
from specdec.session import Session
from specdec.specs import DrafterSpec, Plain
from specdec.speculate import speculate


def main(arguments: Sequence[str] | None = None) -> int:
    return run_measurement("profile_overhead", measure, arguments)


def measure(config: RunConfig, session: Session) -> dict:
    """Per drafter: seconds in passes, seconds in all, and the share of the rest."""
    prompts = asked_prompts(config, session)
    meter = PassMeter()
    found = {}
    for spec in tqdm(config.drafter_specs, desc="drafters", disable=None):
        decode(session, spec, prompts[0], meter)  # loads models and warms up
        meter.seconds, begin = 0.0, time.perf_counter()
        num_rounds = sum(decode(session, spec, prompt_ids, meter) for prompt_ids in prompts)
        total = time.perf_counter() - begin
        found[spec.name] = {
            "num_rounds": num_rounds,
            "passes_s": meter.seconds,
            "total_s": total,
            "overhead_share": 1 - meter.seconds / total,
            "overhead_ms_per_round": 1e3 * (total - meter.seconds) / num_rounds,
        }
    return {"what": "share of decoding time outside model passes", "engine": session.engine, "drafters": found}


def decode(session: Session, spec: DrafterSpec, prompt_ids: list[int], meter: PassMeter) -> int:
    """Decode one question; returns the number of rounds."""
    target, drafter = session.target(), session.drafter(spec)
    for lm in [target.lm] + ([] if isinstance(spec, Plain) else [drafter.lm]):
        meter.watch(lm)
    rounds = speculate(
        target,
        drafter,
        prompt_ids,
        max_new_tokens=session.config.max_new_tokens,
        stop_ids=session.stop_ids,
        clock=target.lm.clock,
    )
    return len(rounds)


class PassMeter:
    """Adds up the time inside the passes of the models it watches."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._watched: set[int] = set()
        self._is_inside = False

    def watch(self, lm: CachedLM) -> None:
        if id(lm) not in self._watched:
            self._watched.add(id(lm))
            lm.forward, lm.predict = self._timed(lm.forward), self._timed(lm.predict)

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
