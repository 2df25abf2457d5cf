"""A small server that speaks OpenAI's chat protocol on loopback, and misbehaves as it is told.

It never sleeps: time passes only on a `ManualClock`, which client and server share.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

Reply = Callable[["Handler"], None]
HANG_S = 600.0  # only what hangs takes longer, however busy the machine


def text_chunk(text: str | None = None, finish: str | None = None, **more: object) -> bytes:
    delta = {"role": "assistant"} if text is None else {"content": text}
    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return data({**chunk, **more})


def usage_chunk(num_tokens: int) -> bytes:
    return data({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": num_tokens}})


def data(value: object) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def words(count: int) -> list[bytes]:
    return [text_chunk(f"word{index} ") for index in range(count)]


DONE = b"data: [DONE]\n\n"


class ManualClock:
    """Seconds that pass when the server says so, after the client has read, and timed, what it was sent before."""

    def __init__(self) -> None:
        self._seconds, self._num_readings, self._changed = 0.0, 0, threading.Condition()

    def now(self) -> float:
        with self._changed:
            self._num_readings += 1
            self._changed.notify_all()
            return self._seconds

    def sleep(self, seconds: float) -> None:
        with self._changed:
            self._seconds += seconds

    def pass_after_reading(self, write: Callable[[], None], seconds: float) -> None:
        """Let `seconds` pass when the one client has read the time once more: it does so for all that it is sent."""
        with self._changed:
            before = self._num_readings
        write()
        with self._changed:
            assert self._changed.wait_for(lambda: self._num_readings > before, HANG_S), "the client reads nothing"
            self._seconds += seconds


def answer(count: int = 8, *, gap_s: float = 0.002, wait_s: float = 0.0, usage: int | None = -1) -> Reply:
    """`count` tokens, `gap_s` apart, the first after `wait_s` (if the server has a clock: without, at once).

    usage -1: the truth, None: not sent.
    """
    tail = [] if usage is None else [usage_chunk(count if usage < 0 else usage)]

    def reply(handler: Handler) -> None:
        handler.server.owner.count(count)
        handler.stream(())
        handler.write(text_chunk(), wait_s)
        for word in words(count):
            handler.write(word, gap_s)
        handler.write(text_chunk("", "stop"))
        for chunk in [*tail, DONE]:
            handler.write(chunk)
        handler.end()

    return reply


def stream(parts: Iterable[bytes], *, is_cut: bool = False) -> Reply:
    """These bytes, one HTTP chunk each; cut: the connection ends without the end of the answer."""

    def reply(handler: Handler) -> None:
        handler.stream(parts)
        if is_cut:
            handler.connection.close()
        else:
            handler.end()

    return reply


def status(code: int, body: object = None, **headers: str) -> Reply:
    def reply(handler: Handler) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        handler.plain(code, text, headers.pop("content_type", "application/json"), headers)

    return reply


def stall(before: Iterable[bytes] = ()) -> Reply:
    """Silence until the server closes, before the head or (with parts) in the middle."""

    def reply(handler: Handler) -> None:
        parts = list(before)
        if parts:
            handler.stream(parts)
        handler.server.owner.closing.wait()

    return reply


def hang_up(handler: Handler) -> None:
    handler.connection.close()


@dataclass
class FakeServer:
    """`replies` are given in turn, the last one again and again. `metrics`: of the tokens generated so far.

    `clock`: the client's as well, if times matter; then one client at a time.
    """

    replies: list[Reply]
    models: object = None
    metrics: Callable[[int, int], str] | None = None
    clock: ManualClock | None = None
    settings: ClassVar[dict] = {}
    requests: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    num_answers: int = 0
    num_tokens: int = 0
    asked: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> FakeServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.owner = self
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def count(self, num_tokens: int) -> None:
        self.num_answers += 1
        self.num_tokens += num_tokens

    def next_reply(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        owner: FakeServer = self.server.owner
        body = self.rfile.read(int(self.headers["Content-Length"]))
        owner.requests.append({"path": self.path, **json.loads(body)})
        owner.headers.append(dict(self.headers))
        owner.asked.set()
        self.close_connection = True
        owner.next_reply()(self)

    def do_GET(self) -> None:
        owner: FakeServer = self.server.owner
        if self.path == "/metrics" and owner.metrics is not None:
            self.plain(200, owner.metrics(owner.num_answers, owner.num_tokens), "text/plain; version=0.0.4", {})
        elif self.path == "/v1/models" and owner.models is not None:
            self.plain(200, json.dumps(owner.models), "application/json", {})
        elif self.path in ("/version", "/get_server_info"):
            self.plain(200, json.dumps({"version": "0.13.0", **owner.settings}), "application/json", {})
        else:
            self.plain(404, '{"detail": "Not Found"}', "application/json", {})

    def plain(self, code: int, text: str, content_type: str, headers: dict[str, str]) -> None:
        body = text.encode()
        self.send_response(code)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def stream(self, parts: Iterable[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            self.write(part)

    def write(self, part: bytes, then_s: float = 0.0) -> None:
        """One HTTP chunk; `then_s` pass after it, on the server's clock."""
        send = partial(self.wfile.write, f"{len(part):x}\r\n".encode() + part + b"\r\n")
        clock = self.server.owner.clock
        if clock is None:
            send()
        else:
            clock.pass_after_reading(send, then_s)

    def end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")


