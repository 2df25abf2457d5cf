"""What a config.json says of a network is honoured or refused: field by field against transformers' own generate."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import torch
import transformers
from families import edit_config, save_model
from toys import MAX_POSITIONS, random_ids, toy_model

from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.drafters.base import Setup
from specdec.drafters.plain import Plain
from specdec.errors import UserError
from specdec.models.architectures import ARCHITECTURES, find_architecture
from specdec.models.checkpoints import TARGET, ModelSource, find_model
from specdec.models.config_fields import REFUSED
from specdec.models.graph.weights import unsupported
from specdec.models.layer_settings import says_windows
from specdec.models.load import check_network, load_lm, model_config
from specdec.models.tokens import load_tokenizer, stop_ids

CPU = torch.device("cpu")
PROMPT = random_ids(4, 12)
BUDGET = 12

# Of the config classes of transformers: what decides no logit of a greedy forward pass, and why.
WITHOUT_EFFECT = {
    *("initializer_range", "attention_dropout", "use_cache"),  # training, and how others run it
    *("pad_token_id", "bos_token_id", "eos_token_id"),  # tokens: `stop_ids` reads the last
    "pretraining_tp",  # how products were once cut up
    *("resid_pdrop", "embd_pdrop", "output_router_logits", "router_aux_loss_coef"),  # training
}
SLIDES = {"use_sliding_window": True, "sliding_window": 5}
FACTORS = {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2.0, 4.0, 6.0, 8.0]}
LONGROPE = {"original_max_position_embeddings": 64, "rope_scaling": {"type": "longrope", **FACTORS}}
MIXED = ["full_attention", "sliding_attention"]

# What is written into config.json before the weights are made, so that they fit.
HONOURED = {
    "qwen2": [
        {"hidden_act": "gelu_pytorch_tanh"},
        {"rms_norm_eps": 0.5},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4},
        {"rope_theta": 100.0},
        {"use_sliding_window": False, "sliding_window": 2},
        {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 2},
        {**SLIDES, "max_window_layers": 1},
        {**SLIDES, "max_window_layers": 0, "sliding_window": 2},
        {**SLIDES, "layer_types": MIXED[::-1]},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    ],
    "llama": [
        {"hidden_act": "relu"},
        {"rms_norm_eps": 0.5},
        {"tie_word_embeddings": True},
        {"head_dim": 16},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
        {
            "rope_scaling": {
                **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
                "original_max_position_embeddings": 16,
            }
        },
        {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
        {**LONGROPE, "rope_scaling": {"rope_type": "longrope", "factor": 2.0, **FACTORS}},
        {"pretraining_tp": 2},
    ],
    "qwen3": [
        {"head_dim": 8},
        {"num_key_value_heads": 1},
        {"attention_bias": True},
        {"tie_word_embeddings": True},
        {"rms_norm_eps": 0.5},
        {"hidden_act": "relu"},
        {**SLIDES, "layer_types": MIXED},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    ],
    "qwen3_moe": [
        {"num_experts_per_tok": 1},
        {"num_experts": 3},
        {"norm_topk_prob": False},
        {"moe_intermediate_size": 40},
        {"mlp_only_layers": [0]},
        {"decoder_sparse_step": 2},
        {"head_dim": 8},
        {"attention_bias": True},
        SLIDES,
    ],
    "mistral": [
        {"sliding_window": 3},
        {"sliding_window": 5000},
        {"head_dim": 16},
        {"num_key_value_heads": 1},
        {"layer_types": ["sliding_attention"] * 2},
        {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ],
    "phi3": [
        {"sliding_window": 3},
        {"sliding_window": 5000, "partial_rotary_factor": 0.5},
        {"partial_rotary_factor": 1.0, **LONGROPE},
        {"partial_rotary_factor": 1.0, **LONGROPE, "max_position_embeddings": 64},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": True},
    ],
    "gemma3_text": [
        {"sliding_window": 3, "layer_types": MIXED[::-1]},
        {"sliding_window": 3, "sliding_window_pattern": 1},
        {"sliding_window": 3, "sliding_window_pattern": 3},
        {"final_logit_softcapping": 2.0},
        {"query_pre_attn_scalar": 4},
        {"rope_local_base_freq": 100.0},
        {"rope_theta": 100.0},
        {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {"hidden_activation": "relu"},
        {"attention_bias": True},
        {"tie_word_embeddings": True},
        {"head_dim": 8},
    ],
}


def made_by_transformers(folder: Path, name: str, settings: dict) -> Path:
    """A checkpoint whose network transformers itself makes of `settings`, written as they are."""
    row = next(one for one in ARCHITECTURES if one.name == name)
    model = toy_model(name, 3)
    save_model(folder, model)
    aside = dict.fromkeys(("rope_parameters", "layer_types", "sliding_window_pattern", "_sliding_window_pattern"))
    edit_config(folder, **{**aside, "rope_theta": 1e4, **settings})
    torch.manual_seed(5)
    config = getattr(transformers, row.config_class).from_pretrained(folder)
    model = getattr(transformers, row.model_class)(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    written = (folder / "config.json").read_text()
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "config.json").write_text(written)
    return folder


def generated(folder: Path) -> list[int]:
    """What transformers' own generate writes."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    asked = {"do_sample": False, "max_new_tokens": BUDGET, "eos_token_id": None, "pad_token_id": 0}
    whole = model.generate(torch.tensor([PROMPT]), **asked)[0].tolist()
    return whole[len(PROMPT) :]


