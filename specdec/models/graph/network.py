"""The forward pass of a decoder over fixed buffers, as operations that a CUDA graph can hold.

It reads its inputs from buffers and leaves its results in buffers; who fills them, and what is
committed, `graph_lm.py` decides. Shape suffixes as in `reference.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import linear

from specdec.models.graph.branches import BranchBuffers, Branches, Level
from specdec.models.graph.weights import LayerWeights, Weights
from specdec.models.int8 import Int8Matrix, Matrix

STATE_SIZE = 4  # see reference.py


class Operations(Protocol):
    """What `reference.py` and `kernels.py` offer."""

    def receive(
        self, sent: torch.Tensor, inputs: torch.Tensor, embedding_VC: torch.Tensor, hidden_MC: torch.Tensor
    ) -> None: ...
    def norm(
        self,
        x_MC: torch.Tensor,
        weight_C: torch.Tensor,
        eps: float,
        rows_K: torch.Tensor | None = None,
        is_after_kernel: bool = False,
    ) -> torch.Tensor: ...
    def silu_product(self, gate_up_M2I: torch.Tensor) -> torch.Tensor: ...
    def rotate_and_store(
        self,
        qkv_MN: torch.Tensor,
        rotary_2PE: torch.Tensor,
        cache_2GPD: torch.Tensor,
        state: torch.Tensor,
        norms_2D: torch.Tensor | None = None,
        eps: float = 0.0,
        depths_M: torch.Tensor | None = None,
    ) -> torch.Tensor: ...
    def attend(
        self,
        q_MHD: torch.Tensor,
        cache_2GPD: torch.Tensor,
        state: torch.Tensor,
        window: int | None = None,
        tree: Branches | None = None,
    ) -> torch.Tensor: ...
    def scaled_product(self, x_MK: torch.Tensor, w: Int8Matrix, bias_N: torch.Tensor | None = None) -> torch.Tensor: ...
    def most_probable(self, logits_KV: torch.Tensor, state: torch.Tensor, found_K2: torch.Tensor) -> None: ...
    def few_most_probable(
        self, logits_BV: torch.Tensor, tokens_V: torch.Tensor, found_BK2: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]: ...
    def go_on(
        self,
        found: tuple[torch.Tensor, torch.Tensor],
        stops: torch.Tensor,
        level: Level,
        after: Level,
        told_N2: torch.Tensor,
    ) -> None: ...


@dataclass
class Stream:
    """The residual stream between two products: hidden states, and the norm that the next product applies to them.

    `weighted_MC` is hidden_MC times norm_C, `squares_TM` adds up over T to each row's sum of squares: what the
    fused products hand on, so that none of them has to look at whole rows. `is_added_to`: the last that was done is a
    product's sum, and so a kernel; what the stream began with could be a copy.
    """

    hidden_MC: torch.Tensor
    norm_C: torch.Tensor
    eps: float
    weighted_MC: torch.Tensor | None = None
    squares_TM: torch.Tensor | None = None
    is_added_to: bool = False

    def weighted(self) -> tuple[torch.Tensor, torch.Tensor]:
        """weighted_MC and squares_TM. Raises ValueError for a stream that no fused product has begun."""
        if self.weighted_MC is None or self.squares_TM is None:
            raise ValueError("a stream's first fused product needs Products.begin before it")
        return self.weighted_MC, self.squares_TM


@dataclass(frozen=True)
class Place:
    """Where the keys and values of a pass go, and how they are made ready: the angles of all positions, a layer's
    cache, `state`, the norms of a layer's heads (None: there are none), and a tree's branches (None: it is a chain)."""

    rotary_2PE: torch.Tensor
    cache_2GPD: torch.Tensor
    state: torch.Tensor
    norms_2D: torch.Tensor | None = None
    tree: Branches | None = None


class Products(Protocol):
    """The matrix products of a layer, each with what can be fused to it. I MLP size, N outer size."""

    def begin(self, stream: Stream) -> None:
        """Get a stream whose hidden states were just written ready for its first product."""

    def queries(self, stream: Stream, w_NC: Matrix, bias_N: torch.Tensor | None, place: Place) -> torch.Tensor:
        """norm(hidden) w^T + bias, of which `Operations.rotate_and_store` makes q_MHD."""

    def gated(self, stream: Stream, w_2IC: Matrix) -> torch.Tensor:
        """silu(gate) * up of norm(hidden), [M, I]."""

    def add(
        self,
        stream: Stream,
        y_MI: torch.Tensor,
        w_CI: Matrix,
        next_norm_C: torch.Tensor,
        tap_MC: torch.Tensor | None = None,
    ) -> None:
        """hidden += y w^T, in place, and also into `tap_MC` where it is given; the next product applies
        `next_norm_C`."""


class LibraryProducts:
    """Products by torch's matrix library, of weights in 8 bits by an operation; what is fused elsewhere are operations
    of their own here."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    def begin(self, stream: Stream) -> None:
        """Nothing to be done."""

    def queries(self, stream: Stream, w_NC: Matrix, bias_N: torch.Tensor | None, place: Place) -> torch.Tensor:
        qkv_MN = self._normed(stream, w_NC, bias_N)
        where = place.rotary_2PE, place.cache_2GPD, place.state
        depths_M = None if place.tree is None else place.tree.depths_M
        return self.operations.rotate_and_store(qkv_MN, *where, place.norms_2D, stream.eps, depths_M)

    def gated(self, stream: Stream, w_2IC: Matrix) -> torch.Tensor:
        return self.operations.silu_product(self._normed(stream, w_2IC, None))

    def _normed(self, stream: Stream, w_NC: Matrix, bias_N: torch.Tensor | None) -> torch.Tensor:
        normed_MC = self.operations.norm(
            stream.hidden_MC, stream.norm_C, stream.eps, is_after_kernel=stream.is_added_to
        )
        if isinstance(w_NC, Int8Matrix):
            return self.operations.scaled_product(normed_MC, w_NC, bias_N)
        return linear(normed_MC, w_NC, bias_N)

    def add(
        self,
        stream: Stream,
        y_MI: torch.Tensor,
        w_CI: Matrix,
        next_norm_C: torch.Tensor,
        tap_MC: torch.Tensor | None = None,
    ) -> None:
        if isinstance(w_CI, Int8Matrix):
            stream.hidden_MC.add_(self.operations.scaled_product(y_MI, w_CI))
        else:
            stream.hidden_MC.addmm_(y_MI, w_CI.t())
        stream.norm_C, stream.is_added_to = next_norm_C, True
        if tap_MC is not None:
            copied(stream.hidden_MC, tap_MC)


