"""Predicted against measured speedup of vLLM's draft_model and eagle3 on a CPU, on questions that no price was made of.

    python -m experiments.vllm_speed --vllm VENV/bin/vllm --work_dir FOLDER --data_dir data --eagle3_dir HEAD

A drafter is priced from the server's own step times at two draft lengths, on bundled questions
(profiling/serving/step_costs.py). What it then gives at a third length on gsm8k questions is predicted from our records
(replayed from traces, which are recorded first) and measured on a server of that length. All servers of a drafter run
at once and are asked in turn, a question at a time, so that what else the machine does meets all of them alike. The
last line on stdout is JSON.
"""

from __future__ import annotations

import os
import statistics
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.vllm_server import Settings, VllmServer, draft_model, versions
from profiling.common import parser_of, run_command
from profiling.profile_tpt_vllm import VLLM
from profiling.serving.chat import Chat, Served
from profiling.serving.metrics import total
from profiling.serving.server import Server
from profiling.serving.step_costs import draft_cost_of_steps
from profiling.serving.trials import Answer
from specdec.commands import record
from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.latency.pricing import Price, price
from specdec.latency.profile import LatencyProfile
from specdec.models.checkpoints import BUNDLED
from specdec.questions.problem import Problem
from specdec.questions.sets import load_problems
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, find_traces, load_trace

HELD_OUT = "gsm8k"
PLAIN = "plain"


@dataclass(frozen=True)
class Method:
    """How a server drafts. `priced_at`: the draft lengths that it is priced by; `asked`: the one that is predicted."""

    name: str
    drafter: str
    priced_at: tuple[int, int]
    asked: int
    model: Path | None = None

    def settings(self, length: int) -> Settings:
        if self.model is None:
            return draft_model(length)
        return {"method": self.name, "model": str(self.model.resolve()), "num_speculative_tokens": length}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.vllm_speed", __doc__, ("data_dir", "num_questions", "max_new_tokens"))
    parser.add_argument("--vllm", type=Path, required=True, help="the command vllm of its environment")
    parser.add_argument("--work_dir", type=Path, required=True, help="where traces and logs go")
    parser.add_argument("--eagle3_dir", type=Path, required=True, help="an EAGLE-3 head of the bundled target")
    return run_command(parser, measure, arguments)


def measure(flags: Namespace) -> dict[str, Any]:
    methods = (
        Method("draft_model", "ar_None_sf_4", (2, 6), 4),
        Method("eagle3", "eagle3_sf_3", (1, 5), 3, flags.eagle3_dir),
    )
    more = ["--eagle3_dir", str(flags.eagle3_dir)]
    traces = recorded(flags, [one.drafter for one in methods], more)
    load_before = os.getloadavg()[0]
    found = {one.name: _of_method(flags, one, traces) for one in methods}
    return {
        "what": "speedup of vLLM's drafters: predicted from step times at two other draft lengths, and measured",
        "versions": versions(flags.vllm),
        "device": "CPU, float32",
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "held_out": f"{len(traces)} questions of {HELD_OUT}, up to {flags.max_new_tokens} tokens",
        "methods": found,
    }


def recorded(flags: Namespace, drafters: Sequence[str], more: Sequence[str] = ()) -> list[Trace]:
    """Traces of the held-out questions with what these drafters write; those that are there already are read."""
    folder = flags.work_dir / HELD_OUT
    asked = ["--dataset_name", HELD_OUT, "--num_questions", str(flags.num_questions), "--device", "cpu", *more]
    asked += ["--max_new_tokens", str(flags.max_new_tokens), "--dtype", "float32", "--drafters", PLAIN, *drafters]
    asked += ["--data_dir", str(flags.data_dir)] if flags.data_dir else []
    if status := record.main([*asked, "--latency_profile", "none", "--output_dir", str(folder)], "failfast record"):
        raise UserError(f"recording {HELD_OUT} ended with exit status {status}")
    return sorted(map(load_trace, find_traces(folder)), key=lambda trace: trace.question_id)


def served(server: VllmServer, max_new_tokens: int) -> Served:
    return Served(Chat(Server(server.url), BUNDLED, max_new_tokens, dict(VLLM.extra)))


