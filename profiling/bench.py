"""What engines are measured with: models of real shapes, calls timed in turn, and how fast a device copies.

Models have random weights made on the device, or are checkpoints.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import transformers
from transformers import PreTrainedModel

from profiling.roofline import OTHERS, SHAPES, find_shape
from specdec.models.checkpoints import ModelSource, Role, find_model
from specdec.models.lm import CachedLM, device_clock
from specdec.models.load import load_hf_model, model_config, moved

COPY_BYTES = 4 << 30
PRODUCT_SIZE = 8192  # of square matrices: more do not multiply faster
TURNS = 5
# Of random weights: what of a config.json no shape has, and no pass costs by.
UNSHAPED = {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu"}


def make_model(name: str, role: Role, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A model of `SHAPES` or `OTHERS` with random weights, or the checkpoint that failfast.py would find. UserError."""
    if name not in SHAPES and name not in OTHERS:
        return moved(load_hf_model(find_model(role, name), dtype), device)
    torch.manual_seed(0)
    with torch.device(device), default_dtype(dtype):
        return shaped_model(name, role)


def whole_shape(role: Role, name: str) -> ModelSource:
    """`find_shape`, with all that a config.json says of a model that `make_model` makes. Raises UserError."""
    source = find_shape(role, name)
    return replace(source, config={**UNSHAPED, **source.config})


def shaped_model(name: str, role: Role) -> PreTrainedModel:
    """A model of `SHAPES` or `OTHERS`, on the default device in the default dtype."""
    source = whole_shape(role, name)
    model: PreTrainedModel = getattr(transformers, source.architecture.model_class)(model_config(source)).eval()
    return model


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def timed_in_turn(lm: CachedLM, calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Median, tenth and ninetieth percentile of each call in ms, after a few that do not count.

    Its repeats are spread over several turns: a host has slow and quick seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(TURNS):
        for name, call in calls.items():
            for _ in range(5):
                call()
            for _ in range(turn, repeats, TURNS):
                begin = lm.clock()
                call()
                times[name].append(1e3 * (lm.clock() - begin))
    return {name: _summary(taken) for name, taken in times.items()}


def _summary(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=10) if len(times) > 1 else [times[0]] * 9
    return {"ms": statistics.median(times), "p10": cuts[0], "p90": cuts[-1]}


def measure_copy(device: torch.device) -> float:
    """Bytes read and written per ms by a large copy within the device's memory, at best."""
    num_bytes = COPY_BYTES if device.type == "cuda" else COPY_BYTES // 64
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device).random_(0, 255)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(10):
        begin = device_clock(device)
        target.copy_(source)
        seconds.append(device_clock(device) - begin)
    del source, target
    if device.type == "cuda":
        torch.cuda.empty_cache()  # models of all sizes come after it
    return 2 * num_bytes / (1e3 * min(seconds))


def measure_products(device: torch.device, dtype: torch.dtype) -> float:
    """Multiplications and additions per ms of a large matrix product by the library, at best."""
    size = PRODUCT_SIZE if device.type == "cuda" else PRODUCT_SIZE // 16
    one, other = torch.randn(2, size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(10):
        begin = device_clock(device)
        one @ other
        seconds.append(device_clock(device) - begin)
    return 2 * size**3 / (1e3 * min(seconds))