@dataclass(frozen=True)
class Means:
    """What layers are run by."""

    operations: Operations
    products: Products


def run_layer(
    layer: LayerWeights,
    stream: Stream,
    place: Place,
    by: Means,
    next_norm_C: torch.Tensor,
    tap_MC: torch.Tensor | None = None,
) -> None:
    """A layer over the stream, whose keys and values go to `place`; its output also to `tap_MC`."""
    q_MHD = by.products.queries(stream, layer.qkv_NC, layer.qkv_bias_N, place)
    attended_MN = by.operations.attend(q_MHD, place.cache_2GPD, place.state, layer.window, place.tree)
    by.products.add(stream, attended_MN, layer.output_CHD, layer.mlp_norm_C)
    gated_MI = by.products.gated(stream, layer.gate_up_2IC)
    by.products.add(stream, gated_MI, layer.down_CI, next_norm_C, tap_MC)


def copied(hidden_MC: torch.Tensor, to_MC: torch.Tensor) -> None:
    """A kernel of its own, where a copy could be something else: kernels that overlap wait for kernels."""
    torch.mul(hidden_MC, 1, out=to_MC)


@dataclass
class Buffers:
    """What stays at one address, so that a graph can find it: inputs, hidden states, results, cache, rotary table.

    `sent` and `found_M2` are the host's (on a GPU: pinned, and the device reads and writes them itself, so that
    nothing is copied around a pass). `sent` is one int64 tensor: M token ids, M kept rows, and `state`; `inputs` is
    the device's copy of it. `found_M2` is what `most_probable` says of the kept rows.
    """

    sent: torch.Tensor
    inputs: torch.Tensor
    hidden_MC: torch.Tensor
    found_M2: torch.Tensor
    cache_L2GPD: torch.Tensor
    rotary_2PE: torch.Tensor
    tapped: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)  # taps -> what they gave, [M, T, C]

    @classmethod
    def allocate(
        cls, weights: Weights, max_tokens: int, cache_L2GPD: torch.Tensor, rotary_2PE: torch.Tensor
    ) -> Buffers:
        is_gpu = weights.device.type == "cuda"
        sent = torch.zeros(2 * max_tokens + STATE_SIZE, dtype=torch.long, pin_memory=is_gpu)
        return cls(
            sent=sent,
            inputs=sent.to(weights.device, copy=True),
            hidden_MC=torch.zeros(max_tokens, weights.hidden_size, dtype=weights.dtype, device=weights.device),
            found_M2=torch.zeros(max_tokens, 2, dtype=torch.float64, pin_memory=is_gpu),
            cache_L2GPD=cache_L2GPD,
            rotary_2PE=rotary_2PE,
        )

    @torch.inference_mode()
    def taps(self, taps: tuple[int, ...]) -> torch.Tensor:
        """Where the outputs of these layers go, [M, T, C]; made when they are first asked for."""
        if taps not in self.tapped:
            num_tokens, size = self.hidden_MC.shape
            self.tapped[taps] = self.hidden_MC.new_zeros(num_tokens, len(taps), size)
        return self.tapped[taps]

    def places(self, taps: tuple[int, ...]) -> list[tuple[int, torch.Tensor]]:
        """The same tap by tap: the layer, and its [M, C]."""
        return list(zip(taps, self.taps(taps).unbind(1), strict=True)) if taps else []

    @cached_property
    def branches(self) -> BranchBuffers:
        """Where trees go, which are as long as any other pass; made when the first is run."""
        with torch.inference_mode():
            return BranchBuffers(len(self.hidden_MC), self.hidden_MC.device)

    @property
    def kept_M(self) -> torch.Tensor:
        return self.inputs[len(self.hidden_MC) : -STATE_SIZE]

    @property
    def state(self) -> torch.Tensor:
        return self.inputs[-STATE_SIZE:]

    @cached_property
    def found(self) -> np.ndarray:
        return self.found_M2.numpy()

    @cached_property
    def _sent(self) -> np.ndarray:
        return self.sent.numpy()

    def send(self, ids: list[int], rows: list[int], state: tuple[int, int, int, int]) -> None:
        """Leave token ids, kept rows and state where the device reads them; it must have read what was there.

        Padding keeps the tokens of an earlier pass: they are valid, and nothing looks at them.
        """
        num_tokens = len(self.hidden_MC)
        self._sent[: len(ids)] = ids
        self._sent[num_tokens : num_tokens + len(rows)] = rows
        self._sent[-STATE_SIZE:] = state


