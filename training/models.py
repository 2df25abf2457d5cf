"""Makes, cuts, loads and runs the networks that are trained: transformers' own Qwen2 and Llama, nothing else.

Checkpoints come through specdec.models.load, always with fp32 master weights.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.errors import UserError
from specdec.models.checkpoints import Role, find_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

TRAINED = Role("model", "--target_dir", "target")
INIT_STD = 0.02
DIGEST_VALUES = 4096
TARGET_HELP = "folder of a Qwen2 or Llama checkpoint whose tokenizer has a chat template, or bundled, or smollm2"


@dataclass(frozen=True)
class Shape:
    """Size of a fresh Qwen2. The bundled target is deep and narrow, so that a cut drafter is cheap beside it."""

    vocab_size: int = 4096
    hidden_size: int = 192
    intermediate_size: int = 512
    num_layers: int = 28
    num_heads: int = 6
    num_kv_heads: int = 2
    max_positions: int = 2048


def new_qwen2(shape: Shape, seed: int) -> PreTrainedModel:
    """A freshly initialised Qwen2 with tied embeddings; output projections start smaller the deeper the model is."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=True,
        initializer_range=INIT_STD,
    )
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_((2 * shape.num_layers) ** -0.5)
    return model


def find_target(name: Path | str) -> Path:
    """The folder of --target_dir (or of a name that failfast.py takes); UserError when it holds no Qwen2 or Llama."""
    return find_model(TRAINED, str(name)).path


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> PreTrainedModel:
    """A Qwen2 or Llama checkpoint in fp32; UserError for any other architecture or missing safetensors."""
    import torch

    from specdec.models.load import load_hf_model, moved

    return moved(load_hf_model(find_model(TRAINED, str(folder)), torch.float32), device)


def weights_digest(model: PreTrainedModel) -> str:
    """A hash of the first values of every weight in bfloat16, to tell one model from another in any dtype."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().flatten()[:DIGEST_VALUES].bfloat16().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def even_layers(num_layers: int, num_kept: int) -> list[int]:
    """Which layers an even cut keeps, the first and the last always.

    >>> even_layers(24, 6)
    [0, 5, 9, 14, 18, 23]
    """
    if not 1 <= num_kept <= num_layers:
        raise UserError(f"cannot cut {num_kept} layers from a model of {num_layers}: give 1 to {num_layers}")
    if num_kept == 1:
        return [0]
    return [round(i * (num_layers - 1) / (num_kept - 1)) for i in range(num_kept)]


def cut_layers(model: PreTrainedModel, num_kept: int) -> PreTrainedModel:
    """A smaller copy of `model`: embeddings, final norm, head and an even choice of its layers."""
    kept = even_layers(model.config.num_hidden_layers, num_kept)
    settings = {k: v for k, v in model.config.to_dict().items() if k not in ("layer_types", "max_window_layers")}
    config = type(model.config).from_dict({**settings, "num_hidden_layers": num_kept})
    config._attn_implementation = "sdpa"
    small = type(model)(config).float()
    weights = {}
    for name, tensor in model.state_dict().items():
        prefix, mark, rest = name.partition(".layers.")
        number, _, tail = rest.partition(".")
        if not mark:
            weights[name] = tensor
        elif int(number) in kept:
            weights[f"{prefix}.layers.{kept.index(int(number))}.{tail}"] = tensor
    small.load_state_dict(weights)
    return small.to(next(model.parameters()).device)


def compile_layers(model: torch.nn.Module) -> None:
    """Has torch.compile join the small operations of every decoder layer, in place.

    They are bound by memory. The layers are alike, so one compilation (20 s) serves all of them and all shapes. A head
    of one layer, which has no such list, stays as it is.
    """
    lists = [found for name, found in model.named_modules() if name in ("layers", "model.layers")]
    for layer in (layer for found in lists for layer in found.children()):
        layer.compile(dynamic=True)


def autocast(device: torch.device) -> AbstractContextManager:
    """bf16 autocast on a GPU; nothing on a CPU, where fp32 is both faster and exact."""
    import torch

    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


def hidden_states(
    model: PreTrainedModel,
    ids_BL: torch.Tensor,
    positions_BL: torch.Tensor | None = None,
    mask_B1LL: torch.Tensor | None = None,
) -> torch.Tensor:
    """Last hidden states (B, L, D). No mask means causal; a bool mask says True where a query sees a key."""
    import torch

    if mask_B1LL is None:  # made here, because transformers looks at values to make one, which no CUDA graph can
        mask_B1LL = torch.ones((ids_BL.shape[1],) * 2, dtype=torch.bool, device=ids_BL.device).tril()[None, None]
    body = model.get_submodule("model")
    output = body(input_ids=ids_BL, position_ids=positions_BL, attention_mask=mask_B1LL, use_cache=False)
    return output.last_hidden_state


def logits_at(model: PreTrainedModel, hidden_BLD: torch.Tensor, source_N: torch.Tensor) -> torch.Tensor:
    """fp32 logits (N, V) at flattened positions only: the head over all positions would be the largest cost."""
    return model.get_submodule("lm_head")(hidden_BLD.flatten(0, 1).index_select(0, source_N)).float()
