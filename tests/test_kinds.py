"""Which tests need a library of models, and which of them run again under another version: told by what they import."""

from __future__ import annotations

import kinds
import pytest
from kinds import LATE, SAME_IN_ALL_VERSIONS, needs_models, tells_versions_apart
from sources import ROOT


@pytest.mark.parametrize(
    "name",
    [
        "test_lm",  # imports torch itself
        "test_failfast",  # by a helper of the tests
        "test_bundled",  # by the program
        "test_scripts",  # in a process
        "wheel/test_wheel",
        "servers/test_servers",
        *sorted(LATE),
    ],
)
def test_what_reaches_a_library_of_models_needs_it(name: str) -> None:
    assert needs_models(ROOT / "tests" / f"{name}.py")


@pytest.mark.parametrize("name", ["test_kinds", "test_metrics", "test_ranking", "test_layers"])
def test_what_does_not_needs_none(name: str) -> None:
    assert not needs_models(ROOT / "tests" / f"{name}.py")


def test_only_those_are_named_whose_imports_do_not_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "LATE", ())
    assert not [name for name in LATE if needs_models(ROOT / "tests" / f"{name}.py")]


@pytest.mark.parametrize("name", ["test_lm", "test_failfast", "test_bundled", "test_plan", "test_training"])
def test_what_makes_networks_or_reads_checkpoints_can_tell_versions_apart(name: str) -> None:
    assert tells_versions_apart(ROOT / "tests" / f"{name}.py")


@pytest.mark.parametrize("name", ["test_cli", "test_many_processes", "test_ranking", *sorted(SAME_IN_ALL_VERSIONS)])
def test_what_only_calls_the_program_cannot(name: str) -> None:
    assert not tells_versions_apart(ROOT / "tests" / f"{name}.py")


def test_only_those_are_named_that_make_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "SAME_IN_ALL_VERSIONS", ())
    assert all(tells_versions_apart(ROOT / "tests" / f"{name}.py") for name in SAME_IN_ALL_VERSIONS)
