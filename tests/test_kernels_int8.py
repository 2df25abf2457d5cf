"""The Triton kernels over weights in 8 bits against the plain operations (those in full: `test_kernels.py`).

On a GPU also whole networks of such weights, in recorded passes, against the eager backend.
"""

from __future__ import annotations

import copy
import math
import random

import pytest
import torch
from kernel_toys import DEVICE, IS_GPU, assert_near, dtype, streams
from toys import random_ids, toy_model

from specdec.models.graph import reference as plain
from specdec.models.graph.graph_lm import INITIAL_CAPACITY, GraphLM
from specdec.models.graph.kernels import GpuOperations
from specdec.models.graph.network import LibraryProducts, Place
from specdec.models.graph.plans import BackendOptions, Plan, plan_int8
from specdec.models.graph.products import FusedProducts
from specdec.models.int8 import Int8Matrix, quantised
from specdec.models.lm import CachedLM

__all__ = ["dtype"]  # a fixture
DTYPES = (torch.float32, torch.bfloat16)


def matrix(outer: int, inner: int) -> Int8Matrix:
    """Rows of very different sizes."""
    return Int8Matrix.of(torch.randn(outer, inner) * torch.rand(outer, 1) * 2 / inner**0.5)


def on_device(w: Int8Matrix) -> Int8Matrix:
    return Int8Matrix(w.values_NK.to(DEVICE), w.scale_N.to(DEVICE))


