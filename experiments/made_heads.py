"""Heads that nobody trained, in every layout that is read: random ones, and ones whose output head was fitted to what a
target writes, so that their drafts are often accepted. Files of checkpoints, read as a user's are. No measurement.

The fit is one ridge regression of the next tokens on the states that the head's own pass multiplies with its output
head. Shape suffixes: C hidden size, N states, V words of the head.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from specdec.decoding.target import Target
from specdec.drafters.dflash import DFLASH_HEAD
from specdec.drafters.eagle3 import EAGLE3_HEAD
from specdec.models.checkpoints import ModelSource
from specdec.models.dflash import TABLES, DflashHead
from specdec.models.dflash_network import DflashNetwork
from specdec.models.eagle3 import Eagle3Head
from specdec.models.eagle3_network import Eagle3Network
from specdec.models.heads import HeadRole, HeadSource
from specdec.models.lm import CachedLM

Config = dict[str, Any]
Tensors = dict[str, torch.Tensor]
RIDGE, SHARPNESS = 1e-2, 12.0  # of the fit: how much is held back, and how far the logits of a sure token stand out
NUM_STEPS = (1, 4)  # of a draft that goes token by token, in the first fit and in the one after it
BLOCK, RANK = 6, 8
FEWER = 28  # words that a vocabulary of a head's own lacks
SPARK = {"markov_rank": RANK, "enable_confidence_head": True, "confidence_head_with_markov": True}
CONVOLVED = {"conv_kernel_size": 2, "conv_group_size": 8, "selector_rank": RANK, "selector_top_k": 4}


@dataclass(frozen=True)
class Layout:
    """How a kind of head says what it is: entries of its config.json beside its layers' and the target's. `own`: those
    in `dflash_config`; `has_tables`: it always brings its own embeddings and output head."""

    role: HeadRole
    stated: Config
    own: Config = field(default_factory=dict)
    has_tables: bool = False


LAYOUTS = {
    "EAGLE-3, SafeAILab's": Layout(
        EAGLE3_HEAD,
        {"architectures": ["LlamaForCausalLMEagle3"], "eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 1, 1]}},
    ),
    "EAGLE-3, speculators'": Layout(
        EAGLE3_HEAD,
        {"speculators_model_type": "eagle3", "norm_before_residual": True}
        | {"eagle_aux_hidden_state_layer_ids": [1, 2, 3]},
        has_tables=True,
    ),
    "EAGLE-3, DeepSpec's": Layout(
        EAGLE3_HEAD, {"architectures": ["Qwen3Eagle3Model"], "target_layer_ids": [0, 1, 1, 0, 1]}, has_tables=True
    ),
    "DFlash": Layout(DFLASH_HEAD, {"architectures": ["DFlashDraftModel"]}),
    "DFlash, causal": Layout(DFLASH_HEAD, {"architectures": ["DFlashDraftModel"]}, {"causal_head": True}),
    "DSpark": Layout(DFLASH_HEAD, {"architectures": ["Qwen3DSparkModel"]}, SPARK, has_tables=True),
    "DFlash2": Layout(DFLASH_HEAD, {"architectures": ["DFlash2DraftModel"], "is_causal": False}, CONVOLVED),
}


def made_head(
    layout: Layout, lm: CachedLM, target: ModelSource, folder: Path, texts: Sequence[Sequence[int]] = ()
) -> Any:
    """A head's network over a target, by way of its files. With texts it is right about them often."""
    source = _source(layout, target, folder)
    head = source.head
    tensors = random_tensors(_sizes(head, source, layout.has_tables or bool(texts)), seed=len(str(layout.stated)))
    if isinstance(head, Eagle3Head) and head.has_own_words:
        tensors |= _own_words(head)
    network = _loaded(source, tensors, lm)
    for num_steps in NUM_STEPS if texts else ():
        tensors["lm_head.weight"] = fitted(network, lm, texts, num_steps)
        network = _loaded(source, tensors, lm)
    return network


def _source(layout: Layout, target: ModelSource, folder: Path) -> HeadSource:
    folder.mkdir()
    return HeadSource(layout.role, folder.name, folder, config_of(layout, target.config), target, [])


def config_of(layout: Layout, target: Mapping[str, Any]) -> Config:
    """Its config.json over this target."""
    sizes = {name: target[name] for name in ("hidden_size", "vocab_size")}
    layer: Config = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48}
    layer |= {**sizes, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1e4, "max_position_embeddings": 256}
    layers = {"num_target_layers": target["num_hidden_layers"], "num_hidden_layers": 1}
    if layout.role is DFLASH_HEAD:
        own = {"block_size": BLOCK, "mask_token_id": sizes["vocab_size"] - 1, "target_layer_ids": [0, 1], **layout.own}
        placed = own if "Qwen3DSparkModel" in layout.stated["architectures"] else {"dflash_config": own}
        return {**layer, **layers, "num_hidden_layers": 2, **layout.stated, **placed}
    if "speculators_model_type" in layout.stated:
        inner = {"model_type": "llama", **layer, "num_hidden_layers": 1}
        return {**layout.stated, "transformer_layer_config": inner, "draft_vocab_size": sizes["vocab_size"]}
    return {**layer, **layers, **layout.stated, "draft_vocab_size": sizes["vocab_size"] - FEWER}


