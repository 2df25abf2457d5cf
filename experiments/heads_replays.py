"""Heads' replays: one drafter's settings tuned on some traces, and what the chosen ones do on others.

Of several drafters, and their ranks, `heads_table.py` knows.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from experiments.heads_grids import BY_COST, STATIC, grids
from specdec.commands.calibrate import MAX_DRAFT_LEN, learn, policy
from specdec.decoding.cost_aware import Advice
from specdec.drafters.advised import policy_over
from specdec.drafters.base import Spec
from specdec.errors import UserError
from specdec.latency.pricing import Pricing, price
from specdec.latency.profile import LatencyProfile
from specdec.ranking.entries import Entry, entry_of
from specdec.ranking.oracle import TraceJudges
from specdec.ranking.source import Source
from specdec.records.record import Record
from specdec.traces.calibration import costs_of
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, load_trace

Found = TypeVar("Found")
Question = tuple[Source, int]
Sums = dict[str, float]


class Each(Protocol):
    """What a function makes of every trace, in order: `map`, or that of several processes."""

    def __call__(self, work: Callable[[Path], Found], paths: Sequence[Path], /) -> Iterable[Found]: ...


@contextmanager
def processes(number: int) -> Iterator[Each]:
    """As many as that for all that is asked inside."""
    if number == 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(number, initializer=gc.disable) as pool:
        yield pool.imap


@dataclass(frozen=True)
class Bench:
    """What settings are priced by: a profile with the targets alone that are asked for; and what replays them."""

    profile: LatencyProfile
    each: Each

    @property
    def entries(self) -> tuple[str, ...]:
        return tuple(self.profile.target_ms_per_token)


@dataclass(frozen=True)
class Choice:
    """A setting that was tuned, its modelled time on the tuning questions, and what it has learnt there."""

    spec: Spec
    tuning_ms: float
    advice: Advice | None = None


@dataclass(frozen=True)
class Tuned:
    """A drafter's best settings, by target and policy; `lengths`: every static one that was tried."""

    choices: dict[str, dict[str, Choice]]
    lengths: list[Spec]

    def best_policy(self, target: str) -> str:
        own = self.choices[target]
        return min(own, key=lambda name: own[name].tuning_ms)

    @property
    def chosen(self) -> dict[str, dict[str, Any]]:
        """As builtins: target -> policy -> setting."""
        return {
            target: {name: {"setting": one.spec.name, "tuning_ms": one.tuning_ms} for name, one in own.items()}
            for target, own in self.choices.items()
        }


@dataclass(frozen=True)
class HeldOut:
    """What a drafter's settings do on other questions: `entries` by target and policy; `lengths`: the sums of every
    static length by target and length; `texts`: the digest of each question's."""

    entries: dict[str, dict[str, list[Entry]]]
    lengths: dict[str, dict[int, Sums]]
    texts: dict[Question, str]


def tuned(paths: Sequence[Path], bench: Bench) -> Tuned:
    """The best settings of the drafter whose traces these are. Raises UserError for chains of no drafter with a grid,
    and where the profile does not price them."""
    by_policy = _by_policy(paths[0])
    for entry in bench.entries:
        bench.profile.pass_ms(by_policy[STATIC][0].passes_priced_as, entry)  # raises where it says nothing of it
    specs = [spec for own in by_policy.values() for spec in own]
    times: dict[str, Sums] = {entry: {} for entry in bench.entries}
    for found in bench.each(partial(_times_of, specs=specs, profile=bench.profile), paths):
        for entry, more in found.items():
            _add(times[entry], more)
    choices = {entry: _least(by_policy, times[entry]) for entry in bench.entries}
    for entry, own in choices.items():
        name = str(min(own.values(), key=lambda one: one.tuning_ms).spec.chains_name)
        by_cost = _by_cost(paths, name, bench.profile, entry)
        own |= {} if by_cost is None else {BY_COST: by_cost}
    return Tuned(choices, by_policy[STATIC])


def _add(sums: Sums, more: Mapping[str, float]) -> None:
    for name, number in more.items():
        sums[name] = sums.get(name, 0.0) + number


def _by_policy(path: Path) -> dict[str, list[Spec]]:
    """The settings of all chains of a drafter's traces, of which this is one, by policy."""
    trace = load_trace(path)
    made: dict[str, list[Spec]] = {}
    for name, chains in sorted(trace.chains.items()):
        # A block may have less than was asked for, and no longer draft can be verified.
        longest = min(chains.chain_len, max((len(chain.tokens) for chain in chains.chains), default=0))
        for policy_name, specs in grids(name, longest).items():
            made.setdefault(policy_name, []).extend(specs)
    if not made:
        raise UserError(f"{path} holds chains of no drafter that is tuned here ({', '.join(trace.chains) or 'none'})")
    return {policy_name: specs for policy_name, specs in made.items() if specs}


