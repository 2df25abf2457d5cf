"""What the measurements share: the JSON line they end with, and where they were taken."""

import json
from typing import Any

import torch

from specdec.provenance import provenance


def print_json(result: dict, device: str = "cpu") -> None:
    """The measurement's last stdout line: its numbers and where they were taken."""
    print(json.dumps({**result, "provenance": provenance(torch.device(device))}))


def machine(device: torch.device) -> dict[str, Any]:
    """Provenance, with what decides times on a GPU beside it."""
    found = provenance(device)
    if device.type == "cuda":
        found["cuda"] = torch.version.cuda
        found["num_multiprocessors"] = torch.cuda.get_device_properties(device).multi_processor_count
    return found
