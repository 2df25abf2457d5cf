"""Chat: one question by the OpenAI protocol, streamed: the times and tokens of its answer, and what metrics say of it.

Greedy with every penalty neutral. `stream.py` takes the answer apart; whether it counts is decided there and here: only
an answer that is known to be whole does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from profiling.serving.metrics import Metrics, Speculation, between, is_alone, num_new, read_metrics
from profiling.serving.server import KEY_VARIABLE, Refused, Server, error_in, lines, text_of
from profiling.serving.stream import LENGTH, OPENAI_ENDS, Stream, read_stream
from profiling.serving.trials import Answer, InvalidTrial
from specdec.errors import MALFORMED, UserError
from specdec.questions.problem import USER, Problem

WARM_UP = "Count from one to one hundred in words."  # no question of any data set, so none is in the server's cache
SETTLE_S, SETTLE_STEP_S = 2.0, 0.02
CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Chat:
    """A model on a server, and how it is asked.

    `extra`: fields added to the request or, where None, left out of it; what a server knows beyond the protocol
    (repetition_penalty). `count_tokens`: of a text, by the model's tokenizer; None: not at hand. `ends`: the reasons
    for which this server finishes a whole answer. `name_flag`: by which a user names the model.
    """

    server: Server
    model: str
    max_tokens: int
    extra: dict[str, Any] = field(default_factory=dict)
    count_tokens: CountTokens | None = None
    ends: Mapping[str, str] = field(default_factory=lambda: OPENAI_ENDS)
    name_flag: str = "--target_model_name"

    @property
    def url(self) -> str:
        return f"{self.server.base_url.rstrip('/')}/chat/completions"

    @property
    def budget(self) -> int:
        """The most tokens of an answer, as the request says it; 0: it does not."""
        asked = self.extra.get("max_completion_tokens") or self.extra.get("max_tokens", self.max_tokens)
        return asked if isinstance(asked, int) else 0

    def body(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """The request: plain argmax, streamed, with usage at the end."""
        fields = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": self.max_tokens,
            "temperature": 0.0,
            "top_p": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extra,
        }
        return {key: value for key, value in fields.items() if value is not None}

    def ask(self, prompt: str | Sequence[Mapping[str, str]]) -> Answer:
        """The answer to a prompt, or to messages.

        Raises InvalidTrial for an answer that cannot be timed, UserError for what every question would meet.
        """
        try:
            messages = [{"role": USER, "content": prompt}] if isinstance(prompt, str) else prompt
            with self.server.post(self.url, self.body(messages)) as (response, sent):
                kind = response.headers.get("Content-Type", "something without a type")
                if "event-stream" not in kind:
                    raise self._no_stream(kind, text_of(response))
                stream = read_stream(lines(response, self.url, self.server), self.url, self.ends)
        except Refused as refused:
            raise UserError(self._why(refused)) from refused
        return self._timed(stream, sent)

    def _no_stream(self, kind: str, body: str) -> Exception:
        """Why a body that is not a stream is not an answer: an error of this one, or the wrong sort of server."""
        if (error := error_in(body)) is not None:
            return InvalidTrial(f"{self.url} reported an error in its answer: {error}")
        return UserError(
            f"{self.url} answered with {kind}, and a stream of events (text/event-stream) was expected: "
            "give the --base_url of a server that streams chat completions"
        )

    def _timed(self, stream: Stream, sent: float) -> Answer:
        """The answer's times, from the moments at which its parts came."""
        if stream.first is None:
            raise InvalidTrial(f"{self.url} gave an empty answer (finish_reason {stream.finish_reason})")
        num_tokens, counted_by, end = self._count(stream)
        if stream.finish_reason == LENGTH and num_tokens + _slack(self.budget) < self.budget:
            raise InvalidTrial(
                f"{self.url} ended for its length after {num_tokens} of {self.budget} tokens: is its context too short?"
            )
        num_timed = num_tokens - self._num_first(stream)
        if num_timed < 1 or end <= stream.first:
            raise InvalidTrial(
                f"{self.url} stopped after {num_tokens} tokens that came at once, and no time per token can be told "
                f"(finish_reason {stream.finish_reason})"
            )
        return Answer(
            num_tokens=num_tokens,
            num_timed=num_timed,
            ttft_ms=1e3 * (stream.first - sent),
            decode_ms=1e3 * (end - stream.first),
            counted_by=counted_by,
            finish_reason=stream.finish_reason,
            prompt_ids=stream.prompt_ids or None,
            output_ids=stream.output_ids if len(stream.output_ids) == num_tokens else None,
        )

    def _count(self, stream: Stream) -> tuple[int, str, float]:
        """(tokens, who counted them, the moment of the last).

        Usage counts the stop token as well, which shows no text but comes with the finish. It is not believed where
        the text has other numbers: tokenizing a text again may differ from writing it by a little, not by a tenth.
        """
        by_text = None if self.count_tokens is None else self.count_tokens(stream.text)
        if stream.num_tokens is None:
            if by_text is None:
                raise UserError(
                    f"{self.url} does not say how many tokens it wrote (usage): give --tokenizer, "
                    "the model's folder, to count them"
                )
            return by_text, "tokenizer", stream.last
        if by_text is not None and abs(by_text - stream.num_tokens) > _slack(by_text):
            raise InvalidTrial(
                f"{self.url} says it wrote {stream.num_tokens} tokens, and its text has {by_text}: "
                "is --tokenizer the model's?"
            )
        if stream.num_parts - stream.num_tokens > _slack(stream.num_parts):
            raise InvalidTrial(
                f"{self.url} says it wrote {stream.num_tokens} tokens, and sent {stream.num_parts} pieces of text"
            )
        return stream.num_tokens, "usage", max(stream.last, stream.finished or 0.0)

    def _num_first(self, stream: Stream) -> int:
        """How many tokens came together at the first moment."""
        if stream.num_first is not None:
            return stream.num_first
        return 1 if self.count_tokens is None else max(1, self.count_tokens(stream.first_text))

    def _why(self, refused: Refused) -> str:
        """What to do about a request that was turned away."""
        if refused.status in (401, 403):
            has_key = "is not the one" if self.server.api_key else "is missing"
            return f"{refused}: its key {has_key}: put it into the environment variable {KEY_VARIABLE}"
        if refused.status not in (400, 404, 422):
            return str(refused)
        if _is_of_length(str(refused)):
            return f"{refused}: ask for fewer tokens (--max_new_tokens), or start it with a longer context"
        names = ", ".join(self._model_names()) or "it does not say which"
        return f"{refused}: asked for the model {self.model!r} ({self.name_flag}; models there: {names})"

    def _model_names(self) -> list[str]:
        try:
            found = json.loads(self.server.get(f"{self.server.base_url.rstrip('/')}/models"))
            return [str(model["id"]) for model in found["data"]]
        except (Refused, UserError, *MALFORMED):
            return []


