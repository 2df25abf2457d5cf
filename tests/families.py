"""Tiny model families on disk, as users have them: folders with weights, config and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from toys import perturbed, toy_model, toy_tokenizer

WORDS = tuple(f"word{index}" for index in range(60))
MASK_ID = 63
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def save_model(folder: Path, model: torch.nn.Module, **config: object) -> Path:
    """`model` and a toy tokenizer of 62 words; `config` changes entries of config.json (None removes one)."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer = toy_tokenizer(WORDS)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    edit_config(folder, **config)
    return folder


def edit_config(folder: Path, **changes: object) -> None:
    """Set entries of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def save_family(folder: Path, architecture: str = "qwen2") -> dict[str, Path]:
    """A target, an AR drafter and a dLLM drafter that agree now and then."""
    target = toy_model(architecture, 1, scale=4.0)
    return {
        "target": save_model(folder / "target", target),
        "ar": save_model(folder / "ar", perturbed(target, 2, 0.3)),
        "dllm": save_model(folder / "dllm", perturbed(target, 3, 0.3), mask_token_id=MASK_ID),
    }


def flags(family: dict[str, Path], output_dir: Path, *more: str) -> list[str]:
    """A short command line over a family, on the CPU."""
    return [
        *("--target_model_name", str(family["target"]), "--ar_model_name", str(family["ar"])),
        *("--dllm_dir", str(family["dllm"]), "--output_dir", str(output_dir), "--device", "cpu"),
        *("--max_new_tokens", "24", "--latency_target", "Qwen2.5-7B-Instruct", *more),
    ]
