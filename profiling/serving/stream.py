"""Stream: one answer as an OpenAI server streams it, taken apart line by line, and whether it came to its end.

It connects to nothing and counts no tokens (`chat.py` does). Servers differ, and all of this is in order: "[DONE]" at
the end or not, a first chunk with a role and no text, usage in the last chunk, in every one or in none, chunks of
several tokens. An answer without a reason to have finished, or with one that is not an end, is not whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from profiling.serving.trials import InvalidTrial
from specdec.errors import MALFORMED

TEXT_FIELDS = ("content", "reasoning_content", "reasoning")
STOP, LENGTH = "stop", "length"  # the model's own end, and the budget
# The reasons for which an answer is whole, by the words of each protocol. What is not listed is not an end: abort,
# error, content_filter, tool_calls, cancelled, and whatever a server invents.
OPENAI_ENDS = {"stop": STOP, "length": LENGTH}
ALL_ENDS = {**OPENAI_ENDS, "eos_token": STOP, "stop_sequence": STOP, "end_turn": STOP, "max_tokens": LENGTH}
_FIELD = re.compile(r"(data|event|id|retry)(:|$)|:|$")  # what a line of an event stream begins with


@dataclass
class Stream:
    """What has come of an answer. Moments are of `Server.now`; `num_tokens` and `num_first` are the server's words.

    `num_parts`: pieces of text. `finish_reason` is the server's until `read_stream` has made it STOP or LENGTH.
    `prompt_ids` and `output_ids`: tokens, where they were asked for (`return_token_ids`) and the server says them.
    """

    text: str = ""
    first_text: str = ""
    first: float | None = None
    last: float = 0.0
    finished: float | None = None
    finish_reason: str | None = None
    num_tokens: int | None = None
    num_first: int | None = None
    num_parts: int = 0
    prompt_ids: list[int] = field(default_factory=list)
    output_ids: list[int] = field(default_factory=list)

    def add(self, now: float, chunk: dict[str, Any]) -> None:
        """Take a chunk in. Raises KeyError, TypeError, AttributeError, ValueError for one that is not a chunk."""
        text, was_finished = "", self.finished is not None
        self.prompt_ids = self.prompt_ids or _tokens(chunk)
        for choice in chunk.get("choices") or ():
            text += self._choice(now, choice)
        if text and was_finished:
            raise ValueError("text after the end")
        if text:
            self.first = now if self.first is None else self.first
            self.last, self.text, self.num_parts = now, self.text + text, self.num_parts + 1
            if now == self.first:
                self.first_text = self.text
        usage = chunk.get("usage")
        if usage and usage.get("completion_tokens"):
            self.num_tokens = _count(usage["completion_tokens"], self.num_tokens)
            if self.first == now and self.finished is None:
                self.num_first = self.num_tokens

    def _choice(self, now: float, choice: dict[str, Any]) -> str:
        """The text of a chunk's choice; its finish is taken down."""
        if choice.get("index") not in (None, 0):
            raise ValueError("a second answer")
        if choice.get("finish_reason"):
            reason = str(choice["finish_reason"])
            if self.finish_reason not in (None, reason):
                raise ValueError("another end")
            self.finish_reason, self.finished = reason, now
        self.output_ids += _tokens(choice)
        delta = choice.get("delta") or {}
        return "".join(delta.get(name) or "" for name in TEXT_FIELDS)


def read_stream(arriving: Iterator[tuple[float, str]], url: str, ends: Mapping[str, str] = OPENAI_ENDS) -> Stream:
    """The whole stream. Raises InvalidTrial for one that is damaged, reports an error or did not come to its end."""
    stream = Stream()
    for now, line in arriving:
        data = _data_of(line, url)
        if data == "[DONE]":
            break
        if data is None:
            continue
        chunk = _chunk(data, url)
        try:
            stream.add(now, chunk)
        except MALFORMED as error:
            raise InvalidTrial(f"{url} sent {data[:80]!r}, which is not a chat.completion.chunk here") from error
    reason = stream.finish_reason
    if reason is None:
        raise InvalidTrial(f"{url} ended its answer in the middle: no finish_reason came")
    if reason not in ends:
        raise InvalidTrial(f"{url} gave its answer up (finish_reason {reason[:40]!r}; an end is {', '.join(ends)})")
    stream.finish_reason = ends[reason]
    return stream


def _data_of(line: str, url: str) -> str | None:
    """What a line hands over; None for comments, events' names and empty lines. InvalidTrial for what is none."""
    if not _FIELD.match(line):
        raise InvalidTrial(f"{url} sent {line[:80]!r} among its events")
    if line.startswith("event:") and line.removeprefix("event:").strip() == "error":
        raise InvalidTrial(f"{url} reported an error in its answer")
    return line.removeprefix("data:").strip() if line.startswith("data:") else None


def _chunk(data: str, url: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidTrial(f"{url} sent {data[:80]!r}, which is not JSON (of a chat.completion.chunk)") from error
    if not isinstance(chunk, dict):
        raise InvalidTrial(f"{url} sent {data[:80]!r}: a chat.completion.chunk was expected")
    if (reported := _error_of(chunk)) is not None:
        raise InvalidTrial(f"{url} reported an error in its answer: {' '.join(str(reported).split())[:160]}")
    return chunk


def _error_of(chunk: dict[str, Any]) -> Any:
    """The error that a chunk reports, in itself or in one of its choices; None: it reports none."""
    if chunk.get("object") == "error":
        return chunk.get("message", chunk)
    choices = chunk.get("choices")
    parts = [chunk, *(choices if isinstance(choices, list) else ())]
    if "choices" not in chunk and not chunk.get("usage"):
        return chunk.get("error") or chunk
    return next((part["error"] for part in parts if isinstance(part, dict) and part.get("error")), None)


def _tokens(part: dict[str, Any]) -> list[int]:
    """The tokens that a chunk says of its prompt, or a choice of its text. Raises ValueError for what is none."""
    found = part.get("prompt_token_ids") or part.get("token_ids") or []
    if not isinstance(found, list) or not all(type(one) is int and one >= 0 for one in found):
        raise ValueError("token_ids")
    return found


def _count(value: Any, before: int | None) -> int:
    """A number of tokens so far, as usage says it. Raises ValueError for what is none, or is fewer than before."""
    if type(value) is not int or value < (before or 1):
        raise ValueError("completion_tokens")
    return value
