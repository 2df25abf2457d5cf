"""The streaming client against a server that does what servers rarely do."""

from __future__ import annotations

import http.client
import socket
from typing import Any

import pytest
from fake_server import (
    DONE,
    HANG_S,
    FakeServer,
    answer,
    data,
    hang_up,
    stall,
    status,
    stream,
    text_chunk,
    usage_chunk,
    words,
)

from profiling.serving.chat import Chat
from profiling.serving.server import Server
from profiling.serving.trials import InvalidTrial
from specdec.errors import UserError


def count_words(text: str) -> int:
    return len(text.split())


def chat(server: FakeServer, **more: object) -> Chat:
    return Chat(Server(server.url, timeout_s=HANG_S, first_wait_s=0.01), "m", 16, **more)


def ask(*replies, **more):
    with FakeServer(list(replies)) as server:
        return chat(server, **more).ask("Why?")


def test_prompt_time_and_time_per_token_are_kept_apart(clock):
    with FakeServer([answer(9, wait_s=0.1, gap_s=0.02)], clock=clock) as server:
        found = chat(server).ask("Why?")
    assert (found.num_tokens, found.num_timed, found.counted_by, found.finish_reason) == (9, 8, "usage", "stop")
    assert found.ttft_ms == pytest.approx(100)
    # The finish comes one gap after the last word: the time of the ninth, which usage counts.
    assert found.ms_per_token == pytest.approx(20 * 9 / 8)


def test_the_request_is_greedy_with_neutral_penalties_and_streams_with_usage():
    with FakeServer([answer()]) as server:
        chat(server, extra={"repetition_penalty": 1.0, "top_p": None}).ask("Why?")
    (request,) = server.requests
    assert request["messages"] == [{"role": "user", "content": "Why?"}] and request["max_tokens"] == 16
    assert request["temperature"] == 0 and request["presence_penalty"] == 0 and request["frequency_penalty"] == 0
    assert request["stream"] is True and request["stream_options"] == {"include_usage": True}
    assert request["repetition_penalty"] == 1.0 and "top_p" not in request


def test_tokens_are_counted_by_the_tokenizer_where_usage_is_not_sent():
    parts = [text_chunk("one two three "), text_chunk("four "), text_chunk("five six "), text_chunk("", "stop"), DONE]
    found = ask(stream(parts), count_tokens=count_words)
    assert (found.num_tokens, found.num_timed, found.counted_by) == (6, 3, "tokenizer")
    with pytest.raises(UserError, match=r"chat/completions does not say.*--tokenizer"):
        ask(stream(parts))


def test_tokens_that_come_together_first_are_not_timed():
    """By usage in every chunk, as vLLM sends it."""
    parts = [
        text_chunk("one two three ", usage={"completion_tokens": 3}),
        text_chunk("four five ", usage={"completion_tokens": 5}),
        text_chunk("", "stop", usage={"completion_tokens": 6}),
    ]
    assert (ask(stream(parts)).num_tokens, ask(stream(parts)).num_timed) == (6, 3)


def test_no_done_is_an_end_if_it_has_finished_and_none_if_not():
    assert ask(stream([*words(4), text_chunk("", "stop"), usage_chunk(5)])).num_tokens == 5
    with pytest.raises(InvalidTrial, match="in the middle"):
        ask(stream(words(4)))


def test_half_a_character_is_put_together_and_a_broken_one_does_not_hurt():
    euro = text_chunk("1 € ")
    cut = euro.index("€".encode()) + 1
    parts = [text_chunk("a "), euro[:cut], euro[cut:], text_chunk("2 "), text_chunk("", "stop"), DONE]
    seen = []
    ask(stream(parts), count_tokens=lambda text: seen.append(text) or count_words(text))
    assert "a 1 € 2 " in seen
    broken = [text_chunk("a "), euro[:cut] + euro[cut + 2 :], text_chunk("", "stop"), usage_chunk(3)]
    assert ask(stream(broken)).num_tokens == 3


