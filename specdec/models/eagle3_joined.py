"""The layer of an EAGLE-3 head in few large operations, those of the graph backend: rows of the text, steps of a draft,
and levels of a tree. For recorded passes; `eagle3_network.py` has the others, and the same in plain torch.

Shape suffixes as there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from specdec.models.eagle3_settings import Eagle3Settings
from specdec.models.graph.means import means_of_head
from specdec.models.graph.network import LibraryProducts, Means, Place, Stream
from specdec.models.graph.plans import BackendOptions
from specdec.models.graph.weights import LayerWeights, join_head_layer
from specdec.models.int8 import in_full


class JoinedLayer:
    """A head's layer and output head, and what they are run by."""

    def __init__(self, head: Eagle3Settings, tensors: dict[str, Tensor], layer: LayerWeights, by: Means) -> None:
        self.head, self.layer, self.by = head, layer, by
        self.eps = float(head.layer["rms_norm_eps"])
        self.input_norm_C = tensors[f"{head.body}.input_layernorm.weight"]
        self.norm_C, self.head_VC = tensors["norm.weight"], tensors["lm_head.weight"]
        self._library = LibraryProducts(by.operations)
        # After the first position of a pass: its rows, that each sees those before it, that no token is excluded.
        self._one, self._rest = torch.tensor([[1, 1, -1], [0, 1, -1]], device=self.norm_C.device)
        self._no_token = torch.tensor([0, 1, 1, -1], device=self.norm_C.device)  # a state by which none is excluded

    @classmethod
    def of(cls, head: Eagle3Settings, tensors: dict[str, Tensor]) -> JoinedLayer | None:
        """A head's, whose joined products take the places of those in `tensors`; None where kernels do not take it."""
        layer = join_head_layer(tensors, head.body, "hidden_norm")
        by = means_of_head(layer, head.head_size)
        return None if by is None else cls(head, tensors, layer, by)

    def place(self, first_1: Tensor, num_rows_1: Tensor | None, angles_2PE: Tensor, cache_2GPD: Tensor) -> Place:
        """Where rows go that begin at `first_1`; so many of them are real (None: there is one)."""
        rest = self._one if num_rows_1 is None else torch.cat([num_rows_1, self._rest[1:]])
        return Place(angles_2PE, cache_2GPD, torch.cat([first_1, rest]), self.layer.head_norms_2D)

    def run(self, embedded_LC: Tensor, state_LC: Tensor, place: Place, seen: Tensor | None = None) -> Tensor:
        """What the layer makes of embeddings and states side by side, [L, C]. `seen`: of a part of a tree the state by
        which keys are seen (`Branches`), where that of its place says where its own go."""
        operations, layer = self.by.operations, self.layer
        products = self.by.products if len(state_LC) <= BackendOptions.fused_up_to else self._library
        normed_LC = operations.norm(state_LC, layer.attention_norm_C, self.eps)
        x_L2C = torch.cat([operations.norm(embedded_LC, self.input_norm_C, self.eps), normed_LC], dim=-1)
        where = place.rotary_2PE, place.cache_2GPD, place.state
        depths_L = None if place.tree is None else place.tree.depths_M
        qkv_LN = linear(x_L2C, in_full(layer.qkv_NC))
        q_LHD = operations.rotate_and_store(qkv_LN, *where, place.norms_2D, self.eps, depths_L)
        residual_LC = normed_LC if self.head.is_normed_residual else state_LC.clone()
        stream = Stream(residual_LC, layer.mlp_norm_C, self.eps)
        products.begin(stream)
        state = place.state if seen is None else seen
        attended_LN = operations.attend(q_LHD, place.cache_2GPD, state, None, place.tree)
        products.add(stream, attended_LN, layer.output_CHD, layer.mlp_norm_C)
        products.add(stream, products.gated(stream, layer.gate_up_2IC), layer.down_CI, self.norm_C)
        return stream.hidden_MC

    def best(self, out_LC: Tensor, never: Tensor) -> tuple[Tensor, Tensor]:
        """Of each output the most probable word of the draft vocabulary and its probability, [L, 2] float64, and the
        normed output. `never`: words that are not drafted."""
        normed_LC = self.normed(out_LC)
        logits_LV = self.logits(normed_LC, never)
        found_L2 = out_LC.new_empty(len(out_LC), 2, dtype=torch.float64)
        self.by.operations.most_probable(logits_LV, self._no_token, found_L2)
        return found_L2, normed_LC

    def normed(self, out_LC: Tensor) -> Tensor:
        """By the norm before the output head."""
        return self.by.operations.norm(out_LC, self.norm_C, self.eps)

    def logits(self, normed_LC: Tensor, never: Tensor) -> Tensor:
        """In the draft vocabulary, [L, V]."""
        logits_LV = linear(normed_LC, self.head_VC)
        return logits_LV.index_fill_(1, never, -torch.inf) if len(never) else logits_LV
