"""Loads the checkpoints that `checkpoints.py` finds into transformers' own Qwen2 and Llama, on a device in a dtype."""

import logging
from typing import Any

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from specdec.checkpoints import ModelSource
from specdec.errors import UserError
from specdec.lm import CachedLM

CLASSES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def load_lm(source: ModelSource, device: torch.device, dtype: torch.dtype, vocab_size: int | None = None) -> CachedLM:
    """The model on `device` in `dtype`, with an empty cache. `vocab_size`: see CachedLM."""
    model = load_hf_model(source, dtype).to(device)
    return CachedLM(model, vocab_size)


def load_hf_model(source: ModelSource, dtype: torch.dtype) -> PreTrainedModel:
    """transformers' own module with the checkpoint's weights, on the CPU."""
    config_class, model_class = CLASSES[source.architecture]
    # The name of this argument changed between transformers 4 and 5.
    dtype_name = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    # What does not fit is said here, in one line, and not in a report of many.
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    try:
        model, info = model_class.from_pretrained(
            source.path,
            config=config_class(**_config_arguments(source.config)),
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
            **{dtype_name: dtype},
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip().split("\n")[0]
        raise UserError(f"cannot load the weights of {source.path} ({reason}): do they fit its config.json?") from error
    misfits = [*info["missing_keys"], *info["mismatched_keys"], *filter(_is_needed, info["unexpected_keys"])]
    if misfits:
        raise UserError(f"the weights in {source.path} do not fit its config.json: see {min(map(str, misfits))}")
    return model


def _is_needed(key: str) -> bool:
    """Whether a weight that the model has no place for is a sign of a wrong config.json."""
    return not key.endswith(("rotary_emb.inv_freq", "lm_head.weight"))


def _config_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json as both transformers 4 and 5 understand it.

    Version 5 writes the rotary settings as `rope_parameters`, which 4 would ignore without a word.
    """
    foreign = {"auto_map", "model_type", "architectures", "torch_dtype", "dtype", "rope_parameters"}
    arguments = {key: value for key, value in config.items() if key not in foreign}
    rope = dict(config.get("rope_parameters") or {})
    if "rope_theta" in rope:
        arguments["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        arguments["rope_scaling"] = rope
    scaling = arguments.get("rope_scaling") or {}
    rope_type = scaling.get("rope_type", scaling.get("type", "default"))
    if rope_type not in ROPE_TYPES:
        raise ValueError(f"rotary scaling {rope_type!r} changes with the length, so keys could not be kept")
    return arguments


def resolve_device(name: str) -> torch.device:
    """'auto' is the first GPU, else the CPU. Raises UserError for what this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} is not to be had here: try --device cpu") from error
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return getattr(torch, name)
