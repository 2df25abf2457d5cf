"""Damaged files of every kind: read and right, or one line; never a traceback. FAILFAST_EXAMPLES=20 tries more.

Servers' streams and metrics are damaged in test_stream.py and test_metrics.py.
"""

from __future__ import annotations

import io
import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaging import SEEDS, either, to_json, tried
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_trace
from samples import make_plain, make_record
from written import reader, tokens_of, written

from experiments import fuzz_records
from experiments.damage import damaged, exchanged
from experiments.fuzz_records import Judge, tags_of
from specdec.commands import rank as parse_log
from specdec.drafters.ar import ArDynamic, ArStatic
from specdec.drafters.block_diffusion import DllmStatic, FailFast
from specdec.latency.pricing import Pricing
from specdec.latency.profile import PROFILE_DIR, load_profile, resolve_target, verification_ms
from specdec.questions.grading import is_correct
from specdec.questions.sets import load_problems
from specdec.ranking.entries import entry_of
from specdec.records import pickles
from specdec.records.fields import is_same
from specdec.records.record import Record, load_record
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, load_trace
from specdec.views.record_text import record_lines

PRICING = Pricing((load_profile("vLLM_A6000"),))


@pytest.fixture(scope="module")
def judge() -> Judge:
    drafters = ("ar_None_sf_8", "dllm_0.05_sf_8", "dllm_0.05_df_0.45_60_10")
    found = [written(tokens_of("First, we add.\nThen 4 = 4."), drafter) for drafter in drafters]
    return Judge([pickles.dumps(one.to_builtins()) for one in found], reader(), PRICING)


@many(150)
@given(SEEDS)
def test_a_damaged_record_is_refused_or_its_page_holds_no_tag_of_it(judge, seed):
    """As experiments/fuzz_records.py does it 100,000 times, there with its memory and its calls watched."""
    assert judge.outcome(judge.case(seed)) in (
        *("refused as a pickle", "refused as a record"),
        *("a record without a page", "a record and its page"),
    )


@many(60)
@given(SEEDS)
def test_a_damaged_record_on_disk_is_one_line_or_what_it_says(tmp_path_factory, seed):
    path, rng = tmp_path_factory.getbasetemp() / "64.pickle", random.Random(seed)
    path.write_bytes(either(pickles.dumps(make_record().to_builtins()), rng, pickles.loads, pickles.dumps))
    record = tried(lambda: load_record(path))
    if record is not None:
        assert is_same(Record.from_builtins(record.to_builtins()).to_builtins(), record.to_builtins())
        tried(lambda: record_lines(record, entry_of(record, PRICING)))


def test_what_the_fuzz_found_stays_mended(judge):
    """A page of a record whose blocks have no size, or one that no memory holds, or whose times no number does, or
    whose drafter has no window."""
    original = pickles.loads(judge.originals[2])
    changed = {**original, "identity": {**original["identity"], "first_window": 0}}
    assert judge.outcome(pickles.dumps(changed)) == "a record and its page"
    for name in ("block_size", "small_block_size"):
        for size in (None, "8", 0, -8, 3, 2**62, float("inf")):
            changed = {
                **original,
                "identity": {**original["identity"], "block_size": 32, "small_block_size": 8, name: size},
            }
            assert judge.outcome(pickles.dumps(changed)) == "a record and its page"
    for value in (1e308, float("nan"), -0.5):
        rounds = [{**original["stats_each_round"][0], "confidences": [value]}, *original["stats_each_round"][1:]]
        assert judge.outcome(pickles.dumps({**original, "stats_each_round": rounds})) == "refused as a record"
    for value in (1e308, float("inf"), 2**400):
        rounds = [{**original["stats_each_round"][0], "draft_ms": value}, *original["stats_each_round"][1:]]
        assert judge.outcome(pickles.dumps({**original, "stats_each_round": rounds})) == "refused as a record"


def test_tags_and_data_that_are_not_the_page_s_own_are_seen(judge):
    page = judge.page(Record.from_builtins(pickles.loads(judge.originals[0])))
    assert tags_of(page) == judge.tags != tags_of(page.replace("</main>", "<b></main>"))
    assert tags_of(page.replace('<main class="wrap">', '<main class="wrap" onclick="x()">')) != judge.tags
    with pytest.raises(ValueError, match="JSON|Expecting"):
        tags_of(page.replace('type="application/json" id="data">{', 'type="application/json" id="data">{,'))


WORKER = """
import sys
from pathlib import Path
from experiments import fuzz_records as fuzz
watch, fuzz.MAX_CPU_S = fuzz.watch, 0.3
def watch_then_misbehave():
    fuzz.Judge.outcome = lambda *_: {act}
    watch()
fuzz.watch = watch_then_misbehave
sys.exit(fuzz.main(["--worker", sys.argv[1], "--num_cases", "1"]))
"""
ACTS = {
    "__import__('os').system('true')": (3, "os.system"),
    "open('/tmp').read()": (3, "open"),
    "len(bytearray(300 * 2**20))": (3, "MemoryError"),
    "sum(iter(int, 1))": (-signal.SIGVTALRM, ""),
}


