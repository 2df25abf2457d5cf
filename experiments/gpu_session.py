"""Everything that has to be measured on a GPU, in one command: checks first, then measurements.

    python -m experiments.gpu_session --out DIR

Each step is a process of its own with a time limit, so that none can spoil the next. DIR gets session.json (each step's
last line, if it is JSON, and how it ended), log.txt (all they print) and the files that steps write themselves.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from profiling.common import cuda_device, parser_of, run_command
from profiling.roofline import gpu_of

TAIL = 1500  # characters of a failed step's output that are shown


def steps(out: Path, records: Path, gpu: str) -> dict[str, tuple[list[str], int]]:
    """Step -> (arguments of python, time limit in seconds), in order of importance. Profiles are named after `gpu`."""
    shapes, family = f"{gpu}_graph", f"{gpu}_bundled"
    folder, stored = shlex.quote(str(out)), shlex.quote(str(records))
    graph = "--engine graph --device cuda"
    eight = f"--num_questions 8 --max_new_tokens 256 {graph}"
    priced = f"--latency_profile {folder}/{family}.json --latency_target bundled"
    four = f"--spec_len 5 --num_questions 4 --max_new_tokens 96 {graph}"
    bundled = "--drafter bundled --ar_drafter bundled --targets bundled --contexts 256"
    lines = {
        "tests": ("-m pytest -q -rs -n 14 tests/test_gpu.py tests/test_kernels.py tests/test_int8_kernels.py", 130),
        "profile": (f"-m profiling.profile_engine --name {shapes} --out {folder}", 90),
        "speculation": (f"-m experiments.profile_speculation --profile {folder}/{shapes}.json --out {folder}", 60),
        "variants": ("-m profiling.tune_engine", 100),
        "lossless": (f"-m profiling.check_lossless {eight}", 45),
        "bundled_profile": (f"-m profiling.profile_engine {bundled} --name {family} --out {folder}", 40),
        "bundled": (f"failfast.py {eight} --spec_len 10 8 --output_dir {stored} {priced}", 45),
        "ranking": (f"parse_log.py {stored} --json {priced}", 20),
        "hf_assisted": (f"-m experiments.compare_hf_assisted {four}", 45),
    }
    return {name: (shlex.split(line), limit_s) for name, (line, limit_s) in lines.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.gpu_session", __doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder")
    parser.add_argument("--only", nargs="+", help="these steps")
    parser.add_argument("--budget_s", type=float, default=230, help="seconds after which no step begins")
    return run_command(parser, run_steps, arguments)


def gpu_here() -> str:
    import torch

    return gpu_of(torch.cuda.get_device_name(cuda_device("gpu_session"))) or "GPU"


def run_steps(flags: Namespace) -> dict[str, Any]:
    """Run the steps one after the other; what is known so far is on disk after each."""
    gpu, out = gpu_here(), flags.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    begin, results = time.monotonic(), {}
    for name, (arguments, limit_s) in steps(out, Path(tempfile.mkdtemp()), gpu).items():
        left_s = flags.budget_s - (time.monotonic() - begin)
        if flags.only and name not in flags.only:
            continue
        if left_s < 10:
            results[name] = {"ended": "not begun: the time is up"}
            continue
        results[name] = run_step(name, arguments, min(limit_s, left_s), out / "log.txt")
        (out / "session.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {results[name]['ended']} after {results[name]['seconds']:.1f} s", flush=True)
    return results


def run_step(name: str, arguments: Sequence[str], limit_s: float, log: Path) -> dict[str, Any]:
    begin = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    process = subprocess.Popen([sys.executable, *arguments], env=environment, **how)
    try:
        output, _ = process.communicate(timeout=limit_s)
        ended = f"exit status {process.returncode}"
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        ended = f"stopped at {limit_s:.0f} s"
    with log.open("a", encoding="utf-8") as file:
        file.write(f"=== {name}: {' '.join(arguments)}: {ended}\n{output}\n")
    if ended != "exit status 0":
        print(output[-TAIL:], flush=True)
    return {"ended": ended, "seconds": time.monotonic() - begin, "result": _last_json(output) or output[-TAIL:]}


def _last_json(output: str) -> object:
    """What a step printed, if that is one JSON document, else its last line that is a JSON object."""
    lines = output.splitlines()
    for text in (output, *(line for line in reversed(lines) if line.startswith("{"))):
        try:
            return json.loads(text)
        except ValueError:
            continue
    return None


if __name__ == "__main__":
    sys.exit(main())
