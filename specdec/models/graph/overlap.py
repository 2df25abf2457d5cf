"""Kernels that begin while the one before them ends: programmatic dependent launch, on GPUs from Hopper on.

A layer is a chain of short kernels, and between two of them a GPU does nothing for about a microsecond. So each admits
the next when it has read what it multiplies. The next asks for what no layer writes (norms' weights, biases, angles,
lengths), then waits for the one before it. Whoever admits has waited itself: after its own wait a kernel finds the
results of all before it. Results are the same to the last bit. A kernel of the matrix library begins as ever, when
the one before it has ended: what comes after it may ask early for all that was written before it.

Admitting earlier, at a kernel's start, gained less or nothing (docs/results/2026-11-27-gpu-engine.json): the next
kernel's programs then probably crowd into the few multiprocessors that are free.

Source: https://docs.nvidia.com/cuda/cuda-c-programming-guide, "Programmatic Dependent Launch and Synchronization".
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


def launch_options(is_wanted: bool) -> dict[str, bool]:
    """What a launch of such a kernel takes: on where it is wanted and the GPU can."""
    overlaps = is_wanted and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)
    return {"OVERLAPS": overlaps, "launch_pdl": overlaps}


@triton.jit
def wait_for_previous(OVERLAPS: tl.constexpr) -> None:
    """After it the results of the kernel before this one can be read, and anything written."""
    if OVERLAPS:
        gdc_wait()


@triton.jit
def admit_next(OVERLAPS: tl.constexpr) -> None:
    """The next kernel may begin when all programs of this one were here or have ended."""
    if OVERLAPS:
        gdc_launch_dependents()
