"""CUDA graphs for work that comes again with the same shapes: their own stream, and captures that share memory.

Small models are bound by kernel launches, not by arithmetic; a replayed graph costs one launch. On any other device
everything runs as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")


class Graphs(Generic[Result]):
    """Runs work on `device`; on CUDA, work of a key that has been met before is replayed.

    Work reads and writes the same memory every time: inputs are copied into place by the caller.
    """

    def __init__(self, device: torch.device) -> None:
        self.is_capturing = device.type == "cuda"
        self._captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, Result]] = {}
        self._pool = torch.cuda.graph_pool_handle() if self.is_capturing else None
        self._stream = torch.cuda.Stream(device) if self.is_capturing else None

    def __contains__(self, key: Hashable) -> bool:
        return key in self._captured

    def run(self, key: Hashable, work: Callable[[], Result]) -> Result:
        """What `work` returns: on CUDA the memory that the next run of this key overwrites.

        The first run of a key is an ordinary one, and what it sets up is not part of the graph.
        """
        if key in self._captured:
            graph, result = self._captured[key]
            graph.replay()
            return result
        result = work()
        if self.is_capturing:
            self._captured[key] = self._capture(work)
        return result

    def _capture(self, work: Callable[[], Result]) -> tuple[torch.cuda.CUDAGraph, Result]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            result = work()
        return graph, result

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Work inside goes to a stream of its own, which is what can be captured."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
