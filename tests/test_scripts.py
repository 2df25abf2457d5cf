"""The scripts under plain bash: settings from the environment, signals, what is missing. On Slurm: tests/slurm."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from families import save_family
from pausing import pausing_python, wait_until_paused

from specdec.commands.run import parse_args
from specdec.config import RunConfig
from specdec.records.record import find_records
from specdec.runs.run_file import find_runs, read_run

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((PROJECT / "scripts").glob("*.sh"))
PROFILE_FLAGS = ("--num_questions", "2", "--max_new_tokens", "8", "--repeats", "1")
HANG_S = 600  # only what hangs takes longer, however busy the machine
SWEEPS = [path for path in SCRIPTS if path.stem.startswith(("sweep_", "microbenchmark_", "concavity_"))]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def environment(family: dict[str, Path], tmp_path: Path) -> dict[str, str]:
    known = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    more = f"--ar_model_name {family['ar']} --dllm_dir {family['dllm']} --latency_target Qwen2.5-7B-Instruct"
    return known | {
        "PYTHON": sys.executable,
        "FAILFAST_ENV": "/dev/null",
        "TARGETS": str(family["target"]),
        "OUTPUT_DIR": str(tmp_path / "out"),
        "NUM_QUESTIONS": "2",
        "MAX_NEW_TOKENS": "16",
        "EXTRA_ARGS": f"{more} --device cpu",
        "RANK_ARGS": "--latency_target Qwen2.5-7B-Instruct",
    }


def bash(script: str, environment: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", f"scripts/{script}.sh", *more]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=HANG_S)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_syntax(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    is_sourced = not path.read_text().startswith("#!")
    assert os.access(path, os.X_OK) != is_sourced
    assert not is_sourced or path.stem in ("lib", "invent")


def test_scripts_share_no_logic():
    """After the line that finds the project, a sweep's script is its settings and one call."""
    assert len(SWEEPS) == 6
    for path in SWEEPS:
        behind = path.read_text().partition(". scripts/lib.sh || exit 2\n")[2].splitlines()
        assert len(behind) == 1 and behind[0].split()[0] in ("sweep", "sweep_static", "sweep_failfast"), path
        settings = [line for line in path.read_text().splitlines() if re.match(r"[A-Z_]+=", line)]
        assert settings and all(re.fullmatch(r"([A-Z_]+)=\(\$\{\1:-[^}]+\}\)", line) for line in settings), path


def test_a_sweep_and_its_ranking(environment, tmp_path):
    environment |= {"SPEC_LENS": "3 5", "THRESHOLDS": "0.1"}
    done = bash("sweep_dllm_drafter_freqs", environment)
    assert done.returncode == 0, done.stderr
    names = {path.parent.name for path in find_records(tmp_path / "out")}
    assert names == {"plain", "dllm_0.1_sf_3", "dllm_0.1_sf_5"}
    ranked = bash("rank", environment)
    assert ranked.returncode == 0, ranked.stderr
    assert "Highest: " in ranked.stdout and "Runs: 1 done" in ranked.stdout
    assert (tmp_path / "out" / "ranking-target-bundled.json").is_file()


def test_a_ranking_of_nothing_fails_and_says_so(environment):
    done = bash("rank", environment)
    assert done.returncode == 1 and "holds no runs" in done.stderr


def test_sigterm_ends_the_script_after_the_round_and_the_rest_is_done_later(environment, tmp_path):
    environment |= {"NUM_QUESTIONS": "4", "SPEC_LENS": "2", "DATASETS": "bundled bundled"}
    stand_in, paused = pausing_python(tmp_path)
    command, pausing = ["bash", "scripts/sweep_ar_drafter_freqs.sh"], environment | {"PYTHON": str(stand_in)}
    running = subprocess.Popen(command, cwd=PROJECT, env=pausing, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until_paused(running, paused)
    running.send_signal(signal.SIGTERM)  # to the script alone, as --signal=B:TERM does
    _, error = running.communicate(timeout=HANG_S)
    assert running.returncode == 128 + signal.SIGTERM and b"stopped" in error
    kept = find_records(tmp_path / "out")
    assert 0 < len(kept) < 8
    (run,) = map(read_run, find_runs(tmp_path / "out"))  # the second data set was not begun
    assert run["end"]["outcome"] == "stopped"
    assert bash("sweep_ar_drafter_freqs", environment).returncode == 0
    assert len(find_records(tmp_path / "out")) == 8


def test_errors_reach_the_caller(environment):
    done = bash("sweep_ar_drafter_freqs", environment | {"MAX_NEW_TOKENS": "none"})
    assert done.returncode == 2 and "--max_new_tokens" in done.stderr
    done = bash("sweep_ar_drafter_freqs", environment | {"SLURM_ARRAY_TASK_ID": "x"})
    assert done.returncode == 2 and "SLURM_ARRAY_TASK_ID" in done.stderr


def test_profiles_are_measured_with_the_sweeps_settings(environment):
    done = bash("profile_tpt_hf", environment | {"EXTRA_ARGS": "--device cpu"}, *PROFILE_FLAGS, "--drafters", "plain")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["target"] == "target"


def test_a_profiler_of_a_server_says_that_there_is_none(environment):
    done = bash("profile_tpt_vllm", environment | {"EXTRA_ARGS": ""}, "--base_url", "http://127.0.0.1:9/v1")
    assert done.returncode == 2 and "no server answers at http://127.0.0.1:9/v1" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["scripts/rank.sh"], ["nowhere.sh", "8"], ["scripts/rank.sh", "0"]])
