"""GPUs: what their datasheets promise. Nothing here is measured.

Dense FLOP/s of bfloat16 products with float32 sums. Datasheets that give them with 2:4 sparsity (from Hopper on) give
twice these figures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """`memory_TB_per_s`, `dense_TFLOP_per_s` (bfloat16) and `memory_GB` of one GPU, and where they stand."""

    memory_TB_per_s: float
    dense_TFLOP_per_s: float
    memory_GB: float
    source: str


GPUS = {
    "RTX_A6000": Gpu(0.768, 154.8, 48, "NVIDIA RTX A6000 datasheet; Ampere GA102 whitepaper"),
    "A100": Gpu(2.039, 312, 80, "NVIDIA A100 datasheet, A100 80GB SXM"),
    "H100": Gpu(3.35, 989.4, 80, "NVIDIA H100 datasheet, H100 SXM (1,979 TFLOPS with sparsity)"),
    "H200": Gpu(4.8, 989.4, 141, "NVIDIA H200 datasheet, H200 SXM (1,979 TFLOPS with sparsity)"),
    "L40S": Gpu(0.864, 362.05, 48, "NVIDIA L40S datasheet"),
    "RTX_4090": Gpu(1.008, 165.2, 24, "NVIDIA Ada GPU architecture whitepaper, GeForce RTX 4090"),
    "B200": Gpu(8.0, 2250, 180, "NVIDIA DGX B200 datasheet, an eighth of it; Blackwell architecture brief"),
}


def gpu_of(device_name: str) -> str | None:
    """The GPU of the table that a driver's name means: `gpu_of("NVIDIA H100 80GB HBM3") == "H100"`."""
    return next((name for name in GPUS if re.search(rf"\b{name.replace('_', ' ')}\b", device_name)), None)
