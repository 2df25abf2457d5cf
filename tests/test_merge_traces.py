"""Recordings of drafters apart, as one: every chain as it was, questions that all have, and mistakes in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import made_up_trace

from experiments import merge_traces
from specdec.traces.trace import Trace, find_traces, load_trace, save_trace, trace_path


def keep(folder: Path, trace: Trace, *names: str) -> Path:
    own = {name: chains for name, chains in trace.chains.items() if name in names}
    save_trace(replace(trace, chains=own), trace_path(folder, trace.identity))
    return folder


def test_every_drafters_chains_stand_together(tmp_path, capsys):
    traces = [made_up_trace(question, num_tokens=20, thresholds=(0.5, 0.9)) for question in range(3)]
    for at, trace in enumerate(traces):
        keep(tmp_path / "ar", trace, "ar")
        keep(tmp_path / "blocks", trace, "dllm_0.5", "dllm_0.9")
        if at:
            keep(tmp_path / "asked", trace, "ar")
    parts = [str(tmp_path / name) for name in ("both", "ar", "blocks")]
    assert merge_traces.main([*parts, "--asked", str(tmp_path / "asked")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["num_questions"] == 2 and said["chains"] == ["ar", "dllm_0.5", "dllm_0.9"]
    for path, trace in zip(sorted(find_traces(tmp_path / "both")), traces[1:], strict=True):
        found = load_trace(path)
        assert found.output_tokens == trace.output_tokens and found.chains.keys() == trace.chains.keys()
        for name, chains in trace.chains.items():
            assert all((found.chains[name].arrays[key] == array).all() for key, array in chains.arrays.items())


@pytest.mark.parametrize(("change", "why"), [("names", "two recordings have chains of ar"), ("text", "another text")])
def test_what_cannot_be_one_is_one_line(tmp_path, capsys, change, why):
    trace = made_up_trace(0, num_tokens=20, thresholds=(0.5,))
    keep(tmp_path / "a", trace, "ar")
    other = replace(trace, output_tokens=[*trace.output_tokens[:-1], 1]) if change == "text" else trace
    keep(tmp_path / "b", other, "ar" if change == "names" else "dllm_0.5")
    assert merge_traces.main([str(tmp_path / name) for name in ("out", "a", "b")]) == 2
    error = capsys.readouterr().err
    assert why in error and error.count("\n") == 1
