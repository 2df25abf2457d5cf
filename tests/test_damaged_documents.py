"""Damaged documents that commands read beside records, traces and logs: read and right, or one line; never a traceback,
and no number that is none. FAILFAST_EXAMPLES=20 tries more. Those that need a library of models are damaged in
test_damaged_checkpoints.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import tempfile
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaging import SEEDS, Use, either, is_told, sound, to_json, tried
from examples import many
from hypothesis import given
from made_up import made_up_trace
from samples import make_plain, make_record

from experiments.damage import damaged
from plotting import head_to_head, modelled_vs_measured, training_curves
from profiling import new_profile
from profiling.new_profile import DraftCost, TargetCost, read_draft_cost, read_result
from profiling.serving.ranking_row import check_vanilla, ranking_row
from profiling.serving.step_costs import check_other_length, draft_cost_of_steps
from specdec.commands import calibrate, rank
from specdec.commands.run import parse_args
from specdec.decoding.cost_aware import Outlook, load_calibration
from specdec.drafters.block_diffusion import CostAware
from specdec.errors import UserError
from specdec.latency import profile as latency
from specdec.latency.batch_costs import BatchCosts
from specdec.latency.pricing import Pricing
from specdec.latency.profile import PROFILE_DIR, LatencyProfile, load_profile
from specdec.models.checkpoints import TARGET, find_model, stamp
from specdec.ranking.entries import entry_of
from specdec.ranking.load_files import read_load_file
from specdec.ranking.served_counts import read_counts
from specdec.ranking.table_files import read_table_file
from specdec.records.pickles import plain
from specdec.records.record import identity_path, save_record
from specdec.runs.resume import asked_problems, repeated_run
from specdec.runs.run_file import RunFile, question_sha256, read_run
from specdec.runs.shards import EVERYTHING
from specdec.runs.status import read_status, status_report
from specdec.traces.calibration import advice_of, save_calibration
from specdec.views.record_text import record_lines

A6000 = "vLLM_A6000"
RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
PRICED_AS = "Qwen2.5-7B-Instruct@vLLM_A6000"


# ---- documents of rankings ------------------------------------------------------------------------------------------


@cache
def log() -> str:
    records, pricing = [make_plain(0), make_record(0), make_plain(1), make_record(1)], Pricing((load_profile(A6000),))
    return "\n".join(line for one in records for line in record_lines(one, entry_of(one, pricing)))


@cache
def ranking() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.log").write_text(log())
        return rank.run([str(Path(folder) / "run.log"), "--json"]).encode()


def use_ranking(path: Path) -> None:
    for table in read_table_file(path):
        sound(table)
        for row in table.rows:
            assert row.rank is None or (type(row.rank) is int and row.rank >= 1)
            assert row.num_questions is None or row.num_questions >= 0
            sound([row.ms_per_token, row.standing, table.first, table.best])


@cache
def served_row() -> dict[str, Any]:
    counts = {"num_rounds": 10, "num_emitted": 25, "num_drafts": 10, "num_drafted": 30, "num_accepted": 15}
    counts |= {"accepted_per_position": [8, 5, 2], "ms_per_token": 4.0, "vanilla_ms_per_token": 10.0}
    server = {"drafter_name": "eagle3_vllm_3", "engine": "vLLM", "engine_version": "0.13.0", "hardware": "H100"}
    asked = {"target": "bundled", "dataset": "gsm8k", "max_new_tokens": 64}
    return {**server, **asked, "questions": [{"question_id": index, **counts} for index in range(2)]}


def use_row(path: Path) -> None:
    (path.parent / "run.log").write_text(log())
    sound(json.loads(rank.run([str(path.parent / "run.log"), "--also", str(path), "--json"])))


COUNTS = [
    {"question_id": number, "num_drafted": 30, "num_accepted": 15, "num_rounds": 10, "num_drafts": 10}
    | {"num_tokens": 3, "accepted_per_position": [8, 5, 2], "prompt_ids": [1], "output_ids": [1, 2, 3]}
    for number in range(2)
]
TABLE = b"question_id,num_drafted,num_accepted,num_rounds,output_ids\n0,30,15,10,1 2 3\n1,30,15,,\n"


def use_counts(path: Path) -> None:
    for one in sound(read_counts(path)):
        assert one.num_drafted >= 0 and (one.length is None or one.length >= 0)


def use_load(path: Path) -> None:
    study = sound(read_load_file(path))
    for table in study.tables:
        assert table.load.value > 0 and table.load.label
        for row in table.rows:
            sound([row.kind, row.number("speedup") if "speedup" in row.values else 0])


# ---- of runs --------------------------------------------------------------------------------------------------------


@cache
def calibrated() -> bytes:
    settings = {"num_tokens": 40, "chain_len": 20, "block_size": 8, "vocab_size": 4, "thresholds": (0.2,)}
    traces = [made_up_trace(seed, skill=0.8, **settings) for seed in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        save_calibration(Path(folder) / "c.json", [calibrate.learn(traces, "dllm_0.2", [load_profile(A6000)])])
        return (Path(folder) / "c.json").read_bytes()


def use_calibration(path: Path) -> None:
    found = sound(load_calibration(path, "dllm_0.2"))
    spec = CostAware(0.2, 9, PRICED_AS)
    advice = sound(advice_of(spec, path, [load_profile(A6000)], found.identity))
    assert advice.digest and advice.rate > 0
    outlook = Outlook(advice)
    for known in range(1, 9):
        outlook.read([0.1 * number for number in range(known)])
        assert outlook.pays(3) in (True, False) and 1 <= outlook.best_len <= known
    sound(outlook.survivals)
    assert found.has_seen(make_record().identity) in (True, False)


ASKED = ("--drafters", "plain", "--num_questions", "1", "--max_new_tokens", "64")
PROMPT, IDENTITY = "1f", {"seed": 0, "dtype": "float32"}


@cache
def run_json() -> bytes:
    config = parse_args(ASKED)
    (problem,) = asked_problems(config)
    models = {TARGET.title: {"name": "bundled", **stamp(find_model(TARGET, "bundled"))}}
    question = {"sha256": question_sha256(problem), "prompt_sha256": PROMPT}
    failed = {"question_id": 0, "drafter": "plain"}
    end = {"time": "2026", "elapsed_s": 1.5, "outcome": "failed", "error": "KeyError: 3", "failed": failed}
    document = {"schema_version": 1, "start": "2026-01-01", "target": "bundled", "dataset": problem.dataset}
    document |= {"max_new_tokens": 64, "drafters": ["plain"], "settings": plain(config.settings()), "models": models}
    document |= {"questions": {str(problem.question_id): question}, "identities": {"plain": IDENTITY}}
    return to_json({**document, "question_ids": [problem.question_id], "left_out": {"3": "long"}, "end": end})


def use_run(path: Path) -> None:
    """Status, and a run that goes on where this one ended, whose run.json says of it what this one did."""
    output = path.parent / "out"
    run = output / "runs" / "20260101T000000-1-aa" / "run.json"
    run.parent.mkdir(parents=True)
    path.replace(run)
    assert status_report(read_status(output))
    config = parse_args([*ASKED, "--output_dir", str(output)])
    problems = asked_problems(config)
    identity = config.identity("bundled", problems[0].question_id, "plain", PROMPT, IDENTITY)
    record = dataclasses.replace(make_plain(problems[0].question_id), identity=identity)
    save_record(record, identity_path(output, identity))
    found = repeated_run(config, problems, EVERYTHING)
    if found is not None:
        with RunFile(output, found.description) as again:
            pass
        assert sound(read_run(again.path))["drafters"] == read_run(run)["drafters"]
    sound(read_run(run))


SETTINGS = {
    **{"target_model_name": "/my models/one", "tau": [0.3, 0.45], "draft_len": 8, "drafters": ["plain", "failfast"]},
    **{"num_questions": 500, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "output_dir": "~/results/my sweep"},
    **{"max_new_tokens": 64, "seed": 3, "with_traces": False, "latency_profile": ["vLLM_A6000"], "shard": "0/2"},
}


def as_toml(value: Any) -> bytes:
    text = "\n".join(f"{json.dumps(key)} = {json.dumps(one)}" for key, one in value.items())
    return text.replace("NaN", "nan").replace("Infinity", "inf").encode()


def use_settings(path: Path) -> None:
    """As a whole file, and with the values that it holds, if it holds any, as TOML has them."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        path.write_bytes(as_toml(json.loads(path.read_bytes())))
    try:
        config = parse_args(["--settings", str(path)])
    except SystemExit as end:
        assert end.code == 2
        raise UserError("told by the parser") from None
    assert [spec.name for spec in config.drafters.specs()]
    sound(config.settings())


