"""Finding and loading checkpoints: what is supported loads to the right weights, the rest is refused unopened."""

from __future__ import annotations

import json
import random
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from families import MASK_ID, edit_config, save_family, save_model
from toys import causal_logits, random_ids, toy_model

from specdec.drafters.ar import AR_DRAFTER
from specdec.drafters.block_diffusion import DLLM_DRAFTER
from specdec.errors import UserError
from specdec.models import architectures
from specdec.models.architectures import Architecture
from specdec.models.checkpoints import TARGET, find_model, fingerprint
from specdec.models.graph.weights import unsupported
from specdec.models.load import load_lm, model_config, resolve_device
from specdec.models.tokens import check_same_tokens, encode_prompt, load_tokenizer, mask_id, stop_ids

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("family"))


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("tie", [False, True])
def test_a_folder_loads_to_the_same_logits(tmp_path: Path, architecture: str, tie: bool) -> None:
    model = toy_model(architecture, 5, tie=tie)
    source = find_model(TARGET, str(save_model(tmp_path / "model", model)))
    ids = random_ids(1, 20)
    logits = load_lm(source, CPU, torch.float32).forward(ids)
    torch.testing.assert_close(logits, causal_logits(model, ids), atol=1e-5, rtol=1e-5)
    assert source.num_parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("row", architectures.ARCHITECTURES, ids=lambda row: row.name)
