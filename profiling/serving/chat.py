"""Chat: one question by the OpenAI protocol, streamed: the times and tokens of its answer, and what metrics say of it.

Greedy with every penalty neutral. Servers differ, and all of this is in order: "[DONE]" at the end or not, a first
chunk with a role and no text, usage in the last chunk, in every one or in none, chunks of several tokens.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from profiling.serving.metrics import Metrics, Speculation, between, read_metrics
from profiling.serving.server import KEY_VARIABLE, Refused, Server, lines
from profiling.serving.trials import Answer, InvalidTrial
from specdec.errors import UserError
from specdec.questions.sets import Problem

TEXT_FIELDS = ("content", "reasoning_content", "reasoning")
WARM_UP = "Count from one to one hundred in words."  # no question of any data set, so none is in the server's cache
SETTLE_S, SETTLE_STEP_S = 2.0, 0.02
CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Chat:
    """A model on a server, and how it is asked.

    `extra`: fields added to the request or, where None, left out of it; what a server knows beyond the protocol
    (repetition_penalty). `count_tokens`: of a text, by the model's tokenizer; None: not at hand.
    """

    server: Server
    model: str
    max_tokens: int
    extra: dict[str, Any] = field(default_factory=dict)
    count_tokens: CountTokens | None = None

    @property
    def url(self) -> str:
        return f"{self.server.base_url.rstrip('/')}/chat/completions"

    def body(self, prompt: str) -> dict[str, Any]:
        """The request: plain argmax, streamed, with usage at the end."""
        fields = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
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

    def ask(self, prompt: str) -> Answer:
        """Raises InvalidTrial for an answer that cannot be timed, UserError for what every question would meet."""
        try:
            with self.server.post(self.url, self.body(prompt)) as (response, sent):
                kind = response.headers.get("Content-Type", "something without a type")
                if "event-stream" not in kind:
                    raise UserError(
                        f"{self.url} answered with {kind}, and a stream of events (text/event-stream) was expected: "
                        "give the --base_url of a server that streams chat completions"
                    )
                stream = _read(lines(response, self.url, self.server), self.url)
        except Refused as refused:
            raise UserError(self._why(refused)) from refused
        return self._timed(stream, sent)

    def _timed(self, stream: _Stream, sent: float) -> Answer:
        """The answer's times, from the moments at which its parts came."""
        if stream.first is None:
            raise InvalidTrial(f"{self.url} gave an empty answer (finish_reason {stream.finish_reason})")
        num_tokens, counted_by, end = self._count(stream)
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
        )

    def _count(self, stream: _Stream) -> tuple[int, str, float]:
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
        if by_text is not None and abs(by_text - stream.num_tokens) > 2 + 0.1 * by_text:
            raise InvalidTrial(
                f"{self.url} says it wrote {stream.num_tokens} tokens, and its text has {by_text}: "
                "is --tokenizer the model's?"
            )
        return stream.num_tokens, "usage", max(stream.last, stream.finished or 0.0)

    def _num_first(self, stream: _Stream) -> int:
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
        names = ", ".join(self._model_names()) or "it does not say which"
        return f"{refused}: asked for the model {self.model!r} (--target_model_name; models there: {names})"

    def _model_names(self) -> list[str]:
        try:
            found = json.loads(self.server.get(f"{self.server.base_url.rstrip('/')}/models"))
            return [str(model["id"]) for model in found["data"]]
        except (Refused, UserError, ValueError, KeyError, TypeError):
            return []


@dataclass
class _Stream:
    """What has come of an answer. Moments are of `Server.now`; `num_tokens` and `num_first` are the server's words."""

    text: str = ""
    first_text: str = ""
    first: float | None = None
    last: float = 0.0
    finished: float | None = None
    finish_reason: str | None = None
    num_tokens: int | None = None
    num_first: int | None = None

    def add(self, now: float, chunk: dict[str, Any]) -> None:
        """Take a chunk in. Raises KeyError, TypeError, AttributeError for one that is not a chunk."""
        text = ""
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            text += "".join(delta.get(name) or "" for name in TEXT_FIELDS)
            if choice.get("finish_reason"):
                self.finish_reason, self.finished = str(choice["finish_reason"]), now
        if text:
            self.first = now if self.first is None else self.first
            self.last, self.text = now, self.text + text
            if now == self.first:
                self.first_text = self.text
        usage = chunk.get("usage")
        if usage and usage.get("completion_tokens"):
            self.num_tokens = int(usage["completion_tokens"])
            if self.first == now and self.finished is None:
                self.num_first = self.num_tokens


def _read(arriving: Iterator[tuple[float, str]], url: str) -> _Stream:
    """The whole stream. Raises InvalidTrial for one that is damaged, reports an error or has no end."""
    stream, is_done = _Stream(), False
    for now, line in arriving:
        if not line.startswith("data:"):
            continue  # comments, events' names, empty lines
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            is_done = True
            break
        chunk = _chunk(data, url)
        try:
            stream.add(now, chunk)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InvalidTrial(f"{url} sent {data[:80]!r}, which is not a chat.completion.chunk") from error
    if not is_done and stream.finish_reason is None:
        raise InvalidTrial(f"{url} ended its answer in the middle: neither [DONE] nor a finish_reason came")
    return stream


def _chunk(data: str, url: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidTrial(f"{url} sent {data[:80]!r}, which is not JSON (of a chat.completion.chunk)") from error
    if not isinstance(chunk, dict):
        raise InvalidTrial(f"{url} sent {data[:80]!r}: a chat.completion.chunk was expected")
    if chunk.get("error"):
        raise InvalidTrial(f"{url} reported an error in its answer: {str(chunk['error'])[:160]}")
    return chunk


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
        answer = self.chat.ask(problem.prompt)
        return answer if before is None else replace(answer, speculation=self._speculation(before, answer))

    def metrics(self) -> Metrics | None:
        """A reading of the server's metrics; None if it has none that can be read."""
        try:
            text = self.chat.server.get(f"{self.chat.server.root_url}/metrics")
        except Refused:
            return None
        with suppress(UserError):  # plain decoding needs none; speculation without is refused later
            return read_metrics(text)
        return None

    def _speculation(self, before: Metrics, answer: Answer) -> Speculation | None:
        """What the metrics say of one answer; None where counters also hold somebody else's tokens.

        Counters may follow the answer by a moment, so they are read until they have all of its tokens.
        """
        after, deadline = self.metrics(), time.monotonic() + SETTLE_S
        while after is not None and _num_new(before, after) < answer.num_tokens and time.monotonic() < deadline:
            time.sleep(SETTLE_STEP_S)
            after = self.metrics()
        if after is None:
            return None
        is_alone = abs(_num_new(before, after) - answer.num_tokens) <= max(2, 0.02 * answer.num_tokens)
        found = between(before, after, answer.num_tokens)
        return found if found is None or found.is_derived or is_alone else None


def _num_new(before: Metrics, after: Metrics) -> float:
    """Tokens generated between two readings; without a counter of them, as many as anyone may wait for."""
    if before.num_generated is None or after.num_generated is None:
        return float("inf")
    return after.num_generated - before.num_generated