def test_the_fuzz_ends_what_runs_grows_or_hangs(judge, tmp_path):
    (tmp_path / "64.pickle").write_bytes(judge.originals[0])
    root = Path(fuzz_records.__file__).parents[1]
    workers = []
    for act in ACTS:
        command = [sys.executable, "-c", WORKER.replace("{act}", act), str(tmp_path)]
        workers.append(subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for worker, (status, why) in zip(workers, ACTS.values(), strict=True):
        _, told = worker.communicate()
        assert (worker.returncode, why in told) == (status, True), told


TRACE = made_up_trace(3, num_tokens=12, chain_len=8)
SPECS = (ArStatic(4), ArDynamic(0.4, 8, 2), DllmStatic(0.9, 4), FailFast(0.9, 0.45, 8, 2, 2))


def trace_bytes(rng: random.Random) -> bytes:
    """A trace with bytes damaged, or with its description, or with one of its arrays, exchanged."""
    if rng.random() < 0.3:
        return damaged(TRACE.to_bytes(), rng)
    with np.load(io.BytesIO(TRACE.to_bytes())) as stored:
        arrays = dict(stored)
    if rng.random() < 0.6:
        text = json.dumps(exchanged(json.loads(arrays["meta"].tobytes()), rng)).encode("utf-8", "surrogatepass")
        arrays["meta"] = np.frombuffer(text, np.uint8)
    else:
        name = rng.choice([key for key in arrays if key != "meta"])
        array = arrays[name].copy()
        if array.size and rng.random() < 0.6:
            array.flat[rng.randrange(array.size)] = rng.choice([0, 1, 2, 100])
        arrays[name] = array if rng.random() < 0.5 else array[: rng.randint(0, len(array))] if array.ndim else array
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@many(150)
@given(SEEDS)
def test_a_damaged_trace_is_one_line_or_replays(tmp_path_factory, seed):
    path = tmp_path_factory.getbasetemp() / "20.npz"
    path.write_bytes(trace_bytes(random.Random(seed)))
    trace: Trace | None = tried(lambda: load_trace(path))
    for spec in SPECS if trace is not None else ():
        record = tried(lambda spec=spec: replay(trace, spec))
        assert record is None or record.output_tokens == trace.output_tokens


def log_bytes(rng: random.Random) -> bytes:
    """The log of four records with bytes damaged, or with values exchanged in the lines that hold all of them."""
    records = [make_plain(0), make_record(0), make_plain(1), make_record(1)]
    log = "\n".join(line for one in records for line in record_lines(one, entry_of(one, PRICING)))
    if rng.random() < 0.5:
        return damaged(log.encode(), rng)
    lines = []
    for line in log.split("\n"):
        head, mark, totals = line.partition("Totals: ")
        lines.append(head + mark + json.dumps(exchanged(json.loads(totals), rng)) if mark else line)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@many(100)
@given(SEEDS)
def test_a_damaged_log_is_ranked_or_refused(tmp_path_factory, seed):
    path = tmp_path_factory.getbasetemp() / "run.log"
    path.write_bytes(log_bytes(random.Random(seed)))
    text = tried(lambda: parse_log.run([str(path), "--json"]))
    assert text is None or "engines" in json.loads(text)


def test_times_by_which_nothing_can_be_divided_are_not_ranked(tmp_path):
    lines = [line for one in (make_plain(0), make_record(0)) for line in record_lines(one, entry_of(one, PRICING))]
    for ms in ("0.5", "5e-324"):
        (tmp_path / "run.log").write_text(re.sub(r"\d+\.\d+", ms, "\n".join(lines)))
        found = json.loads(parse_log.run([str(tmp_path / "run.log"), "--json"]))
        assert bool(found["engines"]) == (ms == "0.5")


PROFILES = tuple(path.read_bytes() for path in sorted(PROFILE_DIR.glob("*.json")))


@many(200)
@given(SEEDS, st.sampled_from(PROFILES))
def test_a_damaged_latency_profile_is_one_line_or_prices(tmp_path_factory, seed, original):
    path = tmp_path_factory.getbasetemp() / "profile.json"
    path.write_bytes(either(original, random.Random(seed), json.loads, to_json))
    profile = tried(lambda: load_profile(path))
    for target in profile.target_ms_per_token if profile is not None else ():
        assert 0 < verification_ms(profile, resolve_target(profile, target), 9) < 1e9


ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "gsm8k": ("test", {"question": "How many are 2 and 3?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}),
    "math": ("test", {"problem": "What is $1+1$?", "solution": "It is $\\boxed{\\frac{4}{2}}$.", "answer": "2"}),
    "humaneval": (
        "test",
        {
            **{"task_id": "A/0", "prompt": "def f(x):\n", "canonical_solution": "    return x\n", "entry_point": "f"},
            "test": "def check(candidate):\n    assert candidate(1) == 1\n",
        },
    ),
    "mmlu": ("test", {"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "logic"}),
    "mt_bench": ("train", {"prompt": ["Say it.", "Again."], "reference": ["It.", "It."], "category": "writing"}),
}


@many(200)
@given(SEEDS, st.sampled_from(sorted(ROWS)))
def test_damaged_questions_are_one_line_or_asked_and_graded(tmp_path_factory, seed, name):
    split, row = ROWS[name]
    folder = tmp_path_factory.getbasetemp() / "data"
    (folder / name).mkdir(parents=True, exist_ok=True)
    lines = [to_json(row), either(to_json(row), random.Random(seed), json.loads, to_json)]
    for one in (split, "test", "train"):
        (folder / name / f"{one}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    problems = tried(lambda: load_problems(name, data_dir=folder))
    for problem in problems or ():
        assert problem.prompt
        record = make_record(raw_data=problem.row, output_text="So it is \\boxed{5}.")
        graded = Record(**{**vars(record), "identity": with_dataset(record, name)})
        assert tried(lambda graded=graded: is_correct(graded)) in (True, False, None)


def with_dataset(record: Record, name: str) -> Any:
    return type(record.identity).from_builtins({**record.identity.to_builtins(), "dataset": name})
