"""A real vLLM on the CPU with the bundled models: its text is plain decoding's, token for token, and its acceptance
counts are those of our records under its conventions. `make test-vllm` installs it in an environment of its own.

A server takes half a minute of one core to start: the next one does while one is asked.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sources import ROOT

from experiments.vllm_counts import methods_of
from experiments.vllm_server import Settings, VllmServer
from profiling import profile_tpt_vllm, profile_tpt_vllm_eagle3
from profiling.serving.counts import Counter
from specdec import cli
from specdec.commands import rank
from specdec.drafters.lookup import OLDEST
from specdec.questions.sets import load_problems
from specdec.traces.trace import find_traces, load_trace

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(3600)]
VLLM = Path(os.environ.get("VLLM") or "vllm")  # the command of another environment
BUDGET, NUM_QUESTIONS = 96, 6
QUESTIONS = ("--num_questions", str(NUM_QUESTIONS), "--max_new_tokens", str(BUDGET))
PLAIN, REMEMBERING = "plain", "suffix that remembers"
USUAL = ["first token", "whole drafts", "past the end"]


@dataclass
class Servers:
    """One after the other, in the order of `settings`. `folder`: for their logs."""

    folder: Path
    settings: dict[str, Settings | None]
    started: dict[str, VllmServer] = field(default_factory=dict)

    def start(self, name: str) -> VllmServer:
        if name not in self.started:
            self.started[name] = VllmServer(VLLM, self.folder / f"{name}.log", self.settings[name])
        return self.started[name]

    @contextmanager
    def using(self, name: str) -> Iterator[str]:
        """The URL of a server, as long as the block lasts; the next one starts meanwhile."""
        server, names = self.start(name), list(self.settings)
        for following in names[names.index(name) + 1 :][:1]:
            self.start(following)
        with server:
            yield server.url
        del self.started[name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Servers, Path]]:
    """Servers, and a results folder: records and traces of the same questions, with heads of our training. They are
    barely trained: what they draft has to be the same, not good. The first two servers start meanwhile."""
    if not VLLM.is_file():
        pytest.skip(f"no vLLM at {VLLM}: make test-vllm installs one (Python 3.11 on x86-64, 2.5 GB)")
    folder = tmp_path_factory.mktemp("vllm")
    heads = [folder / name for name in ("eagle3", "dflash")]
    methods = methods_of(*heads)
    if not any(VLLM.parent.parent.glob("lib/python*/site-packages/arctic_inference")):
        methods.pop("suffix")
    servers = Servers(folder, {PLAIN: None, **{name: settings for name, (_, settings) in methods.items()}})
    if "suffix" in methods:
        servers.settings[REMEMBERING] = {"method": "suffix", "num_speculative_tokens": 8}
    try:
        for name in list(servers.settings)[:2]:
            servers.start(name)
        _train(folder)
        flags = [part for head in heads for part in (f"--{head.name}_dir", str(head))]
        flags += ["--drafters", "plain", *(drafter for drafter, _ in methods.values()), "--latency_profile", "none"]
        flags += [*QUESTIONS, "--dtype", "float32", "--device", "cpu", "--with_traces"]
        _python("failfast.py", *flags, "--output_dir", str(folder / "results"))
        yield servers, folder / "results"
    finally:
        for server in servers.started.values():
            server.end()


def _train(folder: Path) -> None:
    lines = [{"prompt": problem.messages[-1]["content"]} for problem in load_problems("bundled")[-6:]]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    flags = ["--target_dir", "bundled", "--prompt_file", str(folder / "prompts.jsonl"), "--work_dir", str(folder)]
    flags += ["--families", "eagle3", "dflash", "--head_steps", "20", "--num_docs", "4", "--num_drafts", "3"]
    flags += ["--device", "cpu", "--draft_vocab_size", "2048", "--max_new_tokens", "48", "--held_back", "2"]
    _python("-m", "training.make_drafters", *flags, "--num_looks", "1")


def _python(*words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def servers(made: tuple[Servers, Path]) -> Servers:
    return made[0]


@pytest.fixture(scope="module")
def results(made: tuple[Servers, Path]) -> Path:
    return made[1]


def profiled(program: Any, url: str, path: Path, *more: str) -> dict[str, Any]:
    """What a profiler finds of the server, in a file too."""
    flags = ["--target_model_name", "bundled", "--base_url", url, *QUESTIONS, "--repeats", "1"]
    assert program.main([*flags, "--out", str(path), *more]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def documented(page: str, begin: str) -> list[str]:
    """The words of a command that a page shows, without where its output goes."""
    text = (ROOT / "docs" / page).read_text().replace("\\\n", " ")
    line = next(line for line in text.splitlines() if line.startswith(f"failfast {begin}"))
    return shlex.split(re.split(r" > |  # ", line)[0])[1:]


def explained(results: Path, url: str, drafter: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What reconcile says, by the command of its page."""
    capsys.readouterr()
    words = documented("reconcile.md", "reconcile results/bundled --base_url")
    words = [{"results/bundled": str(results), "http://127.0.0.1:8000/v1": url}.get(word, word) for word in words]
    assert words[1:] == [str(results), "--base_url", url]
    assert cli.main([*words, "--drafter", drafter, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert len(found["questions"]) == NUM_QUESTIONS and found["is_explained"]
    return found


@pytest.fixture(scope="module")
def plain(servers: Servers, results: Path) -> tuple[Path, dict[str, Any]]:
    """What plain decoding's profiler finds, once its answers are seen to be ours, token for token."""
    with servers.using(PLAIN) as url:
        found = profiled(profile_tpt_vllm, url, results / "vanilla.json")
        served = Counter(url, "bundled", BUDGET).served
        for trace in map(load_trace, find_traces(results)):
            (problem,) = load_problems("bundled", question_ids=[trace.question_id])
            answer = served.ask(problem)
            assert (answer.prompt_ids, answer.output_ids) == (trace.prompt_ids, trace.output_tokens)
    return results / "vanilla.json", found


def test_plain_decoding_is_ours_and_said_to_be_plain(plain: tuple[Path, dict[str, Any]]) -> None:
    found = plain[1]
    assert found["speculates"] == "no" and found["num_valid"] == found["num_trials"]
    assert set(found["tokens_counted_by"]) == {"usage"} and found["engine_version"].startswith("0.")


def test_a_draft_model_s_counts_are_ours_under_its_conventions(servers, results, plain, capsys, tmp_path) -> None:
    row_file = tmp_path / "draft.json"
    with servers.using("draft_model") as url:
        found = explained(results, url, "ar_None_sf_5", capsys)
        words = documented("servers.md", "profile profile_tpt_vllm_eagle3 --target_model_name bundled")
        words = [str(plain[0]) if word == "vanilla.json" else word for word in words]
        assert cli.main([*words, *QUESTIONS, "--base_url", url, "--repeats", "1", "--out", str(row_file)]) == 0
        at_once = profiled(profile_tpt_vllm_eagle3, url, tmp_path / "four.json", "--concurrency", "4")
        assert profile_tpt_vllm.main(["--target_model_name", "bundled", "--base_url", url]) == 2
    row = json.loads(row_file.read_text())["row"]
    assert [one["kind"] for one in found["findings"]] in (USUAL, USUAL[:2])  # few answers end within a draft
    served = [one["server"] for one in found["questions"]]
    for name in ("num_rounds", "num_drafts", "num_drafted", "num_accepted"):
        assert [one[name] for one in row["questions"]] == [one[name] for one in served]
        assert at_once["speculation"][name] == sum(one[name] for one in served)
    ranked = rank.run([str(results), "--also", str(row_file)])
    assert "draft_model_vllm_5" in ranked and "ar_None_sf_5" in ranked


def test_ngram_counts_are_our_lookup_s_of_the_oldest_place(servers, results, plain, capsys, tmp_path) -> None:
    with servers.using("ngram") as url:
        found = explained(results, url, "lookup_3_sf_5", capsys)
        more = ("--vanilla", str(plain[0]), "--method", "ngram")
        row = profiled(profile_tpt_vllm_eagle3, url, tmp_path / "ngram.json", *more)["row"]
    assert found["findings"][0]["text"] == OLDEST and row["drafter_name"] == "ngram_vllm_5"
    assert sum(one["num_rounds"] for one in row["questions"]) > sum(one["num_drafts"] for one in row["questions"])


def skip_without_suffix(servers: Servers) -> None:
    if "suffix" not in servers.settings:
        pytest.skip("arctic-inference is not installed beside vLLM: it could not be built")


def test_suffix_counts_are_ours_where_nothing_is_remembered(servers, results, capsys) -> None:
    skip_without_suffix(servers)
    with servers.using("suffix") as url:
        found = explained(results, url, "suffix_24_n8", capsys)
    assert {one["kind"] for one in found["findings"]} <= set(USUAL)


@pytest.mark.parametrize(("method", "drafter"), [("eagle3", "eagle3_sf_3"), ("dflash", "dflash_sf_15")])
def test_a_head_of_ours_is_served_unchanged_and_its_counts_are_ours(method, drafter, servers, results, capsys) -> None:
    with servers.using(method) as url:
        found = explained(results, url, drafter, capsys)
    assert {one["kind"] for one in found["findings"]} <= set(USUAL)


def test_answers_that_a_server_remembers_are_left_out(servers, results, plain, capsys, tmp_path) -> None:
    skip_without_suffix(servers)
    more = ("--vanilla", str(plain[0]), "--method", "suffix", "--repeats", "2")
    with servers.using(REMEMBERING) as url:
        found = profiled(profile_tpt_vllm_eagle3, url, tmp_path / "suffix.json", *more)
    assert found["row"]["drafter_name"] == "suffix_vllm_8"
    assert found["num_valid"] == NUM_QUESTIONS and "the server remembers" in capsys.readouterr().err
