"""Output lengths per data set: how many tokens a model answers with, on a server or in this process.

    python -m profiling.profile_dataset_output --target_model_name bundled --datasets gsm8k math --data_dir data
    python -m profiling.profile_dataset_output --target_model_name Qwen/Qwen2.5-7B-Instruct --datasets gsm8k \\
        --base_url http://127.0.0.1:8000/v1

Without --base_url the model answers here, under Hugging Face transformers. Lengths say how long a context a
verification meets, and how often an answer is cut off at the budget.

On a terminal it prints lines for people; into a pipe or a file (also --out FILE) JSON.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from profiling import profile_tpt_hf
from profiling.common import QUESTION_FLAGS, first_turns, parser_of, session_of
from profiling.new_profile import add_profile_flags
from profiling.profile_tpt_vllm import VLLM
from profiling.results import add_result_flags, check_out, result_lines, show_result, table_lines
from profiling.serving import server_profile
from profiling.serving.asking import Engine, add_server_flags, question_arguments
from profiling.serving.stream import ALL_ENDS
from profiling.serving.trials import spread
from specdec.commands.flags import StrictParser, status_as
from specdec.config import RunConfig
from specdec.questions.sets import DATASETS, Problem, load_problems

HERE_FLAGS = ("device", "dtype", *QUESTION_FLAGS)
NAME, URL, VERSION = "profile_dataset_output", VLLM.base_url, VLLM.version_url
SERVER = Engine(NAME, "OpenAI server", URL, VERSION, speculates=False, ends=ALL_ENDS, times_are_plain=False)


def main(arguments: Sequence[str] | None = None) -> int:
    def work() -> None:
        flags = _parser().parse_args(arguments)
        check_out(flags)
        found = (problem for name in flags.datasets for problem in load_problems(name, **question_arguments(flags)))
        _answer(flags, first_turns(list(found)))

    return status_as("profiling.profile_dataset_output", work)


def _parser() -> StrictParser:
    parser = parser_of("profiling.profile_dataset_output", __doc__, HERE_FLAGS)
    parser.add_argument("--datasets", nargs="+", default=["bundled"], choices=tuple(DATASETS))
    add_server_flags(parser, SERVER)
    add_profile_flags(parser)
    add_result_flags(parser)
    parser.set_defaults(base_url=None, repeats=1, max_new_tokens=1024)
    return parser


def _answer(flags: argparse.Namespace, problems: Sequence[Problem]) -> None:
    if flags.base_url is not None:
        server_profile.profile(SERVER, flags, problems, lambda found: _show(found, flags))
        return
    chosen = {name: getattr(flags, name) for name in ("target_model_name", *HERE_FLAGS)}
    session = session_of(RunConfig.of(**chosen, drafters=["plain"], engine="eager", latency_profile=["none"]))
    device = str(session.device)
    profile_tpt_hf.profile(session, flags, problems, lambda found: _show(found, flags, device))


def _show(found: dict[str, Any], flags: argparse.Namespace, device: str = "cpu") -> None:
    by_dataset = {name: lengths(found, name) for name in flags.datasets}
    result = {**found, "what": "tokens an answer has; spreads over questions", "lengths": by_dataset}
    known = {name: one["output_tokens"] for name, one in by_dataset.items() if one["output_tokens"]}
    cut = "; ".join(f"{name} {one['num_cut_off']}" for name, one in by_dataset.items())
    lines = [*result_lines(found), *table_lines("Tokens of an answer, a question once:", known, digits=0)]
    show_result(result, [*lines, f"cut off at {flags.max_new_tokens} tokens: {cut}"], flags, device)


def lengths(found: dict[str, Any], dataset: str) -> dict[str, Any]:
    """Output lengths on one data set, and how many answers the budget cut off; each question once."""
    trials = {one["question_id"]: one for one in reversed(found["trials"]) if one["dataset"] == dataset}
    return {
        "output_tokens": spread([trial["num_tokens"] for trial in trials.values()]),
        "num_cut_off": sum(trial["finish_reason"] == "length" for trial in trials.values()),
    }


if __name__ == "__main__":
    sys.exit(main())
