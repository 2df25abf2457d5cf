"""The heads among a target's drafters: which training makes which, from what, and what is told of it afterwards.

Stages are run by training.make_drafters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from specdec.errors import UserError
from specdec.models.checkpoints import read_config
from training import ranks
from training.drafting import Lesson
from training.export import REPORT_FILE
from training.heads import HeadSettings, HeadTraining, say_shape, train_head, write_head
from training.loop import Place
from training.models import TRAINED, even_layers
from training.on_policy import HeldBack, read_curve
from training.train_block_head import FAMILIES as BLOCK_FAMILIES
from training.train_block_head import BlockTraining, block_taps
from training.train_eagle3 import Eagle3Training, eagle3_taps

HEADS = ("eagle3", *BLOCK_FAMILIES)
TOLD = ("tokens", "passes", "steps", "seconds", "flops", "target_flops", "num_parameters")


def require_heads(families: Iterable[str], settings: HeadSettings, target_dir: Path, max_new_tokens: int) -> None:
    """UserError for a head that a target cannot have, before anything is answered or trained."""
    config = read_config(TRAINED, target_dir)
    num_layers, vocab_size = int(config["num_hidden_layers"]), int(config["vocab_size"])
    if settings.num_words is not None and settings.num_words > vocab_size:
        raise UserError(f"--draft_vocab_size {settings.num_words}: the target has {vocab_size} words")
    heads = [family for family in families if family in HEADS]
    for family in heads:
        (eagle3_taps if family == "eagle3" else block_taps)(settings, num_layers)
        if family != "eagle3":
            even_layers(num_layers, settings.num_layers)
            if settings.block_size > max_new_tokens:
                raise UserError(f"--block_size {settings.block_size}: answers have at most {max_new_tokens} tokens")


def head_training(family: str, lesson: Lesson, settings: HeadSettings, mask_id: int | None) -> HeadTraining:
    """A family's network over a target, untrained. UserError where the target cannot have it."""
    import torch

    with torch.random.fork_rng(devices=[]):  # what begins at random is the same in every process
        torch.manual_seed(settings.loop.seed)
        if family == "eagle3":
            return Eagle3Training(lesson, settings)
        assert mask_id is not None  # every block head has one
        return BlockTraining(family, lesson, settings, mask_id)


def make_head(
    family: str, made: HeadTraining, lesson: Lesson, settings: HeadSettings, place: Place, held_back: HeldBack
) -> tuple[Any, dict[str, Any]]:
    """Trains a head; how it went, and what else training.json says of it."""
    say_shape(family, made)
    report = train_head(family, made, lesson, settings, place, held_back)
    curve = place.checkpoint.with_name(f"{family}.curve.json")
    return report, {"taps": list(made.taps), "curve": read_curve(curve), **equal_facts(report, lesson)}


def equal_facts(report: Any, lesson: Lesson) -> dict[str, Any]:
    """What is compared between families beside `Progress`: how often every document was seen, and what running the
    target over them once took."""
    num_tokens = len(lesson.docs.tokens)
    target_size = sum(p.numel() for p in lesson.target.parameters())
    return {"passes": round(report.tokens / num_tokens, 3), "target_flops": 2 * target_size * num_tokens}


def publish_head(made: HeadTraining, folder: Path, facts: dict[str, Any]) -> None:
    ranks.on_leader(lambda: write_head(made, folder, facts))


def table_of(folders: dict[str, Path]) -> list[dict[str, Any]]:
    """A row for each family that is made: what was equal, what was not, where it got."""
    rows = []
    for family, folder in folders.items():
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        last = (report.get("curve") or [{}])[-1]
        row = {name: report.get(name) for name in TOLD}
        rows.append({"family": family, **row, "acceptance_length": last.get("acceptance_length")})
    return rows


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """On stderr, for people."""
    names = list(rows[0])
    lines = [names, *([_shown(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    for line in lines:
        ranks.say("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _shown(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.3g}" if abs(value) >= 1e5 else f"{value:g}"
    return "-" if value is None else str(value)
