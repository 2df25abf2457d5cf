"""Architectures: the kinds of network that run here, one row each, and what is peculiar to each.

A dense decoder that transformers has is supported by its row alone. It is not a checkpoint (`checkpoints.py` finds
those) and holds no class: `load.py` looks names up, so that nothing here imports a library of models.
"""

from dataclasses import dataclass

ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # whose angles do not change with the length, so keys can be kept


@dataclass(frozen=True)
class Architecture:
    """One kind of decoder.

    `name` is its `model_type` in a config.json, lower case; classes are named as transformers names them.
    `masked_types`: how the model types begin (lower case) whose weights are of this kind and which fill masked blocks.
    `refused`: settings of config.json that are not supported, and what they say of a model. `has_qkv_bias`,
    `has_qk_norm`: biases of the query, key and value products; norms of query and key heads. `runs_as_graphs`:
    whether `graph/network.py` computes it.
    """

    name: str
    config_class: str
    model_class: str
    masked_types: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    rope_types: tuple[str, ...] = ROPE_TYPES
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    runs_as_graphs: bool = False


ARCHITECTURES = (
    Architecture(
        "qwen2",
        config_class="Qwen2Config",
        model_class="Qwen2ForCausalLM",
        masked_types=("fast_dllm",),
        refused=(("use_sliding_window", "uses sliding-window attention"),),
        has_qkv_bias=True,
        runs_as_graphs=True,
    ),
    Architecture("llama", config_class="LlamaConfig", model_class="LlamaForCausalLM", runs_as_graphs=True),
)


def find_architecture(model_type: str) -> Architecture | None:
    """The row of a model type as config.json has it, in any case; None for one that is not supported.

    >>> find_architecture("Fast_dLLM_Qwen").name
    'qwen2'
    """
    wanted = model_type.lower()
    return next((one for one in ARCHITECTURES if wanted == one.name or wanted.startswith(one.masked_types)), None)


def fills_masked_blocks(model_type: str) -> bool:
    """Whether a model type, in any case, is that of a block-diffusion model."""
    return any(model_type.lower().startswith(one.masked_types) for one in ARCHITECTURES)


def supported_types() -> str:
    names = [name for one in ARCHITECTURES for name in (one.name, *(f"{kind}*" for kind in one.masked_types))]
    return f"{', '.join(names[:-1])} or {names[-1]}"
