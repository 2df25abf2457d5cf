"""Bounds: the latency profiles of lower bounds that come with the program, from `profiling/roofline.py`. None is typed.

python -m scripts.bounds --write

A GPU has the targets whose weights it holds in bfloat16. They are calculated, and say so wherever they are shown.
"""

import sys
from typing import Any

from profiling.roofline import BYTES, GPUS, Machine, bounds, build_parser, find_shape
from specdec.latency.profile import PROFILE_DIR, profile_text
from specdec.models.checkpoints import TARGET

COMMON = ("A100", "H100", "H200", "RTX_A6000")
TARGETS = (
    *("Qwen2.5-7B", "Qwen2.5-14B", "Qwen2.5-32B"),
    *("Qwen3-8B", "Qwen3-14B", "Qwen3-32B", "Llama-3.1-8B-Instruct"),
)
DTYPE = "bfloat16"


def bound(gpu: str) -> dict[str, Any]:
    """The profile of a GPU of roofline's table: {"name": "H100_bound", ...}."""
    machine = Machine(GPUS[gpu], BYTES[DTYPE])
    weights_GB = {name: 1e-9 * machine.value_bytes * find_shape(TARGET, name).num_parameters for name in TARGETS}
    targets = [name for name, size in weights_GB.items() if size <= machine.gpu.memory_GB]
    words = ["--gpu", gpu, "--targets", *targets, "--contexts", "512", "--write_profile", f"{gpu}_bound"]
    return bounds(build_parser().parse_args([*words, "--dtype", DTYPE]), machine)


def text(gpu: str) -> str:
    """Its file."""
    return profile_text(bound(gpu))


def main() -> int:
    for gpu in COMMON:
        if sys.argv[1:] == ["--write"]:
            (PROFILE_DIR / f"{gpu}_bound.json").write_text(text(gpu), encoding="utf-8")
        else:
            print(text(gpu), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
