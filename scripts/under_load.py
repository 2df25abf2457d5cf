"""Under load: the tables of docs/load.md, from the stored studies of docs/results and a profile that comes along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from scripts.cells import percent, result, table, times
from specdec.drafters.families import parse_name
from specdec.drafters.plain import PLAIN
from specdec.latency.batch_costs import BatchCosts
from specdec.latency.profile import load_profile

BUNDLED, SMOLLM2, SPEED = "2026-11-28-load", "2026-11-28-load-smollm2", "2026-11-28-load-speed"
LOADS = (1, 8, 32, 64, 128, 256)
# Drafts, in words: the kind of their passes, how many, tokens drafted.
DRAFTS = {
    "4 tokens without a pass (lookup, suffix)": ("ar", 0, 4),
    "4 tokens of an AR drafter of 1.5B": ("ar", 4, 4),
    "8 tokens of an AR drafter of 1.5B": ("ar", 8, 8),
    "8 tokens of a block drafter of 1.5B, 2 passes": ("block", 2, 8),
    "30 tokens of a block drafter of 1.5B, 6 passes": ("block", 6, 30),
}
OTHERS = {"scheduled": "scheduled", "clairvoyant": "no policy beats"}  # policies that need traces: their columns
# By what won, a sentence: FailFast against the best static draft, at the first of its loads and at the last.
SAYS = {
    "dynamic": "{at} FailFast's dynamic drafts win: {numbers}.",
    "level": "{at} FailFast and the best static draft are not told apart: {numbers}.",
    "static": "{at} a static draft wins{shorter}: FailFast has {numbers}.",
    "plain": "{at} no draft is worth its price: FailFast has {numbers}.",
}


@dataclass(frozen=True)
class Case:
    """A load, its best FailFast, its best static draft, and plain decoding."""

    load: float
    failfast: dict
    static: dict
    is_plain_best: bool
    level: list[str]  # what cannot be told from the best, over the same draws of questions

    @property
    def verdict(self) -> str:
        """A key of SAYS."""
        if self.is_plain_best:
            return "plain"
        is_level = [one["name"] in self.level for one in (self.failfast, self.static)]
        return "level" if all(is_level) else "dynamic" if is_level[0] else "static"

    @property
    def numbers(self) -> str:
        ours, theirs = (times(one["speedup"]["value"]) for one in (self.failfast, self.static))
        return f"{ours} against {theirs} ({self.static['label']})"


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


def best(name: str) -> str:
    """What is best at each load of a stored study."""
    loads = result(name)["loads"]
    others = [policy for policy in OTHERS if _of(loads[0]["rows"], policy)]
    titles = ["requests at a time", "best as recorded", "speedup", "FailFast", *(OTHERS[policy] for policy in others)]
    rows = []
    for one in loads:
        fixed = _fixed(one)
        found = [_failfast(one), *(_of(one["rows"], policy)[0] for policy in others)]
        speedup = fixed[0]["speedup"]
        said = f"{times(speedup['value'])} ({speedup['low']:.2f} to {speedup['high']:.2f})"
        cells = [times(row["speedup"]["value"]) for row in found]
        loss = percent(one["batch_1_loss"]["value"], 0)
        rows.append([f"{one['value']:g}", fixed[0]["label"], said, *cells, loss])
    return table((*titles, "what batch 1's choice loses"), rows)


def families(name: str, heads: Sequence[str] = ()) -> str:
    """Every kind of drafter's best speedup by load, and how long its drafts then are, where that is one length.
    `heads`: others of DFlash's kind, each with a study of its own over the same questions."""
    rows = _families(result(name)["loads"])
    for head in heads:
        own = _families(result(f"{name}-{head.lower()}")["loads"])
        rows += [[kind.replace("DFlash", head), *cells] for kind, *cells in own if kind.startswith("DFlash")]
    return table(("", *(f"{one['value']:g} at a time" for one in result(name)["loads"])), rows)


