"""KVBuffer: the keys and values of a Hugging Face module, in buffers of our own. It decides nothing: see `lm.py`.

Shape suffixes: B batch (always 1), D head size, H KV heads, L new tokens, P past and new positions.
"""

from collections.abc import Sequence

import torch
from transformers import Cache

INITIAL_CAPACITY = 512


class KVBuffer(Cache):
    """Keys and values of all layers, written in place at `length`: rewinding moves a counter.

    transformers' own caches either cannot be rewound (static) or copy themselves in every call (dynamic), and their
    interfaces differ between versions 4 and 5; the model only asks for `update` and `get_seq_length`.
    """

    is_compileable = False

    def __init__(self, capacity: int = INITIAL_CAPACITY) -> None:
        # The base class would build layers of its own, differently in versions 4 and 5; 5 looks at `layers`.
        self.layers: list = []
        self.length = 0
        self.num_after = 0  # positions after the new ones that are looked at too
        self._capacity = capacity
        self._buffers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # layer -> keys and values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the new positions of a layer, [B, H, L, D]; returns past and new keys and values, [B, H, P, D]."""
        end = self.length + key_states.shape[2]
        keys, values = self._buffers.get(layer_idx, (None, None))
        keys, values = self._grown(keys, key_states, end), self._grown(values, value_states, end)
        self._buffers[layer_idx] = keys, values
        keys[:, :, self.length : end], values[:, :, self.length : end] = key_states, value_states
        return keys[:, :, : end + self.num_after], values[:, :, : end + self.num_after]

    def _grown(self, buffer: torch.Tensor | None, like_BHLD: torch.Tensor, end: int) -> torch.Tensor:
        """`buffer` itself if it has room for `end` positions, else a copy of twice the room."""
        if buffer is not None and buffer.shape[2] >= end:
            return buffer
        capacity = self._capacity
        while capacity < end:
            capacity *= 2
        batch, heads, _, size = like_BHLD.shape
        grown = like_BHLD.new_zeros(batch, heads, capacity, size)
        if buffer is not None:
            grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown

    def move(self, rows: Sequence[int]) -> None:
        """The new positions `length` + row, of these rows, go to `length`, `length` + 1, ... in the same order."""
        begin, end = self.length, self.length + len(rows)
        for keys, values in self._buffers.values():
            places = begin + torch.tensor(list(rows), device=keys.device)
            for buffer in (keys, values):
                buffer[:, :, begin:end] = buffer.index_select(2, places)

    def first(self, num_positions: int) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the first `num_positions` positions by layer, each [B, H, num_positions, D]: views."""
        both = self._buffers.items()
        return {layer: (keys[:, :, :num_positions], values[:, :, :num_positions]) for layer, (keys, values) in both}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of past positions (the model asks before it runs its layers)."""
        return self.length
