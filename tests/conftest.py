"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

# Examples have no time limit, and slow ones are not a failure: both would depend on how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Toy matrices are faster without threads."""
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
