"""Report page: one self-contained HTML file of data, style and program. What is in the data, it does not know.

The page may load nothing: its Content-Security-Policy admits its own style and script, by their hashes, and no network.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from specdec.views.palette import BLACK, WHITE, Look, mixed

SOURCES = Path(__file__).resolve().parent / "html"
SCRIPTS = (
    "dom.js",
    "charts.js",
    "ranking.js",
    "load.js",
    "acceptance.js",
    "questions.js",
    "round_view.js",
    "trajectory.js",
    "main.js",
)
DASH = 2  # pixels: a dash of one, on a line of this width
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def report_page(title: str, data: Any, questions: Sequence[str], looks: Mapping[str, Look] | None = None) -> str:
    """The HTML. `data`: JSON data, read at once; `questions`: packed by `question_data.packed`, read when opened;
    `looks`: the style's classes NAME are `ink-NAME` (text), `line-NAME` and `mark-NAME`."""
    style = _source("report.css") + _rules(looks or {})
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


def _rules(looks: Mapping[str, Look]) -> str:
    """The classes of looks: text a little darker, to be read; all of it lighter on a dark page."""
    light, dark = [], []
    for name, look in looks.items():
        dashes = " ".join(f"{DASH * part:.3g}" for part in look.line[1]) if isinstance(look.line, tuple) else "none"
        light.append(f".line.line-{name} {{ stroke-dasharray: {dashes}; }}")
        light.append(_colours(name, look.colour, mixed(look.colour, BLACK, 0.35)))
        dark.append(_colours(name, *[mixed(look.colour, WHITE, 0.45)] * 2))
    return "\n".join([*light, "@media (prefers-color-scheme: dark) {", *dark, "}\n"])


def _colours(name: str, colour: str, ink: str) -> str:
    return f".line-{name} {{ stroke: {colour}; }} .mark-{name} {{ fill: {colour}; }} .ink-{name} {{ color: {ink}; }}"


def inert_json(data: Any) -> str:
    """JSON that cannot end the <script> it stands in: 7-bit, without "<", ">" or "&". Raises ValueError for NaN."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _source(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
