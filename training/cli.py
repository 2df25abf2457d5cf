"""What the training commands share: strict flags, device, one JSON line at the end, exit status 2 for user errors."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from specdec.commands.flags import StrictParser, program_name
from specdec.commands.help_text import HelpWithDefaults
from specdec.errors import UserError
from training import ranks
from training.export import check_free
from training.loop import LoopSettings, OutOfTime, Place

if TYPE_CHECKING:
    import torch


COSTS = """time and memory:
  A training keeps 16 bytes a parameter of what it trains, 4 of the target, and activations that grow with --num_docs;
  answers keep a cache for --max_rows rows: lower these where memory ends. On one H100, scripts/smollm2.sh took 15
  minutes for SmolLM2-135M-Instruct (17,524 answers in 51 s, both drafters, the benchmark); drafters of the bundled
  target took six. More prompts are better: with 12 versions of every question 50.4 % of static drafts of 8 were
  accepted, with 4 of them it was 44.7 %.
  Stopped at any moment, every command goes on when it is given again."""


class _Parser(StrictParser):
    """Tells of a mistyped flag once, however many processes there are."""

    def error(self, message: str) -> NoReturn:
        ranks.let_the_leader_speak()
        super().error(message)


def training_parser(module: str, description: str) -> argparse.ArgumentParser:
    """A strict parser with the flags that every training command has."""
    parser = _Parser(prog=program_name(module), description=description, formatter_class=HelpWithDefaults, epilog=COSTS)
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--max_minutes", type=float, help="stop cleanly after this long; run again to go on")
    return parser


def pick_device(name: str) -> torch.device:
    """The device asked for; on CUDA, fp32 matrix products may use TF32. UserError when it is not there."""
    import torch

    from specdec.models.load import resolve_device

    device = resolve_device(ranks.local_device(str(resolve_device(name))))
    if device.type == "cuda":
        if ranks.size() > 1:
            torch.cuda.set_device(device)  # NCCL takes the current one
        torch.set_float32_matmul_precision("high")
        # cuDNN's attention plans anew for every new shape, and almost every batch has one.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return device


def add_compile_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the layers, to make steps on a GPU faster: 20 s at the start of each training",
    )


def add_loop_flags(parser: argparse.ArgumentParser, loop: LoopSettings) -> None:
    """What `loop_of` and `place_of` read, with these defaults."""
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--num_steps", type=int, default=loop.num_steps, help="optimizer steps")
    parser.add_argument("--num_docs", type=int, default=loop.num_docs, help="documents in a step")
    parser.add_argument("--learning_rate", type=float, default=loop.learning_rate, help="at its highest")
    add_compile_flag(parser)


def loop_of(arguments: argparse.Namespace) -> LoopSettings:
    return LoopSettings(arguments.num_steps, arguments.num_docs, arguments.learning_rate, seed=arguments.seed)


def deadline_of(max_minutes: float | None) -> float | None:
    """Minutes from now as a time.monotonic() value; None for no limit."""
    return None if max_minutes is None else time.monotonic() + 60 * max_minutes


def place_of(arguments: argparse.Namespace) -> Place:
    """Where a single training command runs: its checkpoint stands beside --out. UserError when --out is taken."""
    out = arguments.out.resolve()
    check_free(out)
    return Place(
        checkpoint=out.with_name(out.name + ".checkpoint.pt"),
        device=pick_device(arguments.device),
        deadline=deadline_of(arguments.max_minutes),
        is_compiled=arguments.compile,
    )


def run_command(module: str, main: Callable[[], dict]) -> int:
    """The exit status (2: the user's mistake); the result is the last line, JSON, by the leader of the processes."""
    program = program_name(module)
    try:
        with ranks.joined():
            return _run_joined(program, main)
    except UserError as error:
        return _complain(program, error)


def _run_joined(program: str, main: Callable[[], dict]) -> int:
    try:
        result = {"finished": True, **main()}
    except OutOfTime as pause:
        result = {"finished": False, "stopped": str(pause)}
    except UserError as error:
        ranks.let_the_leader_speak()
        return _complain(program, error)
    except OSError as error:  # what the system refuses: a file where a folder is to be, a full disk
        ranks.let_the_leader_speak()
        return _complain(program, UserError(f"{error.strerror or error} ({error.filename or 'output'})"))
    if ranks.is_leader():
        print(json.dumps(result), flush=True)
    return 0


def _complain(program: str, error: UserError) -> int:
    print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return 2
