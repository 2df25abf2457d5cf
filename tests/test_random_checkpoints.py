"""Random checkpoints: fields of a dozen architectures, chat templates and tokenizers thrown together. A run writes what
transformers' own generate writes, or says in one line, with exit status 2, why not; it never ends in a traceback.

FAILFAST_EXAMPLES=8 python -m pytest tests/test_random_checkpoints.py tries 8 times as many, and others.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from examples import many
from hypothesis import given, note
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from toys import TOO_CLOSE, toy_model

from specdec.commands import run as failfast
from specdec.records.record import find_records, load_record

pytestmark = pytest.mark.slow
SIZES = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6},
}
KNOWN = ("qwen2", "llama", "mistral", "qwen3", "phi3", "qwen3_moe", "gemma3_text")
TYPES = (*KNOWN, "gemma2", "granite", "cohere", "starcoder2", "olmo2")
EXPERTS = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
STATED = {  # what checkpoints of a type always say
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {"head_dim": 16, **EXPERTS},
    "phi3": {"pad_token_id": 0, "original_max_position_embeddings": 1024},
    "gemma3_text": {"head_dim": 16, "pad_token_id": 0},
}
SCALINGS = (
    {"rope_type": "linear", "factor": 2.0},
    {"type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    {"rope_type": "yarn"},
    {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    {
        **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "original_max_position_embeddings": 32,
    },
    {"rope_type": "default", "rope_theta": 500.0},
    {},
)
OTHERS: dict[str, tuple[Any, ...]] = {
    "use_cache": (False,),
    "return_dict": (False,),
    "output_attentions": (True,),
    "attn_implementation": ("flash_attention_2",),
    "auto_map": ({"AutoModelForCausalLM": "other.Model"},),
}
FIELDS: dict[str, tuple[Any, ...]] = {
    # Qwen2, Qwen3, Llama, Mistral
    "hidden_act": ("silu", "gelu", "relu", "gelu_pytorch_tanh", "snake"),
    "num_key_value_heads": (1, 4, 3),
    "head_dim": (8, 16, 7),
    "rms_norm_eps": (1e-5, 1, "1e-6"),
    "tie_word_embeddings": (True, False),
    "attention_bias": (True, False),
    "mlp_bias": (True, False),
    "rope_theta": (500.0, 1000000, 0),
    "rope_scaling": SCALINGS,
    "rope_parameters": SCALINGS,
    "use_sliding_window": (True, False),
    "sliding_window": (4, 4096),
    "max_window_layers": (0, 1, 28),
    "layer_types": (["full_attention"] * 2, ["sliding_attention", "full_attention"]),
    "max_position_embeddings": (16, 2048, 0),
    "pretraining_tp": (1, 2),
    "eos_token_id": (2, [2, 3], [], 64, -1, "2"),
    "pad_token_id": (0, 64, -1),
    "quantization_config": ({"quant_method": "awq"}, {}),
    "quantization": ({"bits": 4, "group_size": 64},),
    "torch_dtype": ("float16", "int8"),
    "vocab_size": (60, 64, 70),
    # Gemma 2, Phi 3, Granite, Cohere, StarCoder 2, OLMo 2
    "final_logit_softcapping": (30.0,),
    "attn_logit_softcapping": (50.0,),
    "query_pre_attn_scalar": (16,),
    "hidden_activation": ("gelu_pytorch_tanh",),
    "partial_rotary_factor": (1.0, 0.5),
    "original_max_position_embeddings": (16,),
    "logits_scaling": (1.0, 8.0),
    "residual_multiplier": (1.0, 0.2),
    "embedding_multiplier": (12.0,),
    "attention_multiplier": (0.1,),
    "logit_scale": (1, 0.0625),
    "use_qk_norm": (False, True),
    "use_bias": (False, True),
    "norm_epsilon": (1e-5,),
    "clip_qkv": (8.0,),
    "num_local_experts": (0, 4),
    # Gemma 3, Qwen3-MoE
    "sliding_window_pattern": (1, 2, 6, 0),
    "rope_local_base_freq": (100.0, 0),
    "norm_topk_prob": (True, False),
    "mlp_only_layers": ([0], [], [-1]),
    "decoder_sparse_step": (1, 2),
    "num_experts_per_tok": (1, 3, 5),
    "mask_token_id": (63,),
}
# What is about other programs: with some of it, generate itself ends in a traceback.
FIELDS |= OTHERS
TEMPLATES = (
    "{% for m in messages %}{{ m.content }} {% endfor %}",
    "{{ strftime_now('%d %b %Y') }}\n{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "{% set f = '%A' ~ ', %-d' %}{{ strftime_now(f) }} {{ messages[0].content }}",
    "{{ messages[0].content[:9] }} {{ ['w1', 'w2', 'w3'] | random }}",
    "{{ raise_exception('roles must alternate') }}",
    "{{ messages[0].nothing.at_all }}",
    "{% if %}",
    "",
    "{{ date_string }} w5 w6",
    "{% for i in range(9) %}w{{ i }} {% endfor %}",
    "{{ 'w58 ' * 12 }}",
    None,
)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Most are those of a supported model with few fields changed, so that many are run."""
    model_type = draw(st.sampled_from((*KNOWN * 3, *TYPES, "Fast_dLLM_Qwen", "")))
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True))
    values = {name: draw(st.sampled_from((*FIELDS[name] * 3, None))) for name in names}
    return {"model_type": model_type, **SIZES, **STATED.get(model_type, {}), **values}


