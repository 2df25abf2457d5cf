"""Roofline: the bound by hand, against what was measured on an H200, and that every table says what it is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from samples import make_record

from profiling import roofline
from profiling.head_bounds import HEADS, HeadShape, head_pass_ms
from profiling.roofline import GPUS, OTHERS, SHAPES, Gpu, Machine, find_shape, gpu_of, num_flops, values_moved
from scripts import bounds
from specdec.latency import profile as latency
from specdec.latency.pricing import Pricing
from specdec.latency.profile import PROFILE_DIR, known_profiles, load_profile, shipped_profiles
from specdec.models.checkpoints import TARGET, ModelSource
from specdec.models.graph.graph_lm import TOKEN_COUNTS
from specdec.ranking import entries
from specdec.views import tables
from specdec.views.captions import profile_words

H200 = Machine(GPUS["H200"], 2)
# Measured on an H200 for this project in bfloat16 with random weights at 512 tokens of context (transformers 5.17,
# torch 2.11), ms per pass by its tokens: modules run eagerly, and a CUDA graph over the same modules.
MEASURED_H200 = {
    "SmolLM2-135M": {"eager": {1: 16.7, 64: 26.3}, "graph": {1: 3.1, 32: 4.0, 64: 4.1}},
    "Qwen2.5-1.5B": {"eager": {1: 25.1, 64: 20.5}, "graph": {1: 4.1, 32: 5.2, 64: 5.3}},
    "Qwen2.5-7B": {"eager": {1: 18.9, 64: 22.3}, "graph": {1: 7.4, 32: 8.7, 64: 8.7}},
}


@pytest.fixture
def profile_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(latency, "WRITTEN_DIR", tmp_path)
    return tmp_path


def model(**changes: object) -> ModelSource:
    config = {"model_type": "llama", "vocab_size": 10, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": False}
    return ModelSource(TARGET, "m", Path(), {**config, **changes})


def test_bytes_and_products_by_hand():
    # a layer: q and o 2 x 4 x 4, k and v 2 x 4 x 2, MLP 3 x 4 x 6, norms 2 x 4 = 128; then the last norm and the head
    layers, head = 2 * (32 + 16 + 72 + 8) + 4, 40
    kv = 2 * 2 * 1 * 2
    assert values_moved(model(), 3, 100) == layers + head + 3 * 4 + kv * 103
    assert values_moved(model(tie_word_embeddings=True), 3, 100) == layers + head + kv * 103
    pairs = 3 * 100 + 1 + 2 + 3
    assert num_flops(model(), 3, 100, 2) == 2 * layers * 3 + 2 * head * 2 + 4 * 2 * 4 * pairs


def test_a_heads_pass_by_hand():
    """Its layers and norm, its output head, keys and values of its layers alone, and what takes the features in."""
    head = HeadShape(num_layers=1, num_taps=2, num_tokens=3, is_wide=True, most_words=7)
    kv, features, wide = 2 * 1 * 2, 2 * 4 * 4, 4 * (2 + 2) * 2
    values = 128 + 4 + 7 * 4 + 3 * 4 + kv * 103 + features + wide
    reading = Machine(Gpu(1e-9, 1e6, 1, ""), 2)
    assert head_pass_ms(reading, head, model(), 100) == pytest.approx(2 * values)
    assert head_pass_ms(reading, head, model(tie_word_embeddings=True), 100) == pytest.approx(2 * values)
    for name in SHAPES.keys() - {"tiny", "SmolLM2-135M"}:
        target = find_shape(TARGET, name)
        dflash, eagle3 = (head_pass_ms(H200, one, target, 512) for one in HEADS.values())
        assert eagle3 < dflash < H200.pass_ms(target, 1, 512), name


def test_the_papers_profile_prices_heads_as_it_does_targets():
    """By the line that fits its targets best: ms over the weights that a pass reads."""
    profile, reading = load_profile("vLLM_A6000"), Machine(Gpu(1e-3, 1e9, 1, ""), 1)  # a billion weights a second
    targets = {name: find_shape(TARGET, name) for name in profile.target_ms_per_token}
    weights = [1e-9 * target.num_parameters for target in targets.values()]
    slope, start = np.polyfit(weights, list(profile.target_ms_per_token.values()), 1)
    for family, head in HEADS.items():
        for name, target in targets.items():
            ms = start + slope * 1e-3 * head_pass_ms(reading, head, target, 0)
            assert profile.pass_ms(family, name) == pytest.approx(ms, abs=0.006)


def test_a_pass_takes_the_longer_of_reading_and_multiplying():
    reading, multiplying = Gpu(1e-9, 1e6, 1, ""), Gpu(1e6, 1e-9, 1, "")
    assert Machine(reading, 2).pass_ms(model(), 3, 100) == pytest.approx(2 * values_moved(model(), 3, 100))
    assert Machine(multiplying, 2).pass_ms(model(), 3, 100) == pytest.approx(num_flops(model(), 3, 100, 3))
    big = find_shape(TARGET, "Qwen2.5-32B-Instruct")
    assert H200.pass_ms(big, 1, 512) == pytest.approx(H200.pass_ms(big, 64, 512), rel=0.01)  # bound by memory
    assert H200.pass_ms(big, 1024, 512) > 2 * H200.pass_ms(big, 1, 512)
    assert H200.pass_ms(big, 1, 4096) > H200.pass_ms(big, 1, 512)


def test_shapes_have_the_sizes_of_their_names():
    billions = {"Qwen2.5-0.5B": 0.494, "Qwen2.5-1.5B": 1.54, "Qwen2.5-7B": 7.62, "Qwen2.5-14B": 14.8}
    billions |= {"Qwen2.5-32B": 32.8, "SmolLM2-135M": 0.135}
    billions |= {"Qwen3-8B": 8.19, "Qwen3-14B": 14.77, "Qwen3-32B": 32.76, "Llama-3.1-8B-Instruct": 8.03}
    assert {name for name in OTHERS if not name.startswith("tiny")} <= set(billions)
    for name, expected in billions.items():
        assert 1e-9 * find_shape(TARGET, name).num_parameters == pytest.approx(expected, rel=0.01)


def test_gpus_are_known_by_their_drivers_names():
    names = ["NVIDIA H100 80GB HBM3", "NVIDIA RTX A6000", "NVIDIA A100-SXM4-80GB", "NVIDIA GH200 480GB", "Tesla T4"]
    assert [gpu_of(name) for name in names] == ["H100", "RTX_A6000", "A100", None, None]


@pytest.mark.parametrize("name", MEASURED_H200)
def test_the_bound_is_below_every_measured_pass(name):
    for times in MEASURED_H200[name].values():
        for num_tokens, ms in times.items():
            assert H200.pass_ms(find_shape(TARGET, name), num_tokens, 512) < ms


def test_the_bound_is_not_far_below_what_memory_was_measured_to_give():
    """4.2 of the 4.8 TB/s: reading all weights took no less than 3.63 ms by a copy's bandwidth (7B)."""
    assert 3.63 / 1.4 < H200.pass_ms(find_shape(TARGET, "Qwen2.5-7B"), 1, 512) < 3.63


