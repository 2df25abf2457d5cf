"""Fixtures that several test files share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import examples
import pytest
from kinds import needs_models, tells_versions_apart
from sources import MODEL_LIBRARIES

examples.load_profile()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--models",
        choices=("with", "without", "versions"),
        help="only tests that do, or do not, need such a library; or those of them that could tell two versions apart",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Without: importing such a library fails, so that no version of it has a part in what these tests find."""
    if config.getoption("--models") == "without":
        sys.modules.update(dict.fromkeys(MODEL_LIBRARIES))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    chosen = config.getoption("--models")
    if chosen is None or not collection_path.match("test_*.py"):
        return None
    if chosen == "versions":
        return None if tells_versions_apart(collection_path) else True
    return True if needs_models(collection_path) != (chosen == "with") else None


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Toy matrices are faster without threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on the texts of toy_training; the import, of all that trains, is for those who ask."""
    from toy_training import SHAPE, TEXTS

    from training import tokenizer as tokenizers

    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizers.write_tokenizer(tokenizers.train_bpe([*TEXTS, "user assistant"], SHAPE.vocab_size), folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir: Path) -> Any:
    from training import tokenizer as tokenizers

    return tokenizers.load_tokenizer(tokenizer_dir)


@pytest.fixture(scope="session")
def sandbox_here() -> None:
    """For tests that run programs: skipped where the system has no sandbox for them."""
    from specdec.errors import UserError
    from specdec.questions.sandbox import passes

    try:
        passes("")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A ManualClock for a FakeServer, and in place of the clock of the profilers' client."""
    from fake_server import ManualClock

    from profiling.serving.server import Server

    made = ManualClock()
    monkeypatch.setattr(Server, "now", made.now)
    monkeypatch.setattr(Server, "sleep", made.sleep)
    return made
