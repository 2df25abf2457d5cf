"""What the measurements share: the JSON line they end with, and where they were taken."""

import json

import torch

from specdec.provenance import provenance


def print_json(result: dict, device: str = "cpu") -> None:
    """The measurement's last stdout line: its numbers and where they were taken."""
    print(json.dumps({**result, "provenance": provenance(torch.device(device))}))
