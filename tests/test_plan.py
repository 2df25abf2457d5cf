"""Plans: what --dry_run says of a recording and of downloads. The hub's answers are made up; no network is asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from specdec.cli import main as failfast
from specdec.commands import run
from specdec.models import loaded
from specdec.models.checkpoints import TARGET, ModelSource
from specdec.models.downloads import missing_bytes
from specdec.runs import plan

HUB_NAME = "org/target"


def hub_with(sizes: dict[str, int | None]) -> type:
    """What asks a hub whose repository has files of these sizes."""

    class Hub:
        def model_info(self, name: str, **_: object) -> SimpleNamespace:
            assert name == HUB_NAME
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=one, size=size) for one, size in sizes.items()])

    return Hub


class NoHub:
    def model_info(self, *_: object, **__: object) -> None:
        raise ConnectionError("no network")


@pytest.mark.parametrize("words", [["record"], ["--record"], ["run", "--with_traces"]], ids=" ".join)
def test_a_recording_is_planned(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(loaded, "load_lm")
    line = [
        *words,
        "--dry_run",
        "--num_questions",
        "3",
        "--max_new_tokens",
        "16",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert (run.main(line) if words == ["--record"] else failfast(line)) == 0
    out = capsys.readouterr().out
    assert "to record: 3 of 3 questions\n" in out and "chains of ar: " in out and "memory on" in out
    assert ("to run: " in out) == ("--with_traces" in words)
    assert "time: " in out and "to download" not in out  # the bundled models are here
    assert not (tmp_path / "out").exists()


def test_what_has_its_trace_is_not_planned_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    there.touch()
    monkeypatch.setattr(plan, "trace_paths", lambda *_: iter([there, tmp_path / "not"]))
    assert failfast(["record", "--dry_run", "--num_questions", "2", "--output_dir", str(tmp_path)]) == 0
    assert "to record: 1 of 2 questions; the others have a trace (settings not compared)" in capsys.readouterr().out


def test_what_is_to_be_downloaded_is_what_the_hub_has_and_the_cache_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ModelSource(TARGET, HUB_NAME, tmp_path, {})
    (tmp_path / "config.json").touch()
    sizes: dict[str, int | None] = {
        "a.safetensors": 3 << 30,
        "b.safetensors": 5,
        "model.bin": 7,
        "old/c.safetensors": 9,
    }
    monkeypatch.setattr(huggingface_hub, "HfApi", hub_with(sizes))
    assert missing_bytes(source) == (3 << 30) + 5
    index = '{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    (tmp_path / "b.safetensors").touch()
    assert missing_bytes(source) == 3 << 30
    monkeypatch.setattr(huggingface_hub, "HfApi", hub_with({"a.safetensors": None}))
    assert missing_bytes(source) is None
    monkeypatch.setattr(huggingface_hub, "HfApi", NoHub)
    assert missing_bytes(source) is None
    (tmp_path / "a.safetensors").touch()
    assert missing_bytes(source) == 0  # all that the index names: nobody is asked


def test_downloads_are_said_a_line_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = SimpleNamespace(
        config=SimpleNamespace(loaded_roles=[TARGET]), sources={TARGET: SimpleNamespace(role=TARGET, name=HUB_NAME)}
    )
    for size, said in (
        (3 << 30, ["to download: target org/target, 3.0 GiB"]),
        (None, ["to download: target org/target, size not known without the hub"]),
        (0, []),
    ):
        monkeypatch.setattr(plan, "missing_bytes", lambda _, size=size: size)
        assert plan.download_lines(asked) == said
