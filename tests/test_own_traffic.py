"""Questions of a user's own, of all kinds at once, run, ranked and reported by one command on the bundled models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specdec.commands import rank
from specdec.commands import run as failfast

pytestmark = pytest.mark.slow
SYSTEM = "You are the support assistant of a small shop for bicycles. Answer briefly."
ROWS = [
    {"prompt": "A helmet costs 80 euros, less 10 percent. What is the price?", "system": SYSTEM, "reference": "72"},
    {"prompt": "Meine Bremse quietscht, seit es regnet. Was kann ich selbst tun?", "category": "german"},
    {"prompt": "Ein Zug fährt 3 Stunden mit 80 km/h. Wie weit kommt er?", "reference": 240, "category": "german"},
    {"turns": ["Plan a day in Lisbon.", "We eat no meat.", "Make it a list."], "category": "chat"},
    {"messages": [{"role": "user", "content": "Pick a number."}, {"role": "assistant", "content": "7"},
                  {"role": "user", "content": "Add 1."}], "category": "chat"},
    {"prompt": "自転車のブレーキが鳴ります。", "category": "日本語"},
    {"prompt": "Ticket: a puncture in the rear tyre, mended. " * 400, "category": "long"},
]  # fmt: skip


def test_one_command_runs_ranks_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The prompt that is too long is said and counted; everything else is in the ranking and on the page."""
    traffic, folder = tmp_path / "traffic.jsonl", tmp_path / "out"
    traffic.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    line = ["--dataset_name", str(traffic), "--drafters", "plain", "ar_sf", "--max_new_tokens", "3", "--device", "cpu"]
    assert failfast.main([*line, "--output_dir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "6 conversations of 8 turns, up to 3 tokens" in said
    assert said.count("Left out: question 6 (") == 1 and "Careful: 1 of 7 questions (number 6) is left out" in said
    last = said[said.rindex("Target bundled") :].replace(str(folder), "").replace(str(traffic), "")
    assert max(map(len, last.splitlines())) <= 100
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Add 1." in page and "We eat no meat." in page
    assert rank.main([str(folder), "--category", "chat"]) == 0
    assert "2 conversations of 4 turns" in capsys.readouterr().out
