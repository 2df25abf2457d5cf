"""Targets in 8 bits: what is rounded and how, that every backend and drafter writes what plain decoding of the same
weights writes, that nothing takes such a target for the one in full, and what is refused."""

from __future__ import annotations

import copy
import json
import weakref
from pathlib import Path

import pytest
import torch
from dflash_heads import save_dflash, toy_dflash
from families import flags, save_family, save_model
from heads import save_head, toy_head
from test_tree_verification import path_to
from toys import random_ids, toy_model
from transformers import PreTrainedModel

from failfast import main
from profiling import profile_engine
from specdec.drafters.ar import AR_DRAFTER
from specdec.drafters.plain import PLAIN
from specdec.errors import UserError
from specdec.models import joined, room
from specdec.models.checkpoints import INT8, TARGET, ModelSource, find_model
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.int8 import MOST, Int8Linear, Int8Matrix, is_quantised, quantised
from specdec.models.lm import CachedLM
from specdec.models.load import load_lm
from specdec.models.room import kept_as, require_room
from specdec.records.places import load_records

pytestmark = pytest.mark.slow
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
DENSE = ("qwen2", "llama", "mistral", "qwen3", "phi3", "gemma3_text")
QWEN_32B = {  # from the config.json of Qwen/Qwen2.5-32B-Instruct
    **{"model_type": "qwen2", "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64},
    **{"num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064, "tie_word_embeddings": False},
}


@pytest.fixture(autouse=True)
def toy_heads(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8, 16))


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("family"))


def in_8_bits(model: PreTrainedModel) -> PreTrainedModel:
    return quantised(copy.deepcopy(model), CPU)