def measured_passes() -> list[tuple[str, str, str, int, int, float, str]]:
    """Every pass that a profile of the project was made of, if it names a GPU of the table and a shape."""
    found = []
    for profile in map(load_profile, known_profiles()):
        gpu = gpu_of(str(profile.provenance.get("device_name", "")))
        engine, dtype = str(profile.provenance.get("engine")), profile.provenance.get("dtype")
        for part in profile.provenance.get("details", {}).values() if gpu and dtype == "bfloat16" else ():
            for context, passes in part["by_context"].items() if part["model"] in SHAPES else ():
                for count in (name for name in passes if name.startswith("verify(")):
                    num_tokens = int(count.removeprefix("verify(").removesuffix(")"))
                    ms = passes[count]["ms"]
                    found.append((profile.name, gpu, part["model"], num_tokens, int(context), ms, engine))
    return found


def test_the_bound_is_below_every_profile_of_the_project_and_near_its_engine():
    """The engine's own passes (graph) are near the bound; other engines' only above it.

    The goal is 2.5 times. A small model's pass waits for its layers, one after the other, more than for memory:
    Qwen2.5-1.5B takes 2.6 times the bound for 96 tokens on an H100. The H200's profile is of kernels that did not
    overlap yet: 2.7 times for 64 tokens and 3.2 for 96.
    """
    near = {("H100", 96): 2.6, ("H200", 64): 2.8, ("H200", 96): 3.3}
    passes = measured_passes()
    assert {shape for _, _, shape, *_ in passes} >= {"Qwen2.5-1.5B", "Qwen2.5-7B"}
    for name, gpu, shape, num_tokens, context, ms, engine in passes:
        bound = Machine(GPUS[gpu], 2).pass_ms(find_shape(TARGET, shape), num_tokens, context)
        assert bound < ms, (name, shape, num_tokens, context)
        padded = next(count for count in TOKEN_COUNTS if num_tokens <= count)
        most = near.get((gpu, padded), 2.5) if shape == "Qwen2.5-1.5B" else 2.5
        assert engine != "graph" or ms < most * bound, (name, shape, num_tokens, context, ms / bound)