def _is_of_length(refusal: str) -> bool:
    """Whether a request was turned away for the tokens that it asks for, in the words of vLLM, SGLang and others."""
    return any(word in refusal for word in ("max_tokens", "max_completion_tokens", "context length", "context_length"))


def _slack(num_tokens: int) -> float:
    """By how much two counts of the same tokens may differ."""
    return 2 + 0.1 * num_tokens


@dataclass(frozen=True)
class Served:
    """A model that answers problems. `reads_metrics`: around each answer, so of one question at a time."""

    chat: Chat
    reads_metrics: bool = True

    def warm_up(self, times: int) -> None:
        """Answers that do not count, whatever they are. Raises UserError for what every question would meet."""
        for _ in range(times):
            with suppress(InvalidTrial):
                self.chat.ask(WARM_UP)

    def ask(self, problem: Problem) -> Answer:
        """One question's answer, with its speculation where the server tells."""
        before = self.metrics() if self.reads_metrics else None
        answer = self.chat.ask(problem.messages)
        return answer if before is None else replace(answer, speculation=self._speculation(before, answer))

    def metrics(self) -> Metrics | None:
        """A reading of the server's metrics; None if it has none that can be read: then nothing is known of them."""
        with suppress(Refused, UserError):  # plain decoding needs none; speculation without is refused later
            return read_metrics(self.chat.server.get(f"{self.chat.server.root_url}/metrics"))
        return None

    def metrics_after(self, before: Metrics, num_tokens: int) -> Metrics | None:
        """A reading that has all tokens of answers since `before`: counters may follow an answer by a moment."""
        after, deadline = self.metrics(), time.monotonic() + SETTLE_S
        while after is not None and num_new(before, after) < num_tokens and time.monotonic() < deadline:
            time.sleep(SETTLE_STEP_S)
            after = self.metrics()
        return after

    def _speculation(self, before: Metrics, answer: Answer) -> Speculation | None:
        """What the metrics say of one answer; None where counters also hold somebody else's tokens."""
        after = self.metrics_after(before, answer.num_tokens)
        if after is None:
            return None
        found = between(before, after, answer.num_tokens - 1)
        return found if found is None or found.is_derived or is_alone(before, after, answer.num_tokens) else None
