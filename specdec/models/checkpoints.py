"""Finds checkpoints: bundled ones, folders, hub names. Checks what can be checked without loading any weight.

Which kinds of model there are, `architectures.py` says. Fast_dLLM_v2 checkpoints name a model type and code of their
own, of which only the weights and numbers are read. Safetensors only; code that comes with a checkpoint is never run.
Loading is in `load.py`, tokenizers in `tokens.py`.
"""

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import specdec
from specdec.errors import MALFORMED, UserError, hub_reason
from specdec.models import card
from specdec.models.architectures import Architecture, fills_masked_blocks, find_architecture, supported_types
from specdec.models.layer_settings import kept_len
from specdec.models.sizes import head_size, kv_heads, num_in_layers, num_parameters

BUNDLED = "bundled"
SMOLLM2 = "smollm2"
IN_DTYPE, INT8 = "dtype", "int8"  # how the matrices of a target's layers are kept
BUNDLED_DIR = specdec.HOME / "assets" / "models"
# Checkpoints that users of this program ask for: what a mistyped name may have meant.
KNOWN_NAMES = (
    *(f"Qwen/Qwen2.5-{size}-Instruct" for size in ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")),
    *(f"Efficient-Large-Model/Fast_dLLM_v2_{size}" for size in ("1.5B", "7B")),
    *(f"Qwen/Qwen3-{size}" for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B", "30B-A3B")),
    *(f"meta-llama/Llama-3.{name}-Instruct" for name in ("1-8B", "1-70B", "2-1B", "2-3B")),
    *("mistralai/Mistral-7B-Instruct-v0.3", "microsoft/Phi-4-mini-instruct", "google/gemma-3-1b-it"),
)
SMALL_FILES = ["*.json", "*.txt", "*.jinja", "*.model"]
QUANTIZATION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")  # of GPTQ, AWQ, ModelOpt
PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
HASH_CHUNK = 1 << 20
HASH_CHUNKS_PER_FILE = 64


@dataclass(frozen=True)
class Role:
    """What a model is for, the flag that names it, its folder among the bundled models, and what is taken for another
    target where nobody names one ("": nothing)."""

    title: str
    flag: str
    bundled_folder: str
    default: str = ""
    is_block_diffusion: bool = False

    @property
    def setting(self) -> str:
        return self.flag.removeprefix("--")

    @property
    def weight_patterns(self) -> tuple[str, ...]:
        """How files of weights may be called; of several kinds, the first is read."""
        return ("*.safetensors",)

    def default_for(self, target_name: str) -> str:
        """What is taken for a target where nobody names a model; "": nothing."""
        return BUNDLED if target_name == BUNDLED else self.default


TARGET = Role("target", "--target_model_name", "target")


@dataclass(frozen=True)
class ModelSource:
    """A model that was found but not loaded: its folder, the numbers of its config.json, and how its matrices will be
    kept."""

    role: Role
    name: str
    path: Path
    config: dict[str, Any] = field(repr=False)
    kept_as: str = field(default=IN_DTYPE, kw_only=True)

    @property
    def title(self) -> str:
        """What errors call it: "AR drafter 'x'"."""
        return f"{self.role.title} {self.name!r}"

    @property
    def architecture(self) -> Architecture:
        """What kind of network it is. Raises UserError for one that is not supported."""
        found = find_architecture(self._model_type)
        if found is not None:
            return found
        is_foreign = "auto_map" in self.config
        why = "needs remote code, which is never run" if is_foreign else f"has model type {self._model_type!r}"
        raise UserError(f"{self.title} {why}: {self.role.flag} takes {supported_types()} checkpoints")

    @property
    def is_block_diffusion(self) -> bool:
        """Whether config.json says that the model fills masked blocks."""
        return fills_masked_blocks(self._model_type) or self.config.get("mask_token_id") is not None

    @property
    def context_len(self) -> int:
        """Positions that the model can handle, with keys that can be kept."""
        longest = int(self.config["max_position_embeddings"])
        return min(longest, kept_len(self.config) or longest)

    @property
    def vocab_size(self) -> int:
        return self.config["vocab_size"]

    @property
    def kv_values_per_token(self) -> int:
        """Numbers in the KV cache per position: keys and values of all layers."""
        return 2 * self.config["num_hidden_layers"] * kv_heads(self.config) * head_size(self.config)

    @property
    def head_dim(self) -> int:
        return head_size(self.config)

    @property
    def num_parameters(self) -> int:
        """Weights, from the config alone (norms and biases included)."""
        return num_parameters(self.architecture, self.config)

    def weight_bytes(self, itemsize: int) -> int:
        """What the weights take in memory, where a number has `itemsize` bytes; scales of 8 bits are left aside."""
        in_8_bits = num_in_layers(self.config) if self.kept_as == INT8 else 0
        return in_8_bits + (self.num_parameters - in_8_bits) * itemsize

    @property
    def _model_type(self) -> str:
        return str(self.config.get("model_type", ""))


def kept_name(name: str, kept_as: str) -> str:
    """What a target is called in paths and tables: in 8 bits it is another, "NAME-int8", for its texts are its own."""
    return name if kept_as == IN_DTYPE else f"{name}-{kept_as}"


def find_model(role: Role, name: str, *, with_weights: bool = True) -> ModelSource:
    """The checkpoint called `name`: 'bundled', 'smollm2', a folder, or a hub name (fetched into the hub's cache).

    `with_weights=False` fetches and checks everything but the weights. Raises UserError, naming the
    flag to change, for what is missing, unsafe or unsupported.
    """
    path = find_folder(role, name, with_weights)
    source = ModelSource(role, name, path, read_config(role, path))
    source = replace(source, config=source.architecture.settled(source.config))
    _check_config(source)
    if with_weights:
        weight_files(source)
    return source


def find_folder(role: Role, name: str, with_weights: bool) -> Path:
    """The folder of the checkpoint called `name`, fetched if need be. Raises UserError where there is none."""
    if name == BUNDLED:
        return BUNDLED_DIR / role.bundled_folder
    if name == SMOLLM2:
        from specdec.models.smollm2 import smollm2_folder

        return smollm2_folder()
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else _fetch(role, name, with_weights)


def fingerprint(source: ModelSource) -> str:
    """SHA-256 over config.json and the weights (files over 64 MiB: 64 evenly spaced MiB of each)."""
    digest = hashlib.sha256((source.path / "config.json").read_bytes())
    for file in weight_files(source):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        step = max(HASH_CHUNK, math.ceil(size / HASH_CHUNKS_PER_FILE))
        with file.open("rb") as stream:
            for offset in range(0, size, step):
                stream.seek(offset)
                digest.update(stream.read(HASH_CHUNK))
    return digest.hexdigest()


def _fetch(role: Role, name: str, with_weights: bool) -> Path:
    """The checkpoint's folder in the hub's cache, downloaded if need be; never any code."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # its retries are not the user's; the outcome is one line
    patterns = [*SMALL_FILES, card.NAME, *(role.weight_patterns if with_weights else ())]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        raise UserError(
            f"{role.title} {name!r} is not a folder here and cannot be fetched from the hub "
            f"({hub_reason(error, name, KNOWN_NAMES)}): give {role.flag} a local folder"
        ) from error


def read_config(role: Role, path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{role.title} folder {path} has no readable config.json: give {role.flag} a checkpoint folder"
        ) from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is not a JSON object")
    return config


def _check_config(source: ModelSource) -> None:
    """Raise UserError for a model that is not supported, or whose numbers cannot be."""
    role, name, config = source.role, source.name, source.config
    if (misfit := source.architecture.misfit(config)) is not None:
        raise UserError(f"{source.path / 'config.json'}: {misfit}")
    quantized = next((file for file in QUANTIZATION_FILES if (source.path / file).is_file()), None)
    refusal = source.architecture.not_supported(config) or (quantized and f"has quantized weights ({quantized})")
    if refusal:
        raise UserError(f"{role.title} {name!r} {refusal}, which is not supported")
    if role.is_block_diffusion and not source.is_block_diffusion:
        raise UserError(
            f"{role.title} {name!r} is not a block-diffusion model: its config.json has neither a Fast_dLLM model type "
            f"nor a mask_token_id; give {role.flag} another"
        )
    if source.is_block_diffusion and (any(source.architecture.windows(config)) or kept_len(config)):
        raise UserError(f"{role.title} {name!r} fills blocks under sliding windows or changing angles: not supported")
    if source.is_block_diffusion and not role.is_block_diffusion:
        raise UserError(f"{role.title} {name!r} is a block-diffusion model: give {role.flag} an AR model")


def weight_files(source: ModelSource) -> list[Path]:
    """The files of weights, in order. Raises UserError if there are none, or a shard is missing."""
    by_kind = [sorted(source.path.glob(pattern)) for pattern in source.role.weight_patterns]
    files = next(filter(None, by_kind), [])
    if not files:
        pickles = [file.name for file in source.path.glob("*") if file.suffix in PICKLE_SUFFIXES]
        found = f"only pickle weights ({pickles[0]}), which are never opened" if pickles else "no weights"
        raise UserError(
            f"{source.role.title} folder {source.path} has {found}: give {source.role.flag} a checkpoint "
            "with *.safetensors"
        )
    index = source.path / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if not all(isinstance(name, str) for name in shards):
                raise TypeError("not the name of a file")
        except MALFORMED as error:
            raise UserError(f"{index} is damaged: fetch it again") from error
        if absent := sorted(shards - {file.name for file in files}):
            raise UserError(f"{source.path} lacks {absent[0]}, which its index names")
    return files


def stamp(source: ModelSource) -> dict[str, Any]:
    """The folder and, by name, [bytes, ns of the last change] of every file that is read; equal: nothing changed."""
    found = (path for pattern in (*SMALL_FILES, *source.role.weight_patterns) for path in source.path.glob(pattern))
    states = ((path.name, path.stat()) for path in sorted(found))
    return {
        "folder": str(source.path.resolve()),
        "files": {name: [state.st_size, state.st_mtime_ns] for name, state in states},
    }
