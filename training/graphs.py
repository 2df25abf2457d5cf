"""CUDA graphs for work that comes again with the same shapes, such as a training step's loss and gradients.

Small models are bound by kernel launches, not by arithmetic; a replayed graph costs one launch. On any other device
everything runs as it comes. It knows nothing of data, masks or optimizers.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

import numpy as np
import torch

Result = TypeVar("Result")
Inputs = dict[str, torch.Tensor]
LossOf = Callable[[Inputs], torch.Tensor]


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


class Gradients:
    """Computes `loss_of` (the inputs of a step -> its loss, a scalar) and sets `.grad`, always the same memory."""

    def __init__(
        self, model: torch.nn.Module, loss_of: LossOf, device: torch.device, graphs: Graphs[torch.Tensor]
    ) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._loss_of, self._device, self._graphs = loss_of, device, graphs
        self._inputs: dict[tuple, Inputs] = {}

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> torch.Tensor:
        """The loss on the device, in memory of its own."""
        shapes = tuple((name, array.shape) for name, array in arrays.items())
        if shapes not in self._graphs:  # the memory that a graph of these shapes would read
            self._inputs[shapes] = {name: torch.empty_like(_host(a), device=self._device) for name, a in arrays.items()}
        inputs = self._inputs[shapes]
        for name, array in arrays.items():
            host = _host(array)
            inputs[name].copy_(host.pin_memory() if self._graphs.is_capturing else host, non_blocking=True)
        return self._graphs.run(shapes, lambda: self._run(inputs)).clone()

    def _run(self, inputs: Inputs) -> torch.Tensor:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if gradients:
            torch._foreach_zero_(gradients)
        loss = self._loss_of(inputs)
        loss.backward()
        return loss.detach()


def _host(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
