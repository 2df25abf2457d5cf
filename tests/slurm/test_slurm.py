"""The three sweeps on a real Slurm: killed, cancelled and requeued tasks change nothing in the ranking.

Needs root and Debian's slurm-wlm (tests/slurm/install.sh); skips itself where Slurm does not start.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pausing import pausing_python

from specdec.records.record import find_records, load_record
from specdec.runs.run_file import find_runs, read_run

PROJECT = Path(__file__).resolve().parent.parent.parent
START = PROJECT / "tests" / "slurm" / "start.sh"
SWEEPS = ("sweep_ar_drafter_freqs", "sweep_dllm_drafter_freqs", "sweep_dynamic_freqs")
NUM_TASKS = 5  # one each that is killed, cancelled and requeued, and two that are left alone
SETTINGS = {
    "NUM_QUESTIONS": str(NUM_TASKS),
    "MAX_NEW_TOKENS": "96",
    "SPEC_LENS": "4 8",
    "TAUS": "0.3 0.45",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "EXTRA_ARGS": "--device cpu",
    "FAILFAST_ENV": "/dev/null",
}
RANKING = "ranking-bundled-bundled.json"
NUM_RECORDS = NUM_TASKS * 7  # plain decoding and two configurations per sweep

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(7200)]
HANG_S = 1800  # only what hangs takes longer, however busy the machine


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a running Slurm."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("sbatch", "slurmctld", "slurmd", "munged"))):
        pytest.skip("no Slurm here, or not root: tests/slurm/install.sh installs it")
    folder = tmp_path_factory.mktemp("slurm")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # munge's own user must reach its socket
    done = subprocess.run([START, folder], capture_output=True, text=True, timeout=HANG_S)
    if done.returncode:
        subprocess.run([START, folder, "stop"])
        pytest.skip(f"Slurm does not start here: {done.stderr.strip()[-300:]}")
    yield {**os.environ, "SLURM_CONF": done.stdout.strip()}
    subprocess.run([START, folder, "stop"], check=True)


@pytest.fixture
def environment(slurm: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {
        **slurm,
        **SETTINGS,
        "PYTHON": sys.executable,
        "OUTPUT_DIR": str(tmp_path / "array"),
        "SBATCH_OUTPUT": f"{tmp_path}/%x-%j.log",
    }


def call(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout


def submit(name: str, environment: dict[str, str], log_dir: Path) -> tuple[str, str]:
    """(array job, ranking job) of a sweep; the tasks' logs are NAME-TASK.log."""
    log = f"--output={log_dir}/{name}-%a.log"
    words = call(["scripts/submit.sh", f"scripts/{name}.sh", str(NUM_TASKS), log], environment).split()
    assert words[::2] == ["array", "ranking"]
    return words[1], words[3]


def wait_for(condition: Callable[[], object], what: str) -> object:
    deadline = time.monotonic() + HANG_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {HANG_S} s: {what}")


