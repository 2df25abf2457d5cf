"""Ranking row: what a server that speculates gave on each question, for `parse_log.py --also`.

`specdec/ranking/server_rows.py` reads it and puts it into a ranking.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from profiling.serving.metrics import UNKNOWN, YES
from profiling.serving.stream import ALL_ENDS, STOP
from specdec.errors import UserError
from specdec.records.fields import is_duration

ALIKE = ("engine", "target", "dataset", "prompt_style", "max_new_tokens", "concurrency")
ALIKE_IF_SAID = ("engine_version", "hardware")  # a server need not say its version, nor a user the hardware
# What proposes in every round, by vLLM's and SGLang's names; others (ngram, suffix) propose where they find something.
ALWAYS_DRAFT = ("eagle3", "eagle", "draft_model", "standalone", "mtp", "nextn", "medusa", "dflash")


def check_vanilla(vanilla: dict[str, Any], asked: dict[str, Any], question_ids: Iterable[int]) -> None:
    """Raises UserError unless the plain decoding in `vanilla` is what a server asked like this can be compared with."""
    trials = vanilla.get("trials")
    if not isinstance(trials, list) or not all(map(_is_trial, trials)):
        raise UserError("--vanilla holds no trials, or damaged ones: give what a server's profiler printed")
    said = [key for key in ALIKE_IF_SAID if asked.get(key) and vanilla.get(key)]
    for key in (*ALIKE, *said):
        if asked.get(key) != vanilla.get(key):
            raise UserError(
                f"--vanilla was made with {key} {vanilla.get(key)!r} and this with {asked.get(key)!r}: make it again"
            )
    if vanilla.get("speculates") == YES or vanilla.get("speculation"):
        raise UserError("--vanilla is of a server that speculates: give what a profiler printed of it without")
    broken = [one["finish_reason"] for one in vanilla["trials"] if one.get("finish_reason", STOP) not in ALL_ENDS]
    if broken:
        raise UserError(f"--vanilla holds answers that were broken off (finish_reason {broken[0]!r}): make it again")
    missing = set(question_ids) - by_question(vanilla["trials"]).keys()
    if missing:
        raise UserError(f"--vanilla lacks question {min(missing)}: make it with the same questions")


def ranking_row(found: dict[str, Any], vanilla: dict[str, Any], method: str) -> dict[str, Any]:
    """Per question: counts of its first answer, and ms per token with and without speculation, medians of its trials.

    `found` and `vanilla` are what a profiler found of the server with and without speculation (`check_vanilla`).
    """
    plain, questions = by_question(vanilla["trials"]), []
    for question_id, trials in by_question(found["trials"]).items():
        counts = next((trial["speculation"] for trial in trials if trial.get("speculation")), None)
        if counts is not None:
            times = {"ms_per_token": median_ms(trials), "vanilla_ms_per_token": median_ms(plain[question_id])}
            questions.append({"question_id": question_id, **counts, **times})
    kept = ("engine", "engine_version", "hardware", "target", "dataset", "prompt_style", "max_new_tokens")
    known = {key: found[key] for key in kept if key in found}
    row = {"drafter_name": row_name(found, method), **known}
    return {**row, "vanilla_speculates": vanilla.get("speculates", UNKNOWN), "questions": questions}


def row_name(found: dict[str, Any], method: str) -> str:
    """METHOD_ENGINE_K, where K is the most that the server drafts in a round, as far as it says: "ngram_vllm_5"."""
    counts = found["speculation"]
    drafted = len(counts["accepted_per_position"]) or round(counts["num_drafted"] / counts["num_drafts"])
    name = f"{method}_{found['engine'].lower()}"
    return f"{name}_{drafted}" if drafted else name


def skips_rounds(counts: dict[str, Any], method: str) -> bool:
    """Whether rounds went without a draft in such number that the server cannot have drafted by this method."""
    return method in ALWAYS_DRAFT and counts["num_drafts"] < 0.95 * counts["num_rounds"]


def _is_trial(trial: Any) -> bool:
    """Whether this is what `trials.trial_dict` makes, as far as a row needs it."""
    if not isinstance(trial, dict) or type(trial.get("question_id")) is not int:
        return False
    ms = trial.get("ms_per_token")
    return isinstance(ms, float) and ms > 0 and is_duration(ms)


def by_question(trials: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for trial in trials:
        found[trial["question_id"]].append(trial)
    return dict(found)


def median_ms(trials: list[dict[str, Any]]) -> float:
    """Ms per token over a question's trials."""
    return statistics.median(trial["ms_per_token"] for trial in trials)
