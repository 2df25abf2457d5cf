"""Costs: the tables of what passes, rounds, recordings and servers cost, each from its file of docs/results.

What drafters reach: `results.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from scripts.cells import PROJECT, percent, result, table, times
from specdec.latency.profile import load_profile


def rounds() -> str:
    """Time of a round over the length of the context."""
    stored = result("2026-11-28-rounds")["drafters"]
    titles = ("drafter", "ms a round at 100 tokens of context", "at 1,000", "ratio")
    rows = []
    for name, one in stored.items():
        at = [f"{one['by_context'][context]['round_ms']:.1f}" for context in ("100", "1000")]
        rows.append([f"`{name}`", *at, f"{one['ratio']:.2f}"])
    return table(titles, rows)


def overhead() -> str:
    """The loop's own share."""
    stored = result("2026-11-28-overhead")["drafters"]
    rows = [[f"`{name}`", percent(one["overhead_share"], 2)] for name, one in stored.items()]
    return table(("drafter", "share of the time outside the models' passes"), rows)


def int8_agreement() -> str:
    """What weights in 8 bits leave of a text."""
    stored = result("2026-11-28-int8-agreement")
    titles = ("target", "in 8 bits", "tokens", "same token best", "divergence, nats")
    rows = [
        [f"`{name}`", what, f"{one['tokens']}", percent(one["same_best"], 1), f"{one['divergence']:.6f}"]
        for name, found in stored.items()
        for what, one in found["in_8_bits"].items()
    ]
    return table(titles, rows)


def cpu_passes() -> str:
    """Passes on a CPU, by transformers' modules and in joined layers."""
    rows = [
        [model, words.split()[0], f"{one['modules']:.1f}", f"{one['joined']:.1f}", times(one["ratio"])]
        for model, found in result("2026-11-28-cpu-engine")["passes"]["models"].items()
        for words, one in found.items()
    ]
    return table(("model", "tokens", "transformers' modules, ms", "joined layers, ms", "ratio"), rows)


def hf_assisted() -> str:
    """Static AR drafts against Hugging Face assisted generation."""
    files = {
        "2 CPU cores": result("2026-11-28-cpu-engine")["assisted"],
        "one H100": result("2026-11-27-gpu-engine")["hf_assisted"],
    }
    titles = ("machine", "questions", "tokens a second, here", "assisted generation", "equal texts")
    rows = []
    for machine, one in files.items():
        speeds = [f"{one['tokens_per_s'][who]:,.0f}" for who in ("ours", "hf_assisted")]
        rows.append([machine, str(one["num_questions"]), *speeds, str(one["num_equal_texts"])])
    return table(titles, rows)


ENGINE_ROWS = {
    "Qwen2.5-7B shape, verify 1 token": ("Qwen2.5-7B-Instruct", "verify(1)"),
    "Qwen2.5-7B shape, verify 8": ("Qwen2.5-7B-Instruct", "verify(8)"),
    "Qwen2.5-7B shape, verify 32": ("Qwen2.5-7B-Instruct", "verify(32)"),
    "Qwen2.5-7B shape, verify 64": ("Qwen2.5-7B-Instruct", "verify(64)"),
    "Qwen2.5-7B shape, verify 96": ("Qwen2.5-7B-Instruct", "verify(96)"),
    "Qwen2.5-1.5B shape, a denoising pass of 32 positions": ("drafter", "denoise"),
    "Qwen2.5-1.5B shape, verify 1": ("drafter", "verify(1)"),
    "Qwen2.5-1.5B shape, verify 16": ("drafter", "verify(16)"),
    "Qwen2.5-1.5B shape, verify 64": ("drafter", "verify(64)"),
}