def rounded(model: PreTrainedModel) -> PreTrainedModel:
    """The same network with every weight of the layers rounded, and kept in full."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name.endswith("proj.weight"):
                scale_N1 = parameter.abs().amax(1, keepdim=True) / MOST
                parameter.copy_((parameter / scale_N1).round() * scale_N1)
    return twin


def test_a_matrix_is_rounded_to_the_nearest_by_row() -> None:
    torch.manual_seed(0)
    weight = torch.randn(20, 50) * torch.logspace(-8, 8, 20)[:, None]
    made = Int8Matrix.of(weight)
    error = (made.values_NK * made.scale_N[:, None] - weight).abs()
    assert (error <= 0.501 * weight.abs().amax(1, keepdim=True) / MOST).all()
    assert made.values_NK.abs().amax(1).tolist() == [MOST] * 20 and len(made) == 20 and made.shape == (20, 50)
    assert Int8Matrix.of(torch.tensor([[-254.0, 1.0, 3.0]])).values_NK.tolist() == [[-127, 0, 2]]


def test_what_is_zero_stays_zero_and_what_is_damaged_stays_damaged() -> None:
    rows = torch.tensor([[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0], [2.0, -1.0]])
    out = Int8Matrix.of(rows).product(torch.ones(1, 2))[0]
    assert out[0] == 0 and not out[1:3].isfinite().any() and out[3] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_product_is_that_of_the_rounded_weights(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x, made, bias = torch.randn(3, 7, 64).to(dtype), Int8Matrix.of(torch.randn(32, 64)), torch.randn(32).to(dtype)
    out = made.product(x, bias)
    want = x.double() @ (made.values_NK.double() * made.scale_N.double()[:, None]).T + bias.double()
    assert out.dtype == dtype and out.shape == (3, 7, 32)
    assert (out.double() - want).norm() < {torch.float32: 1e-6, torch.bfloat16: 4e-3}[dtype] * want.norm()


@pytest.mark.parametrize("architecture", DENSE)
def test_layers_alone_are_in_8_bits_and_give_what_the_rounded_weights_give(architecture: str) -> None:
    model = toy_model(architecture, 3, scale=2.0)
    made, want = in_8_bits(model), rounded(model)
    assert is_quantised(made) and not is_quantised(model)
    kinds = {name: one.dtype for name, one in made.named_parameters()}
    assert {one for name, one in kinds.items() if name.endswith("proj.weight")} == {torch.int8}
    assert all(one == torch.float32 for name, one in kinds.items() if not name.endswith("proj.weight"))
    assert made.dtype == torch.float32 and not isinstance(made.get_output_embeddings(), Int8Linear)
    lm, other = CachedLM(made), CachedLM(want)
    for step, count in enumerate((30, 1, 9)):
        tokens = random_ids(step, count)
        got, expected = (one.forward(tokens, taps=(1, 0)) for one in (lm, other))
        torch.testing.assert_close(got, expected, **TOLERANCE)
        for one in (lm, other):
            one.commit(count)
        torch.testing.assert_close(lm.features, other.features, **TOLERANCE)


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "mistral", "qwen3"])
def test_the_graph_backend_gives_the_same_logits_and_taps(architecture: str) -> None:
    model = in_8_bits(toy_model(architecture, 3, scale=2.0))
    eager, graph = CachedLM(copy.deepcopy(model)), GraphLM(model)
    assert all(isinstance(layer.qkv_NC, Int8Matrix) for layer in graph.weights.layers)
    for step, count in enumerate((30, 1, 9)):
        tokens, parents = random_ids(step, count), range(-1, count - 1) if step == 2 else None
        got, want = (lm.forward(tokens, parents=parents, taps=(1, 0)) for lm in (graph, eager))
        torch.testing.assert_close(got, want, **TOLERANCE)
        for lm in (eager, graph):
            lm.commit(count if parents is None else path_to(count - 1, parents))
        torch.testing.assert_close(graph.features, eager.features, **TOLERANCE)


def test_matrices_in_full_are_let_go_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model("qwen2", 3)
    matrices = [weakref.ref(one.weight) for one in model.model.modules() if isinstance(one, torch.nn.Linear)]
    alive, of = [], Int8Matrix.of

    def counted(weight: torch.Tensor) -> Int8Matrix:
        alive.append(sum(one() is not None for one in matrices))
        return of(weight)

    monkeypatch.setattr(Int8Matrix, "of", counted)
    quantised(model, CPU)
    assert alive == [*range(len(matrices), 0, -1)] or alive == [len(matrices), *range(len(matrices), 1, -1)]


def test_joined_layers_step_aside() -> None:
    model = in_8_bits(toy_model("llama", 1))
    assert joined.body_of(model) is model.get_submodule("model")
    with pytest.raises(TypeError, match="in full"):
        joined.JoinedBody(model.get_submodule("model"), joined.join_weights(model, None))


def test_loading_rounds_a_checkpoint(family: dict[str, Path]) -> None:
    source = kept_as(find_model(TARGET, str(family["target"])), INT8, torch.float32)
    lms = [load_lm(source, CPU, torch.float32, backend=backend) for backend in ("eager", "graph")]
    want = CachedLM(rounded(load_lm(find_model(TARGET, str(family["target"])), CPU, torch.float32).model))
    for lm in lms:
        assert is_quantised(lm.model)
        tokens = random_ids(1, 20, vocab_size=60)
        torch.testing.assert_close(lm.forward(tokens), want.forward(tokens), **TOLERANCE)


def test_every_drafter_writes_what_plain_decoding_of_the_same_weights_writes(family, tmp_path) -> None:
    """Heads over it as well; records of the target in full, in the same folder, are other records of another target."""
    target = toy_model("qwen2", 1, scale=4.0)
    eagle3 = save_head(tmp_path / "eagle3", toy_head("safeailab", target, 5))
    dflash = save_dflash(tmp_path / "dflash", toy_dflash("DFlashDraftModel", target, 5, taps=(0,), block_size=11))
    out, names = tmp_path / "out", ("plain", "ar_sf", "failfast", "lookup", "eagle3_sf", "dflash_sf")
    asked = ["--num_questions", "2", "--eagle3_dir", str(eagle3), "--dflash_dir", str(dflash), "--drafters", *names]
    asked = [*flags(family, out, *asked), "--latency_profile", "none"]
    for more in ([], ["--target_weights", "int8"], ["--target_weights", "int8", "--engine", "graph", "--overwrite"]):
        assert main([*asked, *more]) == 0
        records = load_records(out)
        own = [one for one in records if one.identity.settings.get("target_weights") == ("int8" if more else None)]
        assert len(own) == 2 * len(names)
        assert {one.identity.target for one in own} == {"target-int8" if more else "target"}
        drafted = [one for one in own if one.drafter_name != PLAIN]
        assert {one.divergence.kind for one in drafted if one.divergence is not None} <= {"exact", "tie"}
        assert all(one.divergence is not None for one in drafted)
    assert main(["--read_pickle", *asked, "--target_weights", "int8"]) == 0


def test_a_ranking_tells_the_two_apart(family, tmp_path, capsys) -> None:
    asked = [*flags(family, tmp_path, "--num_questions", "2", "--drafters", "plain", "ar_sf")]
    for more in ([], ["--target_weights", "int8"]):
        assert main([*asked, "--latency_profile", "none", *more]) == 0
    capsys.readouterr()
    assert main(["rank", str(tmp_path), "--latency_profile", "none", "--json"]) == 0
    by_target = json.loads(capsys.readouterr().out)["data_sets"]
    assert [one["target"] for one in by_target] == ["target", "target-int8"]


BAD = {
    ("--target_weights", "int8", "--dtype", "float16"): "float16 do not go together",
    ("--target_weights", "int4"): "invalid choice",
}


@pytest.mark.parametrize("words", BAD, ids=" ".join)
def test_what_cannot_be_is_one_line(family, tmp_path, capsys, words: tuple[str, ...]) -> None:
    try:
        status = main([*flags(family, tmp_path, "--num_questions", "1", "--drafters", "plain"), *words])
    except SystemExit as error:
        status = error.code
    assert status == 2 and BAD[words] in capsys.readouterr().err.strip().split("\n")[-1]
    assert not list(tmp_path.glob("pickles"))


def test_a_profile_of_it_prices_it_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Its entry is what its records call it, and its passes are those of weights in 8 bits."""
    settings = profile_engine.Settings(CPU, torch.float32, "eager", 64, INT8)
    assert settings.entry("tiny") == "tiny-Instruct-int8"
    for role in (TARGET, AR_DRAFTER):
        lm = profile_engine.make_lm("tiny", role, settings)
        assert is_quantised(lm.model) == (role is TARGET)
    assert profile_engine.main(["--rows", "--target_weights", "int8", "--device", "cpu", "--targets", "tiny"]) == 2
    assert "leave out it or --target_weights int8" in capsys.readouterr().err


