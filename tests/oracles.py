"""Oracles: where the authors' programs are that some tests compare with, and where the verdict goes. No test.

FAILFAST_DEEPSPEC names a checkout of DeepSpec; without it what needs that is skipped, and where transformers is too old
for it. FAILFAST_ORACLES names a file for the verdict, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest


def deepspec(module: str) -> Any:
    """A module of DeepSpec; skips the test where there is none."""
    folder = os.environ.get("FAILFAST_DEEPSPEC")
    if not folder:
        pytest.skip("FAILFAST_DEEPSPEC names no checkout of DeepSpec")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return pytest.importorskip(module, reason=f"{module} needs another transformers", exc_type=ImportError)


def keep_verdict(found: dict[str, object]) -> None:
    if found and (path := os.environ.get("FAILFAST_ORACLES")):
        Path(path).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