def _families(loads: list[dict]) -> list[list[str]]:
    rows = []
    for kind in dict.fromkeys(_kind(row) for row in _fixed(loads[0])):
        found = [_first(_fixed(one), lambda row, kind=kind: _kind(row) == kind) for one in loads]
        lengths = [getattr(parse_name(row["name"]), "draft_len", None) for row in found]
        cells = [
            times(row["speedup"]["value"]) + (f" ({length})" if length else "")
            for row, length in zip(found, lengths, strict=True)
        ]
        rows.append([kind, *cells])
    return rows


def study(name: str) -> str:
    """What a stored study is of."""
    stored = result(name)
    return (
        f"{stored['num_questions']} questions ({stored['records']}), priced as if the target were "
        f"{stored['priced_as']} by `{stored['profile']}`, with {stored['context']:,} tokens of context:"
    )


def sentences(name: str) -> str:
    """Where FailFast's dynamic drafts help, where short static ones win, and what else the study's numbers carry: three
    sentences or more."""
    loads = result(name)["loads"]
    lines = []
    for verdict, own in groupby(map(_case, loads), lambda case: case.verdict):
        lines.append(_sentence(verdict, list(own)))
    return "\n".join(f"- {line}" for line in (lines if len(lines) > 2 else [*lines, _last(loads)]))


def _sentence(verdict: str, cases: list[Case]) -> str:
    loads = dict.fromkeys(f"{one.load:g}" for one in (cases[0], cases[-1]))
    at = f"At {' to '.join(loads)} request{'' if list(loads) == ['1'] else 's'} at a time"
    lengths = [getattr(parse_name(one.static["name"]), "draft_len", 0) for one in cases]
    is_falling = lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[-1]
    numbers = " at first, at last ".join(dict.fromkeys(one.numbers for one in (cases[0], cases[-1])))
    return SAYS[verdict].format(at=at, numbers=numbers, shorter=", the shorter the more run" if is_falling else "")


def _last(loads: list[dict]) -> str:
    """What a policy that knows the load adds; of records alone, what a choice made for one request loses."""
    ends = loads[:: len(loads) - 1]
    if _of(ends[0]["rows"], "scheduled"):
        gains = [f"{times(_of(one['rows'], 'scheduled')[0]['speedup']['value'])} at {one['value']:g}" for one in ends]
        return f"Scheduled by load, drafts give {' and '.join(gains)}."
    lost = [f"{percent(one['batch_1_loss']['value'], 0)} at {one['value']:g}" for one in loads[len(loads) // 2 :]]
    return f"What is best for one request alone loses of the best {', '.join(lost)}."


def speed() -> str:
    """How long the largest study takes."""
    stored = result(SPEED)
    return f"{stored['what']} take {stored['cpu_s']:.0f} s of one CPU core's time ({stored['cpu']})."


def _case(one: dict) -> Case:
    fixed = _fixed(one)
    static = _first(fixed, lambda row: hasattr(parse_name(row["name"]), "draft_len"))
    return Case(one["value"], _failfast(one), static, fixed[0]["name"] == PLAIN, one["level_as_recorded"])


def _fixed(one: dict) -> list[dict]:
    return _of(one["rows"], "fixed")


def _failfast(one: dict) -> dict:
    return _first(_fixed(one), lambda row: str(row["label"]).startswith("FailFast"))


def _kind(row: dict) -> str:
    return type(parse_name(row["name"])).title


def _of(rows: list[dict], policy: str) -> list[dict]:
    return [row for row in rows if row["policy"] == policy]


def _first(rows: list[dict], is_wanted: Callable[..., bool]) -> dict:
    return next(row for row in rows if is_wanted(row))


TABLES: dict[str, Callable[[], str]] = {
    "load-break-even": break_even,
    "load-speed": speed,
    "load-study": lambda: study(BUNDLED),
    "load-best": lambda: best(BUNDLED),
    "load-families": lambda: families(BUNDLED),
    "load-sentences": lambda: sentences(BUNDLED),
    "load-study-smollm2": lambda: study(SMOLLM2),
    "load-best-smollm2": lambda: best(SMOLLM2),
    "load-families-smollm2": lambda: families(SMOLLM2, ("JetSpec", "DSpark")),
    "load-sentences-smollm2": lambda: sentences(SMOLLM2),
}