def decoded(source: ModelSource, backend: str) -> list[int]:
    lm = load_lm(source, CPU, torch.float32, backend=backend)
    drafter = Plain().drafter(Setup(()))
    rounds = speculate(Target(lm), drafter, PROMPT, max_new_tokens=BUDGET, stop_ids=(), clock=lambda: 0.0)
    return [token for turn in rounds for token in turn.emitted_tokens]


@pytest.mark.parametrize(("name", "settings"), [(name, one) for name, all_of in HONOURED.items() for one in all_of])
def test_a_field_that_is_honoured_gives_the_text_of_generate(
    tmp_path: Path, name: str, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8, 16))
    folder = made_by_transformers(tmp_path, name, settings)
    source = find_model(TARGET, str(folder))
    check_network(source)
    wanted = generated(folder)
    assert decoded(source, "eager") == wanted
    if unsupported(model_config(source)) is None:
        assert decoded(source, "graph") == wanted


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: one.name)
def test_every_field_of_transformers_config_is_accounted_for(architecture: object) -> None:
    config_class = getattr(transformers, architecture.config_class)
    names = set(inspect.signature(config_class).parameters) - {"kwargs", "args", "self"}
    base = set(inspect.signature(transformers.PretrainedConfig).parameters)
    refused = {one.name for one in (*REFUSED, *architecture.refused)}
    assert names - base - set(architecture.fields) - refused <= WITHOUT_EFFECT


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("refused") / "llama", toy_model("llama", 1))


