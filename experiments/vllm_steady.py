"""A steady load: so many requests at a time to a vLLM, always, and what its counters say while all of them run.

The window begins once as many answers are finished as are asked at a time, and ends so many answers later: whoever is
finished is replaced, also after it. Answers are not streamed, so that the client takes little of the machine. Whose
requests they are is not its business (`vllm_load.py`).
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Body = Mapping[str, Any]
TIMEOUT_S = 600.0
_TOKENS, _DRAFTED = "vllm:generation_tokens_total", "vllm:spec_decode_num_draft_tokens_total"
_STEP, _FIRST, _EACH = (
    "vllm:inter_token_latency_seconds",
    "vllm:time_to_first_token_seconds",
    "vllm:request_time_per_output_token_seconds",
)


@dataclass(frozen=True)
class Window:
    """Differences of counters between two moments, `seconds` apart."""

    seconds: float
    counted: Mapping[str, float]

    @property
    def tokens_per_s(self) -> float:
        return self.counted.get(_TOKENS, 0.0) / self.seconds

    @property
    def step_ms(self) -> float:
        """The mean over the steps of all requests."""
        return self._mean_ms(_STEP)

    @property
    def drafted_per_step(self) -> float:
        """Of a request."""
        return self.counted.get(_DRAFTED, 0.0) / self.counted[f"{_STEP}_count"]

    @property
    def ttft_ms(self) -> float:
        return self._mean_ms(_FIRST)

    @property
    def tpot_ms(self) -> float:
        """The mean of the answers' own means."""
        return self._mean_ms(_EACH)

    def _mean_ms(self, name: str) -> float:
        return 1e3 * self.counted[f"{name}_sum"] / self.counted[f"{name}_count"]


def steady(root_url: str, path: str, bodies: Sequence[Body], places: int, num_answers: int) -> Window:
    """Ask `places` at a time, the bodies in order and over again, until `num_answers` are finished in the window."""
    numbers, finished, begun, ended = count(), count(1), threading.Event(), threading.Event()
    readings: list[tuple[float, dict[str, float]]] = []

    def work() -> None:
        try:
            while not ended.is_set():
                answer(root_url, path, bodies[next(numbers) % len(bodies)])
                done = next(finished)
                if done == places:
                    begun.set()
                if done == places + num_answers:
                    ended.set()
        except OSError:  # a server that is gone ends it for all
            begun.set()
            ended.set()
            raise

    def watch() -> None:
        for moment in (begun, ended):
            moment.wait(TIMEOUT_S)
            readings.append((time.perf_counter(), read(root_url)))

    with ThreadPoolExecutor(places + 1) as pool:
        for task in [pool.submit(watch), *(pool.submit(work) for _ in range(places))]:
            task.result()
    (begin, before), (end, after) = readings
    return Window(end - begin, {name: value - before.get(name, 0.0) for name, value in after.items()})


def answer(root_url: str, path: str, body: Body) -> None:
    """A request, until its answer is there."""
    data = json.dumps({key: value for key, value in body.items() if value is not None}).encode()
    request = urllib.request.Request(f"{root_url}/v1/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        response.read()


def read(root_url: str) -> dict[str, float]:
    """The server's counters, each over all its labels."""
    with urllib.request.urlopen(f"{root_url}/metrics", timeout=TIMEOUT_S) as response:
        text = response.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("vllm:") and not sample.name.endswith("_bucket"):
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
