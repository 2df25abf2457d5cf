"""The Triton kernels against the plain operations: on a GPU if there is one, else in Triton's interpreter.

Neither comes with the CPU environment: `pip install triton` and TRITON_INTERPRET=1 run them without a GPU.
"""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch
from kernel_toys import (
    DEVICE,
    HALF,
    IS_GPU,
    TOLERANCE,
    assert_adds,
    assert_near,
    compare,
    dtype,
    random_branches,
    streams,
)
from planned import run_by_plans
from test_tree_verification import path_to
from toys import random_ids, toy_model

from specdec.models.graph import plans
from specdec.models.graph import reference as plain
from specdec.models.graph.branches import Branches
from specdec.models.graph.graph_lm import INITIAL_CAPACITY, GraphLM
from specdec.models.graph.kernels import GpuOperations
from specdec.models.graph.network import LibraryProducts, Place
from specdec.models.graph.plans import BackendOptions, Plan, plan_rows
from specdec.models.graph.products import FusedProducts
from specdec.models.graph.weights import HEAD_SIZES
from specdec.models.int8 import Int8Matrix
from specdec.models.lm import CachedLM

__all__ = ["dtype"]  # a fixture


@pytest.mark.parametrize(("rows", "size"), [(1, 64), (5, 192), (32, 100)])
def test_receive(dtype, rows: int, size: int) -> None:
    sent, inputs = torch.randint(0, 50, (2 * 32 + 4,)), torch.zeros(2 * 32 + 4, dtype=torch.long)
    if DEVICE == "cuda":
        sent = sent.pin_memory()
    embedding, hidden = torch.randn(50, size).to(dtype), torch.zeros(rows, size, dtype=dtype)
    ours = [tensor.to(DEVICE, copy=True) for tensor in (inputs, embedding, hidden)]
    GpuOperations(True).receive(sent, *ours)
    plain.receive(sent, inputs, embedding, hidden)
    for got, want in zip(ours, (inputs, embedding, hidden), strict=True):
        assert torch.equal(got.cpu(), want)


