"""Features: what chosen layers of the target give for training documents, made by running the target and never stored
on a disk. Where they fit, those of all documents are made once and kept on the device; else in every step.

Shape suffixes: B documents, C hidden size, F taps x C, L positions, T tokens of TokenDocs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from training import ranks
from training.batches import TokenDocs, causal_batch
from training.losses import to_device
from training.models import autocast, hidden_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from training.graphs import Inputs

TOKENS_AT_ONCE = 1 << 16


@dataclass
class Features:
    """Of `docs`, by the target's layers `taps` (outputs, from 0). `kept_TF`: of all documents, or None."""

    target: PreTrainedModel
    taps: tuple[int, ...]
    kept_TF: Tensor | None = None

    def of(self, inputs: Inputs) -> Tensor:
        """[B, L, F] of a step's documents."""
        if self.kept_TF is not None:
            return self.kept_TF[inputs["flat_BL"]]
        return tapped(self.target, inputs["ids_BL"], self.taps)


def bytes_of(docs: TokenDocs, target: PreTrainedModel, taps: Sequence[int]) -> int:
    """What the features of all documents take."""
    return len(docs.tokens) * len(taps) * target.config.hidden_size * _dtype(target).itemsize


def features_of(docs: TokenDocs, target: PreTrainedModel, taps: tuple[int, ...], room_bytes: float) -> Features:
    """Features of documents: made at once where they take at most `room_bytes`."""
    if bytes_of(docs, target, taps) > room_bytes:
        return Features(target, taps)
    device, width = next(target.parameters()).device, len(taps) * target.config.hidden_size
    kept_TF = torch.zeros((len(docs.tokens), width), dtype=_dtype(target), device=device)
    by_length = np.argsort(docs.lengths, kind="stable")
    num_docs = max(1, TOKENS_AT_ONCE // int(docs.lengths.max()))
    for first in range(0, len(docs), num_docs):
        rows = by_length[first : first + num_docs]
        batch = causal_batch(docs, rows, pad_id=0, prompt_weight=1.0)
        made_BLF = tapped(target, to_device(batch.ids_BL, device), taps)
        lengths = docs.lengths[rows]
        inside = np.arange(batch.ids_BL.shape[1])[None] < lengths[:, None]
        flat = (docs.starts[rows][:, None] + np.arange(batch.ids_BL.shape[1])[None])[inside]
        kept_TF[to_device(flat, device)] = made_BLF[to_device(inside, device)]
    ranks.say(f"features of {len(docs.tokens) / 1e6:.1f} M tokens: {kept_TF.nbytes / 1e9:.2f} GB")
    return Features(target, taps, kept_TF)


@torch.no_grad()
def tapped(target: PreTrainedModel, ids_BL: Tensor, taps: Sequence[int]) -> Tensor:
    """Outputs of layers side by side, [B, L, F], in the device's dtype for features."""
    found: dict[int, Tensor] = {}
    layers = list(target.get_submodule("model.layers").children())
    handles = [layers[tap].register_forward_hook(partial(_keep, found, tap)) for tap in taps]
    try:
        with autocast(ids_BL.device):
            hidden_states(target, ids_BL)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([found[tap] for tap in taps], dim=-1).to(_dtype(target))


def _keep(found: dict[int, Tensor], tap: int, layer: torch.nn.Module, given: object, output: Any) -> None:
    found[tap] = output[0] if isinstance(output, tuple) else output


def _dtype(target: PreTrainedModel) -> torch.dtype:
    return torch.float32 if next(target.parameters()).device.type == "cpu" else torch.bfloat16