def test_experts_are_refused(tmp_path) -> None:
    source = find_model(TARGET, str(save_model(tmp_path / "moe", toy_model("qwen3_moe", 1))))
    with pytest.raises(UserError, match="has experts, which are not kept in 8 bits: leave out"):
        kept_as(source, INT8, torch.float32)


def test_a_32b_needs_less_than_40_gb_and_what_has_no_room_is_refused_before_it_loads(monkeypatch) -> None:
    source = ModelSource(TARGET, "Qwen2.5-32B", Path("x"), QWEN_32B)
    small = kept_as(source, INT8, torch.bfloat16)
    assert 34e9 < small.weight_bytes(2) < 35e9 and source.weight_bytes(2) == 2 * source.num_parameters > 65e9
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(room.torch.cuda, "mem_get_info", lambda _: (40 * 10**9, 40 * 10**9))
    require_room(small, CUDA, torch.bfloat16)
    with pytest.raises(
        UserError, match=r"takes 65.5 GB .* 40.0 GB free: add --target_weights int8 \(34.3 GB\), or a GPU"
    ):
        require_room(source, CUDA, torch.bfloat16)
    monkeypatch.setattr(room.torch.cuda, "mem_get_info", lambda _: (24 * 10**9, 24 * 10**9))
    with pytest.raises(UserError, match=r"34.3 GB with layers in int8, the rest in bfloat16, .*: choose a smaller"):
        require_room(small, CUDA, torch.bfloat16)
    require_room(source, CPU, torch.bfloat16)


def test_what_is_reckoned_is_what_is_held() -> None:
    for architecture in DENSE:
        model = toy_model(architecture, 1, tie=architecture == "qwen2")
        source = ModelSource(TARGET, "toy", Path("x"), model.config.to_dict(), kept_as=INT8)
        held = {name: one for name, one in in_8_bits(model).named_parameters() if not name.endswith(".scale")}
        want = sum(one.numel() * one.element_size() for one in held.values())
        assert source.weight_bytes(4) == want, architecture
