"""What the measurements share: how they begin, the JSON line they end with, and where they were taken."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from specdec.asked import asked_problems
from specdec.config import RunConfig, parse_args
from specdec.errors import UserError, exit_status
from specdec.models import resolve_device
from specdec.provenance import provenance
from specdec.session import Session, open_session
from specdec.tokens import encode_prompt


def run_measurement(
    program: str, measure: Callable[[RunConfig, Session], dict], arguments: Sequence[str] | None
) -> int:
    """`measure` what failfast.py's flags ask for, and print it as JSON. Returns the exit status."""

    def work() -> None:
        config = parse_args(arguments)
        session = open_session(config)
        print_json(measure(config, session), str(session.device))

    return exit_status(program, work)


def asked_prompts(config: RunConfig, session: Session) -> list[list[int]]:
    """The prompt ids of the questions asked for."""
    return [encode_prompt(session.tokenizer, problem.prompt) for problem in asked_problems(config)]


def cuda_device(program: str) -> torch.device:
    """The GPU that `program` measures. UserError where there is none."""
    device = resolve_device("auto")
    if device.type != "cuda":
        raise UserError(f"{program} measures a GPU: it needs a CUDA device")
    return device


def attempt(measure: Callable[[], object]) -> object:
    """What `measure` returns, or in words why it failed: others can go on."""
    try:
        return measure()
    except Exception as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


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
