"""Which streamed answers are whole, and that no bytes of a server are worse than one line. Without a server."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from examples import many
from fake_server import DONE, data, text_chunk, usage_chunk, words
from hypothesis import given
from hypothesis import strategies as st

from experiments.damage import damaged
from profiling.profile_dataset_output import SERVER as ANY_SERVER
from profiling.profile_tpt_sglang import SGLANG
from profiling.profile_tpt_vllm import VLLM
from profiling.profile_tpt_vllm_eagle3 import EAGLE3
from profiling.serving.chat import Chat
from profiling.serving.server import Server
from profiling.serving.trials import Answer, InvalidTrial
from specdec.errors import UserError

BUDGET = 16
STOP = text_chunk("", "stop")


class Canned(Server):
    """A server that has said already what it says."""

    body, kind = b"", "text/event-stream"

    @contextmanager
    def post(self, url: str, body: dict) -> Iterator[tuple[Any, float]]:
        yield Response(io.BytesIO(self.body), {"Content-Type": self.kind}), self.now()


@dataclass
class Response:
    file: io.BytesIO
    headers: dict[str, str]

    def read1(self, size: int) -> bytes:
        return self.file.read(min(size, 40))

    def read(self, size: int) -> bytes:
        return self.file.read(size)


def heard(*parts: bytes, kind: str = "text/event-stream", **more: Any) -> Answer:
    """What the client makes of these bytes; a count of words is at hand where `more` says so."""
    server = Canned("http://127.0.0.1:9/v1")
    object.__setattr__(server, "body", b"".join(parts))
    object.__setattr__(server, "kind", kind)
    return Chat(server, "m", more.pop("max_tokens", BUDGET), **more).ask("Why?")


@pytest.mark.parametrize("engine", [VLLM, SGLANG, EAGLE3, ANY_SERVER], ids=lambda engine: engine.module)
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_the_two_ends_of_the_protocol_count_on_every_server(engine, reason):
    answer = heard(*words(BUDGET), text_chunk("", reason), usage_chunk(BUDGET), DONE, ends=engine.ends)
    assert (answer.num_tokens, answer.finish_reason) == (BUDGET, reason)


def test_other_words_for_an_end_are_known_where_the_server_is_any():
    answer = heard(*words(4), text_chunk("", "eos_token"), usage_chunk(5), DONE, ends=ANY_SERVER.ends)
    assert answer.finish_reason == "stop"
    with pytest.raises(InvalidTrial, match="'eos_token'"):
        heard(*words(4), text_chunk("", "eos_token"), usage_chunk(5), DONE, ends=VLLM.ends)


REASONS = ("abort", "error", "content_filter", "tool_calls", "function_call", "cancelled", "timeout", "STOP", {"a": 1})


@pytest.mark.parametrize("reason", REASONS, ids=str)
@pytest.mark.parametrize("tail", [[DONE], []], ids=["done", "closed"])
def test_a_reason_that_is_not_an_end_does_not_count(reason, tail):
    with pytest.raises(InvalidTrial, match="gave its answer up"):
        heard(*words(5), text_chunk("", reason), usage_chunk(5), *tail)


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        ([DONE], "no finish_reason"),
        ([], "no finish_reason"),
        ([usage_chunk(5), DONE], "no finish_reason"),
        ([STOP[:-20]], "not JSON"),
        ([data({"object": "error", "message": "preempted", "code": 500}), DONE], "preempted"),
        ([STOP, data({"error": {"message": "late"}}), DONE], "late"),
        ([data({"choices": [{"index": 0, "delta": {}, "error": {"message": "upstream"}}]}), STOP], "upstream"),
        ([data({"detail": "gone"}), STOP, usage_chunk(5), DONE], "gone"),
        ([b"event: error\ndata: {}\n\n", STOP, usage_chunk(5), DONE], "reported an error"),
        ([b'{"error": "worker died"}\n'], "worker died"),
        ([b"Internal Server Error\n", STOP, DONE], "among its events"),
        ([STOP, text_chunk("", "abort"), usage_chunk(5), DONE], "chunk here"),
        ([STOP, *words(1), usage_chunk(6), DONE], "chunk here"),
        ([data({"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]})], "chunk here"),
        ([STOP, data({"choices": [], "usage": {"completion_tokens": "5"}}), DONE], "chunk here"),
        ([STOP, usage_chunk(-5), DONE], "chunk here"),
        ([STOP, usage_chunk(5), usage_chunk(3), DONE], "chunk here"),
        ([*words(15), STOP, usage_chunk(5), DONE], "wrote 5 tokens, and sent 20 pieces"),
        ([text_chunk("", "length"), usage_chunk(5), DONE], "its length after 5 of 16 tokens"),
    ],
)
def test_what_is_not_known_to_be_whole_does_not_count(tail, why):
    with pytest.raises(InvalidTrial, match=why):
        heard(*words(5), *tail)


def test_an_answer_without_text_or_in_other_fields_does_not_count():
    called = data({"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]})
    for parts in ([text_chunk()], [called], [text_chunk("")]):
        with pytest.raises(InvalidTrial, match="empty answer"):
            heard(*parts, STOP, usage_chunk(5), DONE)


def test_a_budget_that_the_request_names_otherwise_is_the_one_that_counts():
    parts = [*words(5), text_chunk("", "length"), usage_chunk(5), DONE]
    assert heard(*parts, extra={"max_tokens": 5}).num_tokens == 5
    assert heard(*parts, extra={"max_tokens": None, "max_completion_tokens": 5}).num_tokens == 5
    assert heard(*parts, extra={"max_tokens": None}).num_tokens == 5


@pytest.mark.parametrize("body", [{"error": {"message": "overloaded"}}, {"object": "error", "message": "overloaded"}])
def test_an_error_with_status_200_is_a_trial_that_does_not_count(body):
    with pytest.raises(InvalidTrial, match="reported an error in its answer: overloaded"):
        heard(json.dumps(body).encode(), kind="application/json")
    with pytest.raises(InvalidTrial, match="overloaded"):
        heard(json.dumps(body).encode() + b"\n")
    with pytest.raises(UserError, match="a stream of events"):
        heard(b'{"choices": []}', kind="application/json")


WHOLE = (
    b"".join([text_chunk(), *words(8), STOP, usage_chunk(9), DONE]),
    b"".join(
        [text_chunk("a b ", usage={"completion_tokens": 2}), text_chunk("c", "stop", usage={"completion_tokens": 4})]
    ),
    b": ping\r\n\r\nevent: message\r\n" + b"".join([*words(5), text_chunk("", "length"), usage_chunk(16)]),
)


@many(400)
@given(st.integers(0, 2**64), st.sampled_from(WHOLE))
def test_a_damaged_stream_is_an_answer_or_one_line_and_never_a_traceback(seed, original):
    counts = {} if seed % 2 else {"count_tokens": lambda text: len(text.split())}
    try:
        answer = heard(damaged(original, random.Random(seed)), **counts)
    except (InvalidTrial, UserError) as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert answer.finish_reason in ("stop", "length") and answer.num_timed > 0 and answer.ms_per_token > 0
