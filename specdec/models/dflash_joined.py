"""The layers of a DFlash head in few large operations, those of the graph backend: a block after all that is known, and
the context's keys and values. For recorded passes; `dflash_network.py` has the others, and the same in plain torch.

Shape suffixes as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from specdec.models.graph.graphs import PADDED
from specdec.models.graph.means import means_of_head
from specdec.models.graph.network import Means, Place, Stream, run_layer
from specdec.models.graph.weights import LayerWeights, join_head_layer
from specdec.models.int8 import in_full

if TYPE_CHECKING:
    from specdec.models.dflash_network import DflashSettings

EVERYTHING = 1 << 30  # a block size under which all that there is is seen
NOTHING_NEVER = -1


class JoinedLayers:
    """A head's layers, and what they are run by."""

    def __init__(self, head: DflashSettings, tensors: dict[str, Tensor], layers: list[LayerWeights], by: Means) -> None:
        self.layers, self.by, self.eps = layers, by, float(head.layer["rms_norm_eps"])
        self.norm_C, self.hidden_norm_C = tensors["norm.weight"], tensors["hidden_norm.weight"]
        self.is_causal = [kind.is_causal for kind in head.layer_kinds]
        # Of a pass, after its first position: its rows, what they see, and that no token is excluded.
        device, rows = self.norm_C.device, head.block_size
        rests = {False: [rows, EVERYTHING, NOTHING_NEVER], True: [rows, 1, NOTHING_NEVER]}
        self._rests = {kind: torch.tensor(rest, device=device) for kind, rest in rests.items()}
        self._rests_of_context = {count: torch.tensor([count, 1, NOTHING_NEVER], device=device) for count in PADDED}
        self._queries = head.layer["num_attention_heads"] * head.head_size

    @classmethod
    def of(cls, head: DflashSettings, tensors: dict[str, Tensor]) -> JoinedLayers | None:
        """A head's, whose joined products take the places of those in `tensors`; None for a head whose layers are not
        those of a plain decoder: with windows, or convolutions between."""
        has_windows = any(kind.window is not None for kind in head.layer_kinds)
        if has_windows or any("_conv." in name for name in tensors):
            return None
        names = [f"layers.{index}" for index in range(len(head.layer_kinds))]
        layers = [join_head_layer(tensors, name, "input_layernorm") for name in names]
        by = means_of_head(layers[0], head.head_size)
        return None if by is None else cls(head, tensors, layers, by)

    def block(self, x_LC: Tensor, first_1: Tensor, cache_A2GPD: Tensor, angles_2PE: Tensor) -> Tensor:
        """The states of a block, whose embeddings are x_LC, after the last norm; its keys stand at `first_1` on."""
        # Before the stream begins: the first product may ask for them while what comes just before it still ends.
        states = {kind: torch.cat([first_1, self._rests[kind]]) for kind in set(self.is_causal)}
        stream = Stream(x_LC, self.layers[0].attention_norm_C, self.eps)
        self.by.products.begin(stream)
        next_norms = [*(layer.attention_norm_C for layer in self.layers[1:]), self.norm_C]
        for index, (layer, next_norm_C) in enumerate(zip(self.layers, next_norms, strict=True)):
            state = states[self.is_causal[index]]
            place = Place(angles_2PE, cache_A2GPD[index], state, layer.head_norms_2D)
            run_layer(layer, stream, place, self.by, next_norm_C)
        return self.by.operations.norm(stream.hidden_MC, self.norm_C, self.eps)

    def store(self, projected_NC: Tensor, first_1: Tensor, cache_A2GPD: Tensor, angles_2PE: Tensor) -> None:
        """Keys and values of new rows of the context, which were projected from the target's features."""
        operations = self.by.operations
        context_NC = operations.norm(projected_NC, self.hidden_norm_C, self.eps)
        state = torch.cat([first_1, self._rests_of_context[len(context_NC)]])
        for layer, cache_2GPD in zip(self.layers, cache_A2GPD, strict=True):
            keys_values = linear(context_NC, in_full(layer.qkv_NC)[self._queries :])
            operations.rotate_and_store(keys_values, angles_2PE, cache_2GPD, state, layer.head_norms_2D, self.eps)
