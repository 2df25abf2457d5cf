"""Ms per token and per pass under Hugging Face transformers, in this process: target, AR drafter and dLLM drafter.

    python -m profiling.profile_tpt_hf --target_model_name Qwen/Qwen2.5-7B-Instruct --dataset_name gsm8k

Answers questions with each model alone, greedily, one at a time: a target's and an AR drafter's pass is one token, a
dLLM's is a block. In the middle of each answer the target also verifies drafts of several lengths. Modules run as they
are (the program's own engine: profile_engine).

On a terminal it prints lines for people; into a pipe or a file (also --out FILE) JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from profiling.common import QUESTION_FLAGS, datasets_of, first_turns, parser_of, session_of
from profiling.new_profile import (
    DraftCost,
    TargetCost,
    add_profile_flags,
    check_profile,
    read_draft_cost,
    write_profile,
)
from profiling.results import add_result_flags, check_out, result_lines, show_result
from profiling.serving.asking import add_trial_flags, question_arguments
from profiling.serving.trials import InvalidTrial, require_trials, run_trials, summary
from specdec.commands.flags import status_as
from specdec.config import RunConfig
from specdec.drafters.block_diffusion import BlockSpec, settings_of
from specdec.drafters.plain import Plain
from specdec.questions.sets import Problem, load_problems

if TYPE_CHECKING:
    from profiling.in_process import Filler, Speaker
    from specdec.session import Session

FLAGS = (
    *("target_model_name", "ar_model_name", "dllm_dir", "dataset_name", "drafters", "unmask_threshold"),
    *("block_size", "small_block_size", "device", "dtype", *QUESTION_FLAGS),
)
KINDS = ("plain", "ar_sf", "failfast")
KINDS_OF_PASS = ("ar_drafter", "dllm_drafter")
VERIFY_COUNTS = (1, 2, 4, 8, 16, 32, 64)
ENGINE = "Hugging Face transformers, eager"


def main(arguments: Sequence[str] | None = None) -> int:
    def work() -> None:
        parser = parser_of("profiling.profile_tpt_hf", __doc__, FLAGS)
        parser.set_defaults(drafters=list(KINDS))
        add_trial_flags(parser)
        add_profile_flags(parser)
        add_result_flags(parser)
        flags = parser.parse_args(arguments)
        check_out(flags)
        chosen = {name: getattr(flags, name) for name in FLAGS}
        session = session_of(RunConfig.of(**chosen, engine="eager", latency_profile=["none"]))
        problems = first_turns(load_problems(flags.dataset_name, **question_arguments(flags)))
        device = str(session.device)
        profile(session, flags, problems, lambda found: show_result(found, result_lines(found), flags, device))

    return status_as("profiling.profile_tpt_hf", work)


def profile(
    session: Session, flags: argparse.Namespace, problems: Sequence[Problem], show: Callable[[dict[str, Any]], None]
) -> None:
    """Measure, `show` what was found, and write the latency profile that is asked for. Raises UserError."""
    draft = read_draft_cost(flags.drafter) if flags.drafter else None
    has_drafter = any(not isinstance(spec, Plain) for spec in session.specs)
    check_profile(flags, ENGINE, draft is not None or has_drafter)
    found = measure(session, flags, problems)
    show(found)
    if flags.write_profile:
        require_trials(found, "a latency profile")
        write_hf_profile(flags, found, draft)


def measure(session: Session, flags: argparse.Namespace, problems: Sequence[Problem]) -> dict[str, Any]:
    config = session.config
    found: dict[str, Any] = {
        "what": "ms per token and per pass of each model alone; medians over trials",
        "engine": ENGINE,
        "model": config.models.target_model_name,
        "target": config.models.target_name,
        "dataset": datasets_of(problems),
        "max_new_tokens": config.decoding.max_new_tokens,
        "dtype": session.dtype_name,
        "hardware": flags.hardware,
    }
    for name, model in models_of(session).items():
        for _ in range(flags.warm_up):
            with suppress(InvalidTrial):
                model.ask(problems[0])
        model.forget()
        times = {**summary(run_trials(model.ask, problems, flags.repeats)), **model.pass_times()}
        found |= times if name == "target" else {name: times}
    return found


def models_of(session: Session) -> dict[str, Speaker | Filler]:
    """The target and the drafters' models, by what the result calls them."""
    from profiling.in_process import Filler, Speaker

    models: dict[str, Speaker | Filler] = {"target": Speaker(session, session.target().lm, VERIFY_COUNTS)}
    for spec in session.specs:
        lm = session.model_of(spec)
        if lm is not None and isinstance(spec, BlockSpec):
            settings = settings_of(session.setup(spec))
            models["dllm_drafter"] = Filler(session, lm, settings, spec.unmask_threshold)
        elif lm is not None:
            models["ar_drafter"] = Speaker(session, lm)
    return models


def write_hf_profile(flags: argparse.Namespace, found: dict[str, Any], draft: DraftCost | None) -> None:
    """The profile of what was measured: passes of the drafters, tokens and verifications of the target."""
    keys = ("model", "dtype", "dataset", "num_valid", "ms_per_token", "verify_ms")
    evidence = {key: found[key] for key in keys}
    table = {count: times["median"] for count, times in found["verify_ms"].items()}
    target = TargetCost(found["target"], found["ms_per_token"]["median"], evidence, table)
    write_profile(flags, ENGINE, target, draft or _draft_cost(found))


def _draft_cost(found: dict[str, Any]) -> DraftCost | None:
    """The drafters' passes; where only one drafter was measured, it stands for both."""
    parts: dict[str, Any] = {name: found[name]["ms_per_pass"] for name in KINDS_OF_PASS if name in found}
    medians = [part["median"] for part in parts.values()]
    return DraftCost(medians[-1], parts, ar_draft_pass_ms=medians[0]) if medians else None


if __name__ == "__main__":
    sys.exit(main())