def test_submitting_says_how(arguments, environment):
    done = bash("submit", environment, *arguments)
    assert done.returncode == 2 and "usage" in done.stderr


def test_the_example_of_the_site_changes_nothing_as_it_stands(environment):
    example = PROJECT / "scripts" / "env.sh.example"
    lines = [line for line in example.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == []


def noting_python(folder: Path) -> tuple[Path, Path]:
    """A stand-in for python that runs nothing and notes its commands, and the file with the notes."""
    stand_in, noted = folder / "python", folder / "commands"
    stand_in.write_text(f'#!/bin/sh\nfor word; do printf "%s\\037" "$word"; done >> {noted}\necho >> {noted}\n')
    stand_in.chmod(0o755)
    return stand_in, noted


def configs_of(noted: Path) -> list[RunConfig]:
    """What failfast.py was asked."""
    commands = [line.split("\037")[:-1] for line in noted.read_text().splitlines() if line.startswith("failfast.py")]
    return [parse_args(command[1:]) for command in commands]


TENTHS = tuple(n / 20 for n in range(1, 20))
# Script -> what the published one asks for: target, data set, questions, and how many drafters of which settings.
PUBLISHED: dict[str, tuple] = {
    "sweep_ar_drafter_freqs": ("14B", "gpqa", 30, ("plain", "ar_sf"), {"draft_len": tuple(range(3, 11))}),
    "sweep_dllm_drafter_freqs": (
        *("14B", "gpqa", 30, ("plain", "dllm_sf")),
        {"draft_len": tuple(range(3, 17)), "unmask_threshold": (0.9,)},
    ),
    "sweep_dynamic_freqs": (
        *("7B", "mt_bench", 5, ("plain", "ar_sf", "dllm_sf", "failfast")),
        {"tau": (0.5,), "max_draft_len": (60,), "draft_step": (10,), "draft_len": (10,), "unmask_threshold": (0.05,)},
    ),
    "microbenchmark_maxlen": (
        *("32B", "math", 30, ("plain", "ar_sf", "failfast")),
        {"tau": (0.45,), "max_draft_len": (10,), "draft_step": (10,), "draft_len": (10,)},
    ),
    "microbenchmark_thres": (
        *("32B", "math", 30, ("plain", "ar_sf", "failfast")),
        {"tau": (0.05, 0.1, 0.75, 0.8, 0.85, 0.9, 0.95), "max_draft_len": (60,), "draft_step": (10,)},
    ),
    "concavity_motivation": (
        *("32B", "math", 30, ("plain", "dllm_sf")),
        {"unmask_threshold": TENTHS, "draft_len": (8,)},
    ),
}
OURS = {"microbenchmark_thres": {"tau": TENTHS}, "concavity_motivation": {"unmask_threshold": TENTHS}}


@pytest.mark.parametrize("name", [path.stem for path in SWEEPS])
def test_published_settings_are_a_switch_away(name: str, tmp_path: Path) -> None:
    stand_in, noted = noting_python(tmp_path)
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(stand_in), "FAILFAST_ENV": "/dev/null"}
    for more in ({"PUBLISHED": "1"}, {}, {"PUBLISHED": "1", "DATASETS": "aime", "EXTRA_ARGS": "--prompt_style short"}):
        done = bash(name, environment | more)
        assert done.returncode == 0, done.stderr
    theirs, ours, mixed = configs_of(noted)
    size, dataset, num_questions, drafters, options = PUBLISHED[name]
    assert theirs.models.target_model_name == f"Qwen/Qwen2.5-{size}-Instruct"
    assert (theirs.questions.dataset_name, theirs.questions.num_questions) == (dataset, num_questions)
    assert (theirs.questions.prompt_style, theirs.decoding.max_new_tokens) == ("published", 1024)
    assert theirs.drafters.kinds == drafters
    assert {key: theirs.drafters.options[key] for key in options} == options
    assert (ours.models.target_model_name, ours.questions.prompt_style) == ("bundled", "short")
    assert {key: ours.drafters.options[key] for key in OURS.get(name, {})} == OURS.get(name, {})
    assert (mixed.questions.dataset_name, mixed.questions.prompt_style) == ("aime", "short")
    assert mixed.models == theirs.models