@pytest.mark.parametrize(("rows", "size"), [(1, 64), (5, 192), (32, 1536)])
def test_norm(dtype, rows: int, size: int) -> None:
    x, weight = 3 * torch.randn(rows, size), 1 + torch.randn(size)
    compare("norm", x.to(dtype), weight.to(dtype), 1e-6, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize(("rows", "size"), [(1, 64), (4, 1500)])
def test_silu_product(dtype, rows: int, size: int) -> None:
    compare("silu_product", torch.randn(rows, 2 * size).to(dtype), tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("rows", "num_tokens", "first"), [(1, 1, 0), (4, 3, 7), (32, 32, 32), (32, 20, 44), (16, 1, 63)]
)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 16), (7, 1, 64)])
@pytest.mark.parametrize("is_normed", [False, True])
def test_rotate_and_store(
    dtype, is_normed, rows: int, num_tokens: int, first: int, heads: int, kv_heads: int, size: int
) -> None:
    qkv = torch.randn(rows, (heads + 2 * kv_heads) * size).to(dtype)
    angles = torch.rand(64, size // 2) * 6
    rotary, cache = torch.stack((angles.cos(), angles.sin())), torch.randn(2, kv_heads, 64, size).to(dtype)
    state = torch.tensor([first, num_tokens, 1, -1])
    norms = (1 + torch.randn(2, size)).to(dtype) if is_normed else None
    compare("rotate_and_store", qkv, rotary, cache, state, norms, 1e-6, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize(("rows", "num_tokens", "first"), [(16, 11, 0), (32, 17, 44)])
def test_rotate_and_store_in_a_tree(dtype, rows: int, num_tokens: int, first: int) -> None:
    qkv, angles = torch.randn(rows, 8 * 16).to(dtype), torch.rand(64, 8) * 6
    rotary, cache = torch.stack((angles.cos(), angles.sin())), torch.randn(2, 2, 64, 16).to(dtype)
    state, depths = torch.tensor([first, num_tokens, 1, -1]), random_branches(rows, num_tokens).depths_M
    compare("rotate_and_store", qkv, rotary, cache, state, None, 1e-6, depths, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("kept_in", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", HEAD_SIZES)
def test_rotate_and_store_of_every_size_of_heads(kept_in: torch.dtype, size: int) -> None:
    """Also of numbers of heads that no program's share divides, and of keys and values alone; rows of padding."""
    torch.manual_seed(size)
    for heads, kv_heads, is_normed in ((32, 8, True), (9, 2, False), (3, 3, True), (0, 3, True)):
        qkv, angles = torch.randn(5, (heads + 2 * kv_heads) * size).to(kept_in), torch.rand(64, size // 2) * 6
        rotary, cache = torch.stack((angles.cos(), angles.sin())), torch.randn(2, kv_heads, 64, size).to(kept_in)
        norms = (1 + 0.1 * torch.randn(2, size)).to(kept_in) if is_normed else None
        state, depths = torch.tensor([57, 4, 1, -1]), random_branches(5, 4).depths_M if heads else None
        tolerance = TOLERANCE[kept_in if kept_in == torch.float32 else HALF]
        compare("rotate_and_store", qkv, rotary, cache, state, norms, 1e-6, depths, tolerance=tolerance)


@pytest.mark.parametrize("never", [-1, 3, 4096, 20_000])
@pytest.mark.parametrize(("rows", "vocab_size"), [(1, 64), (8, 5000), (3, 9000)])
def test_most_probable(dtype, never: int, rows: int, vocab_size: int) -> None:
    logits = (4 * torch.randn(rows, vocab_size)).to(dtype)
    logits[:, 3] += 9
    logits[-1, 40] = logits[-1, 50] = logits.max() + 1  # of equal logits the first is taken
    found = torch.zeros(rows, 2, dtype=torch.float64)
    compare("most_probable", logits, torch.tensor([0, 1, 1, never]), found, tolerance={"atol": 1e-6, "rtol": 1e-5})


def test_probabilities_near_one_stay_apart() -> None:
    """The best alone in its chunk of logits, first among its equals, or in a later chunk."""
    for vocab_size, best in ((64, 5), (9000, 5), (9000, 8000)):
        logits = 30 - torch.tensor([9.0, 16.0, 14.0, 25.0, 20.0])[:, None] - 3 * torch.rand(5, vocab_size)
        logits[:, best] = 30.0
        found = torch.zeros(5, 2, dtype=torch.float64)
        ours = found.to(DEVICE)
        state = torch.tensor([0, 1, 1, -1])
        plain.most_probable(logits, state, found)
        GpuOperations(True).most_probable(logits.to(DEVICE), state.to(DEVICE), ours)
        assert ours[:, 0].tolist() == [best] * 5
        torch.testing.assert_close(1 - ours[:, 1].cpu(), 1 - found[:, 1], atol=4e-16, rtol=1e-5)


def test_cuts_of_measured_products_divide_what_they_cut() -> None:
    for (kind, rows, outer, inner), plan in plans.MEASURED_PLANS.items():
        assert rows == plan_rows(rows) <= BackendOptions.fused_up_to and inner % plan.block_k == 0
        assert outer % plan.block_n == 0 and (kind != "heads" or plan.block_n in HEAD_SIZES)
        assert plan.block_m or rows <= plans.ONE_TILE


@pytest.mark.parametrize("cut", [(64, 32, 1), (64, 32, 3), (16, 32, 1)], ids=str)
@pytest.mark.parametrize(
    ("rows", "num_tokens", "first"), [(1, 1, 0), (4, 3, 7), (16, 16, 48), (32, 20, 32), (64, 40, 20)]
)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 16), (7, 1, 64), (3, 3, 32)])
@pytest.mark.parametrize("is_biased", [True, False])
def test_queries_product(
    dtype, cut: tuple, rows: int, num_tokens: int, first: int, heads: int, kv_heads: int, size: int, is_biased: bool
) -> None:
    ours, theirs, fused, library = streams(dtype, rows, 192)
    outer = (heads + 2 * kv_heads) * size
    fused.plans["rotated", rows, outer, 192] = Plan(*cut)
    w = (torch.randn(outer, 192) / 192**0.5).to(dtype)
    bias = torch.randn(outer).to(dtype) if is_biased else None
    angles, cache = torch.rand(64, size // 2) * 6, torch.randn(2, kv_heads, 64, size).to(dtype)
    place = (torch.stack((angles.cos(), angles.sin())), cache, torch.tensor([first, num_tokens, 1, -1]))
    on_device = Place(*(tensor.to(DEVICE, copy=True) for tensor in place))
    got = fused.queries(ours, w.to(DEVICE), None if bias is None else bias.to(DEVICE), on_device)
    assert_near(got, library.queries(theirs, w, bias, Place(*place)))
    assert_near(on_device.cache_2GPD, cache)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("rows", "num_tokens", "first"), [(1, 1, 0), (16, 11, 20), (64, 40, 20)])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 2, 16), (3, 1, 64), (2, 1, 128)][: 2 + IS_GPU])
