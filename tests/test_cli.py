"""Verbs: each says its own name and what it does; a mistake is one line and exit status 2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from sources import ROOT

from specdec import cli, errors
from specdec.commands import replay
from specdec.commands.flags import GROUPS
from specdec.commands.run import EXAMPLES

OF_FOLDERS = [
    *(("plot", name) for name in ("pareto", "gallery", "pretty_table")),
    *(("profile", name) for name in ("roofline", "check_lossless", "profile_tpt_vllm")),
    *(("train", name) for name in ("family", "make_drafters", "train_ar_drafter")),
]


def status_of(*words: str) -> int:
    """The exit status, also of a command that ends by itself, as argparse does."""
    try:
        return cli.main(words)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in cli.FOLDERS])
def test_a_verb_says_its_name_and_what_it_does(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(verb, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: failfast {verb} ")
    assert status_of(verb, "--no_such_flag") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"failfast {verb}: error: ") or f"\nfailfast {verb}: error: " in error


def shown_by(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of --help."""
    assert status_of(*words, "--help") == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb not in cli.FOLDERS])
def test_every_flag_of_a_verb_stands_in_a_group_with_a_title(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines, title, apart = shown_by([verb], capsys), "", []
    for line in lines:
        title = line if line.endswith(":") and not line.startswith(" ") else title
        apart += [line] if line.startswith("  -") and title in ("", "options:") else []
    assert len(apart) == 1 and apart[0].startswith("  -h, --help")
    titles = [line[:-1] for line in lines if line[:-1] in GROUPS.values()]
    assert titles == [title for title in GROUPS.values() if title in titles]  # each once, and in one order


@pytest.mark.parametrize(
    "words", [*OF_FOLDERS, *((verb,) for verb in cli.VERBS if verb not in cli.FOLDERS)], ids=" ".join
)
def test_usage_is_short_and_help_begins_with_what_a_command_does(
    words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown_by(words, capsys)
    assert 1 <= lines.index("") <= 3 and lines[lines.index("") + 1].strip()


def test_the_head_of_the_published_help_says_what_it_does_and_where_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown_by([], capsys)
    head, last = lines[:10], lines[-len(EXAMPLES) - 1 :]
    assert head[0] == "usage: failfast.py [FLAG ...]" and "Run drafters" in head[2] and max(map(len, head)) <= 110
    assert any("failfast.py help" in line for line in head) and any("Without flags" in line for line in head)
    assert last == ["examples:", *(f"  {one}" for one in EXAMPLES)]


@pytest.mark.parametrize("words", OF_FOLDERS, ids=" ".join)
def test_commands_of_a_folder_say_what_they_were_called_by(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(sys.argv)
    program = f"failfast {words[0]} {words[1]}"
    assert status_of(*words, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: {program} ")
    assert status_of(*words, "--no_such_flag") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{program}: error: ") and error.count("\n") == 1
    assert sys.argv == before


def test_a_mistake_is_told_under_the_name_that_a_command_was_called_by(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("plot", "pretty_table", "nothing_there", "--out", "table.md") == 2
    assert capsys.readouterr().err.startswith("failfast plot pretty_table: error: nothing_there does not exist")


@pytest.mark.parametrize("verb", cli.FOLDERS)
def test_folders_list_their_commands(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(verb, "--help") == 0
    assert f"usage: failfast {verb} NAME" in capsys.readouterr().out
    for words in ((verb,), (verb, "nothing_of_the_kind")):
        assert status_of(*words) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"failfast {verb}: error: ") and error.count("\n") == 1


def test_an_unknown_verb_is_answered_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("rnak", "results") == 2
    error = capsys.readouterr().err
    assert "no verb is called 'rnak': run, rank" in error and error.count("\n") == 1


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("help") == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in cli.VERBS)


def test_help_for_a_reader_that_has_gone_away_is_no_traceback() -> None:
    command = f"{sys.executable} -c 'import time; time.sleep(1); from specdec.cli import main; main([\"help\"])' | true"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


def test_a_package_that_only_some_commands_need_is_named_with_its_extra(monkeypatch, capsys) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what an import of it finds where it is not installed
    for name in [name for name in sys.modules if name.startswith(("plotting", "matplotlib."))]:
        monkeypatch.delitem(sys.modules, name)
    for words in (("plot", "pareto", "x", "--out", "x.png"), ("run", "--figures")):
        assert status_of(*words) == 2
        error = capsys.readouterr().err
        assert "needs the package matplotlib: pip install 'failfast-benchmark[plot]'" in error, words
        assert error.startswith(f"failfast {words[0]}") and error.count("\n") == 1


def test_advice_names_the_verbs_where_a_verb_was_called(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["replay", str(tmp_path)]) == 2
    assert f"record some with failfast record --output_dir {tmp_path}" in capsys.readouterr().err
    assert replay.main([str(tmp_path)]) == 2
    assert "record some with failfast.py --record --output_dir" in capsys.readouterr().err


def test_a_terminal_without_a_letter_is_told_its_number() -> None:
    print_it = "from specdec.errors import exit_status; exit_status('x', lambda: print('\u03c4'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", print_it], env=environment, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"\\u03c4\n")