def test_an_architecture_is_one_row(tmp_path: Path, row: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its row its checkpoints are refused; with it alone they are found, counted and run."""
    model = toy_model(row.name, 5)
    folder = save_model(tmp_path / "model", model)
    others = tuple(one for one in architectures.ARCHITECTURES if one is not row)
    monkeypatch.setattr(architectures, "ARCHITECTURES", others)
    assert f"model type {row.name!r}" in _refusal(TARGET, folder)
    monkeypatch.setattr(architectures, "ARCHITECTURES", (row,))
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8, 16))
    source, ids = find_model(TARGET, str(folder)), random_ids(1, 20)
    for backend in ("eager", "graph") if row.runs_as_graphs else ("eager",):
        logits = load_lm(source, CPU, torch.float32, backend=backend).forward(ids)
        torch.testing.assert_close(logits, causal_logits(model, ids), atol=1e-4, rtol=1e-4)
    assert source.num_parameters == sum(weight.numel() for weight in model.parameters())
    if not row.runs_as_graphs:
        assert unsupported(model_config(source)) == f"the architecture {row.name}"


def test_a_fast_dllm_folder_loads_as_qwen2_and_its_code_is_not_run(tmp_path: Path) -> None:
    model = toy_model("qwen2", 6, tie=True)
    folder = save_model(
        tmp_path / "dllm",
        model,
        model_type="Fast_dLLM_Qwen",
        architectures=["Fast_dLLM_QwenForCausalLM"],
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        bd_size=32,
    )
    marker = tmp_path / "executed"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    source = find_model(DLLM_DRAFTER, str(folder))
    load_tokenizer(source)
    ids = random_ids(2, 10)
    logits = load_lm(source, CPU, torch.float32).forward(ids)
    torch.testing.assert_close(logits, causal_logits(model, ids), atol=1e-5, rtol=1e-5)
    assert not marker.exists()


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_rotary_settings_are_understood_in_either_spelling(tmp_path: Path, architecture: str) -> None:
    """transformers 4 writes rope_theta and rope_scaling, 5 rope_parameters; both must load to the same model."""
    folder = save_model(tmp_path / "model", toy_model(architecture, 8))
    scaling = {"rope_type": "linear", "factor": 4.0}
    spellings = {
        "new": {"rope_parameters": {"rope_theta": 500.0, **scaling}, "rope_theta": None, "rope_scaling": None},
        "old": {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": scaling},
        "plain": {"rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": None},
    }
    logits = {}
    for name, changes in spellings.items():
        edit_config(folder, **changes)
        logits[name] = load_lm(find_model(TARGET, str(folder)), CPU, torch.float32).forward(random_ids(3, 30))
    torch.testing.assert_close(logits["new"], logits["old"])
    assert (logits["new"] - logits["plain"]).abs().max() > 1e-2


def _refusal(role: object, folder: Path) -> str:
    with pytest.raises(UserError) as error:
        find_model(role, str(folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", toy_model("qwen2", 7))
    weights = folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    assert "no weights" in _refusal(TARGET, folder)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    assert "pickle" in _refusal(AR_DRAFTER, folder)
    weights.write_bytes(kept)
    edit_config(folder, model_type="mamba")
    assert "mamba" in _refusal(TARGET, folder)
    edit_config(folder, model_type="custom", auto_map={"AutoModel": "x.Y"})
    assert "remote code" in _refusal(TARGET, folder)
    (folder / "config.json").write_text("{")
    assert "config.json" in _refusal(TARGET, folder)


BAD_CONFIGS = {
    "a list": ("[]", "not a JSON object"),
    "a size in words": ('{"model_type": "llama", "vocab_size": 64, "hidden_size": "x"}', "'hidden_size' is 'x'"),
    "no size": ('{"model_type": "qwen2"}', "'vocab_size' is None"),
    "nothing": ("", "config.json"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_config_that_cannot_be_is_named(tmp_path: Path, name: str) -> None:
    folder = save_model(tmp_path / "model", toy_model("qwen2", 7))
    text, named = BAD_CONFIGS[name]
    (folder / "config.json").write_text(text)
    assert named in _refusal(TARGET, folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_hidden_layers": 1, "layer_types": None}, "layers.1"),
        ({"num_attention_heads": 7}, "do they fit"),
        ({"hidden_act": "foo"}, "foo"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4, "factor": 2.0}}, "spiral"),
    ],
)
def test_weights_under_another_config_are_refused(
    tmp_path: Path, changes: dict, named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_model(tmp_path / "model", toy_model("qwen2", 7))
    edit_config(folder, **changes)
    capfd.readouterr()
    with pytest.raises(UserError) as error:
        load_lm(find_model(TARGET, str(folder)), CPU, torch.float32)
    assert named in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_drafter_of_the_other_kind_is_refused(family: dict[str, Path]) -> None:
    assert "is a block-diffusion model" in _refusal(AR_DRAFTER, family["dllm"])
    assert "is a block-diffusion model" in _refusal(TARGET, family["dllm"])
    assert "is not a block-diffusion model" in _refusal(DLLM_DRAFTER, family["ar"])


@pytest.mark.parametrize("mask", [64, -1, "a", 1.5])
def test_a_mask_id_must_be_an_id_of_the_model(tmp_path: Path, mask: object) -> None:
    source = find_model(DLLM_DRAFTER, str(save_model(tmp_path / "m", toy_model("qwen2", 7), mask_token_id=mask)))
    with pytest.raises(UserError, match="mask_token_id"):
        mask_id(source, load_tokenizer(source))


def test_damaged_small_files_are_named(tmp_path: Path) -> None:
    source = find_model(TARGET, str(save_model(tmp_path / "model", toy_model("qwen2", 7))))
    tokenizer = load_tokenizer(source)
    for text in ("{", "[1]", '{"eos_token_id": "x"}', '{"eos_token_id": [[1]]}'):
        (source.path / "generation_config.json").write_text(text)
        with pytest.raises(UserError, match="eos_token_id"):
            stop_ids(source, tokenizer)
    tokenizer.chat_template = "{% if %}"
    with pytest.raises(UserError, match="chat template"):
        encode_prompt(tokenizer, "word1")
    (source.path / "model.safetensors.index.json").write_text("x")
    assert "index.json is damaged" in _refusal(TARGET, source.path)
    (source.path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        load_tokenizer(source)


def test_a_missing_shard_and_damaged_weights_are_named(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", toy_model("qwen2", 7))
    weights = folder / "model.safetensors"
    source = find_model(TARGET, str(folder))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot load the weights"):
        load_lm(source, CPU, torch.float32)
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002-of-00002.safetensors" in _refusal(TARGET, folder)


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", toy_model("qwen2", 7))
    edit_config(folder, num_hidden_layers=3, layer_types=None)
    with pytest.raises(UserError, match="do not fit"):
        load_lm(find_model(TARGET, str(folder)), CPU, torch.float32)


def test_an_unreachable_hub_names_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match="--dllm_dir a local folder"):
        find_model(DLLM_DRAFTER, "someone/some-model")


def test_the_fingerprint_follows_the_weights(family: dict[str, Path], tmp_path: Path) -> None:
    target = find_model(TARGET, str(family["target"]))
    assert fingerprint(target) == fingerprint(target)
    other = save_model(tmp_path / "other", toy_model("qwen2", 99, scale=4.0))
    assert fingerprint(target) != fingerprint(find_model(TARGET, str(other)))


def test_stop_and_mask_ids_come_from_the_checkpoint(family: dict[str, Path]) -> None:
    source = find_model(DLLM_DRAFTER, str(family["dllm"]))
    tokenizer = load_tokenizer(source)
    assert mask_id(source, tokenizer) == MASK_ID
    (family["dllm"] / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 5]}))
    assert stop_ids(source, tokenizer) == {4, 5, tokenizer.eos_token_id}
    target = find_model(TARGET, str(family["target"]))
    with pytest.raises(UserError, match="mask_token_id"):
        mask_id(target, load_tokenizer(target))


def test_tokenizers_are_compared_as_maps(family: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(find_model(TARGET, str(family["target"])))
    twin = load_tokenizer(find_model(AR_DRAFTER, str(family["ar"])))
    check_same_tokens(tokenizer, twin)
    twin.add_tokens(["<mask>"], special_tokens=True)
    check_same_tokens(tokenizer, twin, ignore_ids=[len(twin) - 1])
    with pytest.raises(UserError, match=f"id {len(twin) - 1} is None .* and '<mask>'"):
        check_same_tokens(tokenizer, twin)


def test_a_tokenizer_without_a_chat_template_is_refused(family: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(find_model(TARGET, str(family["target"])))
    assert encode_prompt(tokenizer, "word1 word2 strange") == [3, 4, 0]
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="chat template"):
        encode_prompt(tokenizer, "word1")


DATED_TEMPLATES = {
    "strftime_now": "{{ strftime_now('%d %b %Y') }}",
    "strftime_now_in_a_variable": '{% set how = "%d %b %Y" %}  it\'s\n{{ strftime_now(how) }}',
    "date_string": "{{ date_string if date_string is defined else strftime_now('%Y') }}",
    "strftime_now_if_there_is_one": "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}",
}


@pytest.mark.parametrize("name", DATED_TEMPLATES)
def test_a_prompt_does_not_change_at_midnight(
    family: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(find_model(TARGET, str(family["target"])))
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}"
    texts, prompts = [], []
    monkeypatch.setattr(type(tokenizer), "__call__", lambda _, text, **__: texts.append(text) or {"input_ids": [1]})
    for now in (datetime(2026, 11, 27, 23, 59, 59), datetime(2026, 11, 28, 0, 0, 1)):
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", SimpleNamespace(now=lambda now=now: now))
        tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}"
        prompts.append(tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False))
        tokenizer.chat_template = "\n" + DATED_TEMPLATES[name]
        encode_prompt(tokenizer, "word1")
    assert prompts == ["27 Nov 2026", "28 Nov 2026"]  # so the clock was faked
    assert texts[0] == texts[1] and texts[0].startswith("\n") and texts[0].endswith("26 Jul 2024")


EARLY = datetime(2027, 1, 5).date()
WRITTEN = {
    "%d %B %Y": "05 January 2027",
    "%A, %-d %b": "Tuesday, 5 Jan",
    "%e|%j|%m/%y|%H:%M:%S|%I %p": " 5|005|01/27|00:00:00|12 AM",
    "%c|%x|%X|%s|%Z%z": "Tue Jan  5 00:00:00 2027|01/05/27|00:00:00|1799107200|",
    "100 %% of %^a %": "100 % of TUE %",
}


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("way", ["{{ strftime_now(%r) }}", "{%% set f = %r %%}{{ strftime_now(f ~ '') ~ '' }}"])
def test_a_date_is_written_in_english_whatever_the_clock(
    family: dict[str, Path], form: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    tokenizer = load_tokenizer(find_model(TARGET, str(family["target"])))
    tokenizer.chat_template, texts = way % form, []
    monkeypatch.setattr(type(tokenizer), "__call__", lambda _, text, **__: texts.append(text) or {"input_ids": [1]})
    encode_prompt(tokenizer, "word1", EARLY)
    monkeypatch.undo()
    time.tzset()
    assert texts == [WRITTEN[form]]


def test_chance_in_a_template_falls_alike_in_every_run(family: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(find_model(TARGET, str(family["target"])))
    tokenizer.chat_template = "{% for i in range(9) %}{{ ['word1', 'word2', 'word3'] | random }} {% endfor %}"
    state = random.getstate()
    prompts = {tuple(encode_prompt(tokenizer, "word1")) for _ in range(5)}
    assert len(prompts) == 1 and len(set(prompts.pop())) > 1
    assert random.getstate() == state


def test_a_template_with_line_breaks_in_its_texts_is_read(family: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(find_model(TARGET, str(family["target"])))
    tokenizer.chat_template = "{{ 'word1\n\"word2\n' + strftime_now('word3') + ' ' }}{{ messages[0].content }}"
    assert encode_prompt(tokenizer, "word4")[-2:] == [5, 6]


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="--device"):
        resolve_device("cuda:99")
    with pytest.raises(UserError, match="--device"):
        resolve_device("abacus")
