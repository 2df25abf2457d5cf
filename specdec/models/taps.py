"""Taps: what chosen layers of a network give in a pass, kept on the device for a drafter that reads it.

Tap l is the output of layer l, counted from 0; the last layer's is before the final norm. What a checkpoint counts
otherwise, its reader translates. Without taps nothing here runs. Shape suffixes: B batch, C hidden size, F taps x
hidden size, L tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from transformers import PreTrainedModel

from specdec.errors import UserError


class Taps:
    """The taps of a network's last pass.

    Attributes:
        asked: the layers.
    """

    def __init__(self, model: PreTrainedModel, body: torch.nn.Module) -> None:
        """`body` runs the layers of `model`."""
        self.model, self.body = model, body
        self.asked: tuple[int, ...] = ()
        self._pieces: list[torch.Tensor] = []

    @cached_property
    def _layers(self) -> list[torch.nn.Module]:
        return list(self.body.get_submodule("layers").children())

    def begin(self, asked: Sequence[int]) -> None:
        """A new pass. Raises UserError for a layer that is not there."""
        if asked:
            self._require(asked)
        self.asked, self._pieces = tuple(asked), []

    def add(self, piece_LF: torch.Tensor) -> None:
        """What the next tokens of the pass gave."""
        self._pieces.append(piece_LF)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a run of the network's own modules: adds what the asked layers give."""
        found: dict[int, torch.Tensor] = {}
        handles = [self._layers[tap].register_forward_hook(partial(_keep, found, tap)) for tap in self.asked]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if handles:  # layers of a network that is spread over GPUs give what they give where they are
            device = found[self.asked[0]].device
            self.add(torch.cat([found[tap].flatten(0, -2).to(device) for tap in self.asked], dim=-1))

    def take(self, count: int, rows_L: torch.Tensor | None) -> torch.Tensor | None:
        """Those of these tokens of the pass, or of its first `count`, [L, F]; None where none were asked for. Once a
        pass."""
        pieces, is_asked = self._pieces, bool(self.asked)
        self.asked, self._pieces = (), []
        if not is_asked:
            return None
        tapped_LF = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return tapped_LF[:count] if rows_L is None else tapped_LF.index_select(0, rows_L.to(tapped_LF.device))

    def of_no_token(self, asked: Sequence[int]) -> torch.Tensor:
        """Taps of an empty pass, [0, F]. Raises UserError for a layer that is not there."""
        self._require(asked)
        table_VC = self.model.get_input_embeddings().get_parameter("weight")
        return table_VC.new_empty(0, len(asked) * table_VC.shape[1])

    def _require(self, asked: Sequence[int]) -> None:
        count = len(self._layers)
        if missing := [tap for tap in asked if not 0 <= tap < count]:
            name = self.model.name_or_path or type(self.model).__name__
            raise UserError(
                f"{name} has the layers 0 to {count - 1}, and a drafter reads the output of layer {missing[0]}: "
                "it was made for another target"
            )


def _keep(found: dict[int, torch.Tensor], tap: int, layer: torch.nn.Module, given: object, output: Any) -> None:
    """A hook: note what a layer gives, [1, L, C] or [L, C]. transformers 4.53 wraps it in a tuple."""
    found[tap] = output[0] if isinstance(output, tuple) else output