def process_of(job: str, task: int) -> int:
    """The process id of a running task's failfast.py."""
    wanted = {f"SLURM_ARRAY_JOB_ID={job}".encode(), f"SLURM_ARRAY_TASK_ID={task}".encode()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_program = b"failfast.py" in (folder / "cmdline").read_bytes()
            if is_program and wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                return int(folder.name)
        except OSError:  # it has just ended
            continue
    raise AssertionError(f"task {task} of {job} has no process")


def runs_of(output_dir: Path, job: str) -> list[dict]:
    found = [read_run(path) for path in find_runs(output_dir)]
    return [one for one in found if one["slurm"].get("SLURM_ARRAY_JOB_ID") == job]


def wait_for_begin(output_dir: Path, job: str, task: int) -> None:
    """Until a task has written its run.json: its work begins."""

    def has_begun() -> bool:
        return any(one["slurm"]["SLURM_ARRAY_TASK_ID"] == str(task) for one in runs_of(output_dir, job))

    wait_for(has_begun, f"task {task} of {job} begins")


def wait_for_end(job: str, environment: dict[str, str]) -> None:
    """Until Slurm has nothing of a job left to do. A requeued task, which Slurm would hold for minutes, may go on."""

    def is_over() -> bool:
        command = ["squeue", "-h", "-r", "-j", job, "-o", "%i %T"]
        queue = subprocess.run(command, env=environment, capture_output=True, text=True)
        tasks = [row.split() for row in queue.stdout.splitlines()] if queue.returncode == 0 else []
        for name in (name for name, state in tasks if state == "PENDING"):
            update = ["scontrol", "update", f"JobId={name}", "StartTime=now"]
            subprocess.run(update, env=environment, capture_output=True)
        return not tasks

    wait_for(is_over, f"job {job} ends")


def unmeasured(path: Path) -> str:
    """A ranking without what clocks decide."""
    document = json.loads(path.read_text())
    document["engines"] = [table for table in document["engines"] if table["engine"] != "measured"]
    del document["plain"]["total_ms"], document["plain"]["ms_per_token"]
    return json.dumps(document, indent=2)


def test_three_sweeps_survive_a_cluster(environment: dict[str, str], tmp_path: Path) -> None:
    output_dir = Path(environment["OUTPUT_DIR"])
    jobs = run_sweeps(
        environment, tmp_path, on_submitted=lambda jobs: disturb(jobs[SWEEPS[0]], output_dir, environment)
    )
    # Tasks of three sweeps shared every question's folder, and each began with plain decoding.
    assert {load_record(path).question_id for path in find_records(output_dir)} == set(range(NUM_TASKS))
    ends = [(one["question_ids"], (one["end"] or {}).get("outcome")) for one in runs_of(output_dir, jobs[SWEEPS[0]])]
    assert ([1], None) in ends and ([2], "stopped") in ends
    requeued = [one for one in map(read_run, find_runs(output_dir)) if one["slurm"].get("SLURM_RESTART_COUNT") == "1"]
    assert [(one["question_ids"], one["end"]["outcome"]) for one in requeued] == [([3], "done")]
    status = call([environment["PYTHON"], "failfast.py", "--status", str(output_dir)], environment)
    assert "ar_None_sf_8" in status and "1 without an end" in status
    assert (output_dir / RANKING).is_file()  # although tasks had failed

    before = {path: path.stat().st_mtime_ns for path in find_records(output_dir)}
    run_sweeps(environment, tmp_path)
    assert len(find_records(output_dir)) == NUM_RECORDS
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())  # nothing was computed twice

    serial = environment | {"OUTPUT_DIR": str(tmp_path / "serial")}
    for name in SWEEPS:
        call(["bash", f"scripts/{name}.sh"], serial)
    call(["bash", "scripts/rank.sh"], serial)
    rankings = [unmeasured(Path(one["OUTPUT_DIR"]) / RANKING) for one in (environment, serial)]
    assert rankings[0] == rankings[1]
    assert len(json.loads(rankings[0])["engines"][0]["rows"]) == 6


def test_a_task_ends_before_its_time_limit(environment: dict[str, str], tmp_path: Path) -> None:
    """Slurm's signal comes before the limit, which is set when the task is at work: finished work is kept, no more is
    begun."""
    stand_in, paused = pausing_python(tmp_path)
    limits = ["--array=0-0", "--time=60", "--signal=B:TERM@120", f"--output={tmp_path}/limit.log"]
    begin, pausing = time.monotonic(), environment | {"PYTHON": str(stand_in)}
    job = call(["sbatch", "--parsable", *limits, f"scripts/{SWEEPS[0]}.sh"], pausing).strip()
    wait_for(paused.exists, "the task is at work")
    minutes = int((time.monotonic() - begin) // 60) + 3  # two and more from now: the signal comes soon
    call(["scontrol", "update", f"JobId={job}_0", f"TimeLimit={minutes}"], environment)
    wait_for_end(job, environment)
    (run,) = runs_of(Path(environment["OUTPUT_DIR"]), job)
    assert run["end"]["outcome"] == "stopped"  # killed at the limit it would have no end
    kept = [load_record(path) for path in find_records(environment["OUTPUT_DIR"])]
    assert 0 < len(kept) == run["end"]["num_computed"] < NUM_TASKS * len(run["drafters"])
    assert "the same command does the rest" in (tmp_path / "limit.log").read_text()


def run_sweeps(
    environment: dict[str, str], log_dir: Path, on_submitted: Callable[[dict[str, str]], None] = lambda _: None
) -> dict[str, str]:
    """Submit all sweeps at once and wait for arrays and rankings; sweep -> array job."""
    jobs = {name: submit(name, environment, log_dir) for name in SWEEPS}
    arrays = {name: array for name, (array, _) in jobs.items()}
    on_submitted(arrays)
    for job in (job for pair in jobs.values() for job in pair):
        wait_for_end(job, environment)
    return arrays


def disturb(job: str, output_dir: Path, environment: dict[str, str]) -> None:
    """Kill a task, cancel the next and requeue the one after, each as soon as it works."""
    wait_for_begin(output_dir, job, 1)
    os.kill(process_of(job, 1), signal.SIGKILL)
    wait_for_begin(output_dir, job, 2)
    call(["scancel", f"{job}_2"], environment)
    wait_for_begin(output_dir, job, 3)
    call(["scontrol", "requeue", f"{job}_3"], environment)