def engine() -> str:
    """Passes of the graph engine against the limit of the memory's bandwidth."""
    files = [result("2026-11-27-gpu-engine"), result("2026-11-24-gpu-engine")]
    rows = []
    for words, (model, kind) in ENGINE_ROWS.items():
        cells = [words]
        for stored in files:
            one = stored["passes_against_the_bandwidth_limit"][model]["by_context"]["512"][kind]
            cells += [f"{one['ms']:.2f}", f"{one['over_limit']:.2f}"]
        rows.append(cells)
    return table(("pass", "H100: ms", "over the limit", "H200, an earlier revision: ms", "over the limit"), rows)


def speculation() -> str:
    """Speculation at real shapes with the paper's acceptance, measured and modelled."""
    cases = result("2026-11-27-gpu-engine")["speculation"]["cases"]
    words = {"paper_math_failfast": "FailFast, its acceptance on MATH", "paper_math_ar_8": "AR, static 8"}
    titles = ("acceptance given", "tokens a round", "passes a round", "measured", "modelled from the profile")
    rows = []
    for key, one in cases.items():
        counts = [f"{one[name]:.2f}" for name in ("emitted_per_round", "passes_per_round")]
        rows.append([words[key], *counts, times(one["measured_speedup"]), times(one["modelled_speedup"])])
    return table(titles, rows)


def servers() -> str:
    """The clients' clock against the servers' own."""
    rows = [
        [name, f"{one['median_client']:.2f}", f"{one['median_server']:.2f}", percent(one["difference"], 2)]
        for name, one in result("2026-11-24-servers")["servers"].items()
    ]
    return table(("server", "ms a token, by the client", "by the server's own clock", "difference"), rows)


def replay() -> str:
    """What recording and replaying cost."""
    recorded, many = result("2026-11-24-record-replay"), result("2026-11-24-replay-speed")
    all_equal = result("2026-11-28-record-replay")
    both = recorded["record_s"] + recorded["replay_s"]
    rows = [
        ["recording and replaying the paper's 64 settings, 10 questions of 256 tokens", f"{both:.1f} s"],
        ["running them live (6 settings measured, and scaled)", f"{recorded['live_scaled_s']:.0f} s"],
        ["replaying 64 settings, 30 questions of 1,024 tokens, with ceilings", f"{many['seconds']:.1f} s"],
        ["a trace of 1,024 tokens with all chains of the grid", f"{many['megabytes_per_trace']:.1f} MB"],
        [
            "live records that equal their replay in every round",
            f"{all_equal['num_equal_records']} of {all_equal['num_live_records']}",
        ],
    ]
    return table(("on 2 CPU cores", ""), rows)


def report() -> str:
    """How big a report is and how fast it opens."""
    stored = result("2026-11-24-report")
    (one,) = [value for key, value in stored.items() if key.startswith("random drafts")]
    size, seconds = one["megabytes"], max(one["open_s"])
    return f"30 questions of 40 drafters and 1,024 tokens make {size} MB, which open in {seconds} s."


def profiles() -> str:
    """The latency profiles that come with the program."""
    rows = []
    for path in sorted((PROJECT / "assets" / "latency").glob("*.json")):
        one = load_profile(path)
        about = one.provenance
        mine = "this project" if about.get("measured_by_this_project", True) else "the FailFast paper"
        rows.append(
            [
                f"`{path.stem}`",
                about.get("hardware") or about["device_name"],
                f"{one.draft_pass_ms:.2f} ms",
                ", ".join(f"{name} {ms:.2f} ms" for name, ms in one.target_ms_per_token.items()),
                "nobody: a bound, calculated" if one.is_bound else mine,
            ]
        )
    return table(("profile", "hardware", "a draft pass", "a token of the target", "measured by"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "rounds": rounds,
    "overhead": overhead,
    "int8-agreement": int8_agreement,
    "cpu-passes": cpu_passes,
    "hf-assisted": hf_assisted,
    "engine": engine,
    "speculation": speculation,
    "servers": servers,
    "replay": replay,
    "report": report,
    "profiles": profiles,
}
