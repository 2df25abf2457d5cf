"""Heads of real size, from checkpoints on disk: a target of a public shape, a DFlash and an EAGLE-3 head made for it,
all with random weights, written here and then run by failfast.py as a user's are.

    python -m experiments.heads_at_size --work_dir FOLDER --shape Qwen3-8B

Random heads draft what the target does not write: what it shows is that such checkpoints are found, loaded and run,
that texts are plain decoding's (every record graded), and what a round takes. The tokenizer is the bundled one, so that
most rows of the tables are never written. The last line on stdout is JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from profiling.bench import default_dtype
from profiling.common import parser_of, run_command
from profiling.roofline import OTHERS
from profiling.shaped_heads import HEAD_SHAPES, SPREAD, wanted_tensors
from specdec.commands import run
from specdec.drafters.dflash import DFLASH_HEAD
from specdec.drafters.eagle3 import EAGLE3_HEAD
from specdec.errors import UserError
from specdec.latency.pricing import Pricing
from specdec.models.checkpoints import TARGET, ModelSource, find_model
from specdec.models.heads import HeadRole, HeadSource
from specdec.models.load import resolve_device
from specdec.ranking.entries import entry_of
from specdec.ranking.lossless import count_grades
from specdec.records.record import Record, find_records, load_record

DTYPE = torch.bfloat16
DRAFTERS = ("plain", "lookup_3_sf_10", "eagle3_sf_7", "eagle3_df_0.5_9_3", "dflash_sf_15", "dflash_df_0.5_15_3")
HEADS = {HEAD_SHAPES[kind].role: HEAD_SHAPES[kind] for kind in ("dflash", "eagle3")}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of("experiments.heads_at_size", __doc__, ("num_questions", "max_new_tokens", "device"))
    parser.add_argument("--work_dir", type=Path, required=True, help="where the checkpoints and records go")
    parser.add_argument("--shape", choices=sorted(OTHERS), default="Qwen3-8B", help="of the target")
    parser.add_argument("--drafters", nargs="+", default=list(DRAFTERS), help="names of drafters")
    return run_command(parser, measure, arguments)


def measure(flags: Namespace) -> dict[str, Any]:
    target = write_target(flags.work_dir / "target", flags.shape, resolve_device(flags.device))
    heads = [write_head(flags.work_dir / role.title, role, target) for role in (DFLASH_HEAD, EAGLE3_HEAD)]
    out = flags.work_dir / "out"
    asked = ["--target_model_name", str(target.path), "--output_dir", str(out), "--device", flags.device]
    asked += [part for head in heads for part in (head.role.flag, str(head.path))]
    asked += ["--max_new_tokens", str(flags.max_new_tokens), "--num_questions", str(flags.num_questions)]
    if status := run.main([*asked, "--dtype", "bfloat16", "--overwrite", "--drafters", *flags.drafters]):
        raise UserError(f"the run ended with exit status {status}")
    records = [load_record(path) for path in find_records(out)]
    return {
        "what": "a target and heads of real size with random weights, from disk",
        "shape": flags.shape,
        "device": records[0].provenance.get("device_name"),
        "backend": records[0].identity.settings.get("backend", "eager"),
        "bytes": {path.name: _size(path) for path in (target.path, *(head.path for head in heads))},
        "losslessness": count_grades([entry_of(record, Pricing.load([], None)) for record in records]),
        "drafters": dict(_by_drafter(records)),
    }


def write_target(folder: Path, shape: str, device: torch.device) -> ModelSource:
    """Its config.json, weights and the bundled tokenizer; what is there already is used."""
    fields = {name: value for name, value in asdict(OTHERS[shape]).items() if name != "model_type"}
    if OTHERS[shape].model_type != "qwen3":
        raise UserError(f"no target of the shape {shape} is written here: take one of Qwen3's")
    if not (folder / "config.json").exists():
        bundled = find_model(TARGET, "bundled").path
        config = Qwen3Config(**fields, max_position_embeddings=32768, bos_token_id=None, eos_token_id=0, pad_token_id=0)
        torch.manual_seed(0)
        with torch.device(device), default_dtype(DTYPE):
            Qwen3ForCausalLM(config).save_pretrained(folder, max_shard_size="5GB")
        for path in bundled.glob("*token*"):
            shutil.copy(path, folder)
    return find_model(TARGET, str(folder))


def write_head(folder: Path, role: HeadRole, target: ModelSource) -> HeadSource:
    """A head's config.json, and the tensors that its reader asks for."""
    config = HEADS[role].config(target.config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    head: Any = HeadSource(role, role.title, folder, config, target, []).head
    wanted = wanted_tensors(head, role)
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: (torch.ones(*size) if len(size) == 1 else SPREAD * torch.randn(*size, generator=generator)).to(DTYPE)
        for name, size in wanted.items()
    }
    if role is EAGLE3_HEAD:  # its words are the target's first ones
        words = config["draft_vocab_size"]
        tensors |= {"d2t": torch.zeros(words, dtype=torch.long)}
        tensors |= {"t2d": torch.arange(target.config["vocab_size"]) < words}
    save_file(tensors, folder / "model.safetensors")
    return HeadSource(role, role.title, folder, config, target, [folder / "model.safetensors"])


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _by_drafter(records: Iterable[Record]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Of each drafter: its rounds, tokens a round, and medians of what a round's two halves took, in ms."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[record.drafter_name].append(record)
    for name, ones in found.items():
        rounds = [turn for record in ones for turn in record.rounds]
        verified: dict[int, list[float]] = defaultdict(list)
        for turn in rounds:
            verified[1 + turn.draft_len].append(turn.verify_ms)
        yield (
            name,
            {
                "num_rounds": len(rounds),
                "acceptance_length": sum(record.num_output_tokens for record in ones) / len(rounds),
                "draft_ms": median(turn.draft_ms for turn in rounds),
                "passes": median(turn.num_forward_passes for turn in rounds),
                "verify_ms_by_tokens": {count: median(times) for count, times in sorted(verified.items())},
            },
        )


if __name__ == "__main__":
    sys.exit(main())
