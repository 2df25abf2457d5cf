"""Under load: the tables of docs/load.md, from the stored study of docs/results and from a profile that comes along."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scripts.cells import percent, result, table, times
from specdec.latency.batch_costs import BatchCosts
from specdec.latency.profile import load_profile

STUDY = "2026-11-28-load"
LOADS = (1, 8, 32, 64, 128, 256)
# Drafts, in words: the kind of their passes, how many, tokens drafted.
DRAFTS = {
    "4 tokens without a pass (lookup, suffix)": ("ar", 0, 4),
    "4 tokens of an AR drafter of 1.5B": ("ar", 4, 4),
    "8 tokens of an AR drafter of 1.5B": ("ar", 8, 8),
    "8 tokens of a block drafter of 1.5B, 2 passes": ("block", 2, 8),
    "30 tokens of a block drafter of 1.5B, 6 passes": ("block", 6, 30),
}
Case = tuple[float, dict, dict]  # a load, its best FailFast and its best other draft
GPU, TARGET, CONTEXT = "H100_bound", "Qwen2.5-7B-Instruct", 1024.0


def break_even() -> str:
    """The acceptance length at which a draft is worth its price, by load, where no prompts are read."""
    costs = BatchCosts.of(load_profile(GPU), TARGET, ("ar", "block"), max(LOADS))
    rows = []
    for words, (kind, num_passes, num_tokens) in DRAFTS.items():
        cells = []
        for load in LOADS:
            n, context = np.array([load]), np.array([CONTEXT])
            plain, drafted = (float(costs.verify_ms(n, np.array([k]), context)[0]) for k in (1.0, num_tokens + 1.0))
            pass_ms = float(costs.pass_ms(np.array([costs.kinds.index(kind)]), context)[0, load])
            cells.append(f"{(num_passes * pass_ms + drafted) / plain:.2f}")
        rows.append([words, *cells])
    return table(("a round of", *(f"{load} at a time" for load in LOADS)), rows)


def best() -> str:
    """What is best at each load of the stored study."""
    titles = ["requests at a time", "best as recorded", "speedup", "FailFast", "scheduled", "no policy beats"]
    titles += ["what batch 1's choice loses"]
    rows = []
    for one in result(STUDY)["loads"]:
        fixed = [row for row in one["rows"] if row["policy"] == "fixed"]
        others = [
            _first(one["rows"], lambda row, p=policy: row["policy"] == p) for policy in ("scheduled", "clairvoyant")
        ]
        failfast = _first(fixed, _is_failfast)
        speedup = fixed[0]["speedup"]
        said = f"{times(speedup['value'])} ({speedup['low']:.2f} to {speedup['high']:.2f})"
        loss = percent(one["batch_1_loss"]["value"], 0)
        cells = [times(row["speedup"]["value"]) for row in (failfast, *others)]
        rows.append([f"{one['value']:g}", fixed[0]["label"], said, *cells, loss])
    return table(titles, rows)


def study() -> str:
    """What the stored study is of."""
    stored = result(STUDY)
    return (
        f"{stored['num_questions']} of the bundled questions, as the bundled models answered them, priced as if the "
        f"target were {stored['priced_as']} by `{stored['profile']}`, with {stored['context']:,} tokens of context:"
    )


def sentences() -> str:
    """Where FailFast's dynamic drafts help, where short static ones win, and what a policy that knows the load adds."""
    cases = [_case(one) for one in result(STUDY)["loads"]]
    told = {load: failfast["speedup"]["high"] < static["speedup"]["value"] for load, failfast, static in cases}
    first = next(load for load, is_told in told.items() if is_told)
    level = [one for one in cases if one[0] < first]
    later = [one for one in cases if one[0] >= first]
    lines = [
        f"{_at(level)} FailFast and the best static draft are not told apart: {_against(level)}.",
        f"{_at(later)} a static draft wins, the shorter the more run: FailFast has {_against(later)}.",
    ]
    ends = result(STUDY)["loads"][:: len(cases) - 1]
    gains = [f"{times(_of(one['rows'], 'scheduled')['speedup']['value'])} at {one['value']:g}" for one in ends]
    return "\n".join(f"- {line}" for line in [*lines, f"Scheduled by load, drafts give {' and '.join(gains)}."])


def _case(one: dict) -> Case:
    fixed = [row for row in one["rows"] if row["policy"] == "fixed"]
    return one["value"], _first(fixed, _is_failfast), _first(fixed, lambda row: not _is_failfast(row))


def _at(cases: list[Case]) -> str:
    loads = dict.fromkeys(f"{one[0]:g}" for one in (cases[0], cases[-1]))
    return f"At {' to '.join(loads)} requests at a time"


def _against(cases: list[Case]) -> str:
    """The numbers of the first load and of the last."""
    said = [
        f"{times(failfast['speedup']['value'])} against {times(static['speedup']['value'])} ({static['label']})"
        for _, failfast, static in (cases[0], cases[-1])
    ]
    return " at first, at last ".join(dict.fromkeys(said))


def _is_failfast(row: dict) -> bool:
    return str(row["label"]).startswith("FailFast")


def _of(rows: list[dict], policy: str) -> dict:
    return _first(rows, lambda row: row["policy"] == policy)


def _first(rows: list[dict], is_wanted: Callable[..., bool]) -> dict:
    return next(row for row in rows if is_wanted(row))


TABLES = {"load-break-even": break_even, "load-best": best, "load-study": study, "load-sentences": sentences}
