"""Report page: one self-contained HTML file of data, style and program. What is in the data, it does not know.

The page may load nothing: its Content-Security-Policy admits its own style and script, by their hashes, and no network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).resolve().parent / "html"
SCRIPTS = ("dom.js", "charts.js", "ranking.js", "questions.js", "round_view.js", "trajectory.js", "main.js")
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def report_page(title: str, data: Any, questions: Sequence[str]) -> str:
    """The HTML. `data`: JSON data, read at once; `questions`: packed by `question_data.packed`, read when opened."""
    style = _source("report.css")
    script = "(() => {\n'use strict';\n" + "\n".join(map(_source, SCRIPTS)) + "})();\n"
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:"
    slots = {
        "title": escape(title),
        "policy": f"{policy}; base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "data": inert_json(data),
        "questions": "\n".join(
            f'<script type="application/x-deflate-base64" id="question-{index}">{text}</script>'
            for index, text in enumerate(questions)
        ),
    }
    return _SLOT.sub(lambda found: slots[found[1]], _source("report.html"))


def inert_json(data: Any) -> str:
    """JSON that cannot end the <script> it stands in: 7-bit, without "<", ">" or "&". Raises ValueError for NaN."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _source(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
