"""Writes model folders: bf16 safetensors in small shards, config files by hand, the tokenizer, a model card.

By hand, because files saved by transformers 5 do not all load in 4.53; these load alike in both. It trains nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdec.errors import UserError
from training import ranks

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHARD_BYTES = 15_000_000
TOKENIZER_FILES = (  # those that a tokenizer has
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model",
)  # fmt: skip
REPORT_FILE = "training.json"
_COPIED_KEYS = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "initializer_range",
    "tie_word_embeddings", "attention_bias", "mlp_bias", "head_dim",
)  # fmt: skip


def config_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, extra: dict | None = None) -> dict:
    """config.json in the spelling that transformers 4.53 and 5 both read; `extra` keys are added."""
    config = model.config
    result: dict[str, Any] = {"architectures": [type(model).__name__]}
    result |= {key: getattr(config, key) for key in _COPIED_KEYS if getattr(config, key, None) is not None}
    rope = getattr(config, "rope_parameters", None) or {}
    result["rope_theta"] = float(rope.get("rope_theta") or config.rope_theta)
    scaling = {k: v for k, v in rope.items() if k != "rope_theta"} if rope else getattr(config, "rope_scaling", None)
    if scaling and scaling.get("rope_type", "default") != "default":
        result["rope_scaling"] = scaling
    result |= {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "attention_dropout": 0.0,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }
    return {**result, **(extra or {})}


def split_shards(weights: dict[str, torch.Tensor], limit: int = SHARD_BYTES) -> list[dict[str, torch.Tensor]]:
    """The weights, in order, in groups of at most `limit` bytes (a larger tensor gets a group of its own)."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in weights.items():
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _write_weights(model: PreTrainedModel, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    weights = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()
    }
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    shards = split_shards(weights)
    if len(shards) == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": sum(t.nbytes for t in weights.values())}, "weight_map": places}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_free(path: Path) -> None:
    """UserError unless `path` is free to be written: nothing is there, or an empty folder."""
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        return
    if os.path.lexists(path):
        raise UserError(f"{path} is there already and would be overwritten: give another --out, or move it away")


def check_published(folder: Path, title: str) -> None:
    """UserError unless `folder` is free or holds a model that an earlier run published, by its card's title."""
    card = folder / "README.md"
    if not (card.is_file() and card.read_bytes().startswith(f"# {title}\n".encode())):
        check_free(folder)


def write_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokenizer_dir: Path,
    folder: Path,
    report: dict,
    extra_config: dict | None = None,
) -> None:
    """Writes `folder` whole or not at all: weights, configs, tokenizer files and training.json (`report`).

    With several processes the leader writes and the others wait. Raises UserError when something is there already.
    """
    config = config_of(model, tokenizer, extra_config)
    generation = {"do_sample": False} | {key: config[key] for key in ("eos_token_id", "pad_token_id")}
    num_parameters = sum(p.numel() for p in model.parameters())

    def write() -> None:
        check_free(folder)
        with replacing(folder) as temporary:
            _write_weights(model, temporary)
            _write_json(temporary / "config.json", config)
            _write_json(temporary / "generation_config.json", generation)
            for name in TOKENIZER_FILES:
                if (tokenizer_dir / name).is_file():
                    shutil.copyfile(tokenizer_dir / name, temporary / name)
            _write_json(temporary / REPORT_FILE, {**report, "num_parameters": num_parameters})

    ranks.on_leader(write)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` when that has gone well."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def publish(source: Path, folder: Path, card: str) -> int:
    """Copies a finished model folder to where it is used, with `card` as README.md; returns its size in bytes.

    Replaces what an earlier run published there; anything else there is a UserError.
    """
    check_published(folder, card.partition("\n")[0].removeprefix("# "))
    with replacing(folder) as temporary:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(REPORT_FILE), dirs_exist_ok=True)
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return sum(path.stat().st_size for path in folder.iterdir())
