"""A real vLLM on the CPU with the bundled models: its text is plain decoding's, token for token, and its acceptance
counts are those of our records under its conventions. `make test-vllm` installs it in an environment of its own.

One server at a time; each starts in about half a minute on a quiet machine.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sources import ROOT
from test_servers import end, is_up

from profiling import profile_tpt_vllm, profile_tpt_vllm_eagle3
from profiling.serving.counts import Counter
from specdec.commands import rank, reconcile
from specdec.drafters.lookup import OLDEST
from specdec.models.checkpoints import BUNDLED_DIR
from specdec.questions.sets import load_problems
from specdec.traces.trace import Trace, find_traces, load_trace

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(3600)]
VLLM = Path(os.environ.get("VLLM") or "vllm")  # the command of another environment
UP_S = 1200  # only what hangs takes longer, however busy the machine
BUDGET, NUM_QUESTIONS = 96, 10
USUAL = ["first token", "whole drafts", "past the end"]


def skip_without_vllm() -> None:
    if not VLLM.is_file():
        pytest.skip(f"no vLLM at {VLLM}: make test-vllm installs one (Python 3.11 on x86-64, 2.5 GB)")


@contextmanager
def serving(folder: Path, speculation: dict[str, Any] | None) -> Iterator[str]:
    """The URL of a vLLM with the bundled target, as long as the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(VLLM), "serve", str(BUNDLED_DIR / "target"), "--served-model-name", "bundled"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "1024"]
    command += ["--enforce-eager"] + (["--speculative-config", json.dumps(speculation)] if speculation else [])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    log = folder / f"{(speculation or {}).get('method', 'plain')}.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + UP_S
        while not is_up(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"vLLM did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        end(process, 60)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records and traces of the bundled questions: plain, and the AR drafter."""
    skip_without_vllm()
    folder = tmp_path_factory.mktemp("results")
    flags = ["--dataset_name", "bundled", "--num_questions", str(NUM_QUESTIONS), "--drafters", "plain", "ar_sf"]
    flags += ["--draft_len", "5", "--max_new_tokens", str(BUDGET), "--dtype", "float32", "--device", "cpu"]
    command = [sys.executable, "failfast.py", *flags, "--with_traces", "--output_dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def traces(results: Path) -> dict[int, Trace]:
    return {trace.question_id: trace for trace in map(load_trace, find_traces(results))}


def profiled(program: Any, url: str, path: Path, *more: str) -> dict[str, Any]:
    """What a profiler finds of the server, in a file too."""
    flags = ["--target_model_name", "bundled", "--base_url", url, "--num_questions", str(NUM_QUESTIONS)]
    assert program.main([*flags, "--max_new_tokens", str(BUDGET), "--repeats", "2", "--out", str(path), *more]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def plain(results: Path, traces: dict[int, Trace]) -> tuple[Path, dict[str, Any]]:
    """What plain decoding's profiler finds, once its answers are seen to be ours, token for token."""
    with serving(results, None) as url:
        path = results / "vanilla.json"
        found = profiled(profile_tpt_vllm, url, path)
        served = Counter(url, "bundled", BUDGET).served
        for problem in load_problems("bundled", num_questions=NUM_QUESTIONS):
            answer, trace = served.ask(problem), traces[problem.question_id]
            assert (answer.prompt_ids, answer.output_ids) == (trace.prompt_ids, trace.output_tokens)
    return path, found


def explained(results: Path, url: str, drafter: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    asked = [str(results), "--drafter", drafter, "--base_url", url, "--json"]
    assert reconcile.main(asked, "failfast reconcile") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_plain_decoding_is_ours_and_said_to_be_plain(plain: tuple[Path, dict[str, Any]]) -> None:
    found = plain[1]
    assert found["speculates"] == "no" and found["num_valid"] == found["num_trials"]
    assert set(found["tokens_counted_by"]) == {"usage"} and found["engine_version"].startswith("0.")


def test_a_draft_model_s_counts_are_ours_under_its_conventions(results, plain, capsys, tmp_path) -> None:
    model = str(BUNDLED_DIR / "ar_drafter")
    with serving(tmp_path, {"method": "draft_model", "model": model, "num_speculative_tokens": 5}) as url:
        found = explained(results, url, "ar_None_sf_5", capsys)
        assert [one["kind"] for one in found["findings"]] == USUAL and found["is_explained"]
        assert len(found["questions"]) == NUM_QUESTIONS
        more = ("--vanilla", str(plain[0]), "--method", "draft_model")
        row = profiled(profile_tpt_vllm_eagle3, url, tmp_path / "draft.json", *more)["row"]
        at_once = profiled(profile_tpt_vllm_eagle3, url, tmp_path / "four.json", *more[2:], "--concurrency", "4")
        assert profile_tpt_vllm.main(["--target_model_name", "bundled", "--base_url", url]) == 2
    served = [one["server"] for one in found["questions"]]
    for name in ("num_rounds", "num_drafts", "num_drafted", "num_accepted"):
        assert [one[name] for one in row["questions"]] == [one[name] for one in served]
        assert at_once["speculation"][name] == 2 * sum(one[name] for one in served)
    ranked = rank.run([str(results), "--also", str(tmp_path / "draft.json")])
    assert "draft_model_vllm_5" in ranked and "ar_None_sf_5" in ranked


def test_ngram_counts_are_our_lookup_s_of_the_oldest_place(results, plain, capsys, tmp_path) -> None:
    config = {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    with serving(tmp_path, config) as url:
        found = explained(results, url, "lookup_3_sf_5", capsys)
        more = ("--vanilla", str(plain[0]), "--method", "ngram")
        row = profiled(profile_tpt_vllm_eagle3, url, tmp_path / "ngram.json", *more)["row"]
    assert found["is_explained"] and found["findings"][0]["text"] == OLDEST
    assert row["drafter_name"] == "ngram_vllm_5"
    assert sum(one["num_rounds"] for one in row["questions"]) > sum(one["num_drafts"] for one in row["questions"])


def test_suffix_decoding_writes_our_text_and_its_memory_is_left_out(results, traces, plain, capsys, tmp_path) -> None:
    has_it = subprocess.run([VLLM.with_name("python"), "-c", "import arctic_inference"], capture_output=True)
    if has_it.returncode:
        pytest.skip("arctic-inference is not installed beside vLLM (it builds for minutes)")
    with serving(tmp_path, {"method": "suffix", "num_speculative_tokens": 8}) as url:
        more = ("--vanilla", str(plain[0]), "--method", "suffix")
        found = profiled(profile_tpt_vllm_eagle3, url, tmp_path / "suffix.json", *more)
        served = Counter(url, "bundled", BUDGET).served
        for problem in load_problems("bundled", num_questions=NUM_QUESTIONS):
            assert served.ask(problem).output_ids == traces[problem.question_id].output_tokens
    assert found["row"]["drafter_name"] == "suffix_vllm_8"
    assert found["num_valid"] == NUM_QUESTIONS and "the server remembers" in capsys.readouterr().err


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An EAGLE-3 head of our training, barely trained: what it drafts has to be the same, not good."""
    skip_without_vllm()
    folder = tmp_path_factory.mktemp("head")
    lines = [{"prompt": problem.messages[-1]["content"]} for problem in load_problems("bundled")[-6:]]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    flags = ["--target_dir", "bundled", "--prompt_file", str(folder / "prompts.jsonl"), "--work_dir", str(folder)]
    flags += ["--families", "eagle3", "--head_steps", "20", "--num_docs", "4", "--num_drafts", "3", "--device", "cpu"]
    flags += ["--draft_vocab_size", "2048", "--max_new_tokens", "48", "--held_back", "2", "--num_looks", "1"]
    command = [sys.executable, "-m", "training.make_drafters", *flags]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / "eagle3"


def test_an_eagle3_head_of_ours_is_served_unchanged_and_its_counts_are_ours(head, results, capsys, tmp_path) -> None:
    flags = ["--dataset_name", "bundled", "--num_questions", str(NUM_QUESTIONS), "--drafters", "plain", "eagle3_sf"]
    flags += ["--draft_len", "3", "--max_new_tokens", str(BUDGET), "--dtype", "float32", "--device", "cpu"]
    command = [sys.executable, "failfast.py", *flags, "--eagle3_dir", str(head), "--with_traces"]
    subprocess.run([*command, "--output_dir", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    with serving(tmp_path, {"method": "eagle3", "model": str(head), "num_speculative_tokens": 3}) as url:
        found = explained(tmp_path, url, "eagle3_sf_3", capsys)
    assert found["is_explained"] and {one["kind"] for one in found["findings"]} <= set(USUAL)
