"""Provenance: where and with what a record was made. Kept beside results, never compared."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import specdec

if TYPE_CHECKING:
    import torch

PROJECT_DIR = specdec.HOME
CHANGES = "status", "--porcelain", "--untracked-files=no"


def provenance(device: torch.device | None) -> dict[str, Any]:
    """Versions, device, source revision and the time, as plain builtins. With `device` None torch is not imported, and
    nothing is said of what computes."""
    git = "git", "-C", str(PROJECT_DIR)
    # None where this is not a checkout; an installed program may lie inside the checkout of another one.
    revision = _output(*git, "rev-parse", "HEAD") if (PROJECT_DIR / ".git").exists() else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("torch", "transformers", "numpy")},
        **_computer(device),
        "git_revision": revision,
        "git_is_dirty": None if revision is None else bool(_output(*git, *CHANGES)),
    }


def _computer(device: torch.device | None) -> dict[str, Any]:
    if device is None:
        return dict.fromkeys(("device_name", "driver", "num_threads"))
    import torch

    is_gpu = device.type == "cuda"
    return {
        "device_name": torch.cuda.get_device_name(device) if is_gpu else platform.processor() or platform.machine(),
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if is_gpu else None,
        "num_threads": torch.get_num_threads(),
    }


def load_now() -> float | None:
    """The processes that ran or waited to, over the last minute; None where the system does not count them."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def num_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _output(*command: str) -> str | None:
    """What a command prints; None if it fails or is not available."""
    try:
        # A busy machine may take seconds to answer; only what hangs takes a minute.
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