class Network:
    """`body` runs the layers over the first `count` input tokens, `head` predicts at the first `count` kept rows."""

    def __init__(self, weights: Weights, buffers: Buffers, operations: Operations) -> None:
        self.weights, self.buffers, self.operations = weights, buffers, operations

    def body(self, count: int, products: Products, is_tree: bool = False, taps: tuple[int, ...] = ()) -> None:
        """Embedding and layers, for `count` tokens; their last hidden states replace what the buffer held. The outputs
        of the layers `taps` are left in theirs (`Buffers.taps`)."""
        weights, buffers, operations = self.weights, self.buffers, self.operations
        stream = Stream(buffers.hidden_MC[:count], weights.layers[0].attention_norm_C, weights.norm_eps)
        tree = buffers.branches.receive(count) if is_tree else None
        operations.receive(buffers.sent, buffers.inputs, weights.embedding_VC, stream.hidden_MC)
        products.begin(stream)
        next_norms = [*(layer.attention_norm_C for layer in weights.layers[1:]), weights.norm_C]
        layers = zip(weights.layers, buffers.cache_L2GPD, next_norms, strict=True)
        for index, (layer, cache_2GPD, next_norm_C) in enumerate(layers):
            place = Place(buffers.rotary_2PE, cache_2GPD, buffers.state, layer.head_norms_2D, tree)
            places = [place_MC[:count] for tap, place_MC in buffers.places(taps) if tap == index]
            run_layer(layer, stream, place, Means(operations, products), next_norm_C, *places[:1])
            for place_MC in places[1:]:  # a layer that is asked for twice
                copied(stream.hidden_MC, place_MC)

    def head(self, count: int) -> torch.Tensor:
        """logits_KV after `count` kept rows; what `most_probable` says of them is left in the buffer."""
        weights, buffers = self.weights, self.buffers
        normed_KC = self.operations.norm(
            buffers.hidden_MC, weights.norm_C, weights.norm_eps, rows_K=buffers.kept_M[:count]
        )
        logits_KV = linear(normed_KC, weights.head_VC)
        if weights.never_U is not None:
            logits_KV.index_fill_(1, weights.never_U, -torch.inf)
        self.operations.most_probable(logits_KV, buffers.state, buffers.found_M2[:count])
        return logits_KV