@pytest.mark.parametrize("rows", [1, 16, 40, 64, 96, 264] if IS_GPU else [1, 40, 130])
@pytest.mark.parametrize(("inner", "outer"), [(96, 80), (2048, 192)][: 1 + IS_GPU])
@pytest.mark.parametrize("is_biased", [True, False])
def test_scaled_product(dtype, rows: int, inner: int, outer: int, is_biased: bool) -> None:
    """Twice: splits leave their workspace clean."""
    x, w = torch.randn(rows, inner).to(dtype), matrix(outer, inner)
    bias = torch.randn(outer).to(dtype) if is_biased else None
    operations, bias_there = GpuOperations(True), None if bias is None else bias.to(DEVICE)
    for _ in range(2):
        got = operations.scaled_product(x.to(DEVICE), on_device(w), bias_there)
        assert_near(got, plain.scaled_product(x, w, bias))


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("rows", "num_tokens", "first"), [(1, 1, 0), (32, 20, 32)])
@pytest.mark.parametrize("is_biased", [True, False])
def test_queries_product(dtype, splits: int, rows: int, num_tokens: int, first: int, is_biased: bool) -> None:
    ours, theirs, fused, library = streams(dtype, rows, 192)
    heads, kv_heads, size = 4, 2, 16
    outer = (heads + 2 * kv_heads) * size
    fused.plans["rotated", rows, outer, 192] = Plan(64, 32, splits)
    w, angles = matrix(outer, 192), torch.rand(64, size // 2) * 6
    bias, cache = torch.randn(outer).to(dtype) if is_biased else None, torch.randn(2, kv_heads, 64, size).to(dtype)
    place = (torch.stack((angles.cos(), angles.sin())), cache, torch.tensor([first, num_tokens, 1, -1]))
    there = Place(*(tensor.to(DEVICE, copy=True) for tensor in place))
    got = fused.queries(ours, on_device(w), None if bias is None else bias.to(DEVICE), there)
    assert_near(got, library.queries(theirs, w, bias, Place(*place)))
    assert_near(there.cache_2GPD, cache)


@pytest.mark.parametrize("splits", [1, 2, 7])
@pytest.mark.parametrize("rows", [1, 16, 64])
@pytest.mark.parametrize(("inner", "outer"), [(576, 192), (1024, 80)][: 1 + IS_GPU])
def test_add_and_gated_products(dtype, splits: int, rows: int, inner: int, outer: int) -> None:
    """Twice: the workspace is left clean."""
    ours, theirs, fused, library = streams(dtype, rows, outer)
    fused.plans["add", rows, outer, inner] = Plan(64, 32, splits)
    fused.plans["gated", rows, 128, outer] = Plan(64, 16 if outer % 32 else 32)
    y, norm = torch.randn(rows, inner).to(dtype), (1 + 0.1 * torch.randn(outer)).to(dtype)
    w, then = matrix(outer, inner), matrix(128, outer)
    for _ in range(2):
        fused.add(ours, y.to(DEVICE), on_device(w), norm.to(DEVICE))
        library.add(theirs, y, w, norm)
        assert_near(ours.hidden_MC, theirs.hidden_MC)
        got = fused.gated(ours, on_device(then))
        assert_near(got, library.gated(theirs, then))


def test_plans_divide_what_they_cut() -> None:
    for rows in (1, 16, 32, 64, 96, 264, 512):
        for inner in (32, 96, 896, 4096, 27648):
            for kind in ("rotated", "gated", "add", "scaled"):
                plan = plan_int8(kind, rows, 5120, inner)
                assert inner % plan.block_k == 0 and plan.splits >= 1


@pytest.mark.parametrize("is_fused", [True, False], ids=["fused", "library"])
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_a_whole_model_on_the_kernels(architecture: str, is_fused: bool) -> None:
    model = toy_model(architecture, 7, scale=2.0, hidden_size=64, tie=architecture == "qwen2").to(DEVICE)
    model = quantised(model, torch.device(DEVICE))
    eager, graph = CachedLM(model), GraphLM(model)
    graph._operations = GpuOperations(True)
    graph._library = LibraryProducts(graph._operations)
    graph._fused = FusedProducts(True) if is_fused else None
    graph._allocate(INITIAL_CAPACITY)
    for step, count in enumerate([64, 1, 9]):
        tokens = random_ids(step, count)
        got, want = (lm.forward(tokens, taps=(1, 0)) for lm in (graph, eager))
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
        for lm in (eager, graph):
            lm.commit(count)
        torch.testing.assert_close(graph.features, eager.features, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not IS_GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("architecture", ["qwen2", "llama", "qwen3"])
@pytest.mark.parametrize("kept_in", DTYPES, ids=str)
@pytest.mark.parametrize("fused_up_to", [0, 64])
def test_recorded_passes_agree_with_the_eager_backend(
    architecture: str, kept_in: torch.dtype, fused_up_to: int
) -> None:
    """Chains and trees of every padded size, and taps. Neither is the truth in bfloat16: both are compared with the
    same weights in float32, from which rounding takes the graph backend no further than the eager one."""
    own = toy_model(architecture, 5, scale=2.0, hidden_size=128).to("cuda", kept_in)
    exact = CachedLM(quantised(copy.deepcopy(own).float(), torch.device("cuda")))
    model = quantised(own, torch.device("cuda"))
    eager, graph = CachedLM(model), GraphLM(model, options=BackendOptions(fused_up_to=fused_up_to))
    rng, errors = random.Random(3), []
    for step, count in enumerate([600, 1, 2, 5, 16, 33, 64, 70, 96, 130, 257, 3]):
        tokens, is_tree = random_ids(step, count), step % 2 and count < 264
        parents = [rng.randint(max(-1, row - 5), row - 1) for row in range(count)] if is_tree else None
        logits = [lm.forward(tokens, parents=parents, taps=(1, 0)).float() for lm in (exact, eager, graph)]
        for lm in (exact, eager, graph):
            lm.commit(1 if is_tree else count)
        taps = [lm.features.float() for lm in (exact, eager, graph)]
        errors += [[((one - found[0]).norm() / found[0].norm()).item() for one in found] for found in (logits, taps)]
    for _, of_eager, of_graph in errors:
        assert of_graph < (1e-4 if kept_in == torch.float32 else 1e-3 + 2 * of_eager), errors
    of_eager, of_graph = (math.hypot(*(one[index] for one in errors)) for index in (1, 2))
    assert of_graph < (1e-3 if kept_in == torch.float32 else 1.2 * of_eager), errors
