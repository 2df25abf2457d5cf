"""Tensors in files: their names and shapes before any is loaded, and the loading. Never executes what is in a file.

Safetensors say all in a JSON header. Files of torch.save are pickles: torch's own reader that admits nothing but
tensors opens them (`weights_only`), and what else they hold is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdec.errors import MALFORMED, UserError

if TYPE_CHECKING:
    import torch

MAX_HEADER = 100_000_000  # bytes, as the format has it


@dataclass(frozen=True)
class Shape:
    """A tensor's sizes, and the file that holds it."""

    sizes: tuple[int, ...]
    file: Path

    @property
    def num_values(self) -> int:
        return math.prod(self.sizes)


Shapes = Mapping[str, Shape]


def shapes_in(files: Sequence[Path]) -> dict[str, Shape]:
    """The tensors of some files by name. Raises UserError for a file that cannot be read, or is cut."""
    found: dict[str, Shape] = {}
    for file in files:
        sizes = _sizes_of_safetensors(file) if file.suffix == ".safetensors" else _sizes_of_torch(file)
        found |= {name: Shape(size, file) for name, size in sizes.items()}
    return found


def load_tensors(shapes: Shapes, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The tensors of these names, on the CPU, as they were saved. Raises UserError."""
    found: dict[str, Any] = {}
    for file in dict.fromkeys(shapes[name].file for name in names):
        own = [name for name in names if shapes[name].file == file]
        found |= _from_safetensors(file, own) if file.suffix == ".safetensors" else _from_torch(file, own)
    return found


def _sizes_of_safetensors(file: Path) -> dict[str, tuple[int, ...]]:
    """By the header alone: {"name": {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}}."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= MAX_HEADER:
                raise ValueError("no header")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        sizes = {name: _sizes(one["shape"], *one["data_offsets"]) for name, one in header.items()}
        end = max((one["data_offsets"][1] for one in header.values()), default=0)
        is_whole = file.stat().st_size == 8 + length + end
    except (OSError, *MALFORMED) as error:
        raise _unreadable(file) from error
    if not is_whole:
        raise _unreadable(file)
    return sizes


def _sizes(sizes: Sequence[int], begin: int, end: int) -> tuple[int, ...]:
    """Of a tensor between these bytes. Raises ValueError for what has no such size, or no room there."""
    are_counts = all(type(one) is int and one >= 0 for one in (*sizes, begin, end))
    if not are_counts or begin > end or math.prod(sizes) > 8 * (end - begin):
        raise ValueError(f"sizes {sizes!r:.40} from byte {begin!r:.40} to {end!r:.40}")
    return tuple(sizes)


def _from_safetensors(file: Path, names: Sequence[str]) -> dict[str, Any]:
    from safetensors import safe_open

    try:
        with safe_open(str(file), framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in names}
    except Exception as error:
        raise _unreadable(file) from error


def _sizes_of_torch(file: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in _opened(file).items()}


def _from_torch(file: Path, names: Sequence[str]) -> dict[str, Any]:
    found = _opened(file)
    return {name: found[name] for name in names}


def _opened(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of torch.save, not read from the disk before they are looked at."""
    import torch

    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise _unreadable(file) from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in found.items()
    ):
        raise UserError(f"{file} holds more than tensors, and nothing else is read: save them as safetensors")
    return found


def _unreadable(file: Path) -> UserError:
    return UserError(f"{file} is not a whole file of tensors: fetch it again")
