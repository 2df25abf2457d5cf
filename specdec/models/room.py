"""Room: what a model's weights take in memory, as they are to be kept, and whether a GPU has it, before any is loaded.

It loads nothing (`load.py`), and reckons with weights alone: caches and activations come on top.
"""

from dataclasses import replace

import torch

from specdec.errors import UserError
from specdec.models.checkpoints import INT8, TARGET, ModelSource

ROOM_FOR_WEIGHTS = 0.9  # of a GPU's free memory; the rest is for caches and activations


def kept_as(source: ModelSource, how: str, dtype: torch.dtype) -> ModelSource:
    """The target with its matrices kept in the dtype, or in 8 bits. Raises UserError where they cannot be."""
    if how == INT8 and dtype == torch.float16:
        raise UserError(
            "--target_weights int8 and float16 do not go together, for sums overflow before they are scaled: "
            "add --dtype bfloat16 or float32"
        )
    if how == INT8 and source.architecture.has_experts:
        raise UserError(f"{source.title} has experts, which are not kept in 8 bits: leave out --target_weights int8")
    return replace(source, kept_as=how)


def require_room(source: ModelSource, device: torch.device, dtype: torch.dtype) -> None:
    """Raise UserError, before anything is loaded, where the weights alone need more memory than a GPU has left."""
    if device.type != "cuda" or must_spread(source, device, dtype):
        return
    free, size = torch.cuda.mem_get_info(device)[0], source.weight_bytes(dtype.itemsize)
    if size <= free:
        return
    in_8_bits = replace(source, kept_as=INT8)
    can_be = source.role is TARGET and source.kept_as != INT8 and not source.architecture.has_experts
    advice = f"add --target_weights int8 ({_size_title(in_8_bits, dtype)})" if can_be else "choose a smaller model"
    raise UserError(
        f"{source.title} takes {_size_title(source, dtype)} with {_weights_title(source, dtype)}, and {device} has "
        f"{free / 1e9:.1f} GB free: {advice}, or a GPU with more memory"
    )


def must_spread(source: ModelSource, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a target is too big for one GPU where there are several: then its layers go to all of them.

    Drafters stay on one GPU, as does a target in 8 bits, and everything if --device names one (cuda:1).
    """
    if source.role is not TARGET or device != torch.device("cuda") or torch.cuda.device_count() < 2:
        return False
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return source.kept_as != INT8 and source.weight_bytes(dtype.itemsize) > ROOM_FOR_WEIGHTS * free_bytes


def loading_title(source: ModelSource, dtype: torch.dtype, device: torch.device, backend: str) -> str:
    """What is said before minutes of silence: "target X: 65.5 GB, bfloat16 on cuda, graph"."""
    threads = f", threads: {torch.get_num_threads()}" if device.type == "cpu" else ""
    how = f"{_weights_title(source, dtype)} on {device}, {backend}{threads}"
    return f"{source.role.title} {source.name}: {_size_title(source, dtype)}, {how}"


def _size_title(source: ModelSource, dtype: torch.dtype) -> str:
    size = source.weight_bytes(dtype.itemsize)
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _weights_title(source: ModelSource, dtype: torch.dtype) -> str:
    """In words what the weights are kept in: "bfloat16", "layers in int8, the rest in bfloat16"."""
    name = str(dtype).removeprefix("torch.")
    return f"layers in {source.kept_as}, the rest in {name}" if source.kept_as == INT8 else name
