"""Every command of profiling/ and experiments/ says its own name and what it does, and takes no flag to ignore it."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from pathlib import Path

import pytest

from specdec.commands.flags import all_flags
from specdec.commands.help_text import HelpWithDefaults
from specdec.records.rounds import Round

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = [
    f"{path.parent.name}.{path.stem}"
    for folder in ("profiling", "experiments")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "\ndef main(" in path.read_text(encoding="utf-8")
]
DECODING = ("profiling.check_lossless", "experiments.profile_overhead", "experiments.profile_rounds")


def failed(name: str, *flags: str) -> object:
    """The status with which a command's parser ends the program."""
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(name).main(list(flags))
    return ended.value.code


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_the_command_and_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(name, "--help") == 0
    text = capsys.readouterr().out
    about = importlib.import_module(name).__doc__.splitlines()[0]
    assert text.startswith(f"usage: python -m {name} ") and about in text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_flag_that_a_command_does_not_have_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(name, "--no_such_flag") == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and error[0].startswith(f"python -m {name}: error: ")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_every_flag_that_it_lists(name: str) -> None:
    """A name that is not a setting would be left out without a word."""
    known = {flag for group in all_flags().values() for flag in group}
    assert set(getattr(importlib.import_module(name), "FLAGS", ())) <= known


@pytest.mark.parametrize("flag", ["--dry_run", "--output_dir=x", "--read_pickle", "--record", "--temperature=1"])
@pytest.mark.parametrize("name", DECODING)
def test_no_flag_of_a_run_is_taken_and_ignored(name: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(name, flag) == 2
    assert f"unrecognized arguments: {flag}" in capsys.readouterr().err


def test_help_shows_every_default_once() -> None:
    parser = argparse.ArgumentParser(formatter_class=HelpWithDefaults)
    parser.add_argument("--steps", type=int, default=30, help="how long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--names", nargs="+", default=["a", "b"])
    parser.add_argument("--told", default=7, help="as ever (default: %(default)s)")
    parser.add_argument("--out")
    parser.add_argument("--fast", action="store_true")
    text = " ".join(parser.format_help().split())
    assert "how long (default: 30)" in text and "--seed SEED (default: 0)" in text and "(default: a b)" in text
    assert text.count("(default: 7)") == 1 and text.count("default") == 4


def test_help_of_a_profiler_tells_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for name, tokens in (("profile_tpt_vllm", 256), ("profile_dataset_output", 1024)):
        assert failed(f"profiling.{name}", "--help") == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"output budget per question (default: {tokens})" in shown
        assert "the first N questions (default: 8; of your own, all)" in shown


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("profiling.profile_tpt")])
def test_flags_of_profilers_of_models_stand_in_groups(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(name, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    options = lines[lines.index("options:") + 1 :]
    assert options[0].startswith("  -h, --help") and options[1] == "" and "output:" in options


def test_a_live_round_and_its_replay_are_compared_in_all_that_was_decided() -> None:
    """Times and the target's tokens after the first rejected one, which no trace holds, are not."""
    from experiments.compare_live_replay import is_same_round

    live = Round(
        9, [4, 5, 6], [0.5, 0.25, 1.0], 1, 2, 0, "length", 1, 7, 3.0, 4.0, asked_len=3, target_tokens=[4, 7, 8]
    )
    replayed = dataclasses.replace(
        live, draft_ms=0.0, verify_ms=0.0, target_tokens=None, confidences=[0.500001, 0.25, 1]
    )
    assert is_same_round(live, replayed)
    others = ({"num_denoise_passes": 3}, {"draft_tokens": [4, 5, 7]}, {"stop_reason": "max_len"}, {"asked_len": 4})
    for other in (*others, {"confidences": [0.5, 0.25]}, {"confidences": [0.5, 0.3, 1.0]}):
        assert not is_same_round(live, dataclasses.replace(replayed, **other)), other