# ---- of profilers ---------------------------------------------------------------------------------------------------


def printed(drafted: int = 40, ms: float = 12.0, **more: Any) -> dict[str, Any]:
    """What a server's profiler prints, as far as others read it."""
    counts = {"num_rounds": 10, "num_emitted": 25, "num_drafts": 10, "num_drafted": drafted, "num_accepted": 15}
    counts |= {"accepted_per_position": [8, 5, 2], "is_derived": False, "acceptance_len": 2.5}
    trial = {"dataset": "gsm8k", "repeat": 0, "num_tokens": 26, "ms_per_token": ms / 2.5, "ttft_ms": 5.0}
    trial |= {"decode_ms": 10 * ms, "finish_reason": "stop", "speculation": counts}
    found = {"engine": "vLLM", "model": "org/big", "target": "big", "base_url": "http://x/v1", "num_valid": 3}
    found |= {"dataset": "gsm8k", "max_new_tokens": 64, "concurrency": 1, "provenance": {"python": "3.11"}}
    found |= {"ms_per_token": {"median": ms / 2.5, "p10": 4.0, "p90": 5.0, "num": 3}, "speculates": "yes"}
    return {**found, "trials": [{"question_id": n, **trial} for n in range(2)], "speculation": counts, **more}


def use_printed(path: Path) -> None:
    """As --drafter, whose cost goes into a profile."""
    draft = sound(read_draft_cost(str(path)))
    written(path.parent, TargetCost("big", 9.0, {"num_valid": 3}), draft)


