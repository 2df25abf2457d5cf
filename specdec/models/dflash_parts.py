"""Parts of DFlash's kin beside its layers: the Markov head with confidences, the selector, the convolutions. How each
is described, what tensors it has and what it computes; of no checkpoint's layout and no drafter.

A walk goes through the slots of blocks from left to right and says each slot's token and how sure that is. Shape
suffixes: B blocks, C hidden size, K candidates, R rank, S slots that are drafts, T taps of a convolution, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from specdec.models.lm import most_probable

Sizes = dict[str, Sequence[int]]
Weights = Mapping[str, Tensor]


class Part(Protocol):
    """What a head may have beside its layers."""

    def tensors(self, hidden_size: int, vocab_size: int, num_layers: int, found: Mapping[str, Any]) -> Sizes:
        """Its tensors and their sizes; `found`: the names in the file, where two spellings are known."""


class Walk(Protocol):
    """A part that chooses the tokens."""

    def __call__(self, w: Weights, hidden_BSC: Tensor, logits_BSV: Tensor, anchors_B: Tensor) -> Tensor:
        """[B, S, 2] float64: each slot's token, and how sure it is, 0..1."""


def each_alone(w: Weights, hidden_BSC: Tensor, logits_BSV: Tensor, anchors_B: Tensor) -> Tensor:
    """Without such a part: the most probable token of every slot."""
    return most_probable(logits_BSV.flatten(0, 1)).unflatten(0, logits_BSV.shape[:2])


MARKOV_KINDS = ("vanilla", "gated", "rnn")