def _times_of(path: Path, specs: Sequence[Spec], profile: LatencyProfile) -> dict[str, Sums]:
    """Target -> setting -> the modelled time on one question."""
    trace = load_trace(path)
    records = {spec.name: replay(trace, spec) for spec in specs}
    return {
        entry: {name: price(record, profile, entry).total_ms for name, record in records.items()}
        for entry in profile.target_ms_per_token
    }


def _least(by_policy: Mapping[str, Sequence[Spec]], times: Mapping[str, float]) -> dict[str, Choice]:
    best = {name: min(specs, key=lambda spec: times[spec.name]) for name, specs in by_policy.items()}
    return {name: Choice(spec, times[spec.name]) for name, spec in best.items()}


def _by_cost(paths: Sequence[Path], name: str, profile: LatencyProfile, entry: str) -> Choice | None:
    """The policy by cost over chains of this name, learnt from these questions; None where its family has none."""
    if policy_over(name, MAX_DRAFT_LEN, "") is None:
        return None
    traces = [_with_one(load_trace(path), name) for path in paths]
    profile = dataclasses.replace(profile, target_ms_per_token={entry: profile.target_ms_per_token[entry]})
    calibration = learn(traces, name, [profile])
    longest = min(MAX_DRAFT_LEN, *(trace.chains[name].chain_len for trace in traces))
    spec = policy(name, longest, f"{entry}@{profile.name}")
    pass_ms, verify_ms = costs_of(spec, profile)
    advice = Advice(calibration, pass_ms=pass_ms, verify_ms=verify_ms, rate=calibration.rates[spec.pricing])
    records = [replay(trace, spec, advice=advice) for trace in traces]
    return Choice(spec, sum(price(record, profile, entry).total_ms for record in records), advice)


def _with_one(trace: Trace, name: str) -> Trace:
    """A trace without what other drafters wrote."""
    return dataclasses.replace(trace, chains={name: trace.chains[name]}, offers={})


def held_out(paths: Sequence[Path], choices: Tuned, bench: Bench) -> HeldOut:
    """What the chosen settings, and every static length of the same chains, do on these questions."""
    entries: dict[str, dict[str, list[Entry]]] = {
        entry: {name: [] for name in choices.choices[entry]} for entry in bench.entries
    }
    sums: dict[str, dict[int, Sums]] = {entry: {} for entry in bench.entries}
    texts: dict[Question, str] = {}
    for found in bench.each(partial(_report, choices=choices, profile=bench.profile), paths):
        for target, own in found.entries.items():
            for name, more in own.items():
                entries[target][name] += more
            for draft_len, more_sums in found.lengths[target].items():
                _add(sums[target].setdefault(draft_len, {}), more_sums)
        texts |= found.texts
    return HeldOut(entries, sums, texts)


def _report(path: Path, choices: Tuned, profile: LatencyProfile) -> HeldOut:
    """Of one question."""
    trace = load_trace(path)
    replayed = cache(partial(replay, trace))  # lengths and rules are the same whatever the target
    entries: dict[str, dict[str, list[Entry]]] = {}
    lengths: dict[str, dict[int, Sums]] = {}
    for target, own in choices.choices.items():
        pricing = Pricing((profile,), target)
        judges = TraceJudges(trace, pricing)
        records = {
            name: replayed(one.spec) if one.advice is None else replay(trace, one.spec, advice=one.advice)
            for name, one in own.items()
        }
        entries[target] = {name: [entry_of(record, pricing, judges)] for name, record in records.items()}
        statics = [spec for spec in choices.lengths if spec.chains_name == own[STATIC].spec.chains_name]
        lengths[target] = {vars(spec)["draft_len"]: _sums(replayed(spec), profile, target) for spec in statics}
    text = hashlib.sha256(json.dumps(trace.output_tokens).encode()).hexdigest()
    one = next(one for own in entries.values() for named in own.values() for one in named)
    return HeldOut(entries, lengths, {(one.source, one.question_id): text})


def _sums(record: Record, profile: LatencyProfile, target: str) -> Sums:
    """Tokens, rounds, and the ms that they take with this drafter and with none."""
    paid = price(record, profile, target)
    counts = {"tokens": float(record.num_output_tokens), "rounds": float(record.num_rounds)}
    return {**counts, "ms": paid.total_ms, "plain_ms": paid.baseline_ms}


def length_row(draft_len: int, sums: Mapping[str, float]) -> dict[str, float]:
    """A static length: acceptance length, speedup (a ratio of sums), and what a round costs in target passes."""
    length, speedup = sums["tokens"] / sums["rounds"], sums["plain_ms"] / sums["ms"]
    return {"draft_len": draft_len, "acceptance_len": length, "speedup_ratio": speedup, "round_cost": length / speedup}