def test_smollm2_passes_on_what_the_benchmark_is_to_run(environment, tmp_path):
    """Nothing is trained or downloaded: a stand-in for python notes the commands."""
    stand_in, noted = noting_python(tmp_path)
    environment |= {"PYTHON": str(stand_in), "WORK_DIR": str(tmp_path / "work"), "DATASETS": "gsm8k math"}
    done = bash("smollm2", environment | {"EVAL_FLAGS": "--spec_len 8 4 --run_ar"})
    assert done.returncode == 0, done.stderr
    configs = configs_of(noted)
    assert [config.questions.dataset_name for config in configs] == ["gsm8k", "math"]
    assert all(config.questions.num_questions == 2 for config in configs)
    options = [config.drafters.options for config in configs]
    assert all(one["draft_len"] == (8, 4) and one["run_ar"] for one in options)
    noted.unlink()
    assert bash("smollm2", environment).returncode == 0
    assert configs_of(noted)[0].drafters.kinds == ("plain", "ar_sf", "ar_df", "dllm_sf", "failfast", "lookup")


def test_smollm2_looks_for_its_questions_before_hours_of_work(environment, tmp_path):
    environment |= {"DATA_DIR": str(tmp_path / "nowhere"), "WORK_DIR": str(tmp_path / "work")}
    done = bash("smollm2", environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "nowhere/gsm8k/train.jsonl" in done.stderr
    assert not done.stdout and not (tmp_path / "work").exists()
    rows = {
        "gsm8k": {"question": "1 + 1?", "answer": "#### 2"},
        "math": {"problem": "1 + 1?", "solution": "2", "answer": "2"},
    }
    for name, row in rows.items():
        (tmp_path / "nowhere" / name).mkdir(parents=True)
        (tmp_path / "nowhere" / name / "train.jsonl").write_text(json.dumps(row) + "\n")
    done = bash("smollm2", environment)
    assert done.returncode == 2 and "nowhere/gsm8k/test.jsonl" in done.stderr and not (tmp_path / "work").exists()


def test_lists_are_words_or_where_they_have_line_ends_lines(environment):
    shows = '. scripts/lib.sh; printf "%s|" "${TARGETS[@]}" -- ${EXTRA_ARGS[@]+"${EXTRA_ARGS[@]}"}'
    for targets, extra, shown in [
        ("a b", "", "a|b|--|"),
        (
            "my/a b\nc d\n",
            "--data_dir\nmy data\n",
            "my/a b|c d|--|--data_dir|my data|",
        ),
    ]:
        given = environment | {"TARGETS": targets, "EXTRA_ARGS": extra}
        done = subprocess.run(["bash", "-c", shows], cwd=PROJECT, env=given, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == (shown, "")


def test_a_file_of_settings_is_a_run(environment, tmp_path):
    stand_in, noted = noting_python(tmp_path)
    path, folder = tmp_path / "my sweep.toml", tmp_path / "my results"
    path.write_text(f'output_dir = "{folder}"\n')
    known = {key: value for key, value in environment.items() if key not in ("OUTPUT_DIR", "EXTRA_ARGS")}
    known |= {"PYTHON": str(stand_in), "SETTINGS": str(path)}
    for script in ("run_settings", "sweep_ar_drafter_freqs"):
        assert bash(script, known | {"OUTPUT_DIR": str(folder)}).returncode == 0
    first, second = [line.split("\037") for line in noted.read_text().splitlines()]
    assert first[:-1] == ["failfast.py", "--settings", str(path), "--output_dir", str(folder), "--shard", "slurm"]
    assert second[1:3] == ["--settings", str(path)] and "--spec_len" in second  # what the script says comes later
    done = bash("rank", known | {"PYTHON": sys.executable})
    assert done.returncode == 1 and f"{folder} holds no runs" in done.stderr  # the file's folder
    refused = bash("run_settings", {key: value for key, value in known.items() if key != "SETTINGS"})
    assert refused.returncode == 2 and "SETTINGS=FILE.toml" in refused.stderr


def test_submitting_says_where_the_logs_go(environment, tmp_path):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 17\n")
    (tmp_path / "sbatch").chmod(0o755)
    environment |= {"PATH": f"{tmp_path}{os.pathsep}{environment['PATH']}"}
    done = bash("submit", environment, "scripts/sweep_dynamic_freqs.sh", "2")
    assert done.stdout == "array 17 ranking 17\n"
    assert f"{PROJECT}/sweep_dynamic_freqs-17_TASK.out and {PROJECT}/rank-17.out" in done.stderr
