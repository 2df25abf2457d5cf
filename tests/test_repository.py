"""The repository: small enough to be cloned and installed in a moment, models and figures included."""

from __future__ import annotations

import subprocess

import pytest
from sources import ROOT

MOST_BYTES, LARGEST_FILE = 48_000_000, 16_000_000


def test_the_tracked_files_are_small() -> None:
    """As they lie here; a file that is not committed yet counts once it is added."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    assert sizes and sum(sizes.values()) < MOST_BYTES
    assert [str(path) for path, size in sizes.items() if size > LARGEST_FILE] == []