MEANT = {"quantization_config": {"quant_method": "gptq", "bits": 4}, "quantization": {"bits": 4, "group_size": 64}}
BAD_VALUES = {
    "rms_norm_eps": (None, "1e-6", 0, -1.0, True, float("nan")),
    "hidden_act": (None, "snake", ["silu"]),
    "tie_word_embeddings": (None, "yes", 1),
    "attention_bias": (None, 1),
    "num_key_value_heads": (0, 3, "2", 2.0),
    "head_dim": (7, -8, "8"),
    "rope_theta": (None, "1e4", 0),
    "num_hidden_layers": (0, 10**9),
    "rope_scaling": (
        "linear",
        {"rope_type": "linear", "factor": 0.0},
        {"rope_type": "linear", "factor": float("nan")},
        {"rope_type": "yarn", "factor": -2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": "4"},
        {"rope_type": "dynamic", "factor": 0},
        {"rope_type": "spiral", "factor": 2.0},
        {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
        {"rope_type": "linear"},
        {"rope_type": "yarn", "factor": "4"},
        {"full_attention": {"rope_type": "default", "rope_theta": 1e4}},
        {"rope_type": "default", "partial_rotary_factor": 0.5},
    ),
    "sliding_window": (4,),
    "layer_types": (["full_attention", "sliding_attention"],),
    **{one.name: (MEANT.get(one.name, 7.5),) for one in REFUSED},
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, all_of in BAD_VALUES.items() for value in all_of])
def test_a_field_that_is_not_honoured_is_refused_in_one_line(llama: Path, name: str, value: object) -> None:
    path = llama / "config.json"
    kept = path.read_text()
    path.write_text(json.dumps({**json.loads(kept), "rope_parameters": None, name: value}))
    try:
        with pytest.raises(UserError) as error:
            check_network(find_model(TARGET, str(llama), with_weights=False))
    finally:
        path.write_text(kept)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("name", [one.name for one in REFUSED])
def test_a_field_that_is_null_or_neutral_refuses_nothing(llama: Path, name: str) -> None:
    config = json.loads((llama / "config.json").read_text())
    row = find_architecture("llama")
    neutral = next(one for one in REFUSED if one.name == name).neutral
    for value in (None, *neutral):
        assert row.not_supported({**config, name: value}) is None


def test_files_of_quantizers_are_seen(tmp_path: Path) -> None:
    folder = save_model(tmp_path, toy_model("llama", 1))
    (folder / "quantize_config.json").write_text("{}")
    with pytest.raises(UserError, match="quantized weights"):
        find_model(TARGET, str(folder))


def test_windows_of_a_network_that_has_none_are_seen() -> None:
    sizes = {"num_hidden_layers": 4, "max_position_embeddings": 64}
    assert says_windows({**sizes, **SLIDES}) and says_windows({**sizes, "sliding_window": 8})
    assert says_windows({**sizes, "layer_types": MIXED * 2})
    assert not says_windows({**sizes, "sliding_window": 64}) and not says_windows({**sizes, "sliding_window": None})
    assert not says_windows({**sizes, **SLIDES, "layer_types": ["full_attention"] * 4})
    assert not says_windows({**sizes, **SLIDES, "use_sliding_window": False})


SIZES = {"num_hidden_layers": 4, "max_position_embeddings": 64}
WINDOWS = [
    ("llama", {}, [None] * 4),
    ("qwen2", {"sliding_window": 8}, [None] * 4),
    ("qwen2", {**SLIDES, "max_window_layers": 3}, [None, None, None, 5]),
    ("qwen2", {**SLIDES, "max_window_layers": 0, "sliding_window": 64}, [None] * 4),
    ("qwen3", {**SLIDES, "layer_types": MIXED * 2}, [None, 5] * 2),
    ("qwen3_moe", SLIDES, [5] * 4),
    ("mistral", {"sliding_window": 8}, [8] * 4),
    ("mistral", {"sliding_window": None}, [None] * 4),
    ("mistral", {"max_position_embeddings": 8192}, [4096] * 4),
    ("phi3", {"max_position_embeddings": 8192}, [None] * 4),
    ("gemma3_text", {"sliding_window": 8, "num_hidden_layers": 7}, [8] * 5 + [None, 8]),
    ("gemma3_text", {"sliding_window": 8, "sliding_window_pattern": 2}, [8, None] * 2),
]


@pytest.mark.parametrize(("name", "settings", "wanted"), WINDOWS)
def test_windows_by_layer(name: str, settings: dict, wanted: list) -> None:
    assert find_architecture(name).windows({**SIZES, **settings}) == wanted


BAD_OF_ONE = [
    ("qwen3", {"head_dim": None}, "head_dim"),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 2.5}, "sliding_window"),
    ("qwen3", {**SLIDES, "layer_types": ["full_attention"]}, "1 entries for 2 layers"),
    ("qwen3", {**SLIDES, "layer_types": ["full_attention", "linear_attention"]}, "layer_types"),
    ("qwen3", {"use_sliding_window": False, "layer_types": MIXED}, "no window"),
    ("qwen3", {"quantization_config": {}}, "quantized"),
    ("qwen3", {"mlp_bias": True}, "biases in its MLP"),
    ("qwen3", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "each kind of layer"),
    ("qwen3_moe", {"num_experts": None}, "num_experts"),
    ("qwen3_moe", {"num_experts_per_tok": 5}, "5 of 4 experts"),
    ("qwen3_moe", {"mlp_only_layers": [-1]}, "mlp_only_layers"),
    ("qwen3_moe", {"n_routed_experts": 8}, "has experts"),
    ("mistral", {"num_key_value_heads": None}, "num_key_value_heads"),
    ("mistral", {"sliding_window": 0}, "sliding_window"),
    ("mistral", {"layer_types": MIXED}, "sliding-window"),
    ("mistral", {"attention_bias": True}, "biases in its attention"),
    ("phi3", {"partial_rotary_factor": 1.5}, "partial_rotary_factor"),
    ("phi3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
    ("phi3", {**LONGROPE, "original_max_position_embeddings": None}, "longrope without"),
    ("phi3", {**LONGROPE, "partial_rotary_factor": 0.5}, "describes no network"),
    ("gemma3_text", {"attn_logit_softcapping": 50.0}, "caps its attention"),
    ("gemma3_text", {"final_logit_softcapping": -1}, "final_logit_softcapping"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "both sides"),
    ("gemma3_text", {"rope_parameters": {"rope_type": "linear", "factor": 8.0}}, "all kinds of layers"),
    (
        "gemma3_text",
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 8.0}}},
        "'linear' in sliding layers",
    ),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("architectures")
    return {one.name: save_model(folder / one.name, toy_model(one.name, 1)) for one in ARCHITECTURES}


