"""KVBuffer: the keys and values of a Hugging Face module, in buffers of our own. It decides nothing: see `lm.py`.

Shape suffixes: B batch (always 1), D head size, F = 2 H, H KV heads, L new tokens, P past and new positions.
"""

import functools
import inspect
from collections.abc import Callable

import torch
from transformers import Cache

INITIAL_CAPACITY = 512


class JointCache(Cache):
    """A cache that takes the keys and the values of a layer as one tensor, one after the other. Hugging Face modules
    hand it both (`update`), and ask for `get_seq_length`; layers of our own `store`."""

    is_compileable = False

    def __init__(self) -> None:
        # The base class would build layers of its own, differently in versions 4 and 5; 5 looks at `layers`.
        self.layers: list = []

    def store(self, new_BFLD: torch.Tensor, layer_idx: int) -> torch.Tensor:
        """Add the new keys and values of a layer; returns past and new ones, [B, F, P, D]."""
        raise NotImplementedError

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`store` of keys and values, each [B, H, L, D]; returns past and new ones, each [B, H, P, D]."""
        keys, values = self.store(torch.cat([key_states, value_states], dim=1), layer_idx).chunk(2, dim=1)
        return keys, values


class KVBuffer(JointCache):
    """Keys and values of all layers, written in place at `length`: rewinding moves a counter.

    transformers' own caches either cannot be rewound (static) or copy themselves in every call (dynamic), and their
    interfaces differ between versions 4 and 5.
    """

    def __init__(self, capacity: int = INITIAL_CAPACITY) -> None:
        super().__init__()
        self.length = 0
        self.num_after = 0  # positions after the new ones that are looked at too
        self._capacity = capacity
        self._buffers: dict[int, torch.Tensor] = {}  # layer -> [B, F, capacity, D]

    def store(self, new_BFLD: torch.Tensor, layer_idx: int) -> torch.Tensor:
        num_new = new_BFLD.shape[2]
        end = self.length + num_new
        buffer = self._buffers.get(layer_idx)
        if buffer is None or buffer.shape[2] < end:
            buffer = self._grown(layer_idx, new_BFLD, end)
        buffer.narrow(2, self.length, num_new).copy_(new_BFLD)
        return buffer.narrow(2, 0, end + self.num_after)

    def _grown(self, layer_idx: int, like_BFLD: torch.Tensor, end: int) -> torch.Tensor:
        """A layer's buffer with room for `end` positions: a copy of twice the room."""
        capacity = self._capacity
        while capacity < end:
            capacity *= 2
        rows, heads, _, size = like_BFLD.shape
        grown = like_BFLD.new_zeros(rows, heads, capacity, size)
        if layer_idx in self._buffers:
            grown[:, :, : self.length] = self._buffers[layer_idx][:, :, : self.length]
        self._buffers[layer_idx] = grown
        return grown

    def move(self, rows_L: torch.Tensor) -> None:
        """The new positions `length` + row, of these rows, go to `length`, `length` + 1, ... in the same order."""
        for buffer in self._buffers.values():
            new = buffer[:, :, self.length :]
            new[:, :, : len(rows_L)] = new.index_select(2, rows_L.to(buffer.device))

    def first(self, num_positions: int) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of the first `num_positions` positions by layer, each [B, H, num_positions, D]: views."""
        views = {layer: both[:, :, :num_positions].chunk(2, dim=1) for layer, both in self._buffers.items()}
        return {layer: (keys, values) for layer, (keys, values) in views.items()}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of past positions (the model asks before it runs its layers)."""
        return self.length


def as_cache(module: torch.nn.Module, cache: Cache) -> dict[str, Cache]:
    """`cache` under the name by which the forward of a Hugging Face module takes it."""
    return {_cache_name(type(module).forward): cache}


@functools.cache
def _cache_name(forward: Callable[..., object]) -> str:
    """transformers 5.24 says "cache" where versions before it said "past_key_values"."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"
