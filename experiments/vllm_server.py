"""A vLLM on this machine with the bundled target: started here, asked elsewhere, ended with what started it.

It measures nothing. A server takes half a minute of one core to start, so several may be started before any is asked.
Each one's worker has a core of its own, in turn, and one thread: where threads are more than idle cores, they wait for
each other for seconds.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from specdec.errors import UserError
from specdec.models.checkpoints import BUNDLED, BUNDLED_DIR

UP_S, END_S = 1800.0, 60.0  # only what hangs takes longer, however busy the machine
STEP_S = 0.3
CONTEXT = 1024
Settings = Mapping[str, Any]  # of --speculative-config


def draft_model(num_tokens: int) -> Settings:
    """The bundled AR drafter inside the server."""
    return {"method": "draft_model", "model": str(BUNDLED_DIR / "ar_drafter"), "num_speculative_tokens": num_tokens}


class VllmServer:
    """A server that starts when it is made. `vllm`: the command of its environment; its output goes into `log`."""

    num_made: ClassVar[int] = 0

    def __init__(self, vllm: Path, log: Path, settings: Settings | None, flags: Sequence[str] = ()) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.root_url = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.url, self.log = f"{self.root_url}/v1", log
        asked = [str(vllm), "serve", str(BUNDLED_DIR / "target"), "--served-model-name", BUNDLED, "--dtype", "float32"]
        asked += ["--host", "127.0.0.1", "--port", self.root_url.rpartition(":")[2], "--enforce-eager", *flags]
        asked += ["--max-model-len", str(CONTEXT)]
        if settings is not None:
            asked += ["--speculative-config", json.dumps(dict(settings))]
        variables = {
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": str(self._next_core()),
        }
        environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1"}
        with log.open("w") as output:
            self._process = subprocess.Popen(asked, stdout=output, stderr=subprocess.STDOUT, env=environment)

    @classmethod
    def _next_core(cls) -> int:
        cores = sorted(os.sched_getaffinity(0))
        cls.num_made += 1
        return cores[cls.num_made % len(cores)]

    def wait(self) -> Self:
        """Until it answers. Raises UserError if it ends before that, or hangs."""
        deadline = time.monotonic() + UP_S
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"vLLM did not start: {self.log} says why ({self.last_error})")
            time.sleep(STEP_S)
        return self

    @property
    def last_error(self) -> str:
        """The last line of its log that names an error; "" where none does."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line.strip()[:300] for line in reversed(lines) if "Error" in line), "")

    def __enter__(self) -> Self:
        return self.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """As from the keyboard; its parts end with it."""
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.root_url}/health", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def versions(vllm: Path) -> dict[str, str]:
    """Of the packages in the environment of a command vllm that decide what it does."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    asked = [str(vllm.with_name("python")), "-c", code, "vllm", "torch", "transformers"]
    found: dict[str, str] = json.loads(subprocess.run(asked, capture_output=True, check=True, text=True).stdout)
    return found
