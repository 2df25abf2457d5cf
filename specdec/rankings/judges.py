"""Judges: the ceilings of records, live or replayed, under the profiles of a ranking, wherever their traces are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from specdec.errors import UserError
from specdec.latency import LatencyProfile
from specdec.rankings.ceiling import Ceiling
from specdec.rankings.oracle import Judge
from specdec.rankings.ranking import engine_name, priced_entry
from specdec.records import Record
from specdec.traces.trace import Trace, load_trace, trace_path


def judges_of(trace: Trace, profiles: Sequence[LatencyProfile], latency_target: str | None) -> dict[str, Judge]:
    """By engine name, as `ranking.model_prices` names them. Raises UserError for a target that a profile lacks."""
    own, judges = str(trace.identity["target"]), {}
    for profile in profiles:
        entry = priced_entry(profile, own, latency_target)
        judges[engine_name(profile.title, entry, own)] = Judge(trace, profile, entry)
    return judges


class Judges:
    """Finds the trace of each record in a results folder; what a trace took to judge is done once."""

    def __init__(self, trace_dir: str | Path, profiles: Sequence[LatencyProfile], latency_target: str | None) -> None:
        self.trace_dir, self.profiles, self.latency_target = trace_dir, profiles, latency_target
        self._judges: dict[Path, dict[str, Judge]] = {}

    def ceilings(self, record: Record) -> dict[str, Ceiling]:
        """By engine name. Raises UserError for a sampled record, and where its question has no trace, or one of
        another text."""
        if record.is_sampled:
            raise UserError(f"{record.drafter_name} was sampled, and traces are of greedy runs: leave out --trace_dir")
        path = trace_path(self.trace_dir, record.identity)
        if path not in self._judges:
            self._judges[path] = judges_of(load_trace(path), self.profiles, self.latency_target)
        judges = self._judges[path]
        for judge in judges.values():
            if (judge.trace.prompt_ids, judge.trace.output_tokens) != (record.prompt_ids, record.output_tokens):
                raise UserError(f"{path} is the trace of another text than {record.drafter_name}'s: record it again")
        return {engine: judge.ceiling(record) for engine, judge in judges.items()}
