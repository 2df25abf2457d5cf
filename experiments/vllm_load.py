"""`failfast load` against a real vLLM on a CPU: tokens a second at 1 to 8 requests at a time, predicted and measured.

    python -m experiments.vllm_load --vllm VENV/bin/vllm --work_dir FOLDER --data_dir data

Plain, with the draft model and with the n-gram drafter. The costs by rows that the simulator is given are steps of the
same servers at 1, 3, 6 and 10 requests at a time over made-up texts, of random words; what a step with drafts takes
longer than plain decoding's is its passes' (draft model) or its tokens' (n-gram). And what a prompt's token costs more.
The predicted questions are gsm8k's, with the rounds of our records. The last line on stdout is JSON.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.vllm_server import Settings, VllmServer, draft_model, versions
from experiments.vllm_speed import HELD_OUT, PLAIN, recorded
from experiments.vllm_steady import Body, Window, answer, steady
from profiling.common import parser_of, run_command
from profiling.profile_tpt_vllm import VLLM
from profiling.serving.chat import Chat
from profiling.serving.server import Server
from specdec.decoding.chains import Chains
from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.latency.profile import LatencyProfile
from specdec.latency.rows import Rows, RowTables
from specdec.models.checkpoints import BUNDLED
from specdec.questions.sets import load_problems
from specdec.ranking.load_study import Asked, Study
from specdec.ranking.load_table import FIXED
from specdec.ranking.requests import Requests, requests_of
from specdec.traces.replay import replay
from specdec.traces.trace import Trace

DRAFT_MODEL, NGRAM = "draft_model", "ngram"
LENGTHS = {DRAFT_MODEL: 4, NGRAM: 5}
DRAFTERS = {DRAFT_MODEL: "ar_None_sf_4", NGRAM: "lookup_3_sf_5"}
PRICED_AT, PREDICTED = (1, 3, 6, 10), (1, 2, 4, 8)
LEAST_REQUESTS = 20  # that a measurement is over
MADE_UP, NUM_WRITTEN, WORDS = 16, 32, range(100, 4000)  # tokens of a made-up prompt, of its answer; ids
PROMPTS, LONG = (64, 256), 1024  # lengths that a prompt's token is priced by; how far the prices reach
LEAST_MS, LEAST_DRAFTED = 0.01, 0.5
Costs = dict[int, float]  # ms a step, by requests at a time


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.vllm_load", __doc__, ("data_dir", "num_questions", "max_new_tokens"))
    parser.add_argument("--vllm", type=Path, required=True, help="the command vllm of its environment")
    parser.add_argument("--work_dir", type=Path, required=True, help="where traces and logs go")
    return run_command(parser, measure, arguments)


def settings_of_all() -> dict[str, Settings | None]:
    lookup = {"method": NGRAM, "num_speculative_tokens": LENGTHS[NGRAM], "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    return {PLAIN: None, DRAFT_MODEL: draft_model(LENGTHS[DRAFT_MODEL]), NGRAM: lookup}


def measure(flags: Namespace) -> dict[str, Any]:
    traces = recorded(flags, list(DRAFTERS.values()))
    load_before = os.getloadavg()[0]
    with ExitStack() as running:
        begun = {
            name: VllmServer(flags.vllm, flags.work_dir / f"load-{name}.log", settings, ["--no-enable-prefix-caching"])
            for name, settings in settings_of_all().items()
        }
        servers = {name: running.enter_context(server) for name, server in begun.items()}
        prices = {name: priced(server) for name, server in servers.items()}
        windows = {name: _measured(server, flags, traces) for name, server in servers.items()}
    predicted = predictions(traces, prices)
    return {
        "what": "tokens a second of vLLM by requests at a time, predicted by failfast load and measured",
        "versions": versions(flags.vllm),
        "device": "CPU, float32",
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "questions": f"{len(traces)} of {HELD_OUT}, up to {flags.max_new_tokens} tokens",
        "priced_at": {"requests": PRICED_AT, "texts": "made up", "steps": prices},
        "predicted_against_measured": {
            name: {str(places): _row(predicted[name][places], windows[name][places]) for places in PREDICTED}
            for name in windows
        },
    }


def _row(predicted: float, window: Window) -> dict[str, float]:
    return {"predicted": predicted, "measured": window.tokens_per_s, "error": predicted / window.tokens_per_s - 1} | {
        "ttft_ms": window.ttft_ms,
        "tpot_ms": window.tpot_ms,
    }


def priced(server: VllmServer) -> dict[str, Any]:
    """Ms a step and tokens drafted in it, by requests at a time; ms of a prompt's token more."""
    return {
        "steps": {places: _step(server, places) for places in PRICED_AT},
        "prompt_token_ms": _prompt_token_ms(server),
    }


def _step(server: VllmServer, places: int) -> dict[str, float]:
    bodies = [made_up(number) for number in range(4 * places)]
    window = steady(server.root_url, "completions", bodies, places, max(4, 2 * places))
    return {"ms": window.step_ms, "drafted": window.drafted_per_step}


def made_up(number: int, length: int = MADE_UP, written: int = NUM_WRITTEN) -> Body:
    """A request for so many tokens after random ones."""
    words = random.Random(number).sample(WORDS, length)
    return {"model": BUNDLED, "prompt": words, "max_tokens": written, "temperature": 0.0, "ignore_eos": True}


