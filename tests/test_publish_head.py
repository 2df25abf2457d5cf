"""Heads among the bundled models: where they are put, with which card, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specdec.errors import UserError
from specdec.models.checkpoints import BUNDLED_DIR
from training.publish_head import publish_head

REPORT = {
    "steps": 7, "tokens": 1e6, "seconds": 3.0, "first_loss": 9.0, "last_loss": 1.0, "losses": [[5, 9.0], [7, 1.0]],
    "settings": {"documents": 11}, "taps": [1, 2], "num_parameters": 960_000,
}  # fmt: skip


@pytest.fixture(params=["eagle3_head", "dflash_head"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A head's folder as training leaves it, with the settings of a bundled one; and where it is to go."""
    source = tmp_path / "work"
    source.mkdir()
    (source / "config.json").write_text((BUNDLED_DIR / request.param / "config.json").read_text())
    (source / "training.json").write_text(json.dumps(REPORT))
    (source / "model.safetensors").write_bytes(b"x" * 99)
    return source, tmp_path / "models" / request.param


def test_a_head_goes_where_the_bundled_target_finds_it_with_its_card(trained: tuple[Path, Path]) -> None:
    source, folder = trained
    folder.parent.mkdir()
    for command in ("python -m one", "python -m two"):  # the second replaces the first
        size = publish_head(source, folder, command)["bytes"]
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert size == sum(path.stat().st_size for path in folder.iterdir())
    card = (folder / "README.md").read_text()
    for word in (
        "0.96 M parameters",
        "layers 1, 2 ",
        "GSM8K",
        "MIT",
        "7 steps",
        "11 learnt from",
        "arithmetic is wrong",
    ):
        assert word in card, word
    assert "python -m two" in card and "python -m one" not in card


def test_what_is_there_already_or_is_not_a_head_is_left_alone(trained: tuple[Path, Path], tmp_path: Path) -> None:
    source, folder = trained
    with pytest.raises(UserError, match="call it eagle3_head or dflash_head"):
        publish_head(source, tmp_path / "models" / "target", "x")
    folder.mkdir(parents=True)
    (folder / "mine").touch()
    with pytest.raises(UserError, match="would be overwritten"):
        publish_head(source, folder, "x")
    (source / "training.json").write_text("{}")
    with pytest.raises(UserError, match="is not a head that training.make_drafters made"):
        publish_head(source, tmp_path / "other" / folder.name, "x")
