"""Damaged checkpoints: what a model's folder says of itself, beside its weights, is read and right, or one line; never a
traceback, and no number that is none. FAILFAST_EXAMPLES=20 tries more.
"""

# ---- of models ------------------------------------------------------------------------------------------------------

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
    assert all(type(size) is int and 0 < size for size in sizes)
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


def of_tensors(document: bytes) -> bytes:
    return len(document).to_bytes(8, "little") + document + bytes(28)


def use_tensors(path: Path) -> None:
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