@dataclass(frozen=True)
class Markov:
    """Logits that depend on the token before, by two tables of this `rank` (0: they do not), and a confidence head
    where it `has_confidences`, which may read the first table too.

    `kind`: "vanilla": the first table's row goes into the second; "gated": as far as a gate lets it, which reads the
    slot's state; "rnn": what a recurrent cell makes of it, which remembers the slots before.
    """

    rank: int
    has_confidences: bool = False
    reads_markov: bool = False
    kind: str = "vanilla"

    def tensors(self, hidden_size: int, vocab_size: int, num_layers: int, found: Mapping[str, Any]) -> Sizes:
        names = ("markov_head.markov_w1.weight", "markov_head.markov_w2.weight") if self.rank else ()
        sizes: Sizes = dict.fromkeys(names, (vocab_size, self.rank))
        if self.kind == "gated":
            sizes |= _layer_sizes("markov_head.gate_proj", self.rank, hidden_size + self.rank)
        if self.kind == "rnn":
            sizes |= _layer_sizes("markov_head.joint_proj", 3 * self.rank, 2 * self.rank + hidden_size)
        if self.has_confidences:
            sizes |= _layer_sizes("confidence_head.proj", 1, hidden_size + (self.rank if self.reads_markov else 0))
        return sizes

    def __call__(self, w: Weights, hidden_BSC: Tensor, logits_BSV: Tensor, anchors_B: Tensor) -> Tensor:
        tokens_B, found = anchors_B, []
        memory_BR = hidden_BSC.new_zeros(len(hidden_BSC), self.rank)
        for slot in range(logits_BSV.shape[1]):
            before_BR, logits_BV = self._before(w, tokens_B), logits_BSV[:, slot]
            if before_BR is not None:
                told_BR, memory_BR = self._told(w, before_BR, hidden_BSC[:, slot], memory_BR)
                logits_BV = logits_BV + linear(told_BR, w["markov_head.markov_w2.weight"][: logits_BV.shape[1]])
            best_B2 = most_probable(logits_BV)
            tokens_B = best_B2[:, 0].long()
            found.append(self._sure(w, hidden_BSC[:, slot], before_BR, best_B2))
        return torch.stack(found, dim=1)

    def by_kernels(self, w: Weights, hidden_BSC: Tensor, logits_BSV: Tensor, anchors_B: Tensor) -> Tensor:
        """The same of a single block, with a rank, on a GPU."""
        from specdec.models.graph.markov import MarkovTables, walk  # needs Triton

        layer, has_confidences = {"gated": "gate", "rnn": "joint"}.get(self.kind), self.has_confidences
        tables = MarkovTables(
            self.kind,
            w["markov_head.markov_w1.weight"],
            w["markov_head.markov_w2.weight"],
            None if layer is None else _weights(w, f"markov_head.{layer}_proj"),
            _weights(w, "confidence_head.proj") if has_confidences else None,
            has_confidences and self.reads_markov,
        )
        return walk(tables, hidden_BSC[0], logits_BSV[0], anchors_B)[None]

    def _before(self, w: Weights, tokens_B: Tensor) -> Tensor | None:
        return w["markov_head.markov_w1.weight"][tokens_B] if self.rank else None

    def _told(self, w: Weights, before_BR: Tensor, hidden_BC: Tensor, memory_BR: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into the second table, and what a recurrent head remembers."""
        if self.kind == "gated":
            return _layer(w, "markov_head.gate_proj", hidden_BC, before_BR).sigmoid() * before_BR, memory_BR
        if self.kind == "rnn":
            parts = _layer(w, "markov_head.joint_proj", memory_BR, before_BR, hidden_BC).chunk(3, dim=-1)
            kept_BR, new_BR, told_BR = parts[0].sigmoid(), parts[1].tanh(), parts[2].tanh()
            return told_BR, kept_BR * memory_BR + (1 - kept_BR) * new_BR
        return before_BR, memory_BR

    def _sure(self, w: Weights, hidden_BC: Tensor, before_BR: Tensor | None, best_B2: Tensor) -> Tensor:
        """The slot's token with the confidence head's word for it, where there is one."""
        if not self.has_confidences:
            return best_B2
        read = [hidden_BC] if before_BR is None or not self.reads_markov else [hidden_BC, before_BR]
        score_B1 = _layer(w, "confidence_head.proj", *read)
        # Where logits are not numbers, the head's score may still be one: then the product is not.
        return torch.stack([best_B2[:, 0], score_B1[:, 0].double().sigmoid() + 0 * best_B2[:, 1]], dim=-1)


def _layer_sizes(place: str, rows: int, columns: int) -> Sizes:
    return {f"{place}.weight": (rows, columns), f"{place}.bias": (rows,)}


def _layer(w: Weights, place: str, *read: Tensor) -> Tensor:
    """A linear layer over what it reads, side by side."""
    return linear(torch.cat(read, dim=-1), *_weights(w, place))


def _weights(w: Weights, place: str) -> tuple[Tensor, Tensor]:
    return w[f"{place}.weight"], w[f"{place}.bias"]


@dataclass(frozen=True)
class Selector:
    """A walk over the `top_k` best tokens of each slot, whose scores depend on the token before, by two tables."""

    rank: int
    top_k: int

    def tensors(self, hidden_size: int, vocab_size: int, num_layers: int, found: Mapping[str, Any]) -> Sizes:
        books: Sizes = {_spelled(name, found): (vocab_size, self.rank) for name in ("predecessor", "successor")}
        return books | {"candidate_selector.hidden_projection.weight": (self.rank, hidden_size)}

    def __call__(self, w: Weights, hidden_BSC: Tensor, logits_BSV: Tensor, anchors_B: Tensor) -> Tensor:
        before_VR, after_VR = (w[_spelled(name, w)] for name in ("predecessor", "successor"))
        own_BSK, candidates_BSK = logits_BSV.topk(min(self.top_k, logits_BSV.shape[-1]), dim=-1)
        projected_BSR = linear(hidden_BSC, w["candidate_selector.hidden_projection.weight"])
        tokens_B, found = anchors_B, []
        for slot in range(logits_BSV.shape[1]):
            candidates_BK = candidates_BSK[:, slot]
            asked_BR = before_VR[tokens_B] * projected_BSR[:, slot]
            scores_BK = own_BSK[:, slot] + torch.einsum("br,bkr->bk", asked_BR, after_VR[candidates_BK])
            best_B2 = most_probable(scores_BK)
            tokens_B = candidates_BK.gather(1, best_B2[:, :1].long())[:, 0]
            found.append(torch.stack([tokens_B.double(), best_B2[:, 1]], dim=-1))
        return torch.stack(found, dim=1)


def _spelled(name: str, found: Mapping[str, Any]) -> str:
    """A table of the selector: files of its authors leave out ".weight"."""
    plain = f"candidate_selector.{name}_codebook"
    return plain if plain in found else f"{plain}.weight"


@dataclass(frozen=True)
class Convolution:
    """Convolutions over the slots of a block, before and after each sublayer: of `kernel_size` taps, each a learnt
    number per value and one per `group_size` values that follows from the input."""

    kernel_size: int
    group_size: int

    def tensors(self, hidden_size: int, vocab_size: int, num_layers: int, found: Mapping[str, Any]) -> Sizes:
        sizes: Sizes = {}
        for place in (f"layers.{index}.{name}_conv" for index in range(num_layers) for name in ("attention", "mlp")):
            sizes[f"{place}.base_kernel"] = (2, self.kernel_size, hidden_size)
            numbers = 2 * self.kernel_size * (hidden_size // self.group_size)
            sizes[f"{place}.kernel_projection.weight"] = (numbers, hidden_size)
        return sizes

    def kernels(self, w: Weights, place: str, x_BSC: Tensor) -> tuple[Tensor, Tensor]:
        """What is before and what is after a sublayer, each [B, S, T, C], by the sublayer's input."""
        numbers = linear(x_BSC, w[f"{place}.kernel_projection.weight"]).unflatten(-1, (2, self.kernel_size, -1))
        kernels = w[f"{place}.base_kernel"] + numbers.repeat_interleave(self.group_size, dim=-1)
        return kernels[:, :, 0], kernels[:, :, 1]


def convolved(x_BSC: Tensor, kernel_BSTC: Tensor) -> Tensor:
    """Tap t looks at the slot t places before; before the block there are zeros."""
    slots, total_BSC = x_BSC.shape[1], torch.zeros_like(x_BSC)
    for tap in range(min(kernel_BSTC.shape[2], slots)):
        total_BSC = total_BSC + kernel_BSTC[:, :, tap] * pad(x_BSC[:, : slots - tap], (0, 0, tap, 0))
    return total_BSC
