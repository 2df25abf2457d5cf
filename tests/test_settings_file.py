"""Settings in a file: every flag by its name, the command line wins, what is wrong is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from specdec.commands.flags import all_flags
from specdec.commands.run import parse_args, parse_verb
from specdec.config import RunConfig

SWEEP = """
target_model_name = "/my models/one"
tau = [0.3, 0.45]
spec_len = 8  # its published name
drafters = ["plain", "ar_sf", "failfast"]
num_questions = 500
with_traces = true
figures = false
temperature = 0
output_dir = "~/results/my sweep"
"""


@pytest.fixture
def sweep(tmp_path: Path) -> str:
    path = tmp_path / "my sweep.toml"
    path.write_text(SWEEP)
    return str(path)


def written(folder: Path, text: str) -> str:
    path = folder / "s.toml"
    path.write_text(text)
    return str(path)


def test_a_file_means_what_the_flags_mean(sweep: str) -> None:
    flags = ["--target_model_name", "/my models/one", "--output_dir", "~/results/my sweep", "--tau", "0.3", "0.45"]
    flags += ["--spec_len", "8", "--drafters", "plain", "ar_sf", "failfast", "--num_questions", "500", "--with_traces"]
    assert parse_args(["--settings", sweep]) == parse_verb("failfast run", [f"--settings={sweep}"]) == parse_args(flags)


def test_the_command_line_wins_over_later_files_over_earlier_ones(sweep: str, tmp_path: Path) -> None:
    later = written(tmp_path, "num_questions = 7\ndraft_len = [1, 2]")
    config = parse_args(["--tau", "0.9", "--settings", sweep, "--settings", later])
    assert config.drafters.options["tau"] == (0.9,)
    assert config.drafters.options["draft_len"] == (1, 2) and config.questions.num_questions == 7
    assert parse_args([]) == RunConfig.of()  # a file leaves nothing to the next line


def test_every_default_can_stand_in_a_file(tmp_path: Path) -> None:
    """A flag that a file could not give would be missed here: all flags, with their defaults."""
    defaults = {name: flag.default for group in all_flags().values() for name, flag in group.items()}
    given = {name: value for name, value in defaults.items() if value is not None}
    lines = [f"{name} = {toml(value)}" for name, value in given.items()]
    assert len(lines) > 40
    config = parse_args(["--settings", written(tmp_path, "\n".join(lines))])
    assert config.settings() == parse_args([]).settings()


def toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("taus = 3", "'taus', which is no flag of this command; did you mean tau?"),
        ('settings = "x"', "'settings', which is no flag"),
        ("--tau = 3", "'--tau', which is no flag of this command; did you mean tau?"),
        ('tau = "x"', "tau: 'x' is not a probability"),
        ("num_questions = -1", "num_questions: '-1' is not a positive integer"),
        ('engine = "gr"', "engine: invalid choice: 'gr'"),
        ("draft_len = true", "draft_len takes texts or numbers"),
        ("tau = []", "tau takes texts or numbers"),
        ("tau = 1979-05-27", "tau takes texts or numbers"),
        ('output_dir = ["a"]', "output_dir takes one value, not a list"),
        ("dry_run = 1", "dry_run takes true or false, not 1"),
        ("tau = 0.3\nsweep_lowconf_threshold = 0.4", "gives tau twice"),
        ("tau = ", "are not TOML"),
        (f"seed = 0x{'f' * 6000}", "are not TOML"),
        ("[run]\ntau = 0.3", "'run', which is no flag"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_args(["--settings", written(tmp_path, text)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and said in error and str(tmp_path) in error and error.count("\n") == 1


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--settings", str(tmp_path / "none")], ["--settings", str(tmp_path)], ["--settings"]):
        with pytest.raises(SystemExit):
            parse_args(words)
        error = capsys.readouterr().err
        assert "settings" in error and error.count("\n") == 1
