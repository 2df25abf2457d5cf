"""Paths of users: one name for a checkpoint however it is spelled, and the home that no shell has put in."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from profiling.roofline import entry_name
from profiling.serving import server_profile
from specdec import cli
from specdec.commands.run import parse_args
from specdec.errors import UserError
from specdec.latency.profile import engine_name, load_profile, resolve_target
from specdec.records.record import target_name
from training.cli import training_parser

NAME = "Qwen2.5-7B-Instruct"


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of that name below the home, in which the program is run."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / NAME / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / NAME)
    return tmp_path / NAME


@pytest.mark.parametrize("given", [".", "./", "inner/..", f"../{NAME}/", f"~/{NAME}", f"../{NAME}/./", f"org/{NAME}"])
def test_every_part_calls_a_target_the_same(checkpoint: Path, given: str) -> None:
    profile = load_profile("vLLM_A6000")
    assert target_name(given) == resolve_target(profile, given) == entry_name(given) == NAME
    assert engine_name("P", NAME, given) == "P"


def test_a_served_folder_has_the_name_of_its_records(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_profile, "told", lambda *_: {})
    flags = {"target_model_name": ".", "base_url": "http://127.0.0.1:1", "timeout_s": 1.0, "hardware": None}
    engine = server_profile.Engine("m", "vLLM", "http://127.0.0.1:1", "/version", None)
    asked = type("Flags", (), {**flags, "max_new_tokens": 8, "concurrency": 1})()
    assert server_profile.describe(engine, asked)["target"] == NAME


def test_a_home_that_no_shell_has_put_in_is_one(checkpoint: Path) -> None:
    home = str(checkpoint.parent)
    config = parse_args(["--output_dir=~/x", "--data_dir", "~/d", f"--target_model_name=~/{NAME}"])
    assert (config.output.output_dir, config.questions.data_dir) == (f"{home}/x", f"{home}/d")
    assert config.models.target_model_name == f"{home}/{NAME}"
    assert parse_args(["--output_dir=a~b"]).output.output_dir == "a~b"
    parser = training_parser("training.any", "")
    parser.add_argument("--out", type=Path)
    assert parser.parse_args(["--out=~/y"]).out == Path(home) / "y"


def test_an_unknown_name_is_still_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="has no target 'inner'"):
        resolve_target(load_profile("vLLM_A6000"), "inner/")


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--settings", "FOLDER"),
        ("plot", "eagle_training", "FOLDER", "--out", "x.png"),
    ],
    ids=" ".join,
)
def test_a_folder_in_the_place_of_a_file_is_called_one(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        assert cli.main([word.replace("FOLDER", str(tmp_path)) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "it is a folder, not a file" in error
