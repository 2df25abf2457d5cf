"""Everything that has to be measured on a GPU, in one command: checks first, then measurements.

    python -m experiments.gpu_session --out DIR
    python -m experiments.gpu_session --out DIR --only profile_Qwen3-8B published_Qwen3-8B --limit_s 300

Each step is a process of its own, so that none can spoil the next; none is cut, unless the machine is lent for a time
and --limit_s says so. DIR gets session.json (each step's
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
from math import inf
from pathlib import Path
from typing import Any

from experiments.published import PUBLISHED
from profiling.common import cuda_device, parser_of, run_command
from profiling.roofline import gpu_of
from specdec.errors import UserError

TAIL = 1500  # characters of a failed step's output that are shown


def steps(out: Path, records: Path, gpu: str) -> dict[str, list[str]]:
    """Step -> arguments of python, in order of importance. Profiles are named after `gpu`."""
    shapes, family = f"{gpu}_graph", f"{gpu}_bundled"
    folder, stored = shlex.quote(str(out)), shlex.quote(str(records))
    graph = "--engine graph --device cuda"
    eight = f"--num_questions 8 --max_new_tokens 256 {graph}"
    priced = f"--latency_profile {folder}/{family}.json --latency_target bundled"
    four = f"--spec_len 5 --num_questions 4 --max_new_tokens 96 {graph}"
    tuned = "--models Qwen3-8B --counts 256 64 128 80 --skip variants --limit_s 130"
    kernels = " ".join(sorted(map(str, Path("tests").glob("test_kernels*.py"))))
    bundled = "--drafter bundled --ar_drafter bundled --targets bundled --contexts 256"
    lines = {
        "head_tests": "-m pytest -q -rs -n 12 tests/test_gpu.py -k recorded_passes",
        "tree_tests": f"-m pytest -q -rs -n 12 tests/test_gpu.py {kernels} -k tree",
        "attention_plans": f"-m profiling.tune_attention --out {folder}/attention_plans.json",
        "product_plans": f"-m profiling.tune_engine {tuned} --out {folder}/product_plans.json",
        **_at_size("Qwen3-8B", gpu, folder, "--rows --repeats 50"),
        "tests": f"-m pytest -q -rs -n 14 tests/test_gpu.py {kernels}",
        "int8_weights": "-m experiments.int8_weights",
        "profile": f"-m profiling.profile_engine --name {shapes} --out {folder}",
        "speculation": f"-m experiments.profile_speculation --profile {folder}/{shapes}.json --out {folder}",
        "variants": "-m profiling.tune_engine",
        "lossless": f"-m profiling.check_lossless {eight}",
        "bundled_profile": f"-m profiling.profile_engine {bundled} --name {family} --out {folder}",
        "bundled": f"failfast.py {eight} --spec_len 10 8 --output_dir {stored} {priced}",
        "ranking": f"parse_log.py {stored} --json {priced}",
        "hf_assisted": f"-m experiments.compare_hf_assisted {four}",
        "tree_products": "-m experiments.tree_products",
        **_at_size("Llama-3.1-8B-Instruct", gpu, folder, "--rows --repeats 30"),
        **_at_size("Qwen3-14B", gpu, folder, "--rows --repeats 20"),
        **_at_size("Qwen3-32B", gpu, folder, "--repeats 15"),
        **_at_size("Qwen2.5-32B", gpu, folder, "--repeats 15"),
    }
    return {name: shlex.split(line) for name, line in lines.items()}


def _at_size(shape: str, gpu: str, folder: str, how: str) -> dict[str, str]:
    """A shape's profile with the heads made for it, and speculation as far as any was published."""
    name = f"{gpu}_{shape}"
    profile = f"-m profiling.profile_engine --targets {shape} --heads dflash eagle3 --contexts 512 --name {name} {how}"
    found = {f"profile_{shape}": f"{profile} --out {folder}"}
    if shape in PUBLISHED:
        published = f"-m experiments.published_acceptance --target {shape} --profile {folder}/{name}.json"
        found[f"published_{shape}"] = f"{published} --out {folder}"
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.gpu_session", __doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder")
    parser.add_argument("--only", nargs="+", help="these steps, in this order")
    parser.add_argument("--limit_s", type=float, help="seconds after which it ends, a step that runs with it")
    parser.add_argument("--step_limit_s", type=float, help="seconds after which a step is stopped")
    return run_command(parser, run_steps, arguments)


def gpu_here() -> str:
    import torch

    return gpu_of(torch.cuda.get_device_name(cuda_device("gpu_session"))) or "GPU"


def run_steps(flags: Namespace) -> dict[str, Any]:
    """Run the steps one after the other; what is known so far is on disk after each."""
    gpu, out = gpu_here(), flags.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    known = steps(out, Path(tempfile.mkdtemp()), gpu)
    if unknown := [name for name in flags.only or () if name not in known]:
        raise UserError(f"--only {unknown[0]}: the steps are {', '.join(known)}")
    end = time.monotonic() + (inf if flags.limit_s is None else flags.limit_s)
    results = _known_results(out / "session.json")
    for name in flags.only or known:
        limit_s = min(end - time.monotonic(), flags.step_limit_s or inf)
        if limit_s < 10 and end < inf:
            results[name] = {"ended": "not begun: the time is up"}
            continue
        results[name] = run_step(name, known[name], None if limit_s == inf else limit_s, out / "log.txt")
        (out / "session.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {results[name]['ended']} after {results[name]['seconds']:.1f} s", flush=True)
    return results


def _known_results(path: Path) -> dict[str, Any]:
    """Of steps that ran before into the same folder."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def run_step(name: str, arguments: Sequence[str], limit_s: float | None, log: Path) -> dict[str, Any]:
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
