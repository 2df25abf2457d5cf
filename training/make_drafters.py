"""Turns any Qwen2 or Llama chat model into a target with drafters of its own: an AR and a block-diffusion drafter, and
heads that read its hidden states (EAGLE-3, DFlash, JetSpec, DSpark).

    python -m training.make_drafters --target_dir DIR --prompt_file FILE --work_dir DIR [--families FAMILY ...]

The target answers the prompts, and all drafters learn from its answers, in stages. What is already in the work folder
is not made again; what was made there from something else is refused. The bundled family (training.family) goes through
the same stages.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from specdec.errors import UserError
from specdec.models.checkpoints import read_config
from training import ranks
from training.answers import DecodeSettings
from training.cli import add_compile_flag, run_command, training_parser
from training.corpus import add_prompt_flags, prompts_beside, split_prompts
from training.drafter_run import FOLDERS, DrafterRun, DrafterSettings
from training.heads import HeadSettings
from training.make_heads import HEADS, print_table, require_heads, table_of
from training.models import TARGET_HELP, TRAINED, even_layers, find_target
from training.on_policy import HeldBack
from training.stages import run_stages, workplace_of
from training.tokenizer import load_tokenizer
from training.train_dllm_drafter import mask_id_of

MODULE = "training.make_drafters"


def settings_of(arguments: argparse.Namespace) -> DrafterSettings:
    answers = DecodeSettings(max_new_tokens=arguments.max_new_tokens, max_rows=arguments.max_rows)
    families = tuple(arguments.families)
    if doubled := {family for family in families if families.count(family) > 1}:
        raise UserError(f"--families names {min(doubled)} twice")
    settings = DrafterSettings(answers=answers, mask_token=arguments.mask_token, families=families)
    given = {name: getattr(arguments, name) for name in ("num_docs", "learning_rate", "seed")} | budget_of(arguments)
    for stage in ("ar_drafter", "dllm_drafter"):
        part, steps = getattr(settings, stage), getattr(arguments, f"{stage}_steps")
        loop = replace(part.loop, num_steps=part.loop.num_steps if steps is None else steps, **given)
        settings = replace(settings, **{stage: replace(part, loop=loop, num_layers=arguments.num_layers)})
    return replace(settings, heads=head_settings_of(arguments, given))


def budget_of(arguments: argparse.Namespace) -> dict[str, float | None]:
    """What is equal for all drafters, by its name in LoopSettings."""
    given = {name: getattr(arguments, f"budget_{name}") for name in ("tokens", "flops", "seconds")}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise UserError(f"--budget_{' and --budget_'.join(given)} exclude each other: give one")
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise UserError(f"--budget_{name} {value}: give a number above 0")
    return {f"num_{name}": value for name, value in given.items()}


def head_settings_of(arguments: argparse.Namespace, given: dict) -> HeadSettings:
    usual = HeadSettings()
    names = ("block_size", "num_begins", "decay", "soft_weight", "markov_rank", "num_drafts")
    chosen = {name: getattr(arguments, name) for name in names}
    steps = arguments.head_steps if arguments.head_steps is not None else usual.loop.num_steps
    return replace(
        usual,
        **chosen,
        taps=None if arguments.taps is None else tuple(arguments.taps),
        num_layers=arguments.head_layers,
        num_words=arguments.draft_vocab_size,
        loop=replace(usual.loop, num_steps=steps, **given),
    )


def add_head_flags(parser: argparse.ArgumentParser) -> None:
    usual = HeadSettings()
    parser.add_argument("--taps", type=int, nargs="+", help="layers of the target that heads read (default: spread)")
    parser.add_argument("--head_layers", type=int, default=usual.num_layers, help="layers of block heads")
    parser.add_argument("--block_size", type=int, default=usual.block_size, help="of block heads, the anchor included")
    parser.add_argument("--num_begins", type=int, default=usual.num_begins, help="blocks of a document in a step")
    parser.add_argument("--num_drafts", type=int, default=usual.num_drafts, help="steps of EAGLE-3 on its own outputs")
    parser.add_argument("--decay", type=float, help="weight of a draft's token, of the one before (default: by family)")
    parser.add_argument("--soft_weight", type=float, default=usual.soft_weight, help="of KL to the target, for heads")
    parser.add_argument("--markov_rank", type=int, default=usual.markov_rank, help="of DSpark's Markov head")
    parser.add_argument("--draft_vocab_size", type=int, help="words that EAGLE-3 drafts (default: the target's)")
    parser.add_argument("--head_steps", type=int, help=f"optimizer steps of heads (default: {usual.loop.num_steps})")
    parser.add_argument("--held_back", type=int, default=8, help="questions to look at heads with, never trained on")
    parser.add_argument("--num_looks", type=int, default=8, help="how often, while a head is trained")


def add_budget_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--budget_tokens", type=float, help="equal for all: tokens of documents seen in training")
    parser.add_argument("--budget_flops", type=float, help="equal for all: operations of training, as counted")
    parser.add_argument("--budget_seconds", type=float, help="equal for all: time of training, on this machine")


def main() -> dict:
    default = DrafterSettings()
    parser = training_parser(MODULE, "Makes drafters for a target, from its own answers.")
    parser.add_argument("--target_dir", type=Path, required=True, help=TARGET_HELP)
    add_prompt_flags(parser)
    parser.add_argument("--work_dir", type=Path, required=True, help="answers, checkpoints, and the drafters")
    parser.add_argument("--families", nargs="+", choices=FOLDERS, default=default.families, help="what to make")
    parser.add_argument("--stop_after", help="a stage, such as answers (default: the last)")
    parser.add_argument("--num_layers", type=int, default=6, help="layers of AR and dLLM drafters, cut from the target")
    parser.add_argument("--mask_token", help="the tokenizer entry to use as mask (default: its own mask token)")
    answers = default.answers
    parser.add_argument("--max_new_tokens", type=int, default=answers.max_new_tokens, help="the longest answer")
    parser.add_argument("--max_rows", type=int, default=answers.max_rows, help="answers decoded at once")
    parser.add_argument("--num_docs", type=int, default=64, help="documents in a training step")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="at its highest")
    for stage in ("ar_drafter", "dllm_drafter"):
        steps = getattr(default, stage).loop.num_steps
        parser.add_argument(f"--{stage}_steps", type=int, help=f"optimizer steps (default: {steps})")
    add_budget_flags(parser)
    add_head_flags(parser)
    add_compile_flag(parser)
    return make(parser.parse_args())


def make(arguments: argparse.Namespace) -> dict:
    """Run the stages that a command line asks for."""
    settings = settings_of(arguments)
    workplace = workplace_of(arguments)
    target_dir = find_target(arguments.target_dir)
    if set(settings.families) - {"ar", "eagle3"}:
        mask_id_of(load_tokenizer(target_dir), arguments.mask_token)  # a mistake here is better told before the hours
    require_heads(settings.families, settings.heads, target_dir, arguments.max_new_tokens)
    if set(settings.families) - set(HEADS):
        even_layers(int(read_config(TRAINED, target_dir)["num_hidden_layers"]), arguments.num_layers)
    texts, held_back = cached_prompts(arguments, has_heads=bool(set(settings.families) & set(HEADS)))
    workplace.work_dir.mkdir(parents=True, exist_ok=True)
    run = DrafterRun(target_dir, texts, settings, workplace, held_back)
    stages = run.stages()
    names = [stage.name for stage in stages]
    last = arguments.stop_after or names[-1]
    if last not in names:
        raise UserError(f"--stop_after {last}: the stages are {', '.join(names)}")
    results = run_stages(stages, last, workplace.deadline)
    if ranks.is_leader() and last == names[-1]:
        tell(run, arguments)
    return {"stages": results}


def cached_prompts(
    arguments: argparse.Namespace, has_heads: bool
) -> tuple[Callable[[], list[str]], Callable[[], HeldBack] | None]:
    """What the target is asked, the same whichever drafters are made; and, where heads are, what is held back."""
    if not has_heads:
        return lambda: prompts_beside(arguments, arguments.held_back), None
    texts, held = split_prompts(arguments, arguments.held_back)
    most = arguments.max_new_tokens
    return lambda: texts, lambda: HeldBack(find_target(arguments.target_dir), held, most, arguments.num_looks)


def tell(run: DrafterRun, arguments: argparse.Namespace) -> None:
    """What was equal, and how to run what was made."""
    flags = {"ar": "--ar_model_name", "dllm": "--dllm_dir", "eagle3": "--eagle3_dir"}
    kinds = {"ar": "", "dllm": "", "eagle3": " --drafters plain eagle3_sf"}
    folders = run.folders()
    print_table(table_of(folders))
    for family, folder in folders.items():
        flag, kind = flags.get(family, "--dflash_dir"), kinds.get(family, " --drafters plain dflash_sf")
        name = shlex.quote(str(arguments.target_dir))
        ranks.say(f"{family}: python failfast.py --target_model_name {name} {flag} {shlex.quote(str(folder))}{kind}")


if __name__ == "__main__":
    sys.exit(run_command(MODULE, main))
