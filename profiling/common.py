"""Common: how a measuring command begins and ends. Its own parser, its session, one way to decode, its line of JSON.

It measures nothing. Importing it loads no model library, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiling.results import RESULT_FLAGS, add_result_flags, check_out, show_result
from specdec.commands.flags import StrictParser, add_flags, program_name
from specdec.commands.help_text import HelpWithDefaults
from specdec.config import RunConfig
from specdec.errors import UserError, exit_status
from specdec.questions.problem import Problem
from specdec.records.provenance import provenance
from specdec.runs.resume import asked_problems

if TYPE_CHECKING:
    import torch

    from specdec.records.rounds import Round
    from specdec.session import Session

# The flags of failfast.py that commands share.
QUESTION_FLAGS = ("data_dir", "num_questions", "question_ids", "max_new_tokens", "seed", "prompt_style")
MODEL_FLAGS = ("target_model_name", "ar_model_name", "dllm_dir", "device", "dtype", "engine")
DRAFTER_FLAGS = (
    *("drafters", "draft_len", "unmask_threshold", "tau", "max_draft_len", "draft_step", "first_window"),
    *("failfast_rule", "reuse_drafts", "disable_reusing_drafter_kvs", "block_size", "small_block_size"),
    "use_block_cache",
)
COST_AWARE_FLAGS = ("calibration", "latency_profile", "latency_target")
DECODING_FLAGS = (*MODEL_FLAGS, "dataset_name", *QUESTION_FLAGS, *DRAFTER_FLAGS, *COST_AWARE_FLAGS)


def parser_of(module: str, about: str, flags: Collection[str] = ()) -> StrictParser:
    """A command's own parser: `about` is its docstring, `flags` are those of failfast.py that it reads."""
    parser = StrictParser(prog=program_name(module), description=about, formatter_class=HelpWithDefaults)
    add_flags(parser, flags)
    return parser


def run_measurement(
    parser: StrictParser,
    measure: Callable[[RunConfig, Session], dict[str, Any]],
    arguments: Sequence[str] | None,
    lines: Callable[[dict[str, Any]], Sequence[str]] | None = None,
) -> int:
    """`measure` what the command line asks for, and print it as JSON; a profiler's with its `lines` for people.

    Returns the exit status.
    """
    if lines is not None:
        add_result_flags(parser)

    def work() -> None:
        flags = parser.parse_args(arguments)
        check_out(flags)
        asked = {name: value for name, value in vars(flags).items() if name not in RESULT_FLAGS}
        session = session_of(RunConfig.of(**asked))
        found, device = measure(session.config, session), str(session.device)
        if lines is None:
            print_json(found, device)
        else:
            show_result(found, lines(found), flags, device)

    return exit_status(parser.prog, work)


def run_command(
    parser: StrictParser, work: Callable[[argparse.Namespace], dict[str, Any]], arguments: Sequence[str] | None
) -> int:
    """The same for a command that needs no session: `work` is given the parsed flags."""
    return exit_status(parser.prog, lambda: print_json(work(parser.parse_args(arguments))))


def run_profiler(
    parser: StrictParser,
    work: Callable[[argparse.Namespace], dict[str, Any]],
    lines: Callable[[dict[str, Any]], Sequence[str]],
    arguments: Sequence[str] | None,
) -> int:
    """The same for a profiler, which says in lines for people what it found."""

    def say() -> None:
        flags = parser.parse_args(arguments)
        check_out(flags)
        found = work(flags)
        show_result(found, lines(found), flags)

    return exit_status(parser.prog, say)


def session_of(config: RunConfig) -> Session:
    """`open_session`, once the command line is known to be right."""
    from specdec.session import open_session

    return open_session(config)


def asked_prompts(config: RunConfig, session: Session) -> list[list[int]]:
    return [session.encode(problem.messages, problem.title) for problem in first_turns(asked_problems(config))]


def first_turns(problems: Sequence[Problem]) -> list[Problem]:
    """The questions' first turns, with all that was said before them. Raises UserError for a question of one's own that
    goes on: the next turn needs the target's answer, and here each model answers alone."""
    for problem in problems:
        if problem.later and problem.place:
            raise UserError(
                f"{problem.place} has {len(problem.later)} more turns, and a profiler asks one: give a prompt, or "
                "messages with the earlier turns and their answers"
            )
    return [problem.alone() for problem in problems]


def datasets_of(problems: Sequence[Problem]) -> str:
    """The data sets that questions are of, in their order: "gsm8k, math"."""
    return ", ".join(dict.fromkeys(problem.dataset for problem in problems))


def tokens_of(rounds: Sequence[Round]) -> list[int]:
    return [token for turn in rounds for token in turn.emitted_tokens]


def cuda_device(program: str) -> torch.device:
    """The GPU that `program` measures. Raises UserError where there is none."""
    from specdec.models.load import resolve_device

    device = resolve_device("auto")
    if device.type != "cuda":
        raise UserError(f"{program} measures a GPU: it needs a CUDA device")
    return device


def attempt(measure: Callable[[], Any]) -> Any:
    """What `measure` returns, or in words why it failed: others can go on."""
    try:
        return measure()
    except Exception as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


def print_json(result: dict[str, Any], device: str = "cpu") -> None:
    """The measurement's last stdout line: its numbers and, where it does not say so itself, where they were taken."""
    if "provenance" not in result:
        import torch

        result = result | {"provenance": provenance(torch.device(device))}
    print(json.dumps(result))


def rounded(value: Any) -> Any:
    """Numbers to 5 digits, wherever in a document, as stored results have them."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def save_json(document: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def machine(device: torch.device) -> dict[str, Any]:
    """Provenance, and beside it what decides times on a GPU."""
    import torch

    found = provenance(device)
    if device.type == "cuda":
        found["cuda"] = torch.version.cuda
        found["num_multiprocessors"] = torch.cuda.get_device_properties(device).multi_processor_count
    return found
