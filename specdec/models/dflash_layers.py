"""Kinds of a DFlash head's layers: what each sees of the context and of its block. No weights and no pass.

Shape suffixes: L rows of blocks, P positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LayerKind:
    """What a layer's queries see of the block (`is_causal`: what stands before them and themselves), and how far they
    see at all (`window` positions; None: everything)."""

    is_causal: bool
    window: int | None = None


def seen(kind: LayerKind, visible_LP: Tensor, back_LP: Tensor) -> Tensor:
    """What a layer of this kind sees of what is visible; `back_LP`: how far before each row the keys stand."""
    if kind.is_causal:
        visible_LP = visible_LP & (back_LP >= 0)
    if kind.window is not None:
        visible_LP = visible_LP & (back_LP.abs() < kind.window)
    return visible_LP