@st.composite
def tokenizers(draw: st.DrawFn) -> dict[str, Any]:
    """How many words, which ids are left out, what ends an answer."""
    count = draw(st.sampled_from((64, 64, 62, 50, 66)))
    left_out = draw(st.sets(st.integers(6, 20), max_size=3))
    return {"count": count, "left_out": left_out, "eos": draw(st.sampled_from(("w2", "w40", "new", None)))}


def write_tokenizer(folder: Path, template: str | None, how: dict[str, Any]) -> None:
    words = {f"w{index}": index for index in range(how["count"]) if index not in how["left_out"]}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece(prefix="##")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="w0")
    fast.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text()) | {"eos_token": how["eos"], "chat_template": template}
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def write_weights(folder: Path, config: dict[str, Any]) -> None:
    """Those that transformers itself makes of config.json; where it cannot, those of another model."""
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    torch.manual_seed(1)
    try:
        model: Any = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2 * torch.randn_like(weight))
        model.save_pretrained(folder, safe_serialization=True)
    except Exception:
        toy_model("llama", 1).save_pretrained(folder, safe_serialization=True)
    path.write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)


def run(folder: Path, *more: str) -> tuple[int, str]:
    flags = ["--target_model_name", str(folder), "--output_dir", str(folder / "out"), "--drafters", "plain"]
    flags += ["--num_questions", "1", "--max_new_tokens", "8", "--latency_profile", "none", "--log_level", "WARNING"]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = failfast.main([*flags, "--device", "cpu", *more])
    return status, said.getvalue()


def check_against_generate(folder: Path, config: dict[str, Any]) -> None:
    """The text equals generate's, up to a place where two tokens are as probable. What is no token is suppressed."""
    record, num_rows = load_record(find_records(folder / "out")[0]), config["vocab_size"]
    (folder / "config.json").write_text(json.dumps({name: config[name] for name in config.keys() - OTHERS}))
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    never = sorted(set(range(num_rows)) - set(tokenizer.get_vocab().values()))
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    model.generation_config = transformers.GenerationConfig()
    ids_1L = torch.tensor([record.prompt_ids])
    found = model.generate(
        ids_1L,
        attention_mask=torch.ones_like(ids_1L),
        do_sample=False,
        max_new_tokens=8,
        eos_token_id=record.identity.settings["stop_ids"] or None,
        pad_token_id=0,
        suppress_tokens=never or None,
        output_scores=True,
        return_dict_in_generate=True,
    )
    wanted = found.sequences[0, len(record.prompt_ids) :].tolist()
    for index, (ours, theirs) in enumerate(zip(record.output_tokens, wanted, strict=False)):
        best, second = found.scores[index][0].topk(2).values.tolist()
        if best - second < TOO_CLOSE:
            return
        assert ours == theirs, (record.output_tokens, wanted)
    assert len(record.output_tokens) == len(wanted)


@many(60)
@given(configs(), st.sampled_from(TEMPLATES), tokenizers())
def test_a_random_checkpoint_runs_as_in_transformers_or_is_refused_in_one_line(
    one_thread: None, config: dict[str, Any], template: str | None, how: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder, config)
        write_tokenizer(folder, template, how)
        dry_status, dry_error = run(folder, "--dry_run")
        status, error = run(folder)
        note(error)
        assert status in (0, 2) and (status == 0) == (error == "") and error.count("\n") == status // 2
        assert dry_status in (0, 2) and dry_error.count("\n") == dry_status // 2
        if status == 0:
            assert dry_status == 0
            check_against_generate(folder, config)
