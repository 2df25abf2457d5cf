"""The loss of a training step and its gradients, replayed as a CUDA graph wherever a step's shapes come again.

It knows nothing of data, masks or optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from training.graphs import Graphs

Inputs = dict[str, torch.Tensor]
LossOf = Callable[[Inputs], torch.Tensor]


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