@pytest.mark.parametrize(("is_normed", "is_tree"), [(True, False), (False, True), (True, True)])
def test_queries_product_of_whole_heads(
    dtype, splits: int, rows: int, num_tokens: int, first: int, heads: int, kv_heads: int, size: int, is_normed: bool,
    is_tree: bool,
) -> None:  # fmt: skip
    """A tile is a head: its norm, and the angles of a tree's rows, are part of the product."""
    ours, theirs, fused, library = streams(dtype, rows, 192)
    outer = (heads + 2 * kv_heads) * size
    fused.plans["heads", rows, outer, 192] = Plan(size, 32, splits)
    w, bias = (torch.randn(outer, 192) / 192**0.5).to(dtype), torch.randn(outer).to(dtype) if is_tree else None
    angles, cache = torch.rand(128, size // 2) * 6, torch.randn(2, kv_heads, 128, size).to(dtype)
    place = [torch.stack((angles.cos(), angles.sin())), cache, torch.tensor([first, num_tokens, 1, -1])]
    place += [(1 + torch.randn(2, size)).to(dtype)] if is_normed else [None]
    tree = random_branches(rows, num_tokens) if is_tree else None
    there = None if tree is None else Branches(tree.depths_M.to(DEVICE), tree.sees_MW.to(DEVICE))
    on_device = Place(*(None if one is None else one.to(DEVICE, copy=True) for one in place), there)
    fused._library = None  # it is not asked
    got = fused.queries(ours, w.to(DEVICE), None if bias is None else bias.to(DEVICE), on_device)
    assert_near(got, library.queries(theirs, w, bias, Place(*place, tree)))
    assert_near(on_device.cache_2GPD, cache)


@pytest.mark.parametrize(
    ("size", "is_normed", "is_int8", "is_asked"),
    [(16, True, False, False), (32, True, False, True), (16, False, False, False), (16, True, True, True)],
    ids=["whole heads", "other heads", "no norms", "int8"],
)
def test_a_measured_plan_of_heads_is_for_heads_of_its_size(
    dtype, monkeypatch, size: int, is_normed: bool, is_int8: bool, is_asked: bool
) -> None:
    """Other models have products of the same sizes. Whatever the table holds, results are right; where it has nothing
    for them, the library is asked: for heads of other sizes, and always in float32 and of weights in 8 bits."""
    monkeypatch.setitem(plans.MEASURED_PLANS, ("heads", 16, 128, 64), Plan(16, 32, 2))
    ours, theirs, fused, library = streams(dtype, 9, 64)
    w, angles = (torch.randn(128, 64) / 8).to(dtype), torch.rand(64, size // 2) * 6
    matrix = Int8Matrix.of(w) if is_int8 else w
    there = Int8Matrix(matrix.values_NK.to(DEVICE), matrix.scale_N.to(DEVICE)) if is_int8 else w.to(DEVICE)
    cache = torch.randn(2, 32 // size, 64, size).to(dtype)
    place = [torch.stack((angles.cos(), angles.sin())), cache, torch.tensor([7, 8, 1, -1])]
    place += [(1 + torch.randn(2, size)).to(dtype)] if is_normed else [None]
    on_device = Place(*(None if one is None else one.to(DEVICE, copy=True) for one in place))
    asked, by_library = [], fused._library.queries
    monkeypatch.setattr(fused._library, "queries", lambda *given: asked.append(given) or by_library(*given))
    assert_near(fused.queries(ours, there, None, on_device), library.queries(theirs, matrix, None, Place(*place)))
    assert_near(on_device.cache_2GPD, cache)
    assert bool(asked) == (is_asked or is_normed and dtype == torch.float32)


@pytest.mark.parametrize("rows", [1, 16, 32, 64])
@pytest.mark.parametrize(("inner", "outer"), [(64, 48), (192, 576)])
@pytest.mark.parametrize(
    "plan", [Plan(16, 64), Plan(64, 64), Plan(128, 32, num_stages=3)], ids=["few", "narrow", "wide"]
)
def test_gated_product(dtype, plan: Plan, rows: int, inner: int, outer: int) -> None:
    ours, theirs, fused, library = streams(dtype, rows, inner)
    fused.plans["gated", rows, 2 * outer, inner] = plan
    w = (torch.randn(2 * outer, inner) / inner**0.5).to(dtype)
    assert_near(fused.gated(ours, w.to(DEVICE)), library.gated(theirs, w))


@pytest.mark.parametrize("splits", [1, 2, 5, 7])
@pytest.mark.parametrize("rows", [1, 4, 16, 32, 64])
@pytest.mark.parametrize(("inner", "outer"), [(64, 48), (576, 192), (1024, 64)])
def test_add_product_and_the_norm_behind_it(dtype, splits: int, rows: int, inner: int, outer: int) -> None:
    """Also with more splits than steps: a program without work adds nothing. Twice: the workspace is left clean."""
    ours, theirs, fused, library = streams(dtype, rows, outer)
    fused.plans[("add", rows, outer, inner)] = Plan(16, 32, splits)
    assert_adds((ours, theirs, fused, library), rows, inner)


@pytest.mark.parametrize(
    ("architecture", "how"),
    [
        *product(("qwen2", "llama", "qwen3", "mistral"), ("fused", "library")),
        ("qwen3", "by plans"),
        ("mistral", "by plans"),
    ],
)
def test_a_whole_model_on_the_kernels(architecture: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model(architecture, 7, scale=2.0, hidden_size=64, tie=architecture == "qwen2").to(DEVICE)
    eager, graph = CachedLM(model), GraphLM(model)
    graph._operations = GpuOperations(True)
    graph._library = LibraryProducts(graph._operations)
    graph._fused = None if how == "library" else FusedProducts(True)
    if how == "by plans":
        run_by_plans(monkeypatch, graph)
    graph._allocate(INITIAL_CAPACITY)
    for step, (count, block_size) in enumerate([(64, 32), (32, 32), (20, 32), (1, 1), (3, 1), (9, 1)]):
        if block_size == 1 and step == 3:
            eager.rollback(0)
            graph.rollback(0)
        tokens = random_ids(step, count)
        got, want = (lm.forward(tokens, block_size=block_size) for lm in (graph, eager))
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
        chosen, sure = graph.predict(tokens, block_size=block_size, keep=[count - 1], never=5)
        expected, probabilities = eager.predict(tokens, block_size=block_size, keep=[count - 1], never=5)
        assert chosen == expected and sure == pytest.approx(probabilities, abs=1e-4)
        for lm in (eager, graph):
            lm.commit(count)
    for num_tokens in (5, 17, 33, 65)[: 4 if IS_GPU else 2]:
        rng, tokens = random.Random(num_tokens), random_ids(num_tokens, num_tokens)
        parents = [rng.randint(max(-1, row - 4), row - 1) for row in range(num_tokens)]
        got, want = (lm.forward(tokens, parents=parents) for lm in (graph, eager))
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
        for lm in (eager, graph):
            lm.commit(path_to(num_tokens - 1, parents))
