"""Server profile: ms per token of a model that a server runs, as a command; the engines differ in little.

`profile_tpt_vllm`, `profile_tpt_vllm_eagle3` and `profile_tpt_sglang` are this with their engine's settings. The server
is started by hand (docs/servers.md), with or without speculative decoding.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from profiling.common import QUESTION_FLAGS, datasets_of, first_turns, parser_of
from profiling.new_profile import (
    DraftCost,
    TargetCost,
    add_profile_flags,
    check_profile,
    read_draft_cost,
    read_result,
    write_profile,
)
from profiling.results import add_result_flags, check_out, result_lines, show_result
from profiling.serving.asking import Engine, add_server_flags, question_arguments
from profiling.serving.chat import Chat, CountTokens, Served
from profiling.serving.metrics import UNKNOWN
from profiling.serving.ranking_row import check_vanilla, ranking_row
from profiling.serving.server import Server
from profiling.serving.speculating import Kind, add_method_flag, method_of, speculation_of, told, warn_of_memory
from profiling.serving.step_costs import check_other_length, draft_cost_of_steps
from profiling.serving.trials import require_trials, run_trials, summary, tokens_per_s, without_remembered
from specdec.commands.flags import status_as
from specdec.errors import UserError
from specdec.models.checkpoints import BUNDLED, SMOLLM2, TARGET, find_model
from specdec.questions.sets import SHORT, Problem, load_problems
from specdec.records.record import target_name


def run_command(engine: Engine, about: str, arguments: Sequence[str] | None) -> int:
    def work() -> None:
        parser = parser_of(engine.module, about, ("dataset_name", *QUESTION_FLAGS))
        add_server_flags(parser, engine)
        if engine.speculates is not False:
            parser.group("measuring").add_argument(
                "--vanilla", help="what this profiler printed of the same server without speculation (a file)"
            )
            parser.group("profile").add_argument(
                "--other_length",
                metavar="FILE",
                help="what this profiler printed of the same server with another draft length: prices drafting by the "
                "difference of their steps (default: by the speedup over --vanilla)",
            )
            add_method_flag(parser, engine)
        add_profile_flags(parser)
        add_result_flags(parser)
        flags = parser.parse_args(arguments)
        check_out(flags)
        problems = first_turns(load_problems(flags.dataset_name, **question_arguments(flags)))
        profile(engine, flags, problems, lambda found: show_result(found, result_lines(found), flags))

    return status_as(engine.module, work)


def profile(
    engine: Engine, flags: argparse.Namespace, problems: Sequence[Problem], show: Callable[[dict[str, Any]], None]
) -> None:
    """Measure, `show`, and write the profile that is asked for. UserError, before measuring where that can be known."""
    vanilla = read_result(flags.vanilla, "--vanilla") if getattr(flags, "vanilla", None) else None
    draft = read_draft_cost(flags.drafter) if flags.drafter else None
    check_profile(flags, engine.name, draft is not None or vanilla is not None)
    if flags.write_profile and flags.concurrency != 1:
        raise UserError("--write_profile prices one question at a time: leave out --concurrency")
    if flags.write_profile and engine.speculates and vanilla is None:
        raise UserError("--write_profile of a server that speculates needs --vanilla, its plain decoding")
    asked = {**describe(engine, flags), "dataset": datasets_of(problems)}
    if flags.prompt_style != SHORT:
        asked["prompt_style"] = flags.prompt_style
    if vanilla is not None:
        check_vanilla(vanilla, asked, (problem.question_id for problem in problems))
    other = _other_length(flags, asked)
    found = {**asked, **measure(engine, flags, problems)}
    if vanilla is not None:
        found["vanilla_ms_per_token"] = vanilla["ms_per_token"]
        found["vanilla_speculates"] = vanilla.get("speculates", UNKNOWN)
        if flags.concurrency == 1:
            method = method_of(engine, flags, Server(flags.base_url, timeout_s=flags.timeout_s), found["speculation"])
            found["method"], found["row"] = method, ranking_row(found, vanilla, method)
    show(found)
    if flags.write_profile:
        require_trials(found, "a latency profile")
        write_server_profile(engine, flags, found, draft, other)


def _other_length(flags: argparse.Namespace, asked: dict[str, Any]) -> dict[str, Any] | None:
    """What --other_length names. Raises UserError where it has no use, or is of another server."""
    if not getattr(flags, "other_length", None):
        return None
    if not flags.write_profile or not flags.vanilla:
        raise UserError("--other_length prices a profile: give --write_profile and --vanilla as well")
    other = read_result(flags.other_length, "--other_length")
    check_other_length(other, asked)
    return other


def measure(engine: Engine, flags: argparse.Namespace, problems: Sequence[Problem]) -> dict[str, Any]:
    """What the server gives on these problems. Raises UserError, also if it speculates and should not: as soon as the
    warm-up shows it."""
    served = served_model(engine, flags)
    kind = Kind.wanted(engine, flags)
    at_first = served.metrics()
    served.warm_up(flags.warm_up)
    before = served.metrics()
    kind.check_warm_up(at_first, before)
    begin = time.perf_counter()
    trials = run_trials(served.ask, problems, flags.repeats, flags.concurrency)
    rate = tokens_per_s(trials, time.perf_counter() - begin)
    found = {**summary(kept := without_remembered(trials)), "tokens_per_s": rate}
    found |= speculation_of(engine, served, before, kept)
    kind.check(found)
    warn_of_memory(found)
    return found


def served_model(engine: Engine, flags: argparse.Namespace) -> Served:
    server = Server(flags.base_url, timeout_s=flags.timeout_s)
    extra = {**engine.extra, **flags.extra_body}
    chat = Chat(server, flags.target_model_name, flags.max_new_tokens, extra, _token_counter(flags), engine.ends)
    return Served(chat, reads_metrics=flags.concurrency == 1)


def describe(engine: Engine, flags: argparse.Namespace) -> dict[str, Any]:
    version = told(engine, Server(flags.base_url, timeout_s=flags.timeout_s)).get("version")
    return {
        "what": "ms per token after the first; medians over trials",
        "engine": engine.name,
        "engine_version": None if version is None else str(version),
        "model": flags.target_model_name,
        "target": target_name(flags.target_model_name),
        **{name: getattr(flags, name) for name in ("base_url", "max_new_tokens", "concurrency", "hardware")},
    }


def write_server_profile(
    engine: Engine,
    flags: argparse.Namespace,
    found: dict[str, Any],
    draft: DraftCost | None,
    other: dict[str, Any] | None = None,
) -> None:
    """The profile of a target on a server; of one that speculates, with its drafter's cost by difference: of the steps
    at two draft lengths, or of a round and a plain token."""
    keys = ("base_url", "model", "engine_version", "dataset", "num_valid", "concurrency", "ms_per_token", "speculates")
    evidence = {key: found[key] for key in keys}
    plain = found.get("vanilla_ms_per_token")
    table: dict[str, float] = {}
    if plain is not None:
        if other is not None:
            draft, table = draft_cost_of_steps(found, other, plain["median"], found["method"])
        else:
            draft = draft_cost_by_difference(found, plain["median"])
        evidence["ms_per_token_without_speculation"] = plain
        evidence["vanilla_speculates"] = found["vanilla_speculates"]
    cost = TargetCost(found["target"], (plain or found["ms_per_token"])["median"], evidence, table)
    write_profile(flags, engine.name, cost, draft)


def draft_cost_by_difference(found: dict[str, Any], plain_ms: float) -> DraftCost:
    """(ms per round - ms per plain token) / drafted tokens, as if verifying cost a token. UserError if not above 0."""
    speculation = found["speculation"]
    round_ms = found["ms_per_token"]["median"] * speculation["acceptance_len"]
    drafted = speculation["num_drafted"] / speculation["num_rounds"]
    if round_ms <= plain_ms or not drafted:
        raise UserError(
            f"a round takes {round_ms:.2f} ms, no more than a plain token ({plain_ms:.2f} ms): no cost of drafting can "
            "be told from that, so no profile is written"
        )
    source = {
        "by_difference": "(ms per round - ms per plain token) / tokens drafted per round",
        "ms_per_round": round_ms,
        "ms_per_plain_token": plain_ms,
        "drafted_per_round": drafted,
    }
    return DraftCost((round_ms - plain_ms) / drafted, source)


def _token_counter(flags: argparse.Namespace) -> CountTokens | None:
    """Counts a text's tokens by the model's tokenizer, if it is named or the model is a folder here."""
    name = flags.tokenizer
    if name is None and (flags.target_model_name in (BUNDLED, SMOLLM2) or Path(flags.target_model_name).is_dir()):
        name = flags.target_model_name
    if name is None:
        return None
    from specdec.models.tokens import load_tokenizer

    tokenizer = load_tokenizer(find_model(TARGET, name, with_weights=False))
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
