"""The profilers against two real servers with SmolLM2, started and stopped here: what they time is right.

`make test-serve` installs and runs transformers serve; `make test-servers` llama-cpp-python's as well.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import transformers

from profiling import profile_tpt_vllm
from specdec.latency import profile as latency
from specdec.latency.profile import load_profile
from specdec.models import smollm2

pytestmark = [pytest.mark.server, pytest.mark.timeout(1800)]
LAUNCHER = Path(__file__).with_name("timed_server.py")
SMOLLM2 = (smollm2.PACKAGE, "gguf", "accelerate")
SERVING = ("fastapi", "uvicorn", "openai")
# Another environment's python may have it: it takes minutes to build.
LLAMA_PYTHON = os.environ.get("LLAMA_PYTHON") or (sys.executable if importlib.util.find_spec("llama_cpp") else None)
UP_S = 600  # only what hangs takes longer, however busy the machine


def is_installed(*names: str) -> bool:
    return all(map(importlib.util.find_spec, names))


@dataclass
class Running:
    """A server that runs: its URL, the model's name there, and where it notes its times.

    `extra_body`: what its requests need; `is_silent`: whether it says nothing of tokens.
    """

    url: str
    model: str
    times: Path
    extra_body: str
    is_silent: bool = False
    measured: tuple[dict, list[list[float]]] | None = None

    def answers(self) -> list[list[float]]:
        """The moments of each answer's tokens, by the server's own clock."""
        found: list[list[float]] = []
        for line in self.times.read_text().splitlines():
            if line == "begin":
                found.append([])
            else:
                found[-1].append(float(line))
        return found


def start(kind: str, python: str, folder: Path, arguments: list[str], **run: object) -> Iterator[Running]:
    """A server of this kind on a free port, until the tests are through."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    times, log = folder / "times.txt", folder / "log.txt"
    home = folder / "hub"
    home.mkdir()
    command = [python, str(LAUNCHER), kind, str(times), *arguments, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.monotonic() + UP_S
        while not is_up(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{kind} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield Running(f"http://127.0.0.1:{port}/v1", times=times, **run)
    finally:
        end(process, UP_S)


def end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Ask it to end, and make it."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()


def is_up(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def checkpoint() -> str:
    if not is_installed(*SMOLLM2):
        pytest.skip(f"SmolLM2 is not installed: {smollm2.INSTALL}, or make test-serve")
    return str(smollm2.smollm2_folder())


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory, checkpoint: str) -> Iterator[Running]:
    if not is_installed(*SERVING) or int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers serve is not installed: pip install 'transformers[serving]>=5', or make test-serve")
    arguments = [checkpoint, "--device", "cpu", "--dtype", "float32"]
    folder = tmp_path_factory.mktemp("transformers")
    # It knows no such field, and refuses what it does not know.
    neutral = '{"repetition_penalty": null}'
    yield from start("transformers", sys.executable, folder, arguments, model=checkpoint, extra_body=neutral)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, checkpoint: str) -> Iterator[Running]:
    if LLAMA_PYTHON is None:
        pytest.skip("llama-cpp-python's server is not installed: make test-servers (it builds for some minutes)")
    package = Path(importlib.util.find_spec(smollm2.PACKAGE).origin).parent
    arguments = ["--model", str(package / smollm2.GGUF_FILE), "--n_ctx", "2048", "--n_threads", "1"]
    folder = tmp_path_factory.mktemp("llama")
    neutral = '{"repetition_penalty": null, "repeat_penalty": 1.0}'
    yield from start("llama", LLAMA_PYTHON, folder, arguments, model="smollm2", extra_body=neutral, is_silent=True)


@pytest.fixture(params=["transformers_serve", "llama"])
def running(request: pytest.FixtureRequest) -> Running:
    return request.getfixturevalue(request.param)


def measure(running: Running, *more: str) -> int:
    flags = ["--base_url", running.url, "--target_model_name", running.model, "--extra_body", running.extra_body]
    return profile_tpt_vllm.main([*flags, "--num_questions", "4", "--max_new_tokens", "48", *more])


@pytest.fixture
def measured(running, checkpoint, capsys, tmp_path, monkeypatch) -> tuple[dict, list[list[float]]]:
    """What the profiler prints of the server, having written a profile, and the server's own times; made once."""
    if running.measured is None:
        monkeypatch.setattr(latency, "WRITTEN_DIR", tmp_path)
        drafter = {"name": "d", "draft_pass_ms": 2.0, "target_ms_per_token": {"a": 9.0}, "provenance": {}}
        (tmp_path / "d.json").write_text(json.dumps(drafter))
        profile = ["--write_profile", "real", "--hardware", "CPU", "--drafter", "d"]
        assert measure(running, "--tokenizer", checkpoint, "--repeats", "1", "--warm_up", "1", *profile) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        entry = Path(running.model).name
        assert load_profile("real").target_ms_per_token[entry] == found["ms_per_token"]["median"]
        running.measured = found, running.answers()[1:]
    return running.measured


def test_ms_per_token_is_the_server_s_own(measured):
    """Within 10 % of what the server's own process saw of the same answer: of the nearest of them, because on a busy
    machine this process may wake late now and then, and never too early."""
    found, answers = measured
    assert found["num_valid"] == 4, found["left_out"]
    own = [1e3 * (times[-1] - times[0]) / (len(times) - 1) for times in answers]
    pairs = [(one["ms_per_token"], ms) for one, ms in zip(found["trials"], own, strict=True)]
    print([(round(ours, 2), round(theirs, 2)) for ours, theirs in pairs])
    assert min(abs(ours / theirs - 1) for ours, theirs in pairs) < 0.1


def test_tokens_are_counted_by_whoever_can(measured, running):
    found, answers = measured
    assert set(found["tokens_counted_by"]) == {"tokenizer" if running.is_silent else "usage"}
    for trial, times in zip(found["trials"], answers, strict=True):
        assert abs(trial["num_tokens"] - len(times)) <= 1  # the stop token may or may not be counted


def test_what_the_servers_refuse(running, capsys):
    """One refuses a wrong name; the other takes any, but says nothing of tokens."""
    assert measure(running, "--target_model_name", "no/such/model") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert running.url in error
    assert ("give --tokenizer" if running.is_silent else "asked for the model 'no/such/model'") in error
