"""Trials: questions asked again and again, and what their times have in common.

Who answers, a server or a model in this process, is the caller's: it gives a function from a problem to an `Answer`.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from profiling.serving.metrics import Speculation
from specdec.errors import UserError
from specdec.questions.sets import Problem

MIN_TRIALS = 3
REMEMBERS = "the server remembers answers"
REMEMBERS_FROM = 0.02  # other drafters give the same counts again, but for a near tie


class InvalidTrial(Exception):
    """Why a trial cannot count: one line."""


@dataclass(frozen=True)
class Answer:
    """One answer and its times.

    `ttft_ms`: from the request to the first token. `decode_ms`: from there to the last, in which `num_timed` tokens
    came: those after the first, or after all that arrived together with it. `counted_by`: who counted the tokens.
    `prompt_ids` and `output_ids`: where the server says them.
    """

    num_tokens: int
    num_timed: int
    ttft_ms: float
    decode_ms: float
    counted_by: str
    finish_reason: str | None = None
    speculation: Speculation | None = None
    prompt_ids: list[int] | None = None
    output_ids: list[int] | None = None

    @property
    def ms_per_token(self) -> float:
        """Without the prompt's time. `Answer(11, 10, 50.0, 200.0, "usage").ms_per_token == 20.0`."""
        return self.decode_ms / self.num_timed


@dataclass(frozen=True)
class Trial:
    """One question asked once; `answer` is None where the trial cannot count, and `error` says why."""

    dataset: str
    question_id: int
    repeat: int
    answer: Answer | None
    error: str = ""


Ask = Callable[[Problem], Answer]


def run_trials(ask: Ask, problems: Sequence[Problem], repeats: int, concurrency: int = 1) -> list[Trial]:
    """Every problem `repeats` times, all problems before any is asked again, `concurrency` at a time."""
    tasks = [(problem, repeat) for repeat in range(repeats) for problem in problems]

    def run(task: tuple[Problem, int]) -> Trial:
        problem, repeat = task
        try:
            return Trial(problem.dataset, problem.question_id, repeat, ask(problem))
        except InvalidTrial as error:
            return Trial(problem.dataset, problem.question_id, repeat, None, str(error))

    with ThreadPoolExecutor(concurrency) as pool:
        answers = map(run, tasks) if concurrency == 1 else pool.map(run, tasks)
        return list(tqdm(answers, desc="trials", total=len(tasks), disable=None))


def without_remembered(trials: Sequence[Trial]) -> list[Trial]:
    """The trials, where a repeated question cannot count: one that a drafter which remembers answers (suffix decoding)
    has met before, so that its acceptance is a cache's. The same trials where repeats are accepted like first answers.
    """
    first, again = (_acceptance(trials, is_first) for is_first in (True, False))
    if first is None or again is None or abs(again / first - 1) <= REMEMBERS_FROM:
        return list(trials)
    why = f"asked again, it is drafted otherwise ({again:.2f} tokens a round, {first:.2f} at first): {REMEMBERS}"
    return [replace(trial, answer=None, error=why) if trial.repeat and trial.answer else trial for trial in trials]


def _acceptance(trials: Sequence[Trial], is_first: bool) -> float | None:
    """Tokens a round over first answers, or over all others; None where the server does not count them."""
    answers = [trial.answer for trial in trials if trial.answer is not None and is_first == (trial.repeat == 0)]
    parts = [one.speculation for one in answers if one.speculation is not None and not one.speculation.is_derived]
    rounds = sum(part.num_rounds for part in parts)
    return sum(part.num_emitted for part in parts) / rounds if rounds else None


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """Medians and spread over the trials that count, and why others do not. Raises UserError if none does.

    A server may keep a prompt that it has seen, so the time to the first token is given apart for repeated questions.
    """
    valid = [(trial, trial.answer) for trial in trials if trial.answer is not None]
    if not valid:
        raise UserError(f"none of {len(trials)} trials can count; the first: {trials[0].error}")
    answers = [answer for _, answer in valid]
    return {
        "num_trials": len(trials),
        "num_valid": len(valid),
        "left_out": [{"question_id": one.question_id, "why": one.error} for one in trials if one.answer is None],
        "ms_per_token": spread([answer.ms_per_token for answer in answers]),
        "ttft_ms": spread([answer.ttft_ms for trial, answer in valid if not trial.repeat]),
        "ttft_repeated_ms": spread([answer.ttft_ms for trial, answer in valid if trial.repeat]),
        "output_tokens": spread([answer.num_tokens for answer in answers]),
        "tokens_counted_by": dict(Counter(answer.counted_by for answer in answers)),
        "trials": [trial_dict(trial, answer) for trial, answer in valid],
    }


def tokens_per_s(trials: Sequence[Trial], seconds: float) -> float | None:
    """What the server gave while it was asked, prompts and the last answers' fewer neighbours in it; None where a trial
    does not count, whose tokens are not known."""
    answers = [trial.answer for trial in trials if trial.answer is not None]
    return sum(one.num_tokens for one in answers) / seconds if len(answers) == len(trials) else None


def trial_dict(trial: Trial, answer: Answer) -> dict[str, Any]:
    """A trial that counts, as JSON: counts, times in ms and, where it is known, its speculation."""
    found: dict[str, Any] = {name: getattr(trial, name) for name in ("dataset", "question_id", "repeat")}
    figures = ("num_tokens", "ms_per_token", "ttft_ms", "decode_ms", "finish_reason")
    found |= {name: getattr(answer, name) for name in figures}
    return found if answer.speculation is None else {**found, "speculation": answer.speculation.counts}


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, p10, p90, and how many; None without values. `spread([1.0, 2.0, 3.0])["median"] == 2.0`."""
    if not values:
        return None
    cuts = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else [values[0]] * 9
    return {"median": statistics.median(values), "p10": cuts[0], "p90": cuts[-1], "num": len(values)}


def require_trials(found: dict[str, Any], what: str) -> None:
    """Raises UserError unless enough trials of a `summary` count for `what` to be made of them."""
    if found["num_valid"] < MIN_TRIALS:
        why = found["left_out"][0]["why"] if found["left_out"] else "ask more (--num_questions, --repeats)"
        raise UserError(f"{what} needs {MIN_TRIALS} trials that count, and {found['num_valid']} do: {why}")
