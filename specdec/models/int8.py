"""Int8: a network whose matrices are kept in 8 bits, made of one that was just loaded. Weights only: what is multiplied
with them stays in the network's dtype. It knows nothing of kernels, and trains nothing.

Every matrix of the layers has a scale for each output channel, the largest of its values over 127, and is rounded to
whole numbers of it. Embeddings, the head, norms and biases stay as they are. A product multiplies by the whole numbers,
which bfloat16 and float32 hold exactly, and then by the scales, so that no weight is rounded twice.

Shape suffixes: K inputs, M rows, N output channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

MOST = 127  # -128 is left out, so that a weight and its negative are as near


@dataclass(frozen=True)
class Int8Matrix:
    """`values_NK` (int8) times `scale_N` (float32), row by row."""

    values_NK: Tensor
    scale_N: Tensor

    @classmethod
    def of(cls, weight_NK: Tensor) -> Int8Matrix:
        """The nearest to a matrix.

        Example: the row [-254., 1., 3.] is [-127, 0, 2] times 2 (halves go to the even number).
        """
        wide_NK = weight_NK.float()
        scale_N = wide_NK.abs().amax(dim=1) / MOST
        # A row of zeros has any scale; one that is not finite keeps it, so that what it gives is not finite either.
        scale_N = torch.where(scale_N == 0, 1.0, scale_N)
        return cls((wide_NK / scale_N[:, None]).round().to(torch.int8), scale_N)

    @property
    def shape(self) -> torch.Size:
        return self.values_NK.shape

    def __len__(self) -> int:
        return len(self.values_NK)

    def product(self, x_MK: Tensor, bias_N: Tensor | None = None) -> Tensor:
        """x w^T + bias, [..., N], in the dtype of `x_MK`."""
        out_MN = linear(x_MK, self.values_NK.to(x_MK.dtype)) * self.scale_N
        return (out_MN if bias_N is None else out_MN + bias_N).to(x_MK.dtype)


Matrix: TypeAlias = Tensor | Int8Matrix  # what an input is multiplied with


def in_full(w_NK: Matrix) -> Tensor:
    """The matrix, for what multiplies with none in 8 bits: drafters' heads, joined layers. Raises TypeError for one."""
    if isinstance(w_NK, Int8Matrix):
        raise TypeError("a matrix in 8 bits, where one in full is multiplied with")
    return w_NK


class Int8Linear(nn.Module):
    """In place of a `torch.nn.Linear`, whose bias it keeps."""

    def __init__(self, own: nn.Linear, device: torch.device) -> None:
        super().__init__()
        made = Int8Matrix.of(own.weight.detach().to(device))
        self.weight = nn.Parameter(made.values_NK, requires_grad=False)
        self.scale = nn.Parameter(made.scale_N, requires_grad=False)
        self.bias = own.bias

    @property
    def matrix(self) -> Int8Matrix:
        return Int8Matrix(self.weight.detach(), self.scale.detach())

    def forward(self, x_MK: Tensor) -> Tensor:
        return self.matrix.product(x_MK, self.bias)


def quantised(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """`model` itself, with the matrices of its layers in 8 bits on `device`, where each is made. In full it is let
    go at once, so that a device never has two."""
    body = model.get_submodule("model")
    for place in [name for name, module in body.named_modules() if isinstance(module, nn.Linear)]:
        parent, _, name = place.rpartition(".")
        own = body.get_submodule(place)
        assert isinstance(own, nn.Linear)
        setattr(body.get_submodule(parent), name, Int8Linear(own, device))
    return model


def is_quantised(model: PreTrainedModel) -> bool:
    return any(isinstance(module, Int8Linear) for module in model.modules())
