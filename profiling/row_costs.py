"""What passes over several requests cost, by transformers' own modules recorded as one CUDA graph each: the engine runs
one request at a time. On a CPU the modules run as they are, for tests.

`profile_engine.py` asks. Every request has the same context, and as many new tokens. Shape suffixes: B requests, L new
tokens of each, P positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from specdec.models.graph.graphs import Graphs
from specdec.models.kv_buffer import KVBuffer, as_cache
from specdec.models.lm import device_clock

REQUESTS = (1, 4, 16, 64)
VERIFY_ROWS, ONE_ROW, BLOCK_ROWS = (1, 4, 8, 16), (1,), (32,)  # new tokens of each request
REPEATS = 7


def row_table(model: PreTrainedModel, tokens: tuple[int, ...], context: int) -> dict[str, Any]:
    """A profile's table (`latency/rows.py`) of passes of so many tokens of each request, at one context."""
    ms = [[[row_ms(model, count, num_new, context)] for num_new in tokens] for count in REQUESTS]
    return {"requests": list(REQUESTS), "tokens": list(tokens), "contexts": [context], "ms": ms}


def row_ms(model: PreTrainedModel, num_requests: int, num_new: int, context: int) -> float:
    """The median of a pass, from ids on the device to tokens on the device."""
    device = model.get_input_embeddings().get_parameter("weight").device
    graphs, run = Graphs(device), _pass_of(model, device, (num_requests, num_new, context))
    times = []
    for _ in range(REPEATS):
        begin = device_clock(device)
        graphs.run("pass", run)
        times.append(1e3 * (device_clock(device) - begin))
    return sorted(times)[REPEATS // 2]


def _pass_of(model: PreTrainedModel, device: torch.device, sizes: tuple[int, int, int]) -> Callable[[], torch.Tensor]:
    """A pass of L tokens of each of B requests after a context of P - L: the body, the head, the most probable."""
    num_requests, num_new, context = sizes
    end = context + num_new
    body, head = model.get_submodule("model"), model.get_output_embeddings()
    ids_BL = torch.ones(num_requests, num_new, dtype=torch.long, device=device)
    positions_L = torch.arange(context, end, device=device)
    mask_LP = torch.arange(end, device=device) <= positions_L[:, None]
    cache = KVBuffer(capacity=end)
    cache.length = context

    def run() -> torch.Tensor:
        hidden = body(
            input_ids=ids_BL,
            attention_mask=mask_LP.expand(num_requests, 1, -1, -1),
            position_ids=positions_L.expand(num_requests, -1),
            **as_cache(body, cache),
            use_cache=True,
        ).last_hidden_state
        logits: torch.Tensor = head(hidden)
        return logits.argmax(-1)

    return run