def written(folder: Path, target: TargetCost, draft: DraftCost) -> None:
    fields = new_profile._fields("here", {"engine": "vLLM", "hardware": "GPU"}, target, draft, None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(latency, "WRITTEN_DIR", folder / "latency")
        made = load_profile(latency.save_profile(fields))
    assert 0 < made.draft_pass_ms < 1e9


def use_vanilla(path: Path) -> None:
    """As --vanilla: beside it stands the row of a server that speculates."""
    vanilla, found = read_result(str(path), "--vanilla"), printed(method="eagle3")
    check_vanilla(vanilla, found, range(2))
    row = sound(ranking_row(found, vanilla, "eagle3"))
    (path.parent / "run.log").write_text(log())
    (path.parent / "row.json").write_text(json.dumps({"row": {**row, "target": "bundled"}}))
    sound(json.loads(rank.run([str(path.parent / "run.log"), "--also", str(path.parent / "row.json"), "--json"])))
    written(path.parent, TargetCost("big", vanilla["ms_per_token"]["median"], vanilla), DraftCost(2.0, {}))


def use_other_length(path: Path) -> None:
    """As --other_length: what drafting costs is told from it and from what was just measured."""
    other, found = read_result(str(path), "--other_length"), printed(80, 15.0)
    check_other_length(other, found)
    draft, table = sound(draft_cost_of_steps(found, other, 9.0, "eagle3"))
    written(path.parent, TargetCost("big", 9.0, {"num_valid": 3}, table), draft)


# ---- of figures -----------------------------------------------------------------------------------------------------

LOOKS = [{"tokens": 9e5 * n, "questions": 4, "acceptance_length": 1 + 0.8 * n, "accuracy": 0.2 * n} for n in range(4)]
HEADS_TRAINED = {"a": {"curve": LOOKS}, "": {"family": "b", "curve": LOOKS}}
CASES = {"target": "t", "engine": "graph", "provenance": {"device_name": "H200"}}
CASES |= {"cases": {"paper_math_ar_8": {"measured_speedup": 1.5, "modelled_speedup": 1.4}}}
POINT = {"round_cost": 1.5, "acceptance_len": 3.0, "speedup_ratio": 2.0, "acceptance_len_low": 2.9}
POINT |= {"acceptance_len_high": None, "draft_len": 4, "drafter": "ar: static", "num_questions": 100}
HEADS = {"targets": {"big": {"lengths": {"ar": [POINT]}, "rankings": {"alike": {"policies": {"all": [POINT]}}}}}}
HEADS |= {"groups": {"alike": ["ar"]}, "profile": {"name": "vLLM_A6000"}}


def use_curves(path: Path) -> None:
    for curve in sound(training_curves.read_curves(path)).values():
        assert curve


def use_cases(path: Path) -> None:
    for pair in sound(modelled_vs_measured.read_cases(path)) or ():
        assert pair.measured.value > 0 and pair.modelled.value > 0


def use_heads(path: Path) -> None:
    (panels,) = head_to_head.read(Namespace(inputs=[path]))
    for panel in panels.values():
        for row in (*head_to_head.marked(panel), *(row for rows in panel["lines"].values() for row in rows)):
            assert all(0 < row[key] < 1e300 for key in ("round_cost", "acceptance_len", "speedup_ratio"))


# ---- of prices ------------------------------------------------------------------------------------------------------


def use_rows(path: Path) -> None:
    profile = sound(dataclasses.replace(load_profile(path), provenance={}))  # which nothing is reckoned with
    for entry in profile.target_ms_per_token:
        known = [kind for kind in ("ar", "block", *profile.families(entry)) if costs_of(profile, entry, kind)]
        costs = costs_of(profile, entry, *known)
        if costs is not None:
            ms = costs.verify_ms(np.arange(1, 10), np.full(9, 5.0), np.full(9, 700.0))
            assert np.isfinite(sound(costs).verify_RKX).all() and np.isfinite(ms).all() and (ms > 0).all()


def costs_of(profile: LatencyProfile, entry: str, *kinds: str) -> BatchCosts | None:
    return tried(lambda: BatchCosts.of(profile, entry, kinds, 9))


PROFILE = PROFILE_DIR / "RTX_A6000_bound.json"
DOCUMENTS: dict[str, tuple[Callable[[], bytes], Use]] = {
    "ranking": (ranking, use_ranking),
    "--also": (lambda: to_json({"engine": "vLLM", "row": served_row()}), use_row),
    "--counts": (lambda: to_json(COUNTS), use_counts),
    "study of loads": (lambda: (RESULTS / "2026-11-28-load-smollm2-dspark.json").read_bytes(), use_load),
    "calibration": (calibrated, use_calibration),
    "--settings": (lambda: to_json(SETTINGS), use_settings),
    "run.json": (run_json, use_run),
    "--drafter": (lambda: to_json(printed()), use_printed),
    "--vanilla": (lambda: to_json({**printed(speculates="no"), "speculation": None}), use_vanilla),
    "--other_length": (lambda: to_json(printed()), use_other_length),
    "training.json": (lambda: to_json({"heads": HEADS_TRAINED}), use_curves),
    "cases": (lambda: to_json(CASES), use_cases),
    "heads": (lambda: to_json(HEADS), use_heads),
    "rows": (PROFILE.read_bytes, use_rows),
}
TEXTS: dict[str, tuple[bytes, Use]] = {
    "--counts as CSV": (TABLE, use_counts),
    "--settings as TOML": (as_toml(SETTINGS), use_settings),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
@many(40)
@given(seed=SEEDS)
def test_a_damaged_document_is_one_line_or_what_it_says(kind, seed):
    original, use = DOCUMENTS[kind]
    is_told(use, either(original(), random.Random(seed), json.loads, to_json, of_bytes=0.2))


@pytest.mark.parametrize("kind", TEXTS)
@many(40)
@given(seed=SEEDS)
def test_a_damaged_text_is_one_line_or_what_it_says(kind, seed):
    original, use = TEXTS[kind]
    is_told(use, damaged(original, random.Random(seed)))


def test_every_document_is_read_as_it_stands():
    told = [kind for kind, (original, use) in DOCUMENTS.items() if is_told(use, original())]
    assert told == [] and not any(is_told(use, data) for data, use in TEXTS.values())
