"""KVBuffer: the keys and values of a Hugging Face module, in buffers of our own. It decides nothing: see `lm.py`.

Shape suffixes: B batch (always 1), D head size, H KV heads, L new tokens, P past and new positions.
"""

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
        self._buffers: dict[int, torch.Tensor] = {}  # layer -> keys and values, [2, B, H, capacity, D]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the new positions of a layer, [B, H, L, D]; returns past and new keys and values, [B, H, P, D]."""
        begin, end = self.length, self.length + key_states.shape[2]
        buffer = self._with_room(layer_idx, key_states, end)
        buffer[0, :, :, begin:end], buffer[1, :, :, begin:end] = key_states, value_states
        keys, values = buffer.narrow(3, 0, end + self.num_after).unbind()
        return keys, values

    def store(self, new_2BHLD: torch.Tensor, layer_idx: int) -> torch.Tensor:
        """`update` of keys and values as one; returns both as one, [2, B, H, P, D]."""
        num_new = new_2BHLD.shape[3]
        end = self.length + num_new
        buffer = self._with_room(layer_idx, new_2BHLD[0], end)
        buffer.narrow(3, self.length, num_new).copy_(new_2BHLD)
        return buffer.narrow(3, 0, end + self.num_after)

    def _with_room(self, layer_idx: int, like_BHLD: torch.Tensor, end: int) -> torch.Tensor:
        """A layer's buffer, with room for `end` positions: if need be a copy of twice the room."""
        buffer = self._buffers.get(layer_idx)
        if buffer is not None and buffer.shape[3] >= end:
            return buffer
        capacity = self._capacity
        while capacity < end:
            capacity *= 2
        batch, heads, _, size = like_BHLD.shape
        grown = like_BHLD.new_zeros(2, batch, heads, capacity, size)
        if buffer is not None:
            grown[:, :, :, : self.length] = buffer[:, :, :, : self.length]
        self._buffers[layer_idx] = grown
        return grown

    def first(self, num_positions: int) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the first `num_positions` positions by layer, each [B, H, num_positions, D]: views."""
        views = {layer: both[:, :, :, :num_positions].unbind() for layer, both in self._buffers.items()}
        return {layer: (keys, values) for layer, (keys, values) in views.items()}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of past positions (the model asks before it runs its layers)."""
        return self.length