def _sizes(head: Any, source: HeadSource, has_tables: bool) -> dict[str, Sequence[int]]:
    table = (head.vocab_size, head.layer["hidden_size"])
    if isinstance(head, Eagle3Head):
        return head.wanted() | ({"embed_tokens.weight": table} if has_tables else {})
    assert isinstance(head, DflashHead)
    return head.wanted({}) | (dict.fromkeys(TABLES, table) if has_tables else {})


def random_tensors(sizes: Mapping[str, Sequence[int]], seed: int) -> Tensors:
    """Norms about 1; matrices that keep the size of what they are multiplied with, about; words' tables smaller."""
    generator, made = torch.Generator().manual_seed(seed), Tensors()
    for name, size in sizes.items():
        noise = torch.randn(*size, generator=generator)
        is_norm, is_own_table = "norm" in name and len(size) == 1, "markov" in name or "codebook" in name
        made[name] = 1 + 0.3 * noise if is_norm else noise * (0.3 if is_own_table else size[-1] ** -0.5)
    return made


def _own_words(head: Eagle3Head) -> Tensors:
    words = torch.arange(head.vocab_size) % head.vocab_size >= head.vocab_size - head.draft_vocab_size
    return {"d2t": words.nonzero()[:, 0] - torch.arange(head.draft_vocab_size), "t2d": words}


def _loaded(source: HeadSource, tensors: Tensors, lm: CachedLM) -> Any:
    file = source.path / "model.safetensors"
    (source.path / "config.json").write_text(json.dumps(source.config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    found = HeadSource(source.role, source.name, source.path, source.config, source.target, [file])
    found.head.check(found, found.target)
    return found.head.load(found, lm, "eager")


class _Seen(TorchFunctionMode):
    """What is multiplied with a matrix of this size, row after row."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.states = size, list[torch.Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear and tuple(args[1].shape) == self.size:
            self.states.append(args[0])
        return func(*args, **(kwargs or {}))


def fitted(
    network: Eagle3Network | DflashNetwork, lm: CachedLM, texts: Sequence[Sequence[int]], num_steps: int
) -> torch.Tensor:
    """[V, C], the output head that tells these texts' next tokens best."""
    made = list[tuple[torch.Tensor, torch.Tensor]]()
    words = {token: word for word, token in enumerate(_tokens(network))}
    for ids in texts:
        features = Target(lm).start(ids, network.taps)
        if features is None:
            raise ValueError("a head without taps")
        with _Seen((len(words), network.head.layer["hidden_size"])) as seen:
            wanted = list(_asked(network, features, ids, num_steps))
        known = torch.tensor([words.get(token, -1) for token in wanted])
        made.append((torch.cat(seen.states)[known >= 0], known[known >= 0]))
    states_NC, words_N = (torch.cat(parts).clone() for parts in zip(*made, strict=True))
    wanted_NV = torch.nn.functional.one_hot(words_N, len(words)).float()
    square_CC = states_NC.T @ states_NC
    square_CC += RIDGE * square_CC.diagonal().mean() * torch.eye(len(square_CC))
    return SHARPNESS * torch.linalg.solve(square_CC, states_NC.T @ wanted_NV).T


def _tokens(network: Eagle3Network | DflashNetwork) -> Sequence[int]:
    """The target's token of each of the head's words."""
    head = network.head
    if isinstance(head, Eagle3Head) and head.has_own_words:
        return range(head.vocab_size - head.draft_vocab_size, head.vocab_size)
    return range(head.vocab_size)


def _asked(
    network: Eagle3Network | DflashNetwork, features: torch.Tensor, ids: Sequence[int], num_steps: int
) -> Iterator[int]:
    """Have it draft after every prefix of a text; of each state in order, what follows (-1: after the end)."""
    if isinstance(network, Eagle3Network):
        network.read_text(features, ids[1:])
        network.write_on(range(len(ids) - 1), num_steps)
        for step in range(num_steps):
            yield from [*ids[2 + step :], *[-1] * (1 + step)][: len(ids) - 1]
        return
    network.clear()
    network.read(features)
    starts = range(len(ids) - 1)
    network.draft([ids[at] for at in starts], list(starts))
    padded = [*ids, *[-1] * network.head.block_size]
    for at in starts:
        yield from padded[at + 1 : at + 1 + network.head.num_drafts]
