"""Functions over fixed buffers, recorded as CUDA graphs at first use and replayed from then on.

On a CPU a function simply runs, so that the same code can be tested without a GPU.
"""

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
PADDED = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # rows of a recorded pass of a head that reads the target
MAX_ROWS = PADDED[-1]
WARM_UPS = 2  # kernels are compiled, and libraries make their workspaces, before anything is recorded


def padded(count: int, counts: Sequence[int]) -> int:
    """The first of the ascending `counts` that a recorded pass over `count` rows fits in.

    Example: `padded(5, (1, 4, 16)) == 16`.
    """
    return counts[bisect_left(counts, count)]


class Graphs:
    """Recorded functions by key; all draw their intermediate tensors from one pool of memory.

    A function must do the same with the same buffers in every call: a replay repeats the recorded
    work, and gives back the tensors that the recording gave.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # One stream for all recordings: libraries keep a workspace for each stream they have met.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.clear()

    def clear(self) -> None:
        """Forget all recordings: the buffers have moved."""
        self._recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, Any]] = {}  # each with its function's own result
        self._pool: torch.cuda._POOL_HANDLE | None = None

    def run(self, key: Hashable, function: Callable[[], Result]) -> Result:
        if self._stream is None:
            with torch.inference_mode():
                return function()
        if key not in self._recorded:
            self._recorded[key] = self._record(function, self._stream)
        graph, result = self._recorded[key]
        graph.replay()
        return result

    def mark(self) -> Callable[[], None]:
        """What waits until all that has been run so far is done."""
        if self._stream is None:
            return lambda: None
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))
        return done.synchronize

    @torch.inference_mode()
    def _record(self, function: Callable[[], Result], stream: torch.cuda.Stream) -> tuple[torch.cuda.CUDAGraph, Result]:
        """Record on a stream of its own. (`torch.cuda.graph` would also collect garbage, at each recording.)"""
        with torch.cuda.device(self.device):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    function()
                torch.cuda.synchronize()
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                graph = torch.cuda.CUDAGraph()
                graph.capture_begin(pool=self._pool)
                try:
                    result = function()
                finally:
                    graph.capture_end()
            torch.cuda.current_stream().wait_stream(stream)
        return graph, result
