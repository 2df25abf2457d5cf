"""The package: what pyproject.toml installs is all that the program needs, versions agree, and the library's face."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sources import ROOT

import specdec
from specdec.errors import UserError

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
LOCK = ROOT / "requirements-lock.txt"
INSTALLED = ("specdec", "plotting", "profiling", "training")


def requirements(path: Path) -> dict[str, Requirement]:
    """By package; lines of comments and of other files are left out."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {canonicalize_name(one.name): one for one in found}


def pins(path: Path) -> dict[str, str]:
    return {name: str(one.specifier).removeprefix("==") for name, one in requirements(path).items()}


def conda_pins() -> dict[str, str]:
    described = yaml.safe_load((ROOT / "environment.yaml").read_text(encoding="utf-8"))
    (of_pip,) = [one["pip"] for one in described["dependencies"] if isinstance(one, dict)]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in map(Requirement, of_pip)}


def folder_of(package: str) -> Path:
    """Where a package of the wheel stands here, by `package-dir`."""
    for name, folder in SETUPTOOLS["package-dir"].items():
        if f"{package}.".startswith(f"{name}."):
            return Path(folder, *package.removeprefix(name).split("."))
    return Path(*package.split("."))


def test_every_folder_of_the_program_is_installed():
    """A new folder with Python files is a line of `packages` in pyproject.toml."""
    there = {path.parent.relative_to(ROOT) for name in INSTALLED for path in (ROOT / name).rglob("*.py")}
    assert {folder_of(name) for name in SETUPTOOLS["packages"]} == there | {Path("assets")}


def test_every_file_of_data_is_installed():
    """A new kind of data is a pattern of `package-data` in pyproject.toml."""
    patterns = [str(folder_of(name) / one) for name, ones in SETUPTOOLS["package-data"].items() for one in ones]
    data = [path for name in (*INSTALLED, "assets") for path in (ROOT / name).rglob("*") if path.is_file()]
    names = [str(path.relative_to(ROOT)) for path in data if path.suffix not in (".py", ".pyc")]
    assert [name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_only_one_name_is_taken():
    assert {name.partition(".")[0] for name in SETUPTOOLS["packages"]} == {"specdec"}
    assert PROJECT["project"]["scripts"] == {"failfast": "specdec.cli:main"}


def test_versions_agree():
    """The lock and the paper's environment are within what is required, and each names every package of it."""
    needed = requirements(ROOT / "requirements.txt") | requirements(ROOT / "requirements-plot.txt")
    for known in (pins(LOCK), conda_pins()):
        assert {name for name, one in needed.items() if not one.specifier.contains(known.get(name, "0"))} == set()
    extras = [ROOT / f"requirements-{name}.txt" for name in ("grade", "serve", "dev")]
    others = {name: one for path in extras for name, one in requirements(path).items()}
    assert {name for name, one in others.items() if not one.specifier.contains(pins(LOCK).get(name, "0"))} == set()
    assert f"transformers=={conda_pins()['transformers']}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_extra_is_a_file_that_is_there():
    files = PROJECT["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    assert set(files) == {"grade", "plot", "serve", "gpu"}
    assert all((ROOT / file).is_file() for one in files.values() for file in one["file"])


def test_what_is_cited_is_this_version_and_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(cited["version"]) == PROJECT["project"]["version"] and cited["license"] == PROJECT["project"]["license"]
    assert [one["url"] for one in cited["references"]] == ["https://arxiv.org/abs/2512.20573"]


def test_what_is_told_of_versions_of_python_agrees():
    least, below = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["project"]["requires-python"]).groups()
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py3{least}"
    assert f"(3, {least}) <= sys.version_info[:2] <= (3, {int(below) - 1})" in (ROOT / "Makefile").read_text()


def test_the_import_loads_no_library():
    code = "import specdec, sys; print({'torch', 'numpy', 'transformers', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_matplotlib_one_line_says_what_to_install() -> None:
    code = "import runpy, sys; sys.modules['matplotlib'] = None; import importlib.util as u; real = u.find_spec; "
    code += "hidden = lambda name, *a: None if name == 'matplotlib' else real(name, *a); u.find_spec = hidden; "
    code += "sys.argv = ['-m']; runpy.run_module('plotting.pareto', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "failfast-benchmark[plot]" in done.stderr


def test_the_face_has_what_it_names_and_no_more():
    assert all(getattr(specdec, name) is not None for name in specdec.__all__)
    with pytest.raises(AttributeError, match="no attribute 'open_sesion'"):
        _ = specdec.open_sesion


def test_a_session_refuses_what_it_does_not_know():
    with pytest.raises(UserError, match="no drafter is called 'fastfail'"):
        specdec.open_session(drafters=["fastfail"])
    with pytest.raises(TypeError, match="no setting is called max_tokens"):
        specdec.open_session(max_tokens=3)


@pytest.mark.slow
def test_the_example_of_the_library_runs(tmp_path, monkeypatch, capsys):
    """The lines of specdec's docstring, as they stand there, after a run in the current folder."""
    from specdec.cli import main

    monkeypatch.chdir(tmp_path)
    words = "run --num_questions 1 --max_new_tokens 64 --drafters plain --device cpu"
    assert main(words.split()) == 0
    capsys.readouterr()
    example = [line[4:] for line in specdec.__doc__.splitlines() if line.startswith("    ") or not line]
    exec(compile("\n".join(example), "specdec/__init__.py", "exec"), {})
    *rounds, price = capsys.readouterr().out.splitlines()
    assert len(rounds) > 3 and price.endswith("x") and price.startswith("H100_graph as if Qwen2.5-7B-Instruct ")
    assert all(0 <= int(line.split()[1]) <= int(line.split()[0]) for line in rounds)