def _prompt_token_ms(server: VllmServer) -> float:
    """By the medians of prompts of two lengths."""
    medians = []
    for length in PROMPTS:
        times = []
        for number in range(7):
            begin = time.perf_counter()
            answer(server.root_url, "completions", made_up(number, length, 1))
            times.append(1e3 * (time.perf_counter() - begin))
        medians.append(statistics.median(times))
    return max(0.0, (medians[1] - medians[0]) / (PROMPTS[1] - PROMPTS[0]))


def _measured(server: VllmServer, flags: Namespace, traces: Sequence[Trace]) -> dict[int, Window]:
    """Of the questions, over and over, by requests at a time."""
    chat = Chat(Server(server.url), BUNDLED, flags.max_new_tokens, dict(VLLM.extra))
    problems = load_problems(HELD_OUT, question_ids=[one.question_id for one in traces], data_dir=flags.data_dir)
    bodies = [{**chat.body(one.messages), "stream": False, "stream_options": None} for one in problems]
    found = {}
    for places in PREDICTED:
        num = len(bodies) * -(-max(LEAST_REQUESTS, 4 * places) // len(bodies))
        order = [
            body for seed in range(2 + num // len(bodies)) for body in random.Random(seed).sample(bodies, len(bodies))
        ]
        found[places] = steady(server.root_url, "chat/completions", order, places, num)
    return found


def predictions(traces: Sequence[Trace], prices: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Tokens a second by method and requests at a time."""
    plain = steps_of(prices[PLAIN])
    later = [after_first(trace) for trace in traces]
    share = sum(len(one.output_tokens) for one in traces) / sum(len(one.output_tokens) for one in later)
    found = {}
    for method, name in ((PLAIN, DRAFTERS[NGRAM]), *DRAFTERS.items()):
        requests = requests_of([replay(trace, parse_name(name)) for trace in later])
        rates = simulated(requests, profile_of(method, plain, prices[method]), PLAIN if method == PLAIN else name)
        found[method] = {places: share * rate for places, rate in rates.items()}
    return found


def after_first(trace: Trace) -> Trace:
    """The trace as a server goes on whose first token comes from the prompt's pass: that token is the prompt's."""
    first, *others = trace.output_tokens
    chains = {
        name: Chains.pack(name, one.identity, one.chain_len, one.chains[1:]) for name, one in trace.chains.items()
    }
    identity = replace(trace.identity, max_new_tokens=trace.identity.max_new_tokens - 1)
    prompt, gaps = [*trace.prompt_ids, first], trace.gaps[1:]
    return replace(trace, identity=identity, prompt_ids=prompt, output_tokens=others, gaps=gaps, chains=chains)


def simulated(requests: Requests, profile: LatencyProfile, name: str) -> dict[int, float]:
    study = Study(requests, profile, BUNDLED, Asked(concurrency=PREDICTED, seeds=0))
    tables = zip(PREDICTED, study.tables(), strict=True)
    return {
        places: next(row.number("tokens_per_s") for row in table.rows if (row.name, row.policy) == (name, FIXED))
        for places, table in tables
    }


def steps_of(price: Mapping[str, Any]) -> Costs:
    return {places: float(one["ms"]) for places, one in price["steps"].items()}


def profile_of(method: str, plain: Costs, price: Mapping[str, Any]) -> LatencyProfile:
    """What a step costs by requests, verified tokens and drafter passes, made of a method's steps and of plain ones."""
    passes: Costs = {}
    verify = {1: plain}
    more = {places: max(0.0, ms - plain[places]) for places, ms in steps_of(price).items()}
    if method == DRAFT_MODEL:
        verify[1 + LENGTHS[method]] = plain
        passes = {places: max(ms, LEAST_MS) / LENGTHS[method] for places, ms in more.items()}
    elif method == NGRAM:
        per_token = {places: ms / drafted_of(price, places) for places, ms in more.items()}
        verify[1 + LENGTHS[method]] = {places: ms + LENGTHS[method] * per_token[places] for places, ms in plain.items()}
    longest = max(verify)
    far = {places: ms + price["prompt_token_ms"] * places * (LONG - longest) for places, ms in verify[longest].items()}
    return _profile(verify | {LONG: far}, passes)


def drafted_of(price: Mapping[str, Any], places: int) -> float:
    """Tokens a step. Raises UserError where so few were drafted that they tell no cost."""
    drafted = float(price["steps"][places]["drafted"])
    if drafted < LEAST_DRAFTED:
        raise UserError(
            f"{drafted:.1f} tokens a step were drafted with {places} at a time, which tells no cost of them"
        )
    return drafted


def _profile(verify: Mapping[int, Costs], passes: Costs) -> LatencyProfile:
    tokens, contexts = tuple(sorted(verify)), (0, LONG)

    def rows(table: Mapping[int, Costs]) -> Rows:
        ms = tuple(tuple((cost[places],) * len(contexts) for _, cost in sorted(table.items())) for places in PRICED_AT)
        return Rows(PRICED_AT, tuple(sorted(table)), contexts, ms)

    own = {"ar": rows({1: passes})} if passes else {}
    return LatencyProfile(
        name="vLLM_rows",
        draft_pass_ms=passes.get(1, 1.0),
        target_ms_per_token={BUNDLED: verify[1][1]},
        verify_ms={BUNDLED: {count: verify[count][1] for count in tokens[:-1]}},
        provenance={"engine": "vLLM"},
        ar_draft_pass_ms=passes.get(1),
        rows=RowTables(0, {BUNDLED: rows(verify)}, own),
    )


if __name__ == "__main__":
    sys.exit(main())
