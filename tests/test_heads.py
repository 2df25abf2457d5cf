"""Heads on disk: what does not fit the target, is not whole or is not understood is refused in one line, before any
weight is loaded; and nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import edit_config, save_model
from heads import ToyHead, config_of, save_head, toy_head
from safetensors.torch import save_file
from toys import toy_model

from failfast import main
from specdec.drafters.eagle3 import EAGLE3_HEAD
from specdec.errors import UserError
from specdec.models import eagle3, load
from specdec.models.checkpoints import TARGET
from specdec.models.heads import HeadSource, find_models
from specdec.models.tensors import load_tensors, shapes_in


@pytest.fixture(scope="module")
def target(one_thread: None) -> torch.nn.Module:
    return toy_model("llama", 31, scale=4.0)


@pytest.fixture(scope="module")
def target_dir(target: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("family") / "Toy-1B", target)


def _dropped(head: ToyHead, name: str) -> ToyHead:
    del head.tensors[name]
    return head


def _added(head: ToyHead, name: str, *sizes: int) -> ToyHead:
    head.tensors[name] = torch.zeros(*sizes)
    return head


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


Bad = Callable[[Path, torch.nn.Module], object]
A, B, C = "safeailab", "speculators", "deepspec"
BAD: dict[str, tuple[str, Bad]] = {
    "hidden size": (
        "made for another target .*hidden size 48, not 32",
        lambda at, target: save_head(at, toy_head(A, toy_model("llama", 1, hidden_size=48), 5)),
    ),
    "number of layers": (
        "3 layers, not 2",
        lambda at, target: save_head(at, toy_head(C, target, 5), num_target_layers=3),
    ),
    "a tap too high": (
        "the output of layer 2, and there are the layers 0 to 1",
        lambda at, target: save_head(at, toy_head(A, target, 5, taps=(0, 1, 2))),
    ),
    "a tap of the embeddings": (
        "the output of layer -1",
        lambda at, target: save_head(at, toy_head(B, target, 5, taps=(-1, 0, 1))),
    ),
    "vocabulary": (
        "vocabulary 80, not 64",
        lambda at, target: save_head(at, toy_head(A, toy_model("llama", 1, vocab_size=80), 5)),
    ),
    "another verifier (B)": (
        "names its target, 'org/Other-8B', and not",
        lambda at, target: save_head(
            at, toy_head(B, target, 5), speculators_config={"verifier": {"name_or_path": "org/Other-8B"}}
        ),
    ),
    "another verifier (C)": (
        "names its target, 'org/Other-8B', and not",
        lambda at, target: save_head(at, toy_head(C, target, 5), target_model_name_or_path="org/Other-8B"),
    ),
    "a tensor too few": (
        "has no tensor fc.weight",
        lambda at, target: save_head(at, _dropped(toy_head(A, target, 5), "fc.weight")),
    ),
    "a tensor too many": (
        "no place here, layers.1.mlp.up_proj.weight",
        lambda at, target: save_head(at, _added(toy_head(B, target, 5), "layers.1.mlp.up_proj.weight", 4, 4)),
    ),
    "a bias": (
        "no place here, midlayer.self_attn.q_proj.bias",
        lambda at, target: save_head(at, _added(toy_head(A, target, 5), "midlayer.self_attn.q_proj.bias", 32)),
    ),
    "another shape": (
        "fc.weight is \\[32, 96\\], and its config.json says \\[32, 64\\]",
        lambda at, target: save_head(at, toy_head(C, target, 5), target_layer_ids=[0, 1]),
    ),
    "own words without a map": (
        "has no tensor d2t",
        lambda at, target: save_head(at, _dropped(toy_head(A, target, 5, draft_vocab_size=20), "d2t")),
    ),
    "two layers": (
        "has 2 layers",
        lambda at, target: save_head(at, toy_head(A, target, 5), num_hidden_layers=2),
    ),
    "two norms": (
        "of which one excludes the other",
        lambda at, target: save_head(at, toy_head(B, target, 5, fc_norm=True), norm_before_fc=True),
    ),
    "a cut file": (
        "is not a whole file of tensors",
        lambda at, target: _cut(save_head(at, toy_head(A, target, 5)) / "model.safetensors"),
    ),
    "a cut pickle": (
        "is not a whole file of tensors",
        lambda at, target: _cut(save_head(at, toy_head(A, target, 5), suffix="bin") / "pytorch_model.bin"),
    ),
    "no weights": (
        "has no weights",
        lambda at, target: (save_head(at, toy_head(A, target, 5)) / "model.safetensors").unlink(),
    ),
    "an ordinary model": ("is not that of an EAGLE-3 head", lambda at, target: save_model(at, target)),
    "a size that is none": (
        "'hidden_size' is 'x', not a size",
        lambda at, target: save_head(at, toy_head(A, target, 5), hidden_size="x"),
    ),
    "a head of no size": (
        "'head_dim' is 0, not a size",
        lambda at, target: save_head(at, toy_head(A, target, 5), head_dim=0),
    ),
    "a target of no size": (
        "target_hidden_size 0",
        lambda at, target: save_head(at, toy_head(A, target, 5), target_hidden_size=0),
    ),
    "no words": (
        "draft_vocab_size 0",
        lambda at, target: save_head(at, toy_head(A, target, 5), draft_vocab_size=0),
    ),
    "no taps": (
        r"layers of the target to read: \[\]",
        lambda at, target: save_head(at, toy_head(A, target, 5), eagle_config={"eagle_aux_hidden_state_layer_ids": []}),
    ),
    "taps that are none": (
        "does not describe an EAGLE-3 head",
        lambda at, target: save_head(at, toy_head(C, target, 5), target_layer_ids="x"),
    ),
    "layers of another kind": (
        "has layers of 'gemma'",
        lambda at, target: save_head(at, toy_head(B, target, 5), transformer_layer_config={"model_type": "gemma"}),
    ),
    "a sliding window": (
        "slid",
        lambda at, target: save_head(
            at, toy_head(A, target, 5), sliding_window=16, use_sliding_window=True, max_window_layers=0
        ),
    ),
    "quantized": (
        "has quantized weights",
        lambda at, target: save_head(at, toy_head(A, target, 5), quantization_config={"quant_method": "fp8"}),
    ),
    "an activation": (
        "has the activation gelu",
        lambda at, target: save_head(at, toy_head(A, target, 5), hidden_act="gelu"),
    ),
    "no object": ("is not a JSON object", lambda at, target: _written(at, "[]")),
}


def _written(at: Path, text: str) -> None:
    at.mkdir()
    (at / "config.json").write_text(text)


def asked(target_dir: Path, head_dir: Path, tmp_path: Path, *more: str) -> list[str]:
    return [
        *("--target_model_name", str(target_dir), "--eagle3_dir", str(head_dir), "--drafters", "plain", "eagle3_sf"),
        *("--device", "cpu", "--max_new_tokens", "8", "--num_questions", "1", "--latency_profile", "none"),
        *("--output_dir", str(tmp_path / "out"), *more),
    ]


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_line_before_any_weight_is_loaded(
    name: str, target: torch.nn.Module, target_dir: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    message, make = BAD[name]
    make(tmp_path / "head", target)
    for module, loader in ((load, "load_hf_model"), (eagle3, "load_tensors")):
        monkeypatch.setattr(module, loader, lambda *_, **__: pytest.fail("weights were loaded"))
    assert main(asked(target_dir, tmp_path / "head", tmp_path)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in lines if "it/s" not in line]
    assert len(lines) == 1
    assert re.search(message, lines[0]), lines
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda t: t["d2t"].add_(60), "do not map its words"),
        (lambda t: t["d2t"].neg_(), "do not map its words"),
        (lambda t: t["t2d"].fill_(True), "do not map its words"),
    ],
)
def test_a_map_that_leads_nowhere(changed, message, target, target_dir: Path, tmp_path: Path, capsys) -> None:
    head = toy_head(A, target, 5, draft_vocab_size=20)
    changed(head.tensors)
    assert main(asked(target_dir, save_head(tmp_path / "head", head), tmp_path)) == 2
    assert message in capsys.readouterr().err


def test_flags_that_cannot_go_together(target_dir: Path, tmp_path: Path, capsys) -> None:
    given = asked(target_dir, tmp_path, tmp_path)
    at = given.index("--eagle3_dir")
    assert main(given[:at] + given[at + 2 :]) == 2
    assert "no EAGLE-3 head comes with the target: give --eagle3_dir FOLDER" in capsys.readouterr().err
    assert main([*given, "--verify", "trace"]) == 2
    assert "reads the target's hidden states, which no trace holds" in capsys.readouterr().err


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_is_never_executed(target, target_dir: Path, tmp_path: Path, capsys) -> None:
    head_dir = save_head(tmp_path / "head", toy_head(A, target, 5))
    (head_dir / "model.safetensors").unlink()
    torch.save({"fc.weight": Bomb(tmp_path / "boom")}, head_dir / "pytorch_model.bin")
    assert main(asked(target_dir, head_dir, tmp_path)) == 2
    assert "is not a whole file of tensors" in capsys.readouterr().err and not (tmp_path / "boom").exists()
    torch.save({"fc.weight": torch.zeros(2), "more": [1]}, head_dir / "pytorch_model.bin")
    assert main(asked(target_dir, head_dir, tmp_path)) == 2
    assert "holds more than tensors" in capsys.readouterr().err


def found(target_dir: Path, head_dir: Path) -> HeadSource:
    source = find_models({TARGET: str(target_dir), EAGLE3_HEAD: str(head_dir)})[EAGLE3_HEAD]
    assert isinstance(source, HeadSource)
    source.head.check(source, source.target)
    return source


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_both_kinds_of_files_hold_the_same(suffix: str, target, target_dir: Path, tmp_path: Path) -> None:
    head = toy_head(B, target, 5, draft_vocab_size=20)
    source = found(target_dir, save_head(tmp_path / "head", head, suffix=suffix))
    loaded = load_tensors(source.shapes, list(head.tensors))
    assert loaded.keys() == head.tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in head.tensors.items())
    assert source.num_parameters == sum(tensor.numel() for tensor in head.tensors.values())


def test_a_verifier_by_any_of_its_names(target, target_dir: Path, tmp_path: Path) -> None:
    for name in ("org/Toy-1B", "somewhere/toy-1b/"):
        config = {"speculators_config": {"verifier": {"name_or_path": name}}}
        found(target_dir, save_head(tmp_path / "head", toy_head(B, target, 5), **config))
    renamed = save_model(tmp_path / "copy", target)
    edit_config(renamed, _name_or_path="org/Toy-1B")
    found(renamed, tmp_path / "head")


@pytest.mark.parametrize(
    ("layout", "stated", "taps"),
    [
        (A, {"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 11, 21]}}, (1, 11, 21)),
        (A, {"eagle_config": None}, (1, 11, 20)),
        (B, {"eagle_aux_hidden_state_layer_ids": [2, 12, 21]}, (1, 11, 20)),
        (B, {"eagle_aux_hidden_state_layer_ids": None}, (1, 11, 20)),
        (C, {"target_layer_ids": [1, 6, 11, 16, 20]}, (1, 6, 11, 16, 20)),
    ],
)
def test_taps_are_outputs_of_layers_whatever_a_layout_counts(
    layout: str, stated: dict, taps: tuple[int, ...], target, target_dir: Path, tmp_path: Path
) -> None:
    """Of a target of 24 layers."""
    source = find_models({TARGET: str(target_dir), EAGLE3_HEAD: str(save_head(tmp_path, toy_head(layout, target, 5)))})
    role = source[EAGLE3_HEAD]
    assert isinstance(role, HeadSource)
    role.target.config["num_hidden_layers"] = 24
    role.config.clear()
    role.config.update(config_of(toy_head(layout, target, 5), **stated))
    assert role.head.taps == taps


def test_what_transformers_leaves_out_of_a_config_has_its_defaults(target, tmp_path: Path, target_dir: Path) -> None:
    """Layer settings of speculators are written without what is a class's default."""
    head = toy_head(B, target, 5, qwen3=True)
    layer = {
        k: v for k, v in config_of(head)["transformer_layer_config"].items() if k not in ("head_dim", "hidden_act")
    }
    save_head(tmp_path / "head", head, transformer_layer_config=layer)
    source = find_models({TARGET: str(target_dir), EAGLE3_HEAD: str(tmp_path / "head")})[EAGLE3_HEAD]
    with pytest.raises(UserError, match=r"k_proj.weight is \[16, 64\], and its config.json says \[256, 64\]"):
        source.head.check(source, source.target)  # 128 values a head


def test_a_header_that_lies_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    for data in (b"", b"\x00" * 8, (1 << 40).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"):
        file.write_bytes(data)
        with pytest.raises(UserError, match="not a whole file"):
            shapes_in([file])
    save_file({"a": torch.zeros(3)}, file)
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 10**9]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    with pytest.raises(UserError, match="not a whole file"):
        shapes_in([file])