def _of_method(flags: Namespace, method: Method, traces: Sequence[Trace]) -> dict[str, Any]:
    lengths = [*method.priced_at, method.asked]
    with ExitStack() as running:
        made = {str(length): method.settings(length) for length in lengths}
        servers = {
            name: VllmServer(flags.vllm, flags.work_dir / f"{method.name}-{name}.log", settings)
            for name, settings in {PLAIN: None, **made}.items()
        }
        asked = {name: served(running.enter_context(server), flags.max_new_tokens) for name, server in servers.items()}
        for one in asked.values():
            one.warm_up(2)
        bundled = load_problems(BUNDLED, num_questions=flags.num_questions)
        held = load_problems(HELD_OUT, question_ids=[one.question_id for one in traces], data_dir=flags.data_dir)
        short, long, last = map(str, lengths)
        priced = in_turn({name: asked[name] for name in (PLAIN, short, long)}, bundled)
        answers = in_turn({name: asked[name] for name in (PLAIN, last)}, held)
    profile, steps = profile_of(method, priced[PLAIN], priced[short], priced[long])
    prices = [price(replay(trace, parse_name(method.drafter)), profile, BUNDLED) for trace in traces]
    return {
        "priced_at": method.priced_at,
        "asked": method.asked,
        **steps,
        **compared(prices, answers[PLAIN], answers[last]),
    }


def in_turn(servers: Mapping[str, Served], problems: Sequence[Problem]) -> dict[str, list[Answer]]:
    """Every server's answers; each question goes to all of them before the next one does."""
    found: dict[str, list[Answer]] = {name: [] for name in servers}
    for problem in problems:
        for name, one in servers.items():
            found[name].append(one.ask(problem))
    return found


def profile_of(
    method: Method, plain: Sequence[Answer], short: Sequence[Answer], long: Sequence[Answer]
) -> tuple[LatencyProfile, dict[str, Any]]:
    """What a token, a drafted one and a verification cost, of answers without drafts and with two draft lengths."""
    plain_ms = statistics.median(answer.ms_per_token for answer in plain)
    cost, table = draft_cost_of_steps(_found(short), _found(long), plain_ms, method.name)
    steps = {"plain_ms_per_token": plain_ms, "draft_pass_ms": cost.draft_pass_ms, "verify_ms": table}
    profile = LatencyProfile(
        name="vLLM_steps",
        draft_pass_ms=cost.draft_pass_ms,
        target_ms_per_token={BUNDLED: plain_ms},
        verify_ms={BUNDLED: {int(count): ms for count, ms in table.items()}},
        provenance=cost.source,
        family_pass_ms={} if cost.family is None else {cost.family: cost.draft_pass_ms},
    )
    return profile, {**steps, "steps": cost.source["steps"]}


def _found(answers: Sequence[Answer]) -> dict[str, Any]:
    """As a profiler prints them."""
    parts = [answer.speculation for answer in answers if answer.speculation is not None]
    if len(parts) < len(answers):
        raise UserError("a server's counters are not of one answer alone: ask while nobody else does")
    trials = [
        {"decode_ms": answer.decode_ms, "speculation": part.counts} for answer, part in zip(answers, parts, strict=True)
    ]
    return {"trials": trials, "speculation": total(parts)}


def compared(prices: Sequence[Price], plain: Sequence[Answer], drafted: Sequence[Answer]) -> dict[str, Any]:
    """Predicted and measured speedups: of all questions together, and the median of the questions'."""
    pairs = list(zip(plain, drafted, strict=True))
    predicted = sum(one.baseline_ms for one in prices) / sum(one.total_ms for one in prices)
    measured = sum(one.decode_ms for one in plain) / sum(one.decode_ms for one in drafted)
    medians = [statistics.median(one.speedup for one in prices), statistics.median(_speedup(*pair) for pair in pairs)]
    return {
        "same_lengths": all(one.num_tokens == other.num_tokens for one, other in pairs),
        "ratio": _errors(predicted, measured),
        "median_of_questions": _errors(*medians),
    }


def _speedup(plain: Answer, drafted: Answer) -> float:
    return plain.ms_per_token / drafted.ms_per_token


def _errors(predicted: float, measured: float) -> dict[str, float]:
    return {"predicted": predicted, "measured": measured, "error": predicted / measured - 1}


if __name__ == "__main__":
    sys.exit(main())
