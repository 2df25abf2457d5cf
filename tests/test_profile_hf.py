"""The profilers that need no server, on tiny models: what they count, and the profile that comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from families import flags as family_flags
from families import save_family

from profiling import profile_dataset_output, profile_tpt_hf
from specdec.commands import run as failfast
from specdec.latency import profile as latency
from specdec.latency.profile import load_profile

pytestmark = pytest.mark.slow
SHORT = ("--device", "cpu", "--num_questions", "2", "--max_new_tokens", "20", "--repeats", "2")
WRITE = ("--write_profile", "here", "--hardware", "CPU")


@pytest.fixture(autouse=True)
def profile_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    folder = tmp_path / "latency"
    folder.mkdir()
    monkeypatch.setattr(latency, "WRITTEN_DIR", folder)
    return folder


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("family"))


def flags(family: dict[str, Path], *more: str) -> list[str]:
    models = ["--target_model_name", str(family["target"]), "--ar_model_name", str(family["ar"])]
    return [*models, "--dllm_dir", str(family["dllm"]), *SHORT, *more]


def last_json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_every_model_is_measured_and_the_profile_prices_a_run(family, tmp_path, capsys):
    assert profile_tpt_hf.main(flags(family, *WRITE)) == 0
    found = last_json(capsys)
    assert found["num_valid"] == 4 and set(found["verify_ms"]) == {"1", "2", "4", "8", "16", "32", "64"}
    assert all(spread["num"] == 4 for spread in found["verify_ms"].values())
    assert found["ar_drafter"]["ms_per_pass"]["num"] == found["dllm_drafter"]["ms_per_pass"]["num"] == 4
    assert found["ttft_ms"]["median"] > 0 and found["provenance"]["torch"]
    profile = load_profile("here")
    assert profile.target_ms_per_token == {"target": found["ms_per_token"]["median"]}
    assert profile.verify_ms["target"][64] == found["verify_ms"]["64"]["median"]
    assert profile.draft_pass_ms == found["dllm_drafter"]["ms_per_pass"]["median"]
    assert profile.ar_draft_pass_ms == found["ar_drafter"]["ms_per_pass"]["median"]
    run = family_flags(family, tmp_path / "out", "--num_questions", "1", "--latency_profile", "here")
    run[run.index("--latency_target") + 1] = "target"
    assert failfast.main(run) == 0
    assert "Modelled time, here" in capsys.readouterr().out


def test_a_target_alone_takes_the_drafter_s_cost_from_a_profile(family, profile_dir, capsys):
    assert profile_tpt_hf.main(flags(family, "--drafters", "plain", *WRITE)) == 2
    assert "give --drafter" in capsys.readouterr().err
    known = {"name": "known", "draft_pass_ms": 2.0, "target_ms_per_token": {"a": 9.0}, "provenance": {}}
    (profile_dir / "known.json").write_text(json.dumps(known))
    assert profile_tpt_hf.main(flags(family, "--drafters", "plain", *WRITE, "--drafter", "known")) == 0
    assert "ar_drafter" not in last_json(capsys) and load_profile("here").draft_pass_ms == 2.0


def test_a_model_that_stops_at_once_is_one_line(family, capsys):
    assert profile_tpt_hf.main([*flags(family), "--max_new_tokens", "1"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "none of 4 trials can count" in error and "the answer is one token" in error


def test_output_lengths_here(family, capsys):
    arguments = ["--target_model_name", str(family["target"]), *SHORT, "--repeats", "1"]
    assert profile_dataset_output.main(arguments) == 0
    found = last_json(capsys)
    lengths = found["lengths"]["bundled"]
    assert lengths["output_tokens"]["num"] == 2 and 0 < lengths["output_tokens"]["median"] <= 20
    assert lengths["num_cut_off"] == sum(trial["num_tokens"] == 20 for trial in found["trials"])
