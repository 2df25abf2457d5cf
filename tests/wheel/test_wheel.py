"""The installed program, from a wheel in an empty environment, in a folder of its own (`make test-wheel`)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("WHEEL_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="make test-wheel builds and installs the wheel")
DRAFTERS = ("plain", "ar_sf", "dllm_sf", "failfast", "lookup", "eagle3_sf", "dflash_sf")
SMALL = ("--num_questions", "5", "--max_new_tokens", "48", "--device", "cpu", "--output_dir", "results")
DEMO = ("--drafters", *DRAFTERS, *SMALL)
OTHER_FOLDERS = ("plotting", "profiling", "training", "experiments", "scripts", "tests", "assets")
OTHER_FILES = ("generate", "failfast", "parse_log")


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    known = {name: value for name, value in os.environ.items() if name not in hidden}
    known |= {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(words, cwd=folder, env=known, capture_output=True, text=True, check=False)


def failfast(*words: str, folder: Path, status: int = 0) -> str:
    """What the installed command prints, errors included."""
    done = run(str(Path(PYTHON).with_name("failfast")), *words, folder=folder)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def python(code: str, folder: Path) -> str:
    done = run(PYTHON, "-c", code, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package() -> Path:
    return Path(python("import specdec; print(specdec.__path__[0])", folder=Path("/")).strip())


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, package: Path) -> tuple[Path, str]:
    """The folder that the demo was run in, and what it printed; nothing has come into the installed package."""
    folder, before = tmp_path_factory.mktemp("elsewhere"), files_of(package)
    shown = failfast(*DEMO, folder=folder)
    assert files_of(package) == before
    return folder, shown


def test_the_demo_runs_in_any_folder_on_what_the_wheel_brings(demo):
    folder, shown = demo
    assert "\nMeasured: " in shown and "Every output equals plain decoding." in shown
    assert "Report: results/report.html" in shown and "Next: failfast rank results --wide" in shown
    assert (folder / "results" / "report.html").stat().st_size > 50_000
    assert len(list(folder.rglob("*.pickle"))) >= 5 * 6 and {path.name for path in folder.iterdir()} == {"results"}
    (described,) = folder.rglob("run.json")
    made = json.loads(described.read_text(encoding="utf-8"))
    assert re.findall('"git_revision": (.*?),', json.dumps(made)) == ["null"], "an enclosing checkout is not ours"


def test_results_are_ranked_and_reported_and_priced_by_a_profile_that_comes_along(demo):
    folder, _ = demo
    shown = failfast("rank", "results", "--latency_profile", "H100_graph", "--latency_target", "Qwen2.5-7B-Instruct",
                     folder=folder)  # fmt: skip
    assert "H100_graph as if Qwen2.5-7B-Instruct" in " ".join(shown.split())
    failfast("report", "results", "--out", "report.html", folder=folder)
    assert (folder / "report.html").stat().st_size > 50_000


def test_the_verbs_of_folders_find_their_commands(demo):
    folder, _ = demo
    assert "pareto" in failfast("plot", "--help", folder=folder)
    assert "make_drafters" in failfast("train", "--help", folder=folder)
    assert "--prompt_file" in failfast("train", "make_drafters", "--help", folder=folder)
    assert "needs the package matplotlib: pip install 'failfast-benchmark[plot]'" in failfast(
        "plot", "pareto", "results", "--out", "pareto.png", folder=folder, status=2
    )
    assert "needs the package matplotlib" in failfast(*DEMO, "--figures", folder=folder, status=2)


def test_a_written_profile_stands_in_the_current_folder(demo, package):
    folder, _ = demo
    before = files_of(package)
    words = "profile roofline --gpu H100 --targets Qwen2.5-7B --write_profile mine"
    failfast(*words.split(), folder=folder)
    assert (folder / "latency" / "mine.json").is_file() and files_of(package) == before
    assert "mine (roofline)" in failfast(
        "rank", "results", "--latency_profile", "mine", "--latency_target", "Qwen2.5-7B-Instruct", folder=folder
    )


def test_no_other_name_than_the_packages_can_be_imported(demo):
    folder, _ = demo
    names = OTHER_FOLDERS + OTHER_FILES
    code = f"from importlib.util import find_spec\nprint([name for name in {names} if find_spec(name)])"
    assert python(code, folder=folder).strip() == "[]"