def test_comments_names_of_events_and_carriage_returns_are_read_past():
    parts = [b": ping\r\n\r\n", b"event: message\r\n" + words(1)[0], *words(3), text_chunk("", "stop"), usage_chunk(5)]
    assert ask(stream([part.replace(b"\n\n", b"\r\n\r\n") for part in parts])).num_tokens == 5


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (stream(words(3), is_cut=True), "cut its answer off"),
        (stream([*words(2), b"data: {broken\n\n"]), "not JSON"),
        (stream([*words(2), b"data: [1]\n\n"]), "chunk was expected"),
        (stream([*words(2), data({"choices": [3]})]), "not a chat.completion.chunk"),
        (stream([*words(2), data({"error": {"message": "out of memory"}})]), "out of memory"),
        (stream([text_chunk(), text_chunk("", "stop"), DONE]), "empty answer"),
        (stream([text_chunk("one"), text_chunk("", "stop"), usage_chunk(1), DONE]), "stopped after 1 tokens"),
    ],
    ids=["cut", "json", "list", "chunk", "error", "empty", "stops_at_once"],
)
def test_an_answer_that_cannot_be_timed_does_not_count_and_is_not_asked_again(reply, why):
    with FakeServer([reply, answer()]) as server, pytest.raises(InvalidTrial, match=why) as caught:
        chat(server).ask("Why?")
    assert str(caught.value).startswith(server.url) and len(server.requests) == 1


class PatientAtFirst(Server):
    """Waits for the head of an answer as long as it takes, so that only its parts can be late."""

    def _send(self, connection: http.client.HTTPConnection, *request: Any) -> http.client.HTTPResponse | None:
        connection.sock.settimeout(HANG_S)
        response = super()._send(connection, *request)
        connection.sock.settimeout(self.timeout_s)
        return response


@pytest.mark.parametrize(
    ("reply", "kind", "why"),
    [
        (stall(), Server, "was silent for 0.3 s"),
        (stall(words(3)), PatientAtFirst, "stopped in the middle of an answer for 0.3 s"),
    ],
    ids=["stall", "stall_inside"],
)
def test_an_answer_that_never_comes_does_not_count_and_is_not_asked_again(reply, kind, why):
    with FakeServer([reply, answer()]) as server:
        with pytest.raises(InvalidTrial, match=why) as caught:
            Chat(kind(server.url, timeout_s=0.3), "m", 16).ask("Why?")
        assert server.asked.wait(HANG_S)  # the client may have given up before the server's thread has read the request
    assert str(caught.value).startswith(server.url) and len(server.requests) == 1


def test_usage_that_disagrees_with_the_text_does_not_count():
    with pytest.raises(InvalidTrial, match="says it wrote 99 tokens, and its text has 8"):
        ask(answer(8, usage=99), count_tokens=count_words)
    assert ask(answer(8, usage=9), count_tokens=count_words).num_tokens == 9  # the stop token has no text


def test_being_turned_away_is_tried_again_and_timed_from_the_request_that_got_the_answer(clock):
    busy = status(429, {"error": {"message": "slow down"}}, Retry_After="0")
    with FakeServer([busy, status(500, "oops"), hang_up, answer(5, wait_s=0.1)], clock=clock) as server:
        found = chat(server).ask("Why?")
    assert found.num_tokens == 5 and found.ttft_ms == pytest.approx(100) and len(server.requests) == 4


def test_what_the_server_asks_to_wait_is_waited(clock):
    with FakeServer([status(429, "busy", Retry_After="7"), answer(5, wait_s=0.1, gap_s=0.5)], clock=clock) as server:
        found = chat(server).ask("Why?")
    assert clock.now() == pytest.approx(7 + 0.1 + 5 * 0.5) and found.ttft_ms == pytest.approx(100)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (status(500, {"error": {"message": "CUDA error"}}), "answered 500: CUDA error"),
        (status(404, {"error": {"message": "no model m"}}), r"no model m: asked for the model 'm'.*there: a, b"),
        (status(422, {"detail": [{"msg": "bad"}]}), "answered 422"),
        (status(401, {"error": "who?"}), r"who\?: its key is missing: put it into.* OPENAI_API_KEY"),
        (status(200, "<html>", content_type="text/html"), "with text/html, and a stream of events"),
        (status(200, {"choices": []}), "with application/json, and a stream of events"),
        (hang_up, "closed the connection without an answer 4 times"),
    ],
    ids=["500", "model", "422", "key", "html", "no_stream", "hang_up"],
)
def test_what_every_question_would_meet_is_an_error_that_names_the_url(reply, why, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with (
        FakeServer([reply], models={"data": [{"id": "a"}, {"id": "b"}]}) as server,
        pytest.raises(UserError, match=why) as caught,
    ):
        chat(server).ask("Why?")
    assert server.url in str(caught.value)


def test_the_key_is_sent_and_never_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    with FakeServer([status(403, "no")]) as server, pytest.raises(UserError, match="is not the one") as caught:
        chat(server).ask("Why?")
    assert server.headers[0]["Authorization"] == "Bearer sesame"
    assert "sesame" not in str(caught.value) + repr(Server(server.url))


def test_no_server_and_no_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=f"no server answers at {url}"):
            Chat(Server(url), "m", 16).ask("Why?")
    with pytest.raises(UserError, match="not a URL"):
        Server("127.0.0.1:8000")
