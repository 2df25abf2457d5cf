"""What the experiments with a real vLLM make of what they are told, without one: a steady load, and prices by rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError

import numpy as np
import pytest
from made_up import made_up_trace

from experiments.vllm_load import DRAFT_MODEL, NGRAM, PLAIN, PREDICTED, PRICED_AT, predictions, profile_of, steps_of
from experiments.vllm_steady import Window, steady
from specdec.errors import UserError
from specdec.models.checkpoints import BUNDLED

STEP = "vllm:inter_token_latency_seconds"


class Counting(BaseHTTPRequestHandler):
    """Answers after a moment, ten tokens each; how many at a time at most, and how many in all."""

    running, most, num, fails_at = 0, 0, 0, 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        page = f"# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total {10 * type(self).num}\n"
        self._say(200, page)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        own = type(self)
        with own.lock:
            own.running += 1
            own.most = max(own.most, own.running)
        time.sleep(0.01)
        with own.lock:
            own.running, own.num = own.running - 1, own.num + 1
        self._say(500 if own.num == own.fails_at else 200, "{}")

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Counting]]]:
    handler = type("Own", (Counting,), {"lock": threading.Lock()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}", handler
        found.shutdown()


def test_a_steady_load_asks_so_many_at_a_time_and_counts_what_is_finished_between(server):
    url, handler = server
    window = steady(url, "completions", [{"prompt": [1]}, {"prompt": [2]}], 3, 12)
    assert handler.most == 3 and 15 <= handler.num <= 18
    assert 80 <= window.counted["vllm:generation_tokens_total"] <= 160 and window.tokens_per_s > 0


def test_a_server_that_fails_ends_the_load_at_once(server):
    url, handler = server
    handler.fails_at = 4
    with pytest.raises(HTTPError):
        steady(url, "completions", [{}], 2, 10**6)


def test_a_window_s_means_are_of_its_counters():
    window = Window(2.0, {f"{STEP}_sum": 0.5, f"{STEP}_count": 20.0, "vllm:spec_decode_num_draft_tokens_total": 60.0})
    assert (window.step_ms, window.drafted_per_step, window.tokens_per_s) == (25.0, 3.0, 0.0)


def price(ms: float, more: float, drafted: float = 0.0) -> dict:
    """Steps that take `ms` and, for each request and each token of it, `more`."""
    steps = {places: {"ms": ms + more * places * (1 + drafted), "drafted": drafted} for places in PRICED_AT}
    return {"steps": steps, "prompt_token_ms": more}


def test_prices_by_rows_give_the_steps_that_they_are_made_of():
    plain = steps_of(price(10.0, 0.5))
    tokens = profile_of(NGRAM, plain, price(10.0, 0.5, 2.0)).rows.verify[BUNDLED]
    assert tokens.at([3, 10], [1, 4], [0])[:, :, 0] == pytest.approx(np.array([[11.5, 16], [15, 30]]))
    rows = profile_of(DRAFT_MODEL, plain, price(18.0, 0.5, 0.0)).rows
    assert rows.passes["ar"].at([6], [1], [0])[0, 0, 0] == pytest.approx((18 - 10) / 4)
    assert rows.verify[BUNDLED].at([6], [1, 5, 105], [0])[0, :, 0] == pytest.approx(
        np.array([13, 13, 13 + 0.5 * 6 * 100])
    )
    with pytest.raises(UserError, match="tells no cost"):
        profile_of(NGRAM, plain, price(10.0, 0.5, 0.1))


def test_predictions_grow_with_requests_and_drafts_that_cost_nothing_help():
    traces = [made_up_trace(one, num_tokens=30, chain_len=16, max_new_tokens=40, vocab_size=9) for one in range(4)]
    prices = {PLAIN: price(10.0, 0.0), NGRAM: price(10.0, 0.0, 5.0), DRAFT_MODEL: price(20.0, 0.0, 4.0)}
    found = predictions(traces, prices)
    for method in (PLAIN, NGRAM, DRAFT_MODEL):
        assert found[method][8] > found[method][4] > found[method][1]
    assert all(found[NGRAM][places] > found[PLAIN][places] for places in PREDICTED)
    assert found[PLAIN][1] == pytest.approx(1e3 / 10)  # steps of 10 ms, whose first one reads the prompt