STEPS, OLDER_STEPS = "vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"


def vllm_metrics(
    drafts_per_answer: int = 0,
    drafted_each: int = 3,
    accepted: tuple[int, ...] = (3, 2, 1),
    steps_per_answer: int | None = None,
    steps_name: str = STEPS,
) -> Callable:
    """Text as vLLM 0.13 serves it, as if every answer took these drafts, this many accepted up to each position.

    `steps_per_answer`: decode steps, with a draft or without; None: no histogram of them.
    """

    def text(num_answers: int, num_tokens: int) -> str:
        labels = 'engine="0",model_name="m"'
        lines = [
            "# HELP python_gc_objects_collected_total Objects collected during gc",
            "# TYPE python_gc_objects_collected_total counter",
            'python_gc_objects_collected_total{generation="0"} 9951.0',
            "# HELP vllm:generation_tokens_total Number of generation tokens processed.",
            "# TYPE vllm:generation_tokens_total counter",
            f"vllm:generation_tokens_total{{{labels}}} {100 + num_tokens}.0",
            "# HELP vllm:generation_tokens_created Number of generation tokens processed.",
            "# TYPE vllm:generation_tokens_created gauge",
            f"vllm:generation_tokens_created{{{labels}}} 1.7639e+09",
        ]
        if drafts_per_answer:
            drafts = 5 + num_answers * drafts_per_answer
            lines += [
                "# HELP vllm:spec_decode_num_drafts_total Number of spec decoding drafts.",
                "# TYPE vllm:spec_decode_num_drafts_total counter",
                f"vllm:spec_decode_num_drafts_total{{{labels}}} {drafts}.0",
                f"vllm:spec_decode_num_drafts_created{{{labels}}} 1.7639e+09",
                f"vllm:spec_decode_num_draft_tokens_total{{{labels}}} {drafts * drafted_each}.0",
                f"vllm:spec_decode_num_accepted_tokens_total{{{labels}}} {4 + num_answers * sum(accepted)}.0",
            ]
            lines += [
                f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{{labels},position="{position}"}} '
                f"{2 - min(position, 2) + num_answers * value}.0"
                for position, value in enumerate(accepted)
            ]
        if steps_per_answer is not None:
            lines.append(f"{steps_name}_count{{{labels}}} {7 + num_answers * steps_per_answer}.0")
        return "\n".join(lines) + "\n"

    return text


def sglang_metrics(accept_len: float = 0.0, accept_rate: float = 0.0) -> Callable:
    """Text as SGLang 0.5.6 serves it with --enable-metrics."""

    def text(_: int, num_tokens: int) -> str:
        labels = 'engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"'
        return (
            "# HELP sglang:generation_tokens_total Number of generation tokens processed.\n"
            "# TYPE sglang:generation_tokens_total counter\n"
            f'sglang:generation_tokens_total{{model_name="m"}} {num_tokens}.0\n'
            "# HELP sglang:spec_accept_length The average acceptance length of speculative decoding.\n"
            "# TYPE sglang:spec_accept_length gauge\n"
            f"sglang:spec_accept_length{{{labels}}} {accept_len}\n"
            "# TYPE sglang:spec_accept_rate gauge\n"
            f"sglang:spec_accept_rate{{{labels}}} {accept_rate}\n"
            "# TYPE sglang:token_usage gauge\n"
            f"sglang:token_usage{{{labels}}} 0.28\n"
        )

    return text
