"""Damaged checkpoints: what a model's folder says of itself is read and right, or one line; never a traceback, and no
number that is none. FAILFAST_EXAMPLES=20 tries more.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import dflash_heads
import heads
import pytest
from damaging import SEEDS, Use, either, is_told, sound, to_json
from examples import many
from hypothesis import given
from toys import toy_model, toy_tokenizer

from specdec.drafters.dflash import DFLASH_HEAD
from specdec.drafters.eagle3 import EAGLE3_HEAD
from specdec.models.checkpoints import TARGET, ModelSource, find_model, read_config, stamp, weight_files
from specdec.models.heads import HeadRole, HeadSource
from specdec.models.llama_like import LLAMA
from specdec.models.tensors import shapes_in
from specdec.models.token_text import read_token_bytes
from specdec.models.tokens import stop_ids

LAYERS = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
LAYERS |= {"num_hidden_layers": 4, "vocab_size": 99, "max_position_embeddings": 512, "rope_theta": 1e6}
LAYERS |= {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
CONFIGS: tuple[dict[str, Any], ...] = (
    {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    {"model_type": "qwen3_moe", "head_dim": 16, "norm_topk_prob": True, "mlp_only_layers": [1], **EXPERTS},
    {"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}},
    {"model_type": "mistral", "sliding_window": 8},
    {"model_type": "phi3", "partial_rotary_factor": 0.75, "original_max_position_embeddings": 64}
    | {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}},
    {"model_type": "gemma3_text", "head_dim": 16, "query_pre_attn_scalar": 16, "rope_local_base_freq": 1e4}
    | {"sliding_window": 8, "sliding_window_pattern": 6, "hidden_activation": "gelu_pytorch_tanh"},
    {"model_type": "gemma3_text", "head_dim": 16, "layer_types": ["full_attention", "sliding_attention"] * 2}
    | {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}},
)


def use_config(path: Path) -> None:
    path.replace(path.parent / "config.json")
    source = find_model(TARGET, str(path.parent), with_weights=False)
    sizes = [source.num_parameters, source.kv_values_per_token, source.context_len, source.vocab_size]
    assert all(type(size) is int and size > 0 for size in sizes)
    windows = source.architecture.windows(source.config)
    assert len(windows) == source.config["num_hidden_layers"] and all(one is None or one > 0 for one in windows)
    sound([*sizes, source.weight_bytes(2), source.head_dim])
    assert stamp(source)["files"]


def use_index(path: Path) -> None:
    path.replace(path.parent / "model.safetensors.index.json")
    (path.parent / "a.safetensors").write_bytes(b"")
    source = dataclasses.replace(find_model(TARGET, "bundled", with_weights=False), path=path.parent)
    assert [file.name for file in weight_files(source)] == ["a.safetensors"]


HEADER = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "pt"}}
HEADER |= {"b": {"dtype": "F32", "shape": [], "data_offsets": [24, 28]}}


def use_tensors(path: Path) -> None:
    """A file of tensors that begins with this header."""
    header = path.read_bytes()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(28))
    found = shapes_in([path.rename(path.with_suffix(".safetensors"))])
    for shape in found.values():
        assert all(type(size) is int and size >= 0 for size in shape.sizes)
        sound(shape.num_values)


VOCABULARIES: tuple[dict[str, Any], ...] = (
    {"decoder": {"type": "ByteLevel"}, "model": {"vocab": {"a": 0, "\u0120b": 1, "\u4e00": 2}}},
    {"decoder": {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "Fuse"}]}}
    | {"model": {"vocab": [["\u2581a", -1.5], ["<0x0A>", -2.0]]}},
    {"decoder": {"type": "WordPiece"}, "model": {"vocab": {"a": 0, "##b": 1}}},
    {"decoder": None, "model": {"vocab": {"a": 0, "b": 1}}},
)
ADDED = [{"id": 3, "content": "<end>", "special": True}, {"id": 4, "content": "word", "special": False}]


def use_tokens(path: Path) -> None:
    found = read_token_bytes(path)
    assert all(type(index) is int and 0 <= index < 2**63 for index in (*found.by_id, *found.specials))
    assert all(type(data) is bytes for data in found.by_id.values()) and set(found.specials) <= set(found.by_id)


@cache
def tokenizer() -> Any:
    return toy_tokenizer(["a", "b"])


def use_generation(path: Path) -> None:
    """The tokens that end an answer."""
    path.replace(path.parent / "generation_config.json")
    source = ModelSource(TARGET, "toy", path.parent, {"vocab_size": 9, "eos_token_id": [1, 2]})
    assert all(type(token) is int and 0 <= token < 9 for token in stop_ids(source, tokenizer()))


# ---- heads ----------------------------------------------------------------------------------------------------------


ROPE = ("rope_scaling", "rope_parameters")


@cache
def toy_target() -> Any:
    return toy_model("qwen2", 0, num_layers=4)


def use_head(role: HeadRole, path: Path) -> None:
    """The head as its config.json has it; its tensors are another document."""
    path.replace(path.parent / "config.json")
    target = ModelSource(TARGET, "target", path.parent, toy_target().config.to_dict())
    source = HeadSource(role, "head", path.parent, read_config(role, path.parent), target, [])
    source.head.check(source, target)
    head: Any = source.head
    wanted = head.wanted() if role is EAGLE3_HEAD else head.wanted({})
    sizes = [source.vocab_size, source.kv_values_per_token, *(size for one in wanted.values() for size in one)]
    assert all(type(size) is int and 0 < size < 2**63 for size in sizes)
    sound({**vars(head), "layer": {name: head.layer.get(name) for name in LLAMA.fields if name not in ROPE}})


@cache
def eagle3_configs() -> list[bytes]:
    made = [heads.toy_head(layout, toy_target(), 0) for layout in ("safeailab", "speculators", "deepspec")]
    return [to_json(heads.config_of(head)) for head in made]


@cache
def dflash_configs() -> list[bytes]:
    kinds = ("DFlashDraftModel", "DFlash2DraftModel", "Qwen3DSparkModel")
    return [to_json(dflash_heads.config_of(dflash_heads.toy_dflash(kind, toy_target(), 0))) for kind in kinds]


DOCUMENTS: dict[str, tuple[Callable[[], list[bytes]], Use]] = {
    "config.json": (lambda: [to_json({**LAYERS, **config}) for config in CONFIGS], use_config),
    "index": (
        lambda: [to_json({"metadata": {}, "weight_map": {"w": "a.safetensors", "v": "a.safetensors"}})],
        use_index,
    ),
    "tensors": (lambda: [to_json(HEADER)], use_tensors),
    "tokenizer.json": (lambda: [to_json({**one, "added_tokens": ADDED}) for one in VOCABULARIES], use_tokens),
    "generation_config.json": (
        lambda: [to_json({"eos_token_id": one}) for one in (3, [3, 4])],
        use_generation,
    ),
    "EAGLE-3": (eagle3_configs, partial(use_head, EAGLE3_HEAD)),
    "DFlash": (dflash_configs, partial(use_head, DFLASH_HEAD)),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
@many(60)
@given(seed=SEEDS)
def test_a_damaged_document_of_a_checkpoint_is_one_line_or_what_it_says(kind, seed):
    rng, (originals, use) = random.Random(seed), DOCUMENTS[kind]
    is_told(use, either(rng.choice(originals()), rng, json.loads, to_json, of_bytes=0.2))


def test_every_document_of_a_checkpoint_is_read_as_it_stands():
    assert [kind for kind, (made, use) in DOCUMENTS.items() if any(is_told(use, one) for one in made())] == []