@pytest.mark.parametrize(("name", "settings", "said"), BAD_OF_ONE)
def test_what_an_architecture_cannot_follow_is_refused_in_one_line(
    checkpoints: dict[str, Path], name: str, settings: dict, said: str
) -> None:
    path = checkpoints[name] / "config.json"
    kept = path.read_text()
    aside = dict.fromkeys(("rope_parameters", "num_local_experts", "layer_types"))
    edit_config(checkpoints[name], **{**aside, "num_experts": 4 if name == "qwen3_moe" else None, **settings})
    try:
        with pytest.raises(UserError) as error:
            check_network(find_model(TARGET, str(checkpoints[name]), with_weights=False))
    finally:
        path.write_text(kept)
    assert said in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    "by_kind",
    [{"full_attention": "yarn"}, {"sliding_attention": [1]}, {"full_attention": {"rope_theta": "x"}}],
)
@pytest.mark.parametrize("name", ["qwen3", "gemma3_text"])
def test_rotary_settings_of_a_kind_of_layer_that_are_none_are_a_misfit(name: str, by_kind: dict) -> None:
    row = find_architecture(name)
    assert row is not None
    config = model_config_of(name) | {"rope_parameters": by_kind}
    assert "'rope_parameters' of" in str(row.misfit(config))


@pytest.mark.parametrize(("name", "said"), [("qwen2", "no window"), ("qwen3", "no window"), ("gemma3_text", "None")])
def test_listed_layers_slide_only_where_windows_are_on(name: str, said: str) -> None:
    """Qwen's are off unless switched on, and then transformers fails in the middle; Gemma's have no switch."""
    row = find_architecture(name)
    assert row is not None
    assert said in str(row.misfit(model_config_of(name) | {"layer_types": MIXED}))


def model_config_of(name: str) -> dict:
    """What a config.json of this kind says at least."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {**sizes, "vocab_size": 64, "max_position_embeddings": 64, "num_key_value_heads": 2, "head_dim": 8}


def test_a_text_ends_before_angles_change(checkpoints: dict[str, Path]) -> None:
    path = checkpoints["phi3"] / "config.json"
    kept = path.read_text()
    edit_config(checkpoints["phi3"], rope_parameters=None, **LONGROPE)
    source = find_model(TARGET, str(checkpoints["phi3"]))
    path.write_text(kept)
    assert source.context_len == 64
    assert find_model(TARGET, str(checkpoints["phi3"])).context_len == MAX_POSITIONS


STOPS = [
    ({"eos_token_id": 5}, None, {5}),
    ({"eos_token_id": [5, 6]}, None, {5, 6}),
    ({"eos_token_id": [5, 6]}, {"eos_token_id": 7}, {7}),
    ({"eos_token_id": 5}, {"eos_token_id": None}, {5}),
    ({"eos_token_id": 5}, {"do_sample": False}, {5}),
    ({"eos_token_id": None}, None, set()),
]


@pytest.mark.parametrize(("config", "generation", "wanted"), STOPS)
def test_stop_tokens_are_those_of_generate(tmp_path: Path, config: dict, generation: dict | None, wanted: set) -> None:
    folder = save_model(tmp_path, toy_model("llama", 1))
    (folder / "config.json").write_text(json.dumps({**json.loads((folder / "config.json").read_text()), **config}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    source = find_model(TARGET, str(folder))
    tokenizer = load_tokenizer(source)
    assert stop_ids(source, tokenizer) - {tokenizer.eos_token_id} == wanted - {tokenizer.eos_token_id}


@pytest.mark.parametrize("stop", [64, -1, True, "5", [5, 64]])
def test_a_stop_token_outside_the_table_is_named(tmp_path: Path, stop: object) -> None:
    source = find_model(TARGET, str(save_model(tmp_path, toy_model("llama", 1), eos_token_id=stop)))
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="eos_token_id.*not a token id of the model"):
        stop_ids(source, load_tokenizer(source))
