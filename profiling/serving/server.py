"""Server: HTTP to one inference server, with timeouts, retries and errors that name the URL.

It knows no protocol above HTTP: what is asked, and what the lines of an answer mean, is `chat.py`'s. The standard
library's client is used, because what matters here is the moment at which each byte arrives.
"""

import http.client
import json
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from profiling.serving.trials import InvalidTrial
from specdec.errors import MALFORMED, UserError

KEY_VARIABLE = "OPENAI_API_KEY"
READ_BYTES = 1 << 16
TRY_AGAIN = (429, 500, 502, 503, 504)
MAX_TRIES = 4
MAX_WAIT_S = 30.0


@dataclass(frozen=True)
class Server:
    """One server. `base_url` is that of its OpenAI protocol ("http://127.0.0.1:8000/v1").

    `timeout_s`: the longest silence that is waited for. `first_wait_s`: the pause before the second try of a request
    that was turned away; it doubles. The key is in no message.
    """

    base_url: str
    timeout_s: float = 120.0
    first_wait_s: float = 0.5
    api_key: str | None = field(default_factory=lambda: os.environ.get(KEY_VARIABLE) or None, repr=False)

    now = staticmethod(time.perf_counter)  # seconds, the clock of every moment here: tests put theirs in its place
    sleep = staticmethod(time.sleep)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--base_url {self.base_url} is not a URL such as http://127.0.0.1:8000/v1")

    @property
    def root_url(self) -> str:
        """Where /metrics is: the URL without its "/v1"."""
        return self.base_url.rstrip("/").removesuffix("/v1")

    def get(self, url: str) -> str:
        """The text at `url`. Raises Refused for any status but 200, UserError if no server answers."""
        connection = self._connect(url)
        try:
            connection.request("GET", _path(url), headers=self._headers())
            response = connection.getresponse()
            text = response.read().decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise UserError(f"{url} broke off its answer ({_reason(error)})") from error
        finally:
            connection.close()
        if response.status != 200:
            raise Refused(url, response.status, text)
        return text

    @contextmanager
    def post(self, url: str, body: dict) -> Iterator[tuple[http.client.HTTPResponse, float]]:
        """The answer to a POST, unread, and the moment (`now`) at which the request that got it was sent.

        A request that is turned away before its answer begins is sent again; one that has begun to be answered never
        is, so that nothing is generated or counted twice. Raises Refused when it is turned away for good, InvalidTrial
        for a silence of `timeout_s`, UserError if no server answers.
        """
        wait_s = self.first_wait_s
        for tries_left in reversed(range(MAX_TRIES)):
            connection = self._connect(url)
            try:
                sent = self.now()
                response = self._send(connection, url, body)
                if response is not None and response.status == 200:
                    yield response, sent
                    return
                refusal = None if response is None else Refused(url, response.status, text_of(response))
                if refusal is not None and (refusal.status not in TRY_AGAIN or not tries_left):
                    raise refusal
            finally:
                connection.close()
            if tries_left:
                self.sleep(min(MAX_WAIT_S, _retry_after(response, wait_s)))
                wait_s *= 2
        raise UserError(f"{url} closed the connection without an answer {MAX_TRIES} times: is it an OpenAI server?")

    def _send(self, connection: http.client.HTTPConnection, url: str, body: dict) -> http.client.HTTPResponse | None:
        """The answer's head; None if the connection was closed before it."""
        try:
            connection.request("POST", _path(url), json.dumps(body).encode(), self._headers())
            return connection.getresponse()
        except TimeoutError as error:
            raise InvalidTrial(f"{url} was silent for {self.timeout_s:g} s (--timeout_s)") from error
        except http.client.BadStatusLine as error:
            if isinstance(error, http.client.RemoteDisconnected):
                return None
            why = f"{url} does not speak HTTP ({_reason(error)}): give an OpenAI server's --base_url"
            raise UserError(why) from error
        except ConnectionError:
            return None

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout_s)
        try:
            connection.connect()
        except ssl.SSLError as error:
            raise UserError(f"{url}: no TLS connection ({_reason(error)}): is it http:// there?") from error
        except OSError as error:
            raise UserError(
                f"no server answers at {self.base_url} ({_reason(error)}): start one there, or give --base_url"
            ) from error
        return connection

    def _headers(self) -> dict[str, str]:
        key = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        return {"Content-Type": "application/json", "Accept": "text/event-stream, */*", **key}


class Refused(Exception):
    """An answer with another status than 200."""

    def __init__(self, url: str, status: int, text: str) -> None:
        super().__init__(f"{url} answered {status}: {_message(text)}")
        self.url, self.status = url, status


def lines(response: http.client.HTTPResponse, url: str, server: Server) -> Iterator[tuple[float, str]]:
    """The lines of an answer, each with the moment (`server.now`) at which its end arrived.

    Whole lines are decoded, so that a character may arrive in two halves. Raises InvalidTrial for a silence of
    its `timeout_s` and for an answer that was cut off.
    """
    pending = b""
    while True:
        try:
            block = response.read1(READ_BYTES)
        except TimeoutError as error:
            silence = f"{server.timeout_s:g} s (--timeout_s)"
            raise InvalidTrial(f"{url} stopped in the middle of an answer for {silence}") from error
        except (OSError, http.client.HTTPException) as error:
            raise InvalidTrial(f"{url} cut its answer off ({_reason(error)})") from error
        now = server.now()
        *whole, pending = (pending + block).split(b"\n") if block else [pending, b""]
        yield from ((now, line.decode("utf-8", errors="replace").rstrip("\r")) for line in whole)
        if not block:
            return


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def text_of(response: http.client.HTTPResponse) -> str:
    """The beginning of a body; "" where it does not come."""
    try:
        return response.read(READ_BYTES).decode("utf-8", errors="replace")
    except (OSError, http.client.HTTPException):
        return ""


def _retry_after(response: http.client.HTTPResponse | None, default_s: float) -> float:
    """What the server asks to wait, in seconds (a date, the other form of the header, counts as nothing said)."""
    asked = None if response is None else response.headers.get("Retry-After")
    return float(asked) if asked is not None and asked.isdecimal() else default_s


def _message(text: str) -> str:
    """What an error's body says, on one line: OpenAI's {"error": {"message"}}, FastAPI's {"detail"}, or its text."""
    try:
        found = json.loads(text)
        found = found.get("error", found.get("detail", found.get("message", found)))
        text = str(found["message"]) if isinstance(found, dict) and "message" in found else str(found)
    except MALFORMED:
        pass
    return " ".join(text.split())[:200] or "nothing"


def error_in(text: str) -> str | None:
    """The error that a body of status 200 reports all the same; None: it reports none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_error = isinstance(found, dict) and (found.get("error") or found.get("object") == "error")
    return _message(text) if is_error else None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
