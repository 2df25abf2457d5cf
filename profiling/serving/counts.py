"""Counts: what a server that speculates accepted on each question, with the tokens of prompt and answer where it says
them. It compares nothing (`specdec/ranking/reconcile.py` does) and times nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from profiling.profile_tpt_vllm import VLLM
from profiling.serving.chat import Chat, Served
from profiling.serving.metrics import Speculation
from profiling.serving.server import Server
from profiling.serving.trials import Answer, InvalidTrial
from specdec.errors import UserError
from specdec.questions.sets import Problem
from specdec.ranking.served_counts import ServedCounts

RETURN_IDS = {"return_token_ids": True}  # vLLM's; a server that does not know it leaves it out


@dataclass(frozen=True)
class Counter:
    """A model on a server whose answers are counted, one at a time."""

    base_url: str
    model: str
    max_new_tokens: int
    timeout_s: float = Server.timeout_s

    @property
    def served(self) -> Served:
        server, extra = Server(self.base_url, self.timeout_s), {**VLLM.extra, **RETURN_IDS}
        return Served(Chat(server, self.model, self.max_new_tokens, extra, name_flag="--served_name"))

    def counts(self, problems: Sequence[Problem]) -> list[ServedCounts]:
        """Of every question. Raises UserError, and counts nothing, where one cannot be counted."""
        served = self.served
        served.warm_up(1)
        if served.metrics() is None:
            raise UserError(f"{served.chat.server.root_url}/metrics does not answer: start the server with its metrics")
        return [self._of(served, problem) for problem in tqdm(problems, desc="questions", disable=None)]

    def asked_again(self, found: Sequence[ServedCounts], problems: Sequence[Problem]) -> list[ServedCounts]:
        """The same with what the server answers to `problems` when it is asked once more."""
        served = self.served
        again = {problem.question_id: _ask(served, problem).output_ids for problem in problems}
        return [replace(one, output_again=again.get(one.question_id)) for one in found]

    def _of(self, served: Served, problem: Problem) -> ServedCounts:
        answer = _ask(served, problem)
        counts = _counted(answer.speculation, served, problem)
        return ServedCounts(
            question_id=problem.question_id,
            num_drafted=counts.num_drafted,
            num_accepted=counts.num_accepted,
            num_rounds=counts.num_rounds,
            num_drafts=counts.num_drafts,
            num_tokens=answer.num_tokens,
            accepted_per_position=list(counts.accepted_per_position) or None,
            prompt_ids=answer.prompt_ids,
            output_ids=answer.output_ids,
            finish_reason=answer.finish_reason,
        )


def _ask(served: Served, problem: Problem) -> Answer:
    try:
        return served.ask(problem)
    except InvalidTrial as error:
        raise UserError(
            f"question {problem.question_id} has no whole answer, so nothing is counted: {error}"
        ) from error


def _counted(speculation: Speculation | None, served: Served, problem: Problem) -> Speculation:
    where = f"{served.chat.server.root_url}/metrics"
    if speculation is None:
        raise UserError(
            f"{where} has no counters of speculation that are of question {problem.question_id} alone: start the "
            "server with speculation and metrics, and ask while nobody else does"
        )
    if speculation.is_derived:
        raise UserError(f"{where} has gauges and no counters: give the counts of its log with --counts FILE")
    return speculation