def test_a_profile_of_bounds_says_so_in_every_table(profile_dir, capsys):
    assert roofline.main(["--gpu", "H200", "--targets", "Qwen2.5-32B", "--write_profile", "bound"]) == 0
    output = capsys.readouterr()
    assert output.err.count("(roofline, not measured)") == 2
    profile = load_profile("bound")
    assert json.loads(output.out)["name"] == profile.name == "bound"  # all of it: `roofline > FILE` is a profile
    assert profile.provenance["source"] == "roofline" and profile.title == "bound (roofline)"
    assert profile.ar_draft_pass_ms <= profile.draft_pass_ms < profile.target_ms_per_token["Qwen2.5-32B-Instruct"]
    record = make_record()
    pricing = Pricing((profile,))
    assert list(pricing.prices(record)) == ["bound (roofline) as if Qwen2.5-32B-Instruct"]
    text = tables.ranking_report([entries.entry_of(record, pricing)])
    assert (
        "bound (roofline) as if Qwen2.5-32B-Instruct: lower bounds of every pass, calculated and not measured" in text
    )


@pytest.mark.parametrize("gpu", bounds.COMMON)
def test_bounds_that_come_along_are_what_roofline_calculates(gpu):
    assert (PROFILE_DIR / f"{gpu}_bound.json").read_text(encoding="utf-8") == bounds.text(gpu)


def test_every_bound_that_comes_along_is_called_one_and_the_only_ones():
    shipped = [load_profile(name) for name in shipped_profiles()]
    assert {one.name for one in shipped if one.is_bound} == {f"{gpu}_bound" for gpu in bounds.COMMON}
    for one in shipped:
        assert one.title.endswith(" (roofline)") == profile_words(one.title).endswith(" (bound)") == one.is_bound
    targets = {gpu: set(load_profile(f"{gpu}_bound").target_ms_per_token) for gpu in bounds.COMMON}
    sizes = {"Qwen2.5-7B-Instruct", "Qwen2.5-14B-Instruct", "Qwen3-8B", "Qwen3-14B", "Llama-3.1-8B-Instruct"}
    assert all(sizes <= known for known in targets.values())
    assert [gpu for gpu, known in targets.items() if {"Qwen2.5-32B-Instruct", "Qwen3-32B"} <= known] == [
        *("A100", "H100", "H200")  # 66 GB do not fit on an A6000
    ]


def test_a_bound_replaces_a_bound_and_nothing_else(profile_dir, capsys):
    flags = ["--memory_TB_per_s", "1", "--dense_TFLOP_per_s", "100", "--targets", "tiny", "--write_profile", "mine"]
    assert roofline.main(flags) == 0 and roofline.main(flags) == 0
    measured = {"name": "mine", "draft_pass_ms": 2.0, "target_ms_per_token": {"a": 9.0}, "provenance": {}}
    (profile_dir / "mine.json").write_text(json.dumps(measured))
    capsys.readouterr()
    assert roofline.main(flags) == 2
    assert "is not a roofline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ([], "give either --gpu"),
        (["--gpu", "H200", "--memory_TB_per_s", "1"], "give either --gpu"),
        (["--memory_TB_per_s", "1"], "give either --gpu"),
        (["--memory_TB_per_s", "-1", "--dense_TFLOP_per_s", "nan"], "positive"),
        (["--gpu", "H200", "--contexts", "-1"], "contexts 0 or more"),
        (["--gpu", "RTX_4090", "--targets", "Qwen2.5-32B"], "66 GB of weights and the GPU 24 GB"),
        (["--gpu", "H200", "--targets", "no/such/model/here"], "give --target_model_name a local folder"),
    ],
)
def test_what_cannot_be_reckoned_is_one_line(flags, why, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert roofline.main(flags) == 2
    error = capsys.readouterr().err
    assert why in error and error.count("\n") == 1


def test_models_of_a_folder_are_found_by_their_config(family_folder):
    flags = argparse.Namespace(
        write_profile=None,
        drafter="tiny",
        ar_drafter=None,
        targets=[str(family_folder)],
        contexts=[64],
        heads=False,
        gpu="A100",
        dtype="float32",
    )
    fields = roofline.bounds(flags, Machine(GPUS["A100"], 4))
    assert list(fields["target_ms_per_token"]) == [family_folder.name]


def test_passes_of_heads_over_several_requests_are_priced_where_asked(profile_dir, capsys):
    assert roofline.main(["--gpu", "H100", "--targets", "Qwen3-8B", "--heads", "--write_profile", "own"]) == 0
    profile = load_profile("own")
    assert profile.rows is not None
    for name in HEADS:
        rows = profile.rows.passes[name]
        assert rows.at([1], [1], [512])[0, 0, 0] == pytest.approx(profile.pass_ms(name, "Qwen3-8B"), rel=1e-3)
        assert rows.ms[-1][0][0] > rows.ms[0][0][0]
    along = load_profile("H100_bound")
    assert along.rows is not None and not {*HEADS} & {*along.rows.passes}


@pytest.fixture
def family_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "big"
    folder.mkdir()
    config = {**vars(SHAPES["tiny"]), "model_type": "qwen2", "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
