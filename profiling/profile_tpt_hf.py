"""Ms per token and per pass under Hugging Face transformers, in this process: target, AR drafter and dLLM drafter.

    python -m profiling.profile_tpt_hf --target_model_name Qwen/Qwen2.5-7B-Instruct --dataset_name gsm8k

Answers questions with each model alone, greedily, one at a time: a target's and an AR drafter's pass is one token, a
dLLM's is a block. In the middle of each answer the target also verifies drafts of several lengths. Modules run as they
are (the program's own engine: profile_engine). The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from profiling.common import print_json
from profiling.in_process import Filler, Speaker
from profiling.new_profile import (
    DraftCost,
    TargetCost,
    add_profile_flags,
    check_profile,
    read_draft_cost,
    write_profile,
)
from profiling.serving.asking import QUESTION_FLAGS, add_trial_flags, question_arguments
from profiling.serving.trials import InvalidTrial, require_trials, run_trials, summary
from specdec.config import StrictParser, add_flags, config_of
from specdec.errors import exit_status
from specdec.problems import Problem, load_problems
from specdec.session import Session, open_session
from specdec.specs import ArDynamic, ArStatic, Plain

MODEL_FLAGS = (
    *("target_model_name", "ar_model_name", "dllm_dir", "dataset_name", "drafters", "drafter_thresholds"),
    *("block_size", "small_block_size", "device", "dtype"),
)
KINDS = ("plain", "ar_sf", "failfast")
VERIFY_COUNTS = (1, 2, 4, 8, 16, 32, 64)
ENGINE = "Hugging Face transformers, eager"


def main(arguments: Sequence[str] | None = None) -> int:
    def work() -> None:
        parser = StrictParser(prog="profile_tpt_hf", description=__doc__.split("\n")[0])
        names = (*MODEL_FLAGS, *QUESTION_FLAGS)
        add_flags(parser, names)
        parser.set_defaults(drafters=list(KINDS))
        add_trial_flags(parser)
        add_profile_flags(parser)
        flags = parser.parse_args(arguments)
        chosen = {name: getattr(flags, name) for name in names}
        session = open_session(config_of({**chosen, "engine": "eager", "latency_profile": ["none"]}))
        problems = load_problems(flags.dataset_name, **question_arguments(flags))
        profile(session, flags, problems, lambda found: print_json(found, str(session.device)))

    return exit_status("profile_tpt_hf", work)


def profile(
    session: Session,
    flags: argparse.Namespace,
    problems: Sequence[Problem],
    show: Callable[[dict[str, Any]], None],
) -> None:
    """Measure, `show` what was found, and write the latency profile that is asked for. Raises UserError."""
    draft = read_draft_cost(flags.drafter) if flags.drafter else None
    has_drafter = any(not isinstance(spec, Plain) for spec in session.config.drafter_specs)
    check_profile(flags, ENGINE, draft is not None or has_drafter)
    found = measure(session, flags, problems)
    show(found)
    if flags.write_profile:
        require_trials(found, "a latency profile")
        write_hf_profile(flags, found, draft)


def measure(session: Session, flags: argparse.Namespace, problems: Sequence[Problem]) -> dict[str, Any]:
    """Every model of the session on these problems, in turn."""
    config = session.config
    models = {"target": Speaker(session, session.target().lm, VERIFY_COUNTS)}
    for spec in config.drafter_specs:
        if not isinstance(spec, Plain):
            is_ar = isinstance(spec, (ArStatic, ArDynamic))
            lm = session.drafter(spec).lm
            models["ar_drafter" if is_ar else "dllm_drafter"] = Speaker(session, lm) if is_ar else Filler(session, lm)
    found: dict[str, Any] = {
        "what": "ms per token and per pass of each model alone; medians over trials",
        "engine": ENGINE,
        "model": config.target_model_name,
        "target": config.target_name,
        "dataset": problems[0].dataset,
        "max_new_tokens": config.max_new_tokens,
        "dtype": str(session.dtype).removeprefix("torch."),
        "hardware": flags.hardware,
    }
    for name, model in models.items():
        for _ in range(flags.warm_up):
            with suppress(InvalidTrial):
                model.ask(problems[0])
        model.forget()
        times = {**summary(run_trials(model.ask, problems, flags.repeats)), **model.pass_times()}
        found |= times if name == "target" else {name: times}
    return found


def write_hf_profile(flags: argparse.Namespace, found: dict[str, Any], draft: DraftCost | None) -> None:
    """The profile of what was measured: passes of the drafters, tokens and verifications of the target."""
    keys = ("model", "dtype", "dataset", "num_valid", "ms_per_token", "verify_ms")
    evidence = {key: found[key] for key in keys}
    table = {count: times["median"] for count, times in found["verify_ms"].items()}
    target = TargetCost(found["target"], found["ms_per_token"]["median"], evidence, table)
    write_profile(flags, ENGINE, target, draft or _draft_cost(found))


def _draft_cost(found: dict[str, Any]) -> DraftCost | None:
    """The drafters' passes; an AR drafter's stands for both where no dLLM was measured."""
    parts = {name: found[name]["ms_per_pass"] for name in ("ar_drafter", "dllm_drafter") if name in found}
    if not parts:
        return None
    ar = parts.get("ar_drafter", parts.get("dllm_drafter"))["median"]
    return DraftCost(parts.get("dllm_drafter", parts.get("ar_drafter"))["median"], parts, ar)


if __name__ == "__main__":
    sys.exit(main())
